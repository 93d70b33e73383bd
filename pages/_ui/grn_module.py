"""Attention between the genes of a module, as a heat map."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import frame
from pages._ui.grn_parts import Shown
from pages._ui.grn_words import HELP
from pages._ui.parts import figure, table
from scdiva_core.figures.grn_panels import module_heat

_REGULATORS, _TARGETS = 12, 24  # that are shown unless others are chosen
_MOST = 100


def section(shown: Shown) -> None:
    """Draw the tab."""
    st.fragment(_content)(shown)


def _content(shown: Shown) -> None:
    result = shown.result
    rows, columns = _default(result.edges)
    left, right = st.columns(2)
    regulators = left.multiselect(
        "Regulators",
        sorted(result.regulators),
        default=rows,
        key=f"grn-module-rows-{shown.item.key}",
        max_selections=_MOST,
        help=HELP["module"],
        persist_state="session",
    )
    targets = right.multiselect(
        "Targets",
        sorted(result.targets),
        default=columns,
        key=f"grn-module-columns-{shown.item.key}",
        max_selections=_MOST,
        help=HELP["module"],
        persist_state="session",
    )
    if not regulators or not targets:
        st.info("Choose at least one regulator and one target.", icon=":material/info:")
        return
    scores = pd.DataFrame(result.attention, index=list(result.regulators), columns=list(result.targets))
    scores = scores.loc[regulators, targets]
    figure(
        lambda dark: module_heat(scores, title=shown.title, dark=dark, narrow=frame.is_phone()),
        f"{shown.file}-module",
        key="grn-module",
        paper=lambda: module_heat(scores, title=shown.title),
        alt=f"Attention between {len(regulators)} regulators and {len(targets)} targets",
    )
    st.caption("Blank: a gene with itself, or two genes that no cell has together.", help=HELP["attention"])
    with st.expander("As a table"):
        named = scores.rename_axis("regulator").reset_index()
        table(
            named,
            {"regulator": "Regulator", **{target: target for target in targets}},
            f"{shown.file}-module",
            key="grn-module-table",
            alt="Attention z of each pair",
        )


def _default(edges: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Regulators of the strongest edges, and the genes that most of them have as a target."""
    regulators = list(edges["regulator"].unique()[:_REGULATORS])
    targets = edges.loc[edges["regulator"].isin(regulators), "target"].value_counts()
    return regulators, list(targets.index[:_TARGETS])
