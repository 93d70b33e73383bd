"""Two sets of cells side by side: which edges have more attention in the one than in the other."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import words
from pages._ui.grn_parts import Shown
from pages._ui.grn_words import HELP
from pages._ui.parts import figure, table
from scdiva_core.figures.grn_panels import difference_scatter
from scdiva_core.tasks.grn_graph import difference

_SIGNIFICANT = 0.05
_MOST_DRAWN = 1000
_TABLE_PIXELS = 340


def section(shown: Shown) -> None:
    """Draw the tab."""
    st.fragment(_content)(shown)


def _content(shown: Shown) -> None:
    settings, result = shown.item.settings, shown.result
    rows = result.contrast
    first, second = settings.cells, settings.against
    clear = int((rows["q"] <= _SIGNIFICANT).sum())
    st.markdown(
        f"**{words.number(clear)} of {words.number(len(rows))} edges differ** between {words.as_text(first)} "
        f"({words.number(result.n_sampled)} cells) and {words.as_text(second)} ({words.number(result.n_against)} "
        "cells), at q ≤ 0.05. The same genes were read in both.",
        help=HELP["difference q"],
    )
    which, only = st.columns([3, 2], vertical_alignment="bottom")
    chosen = which.multiselect(
        "Regulators",
        sorted(rows["regulator"].unique()),
        key=f"grn-compared-{shown.item.key}",
        placeholder="all; choose some to see only these",
        persist_state="session",
    )
    sure = only.toggle("Only what differs (q ≤ 0.05)", key="grn-sure", value=clear > 0, help=HELP["difference q"])
    kept = rows[rows["regulator"].isin(chosen)] if chosen else rows
    kept = kept[kept["q"] <= _SIGNIFICANT] if sure else kept
    if kept.empty:
        st.info(
            "No edge is left. Choose other regulators, or show those that do not differ too.", icon=":material/info:"
        )
        return
    drawn = kept.head(_MOST_DRAWN)
    figure(
        lambda dark: difference_scatter(
            _sides(rows, drawn, settings.top), (first, second), title=shown.title, dark=dark
        ),
        f"{shown.file}-difference",
        key="grn-difference",
        alt=f"Attention of edges in {first} against that in {second}",
    )
    if len(drawn) < len(kept):
        st.caption(f"Drawn: the surest {words.number(len(drawn))} of {words.number(len(kept))} edges.")
    table(
        kept,
        {
            "regulator": "Regulator",
            "target": "Target",
            "first": f"In {first}",
            "second": f"In {second}",
            "difference": "Difference",
            "p": "p",
            "q": "q",
        },
        f"{shown.file}-difference",
        key="grn-difference-table",
        alt="Edges by how sure their difference is",
        help_texts={"difference": HELP["difference"], "q": HELP["difference q"]},
        height=_TABLE_PIXELS,
    )
    st.caption("A difference of attention is no difference of regulation: a gene that is expressed more is read more.")


def _sides(rows: pd.DataFrame, drawn: pd.DataFrame, top: int) -> pd.DataFrame:
    """The edges to draw, as `difference` tells them: which of both networks shows them."""
    tables, shown = [], []
    for name in ("first", "second"):
        side = rows.rename(columns={name: "attention"}).assign(sign=0)
        tables.append(side)
        best = side.sort_values("attention", ascending=False, kind="stable").groupby("regulator").head(top)
        shown.append(best[best.index.isin(drawn.index)])
    return difference(*shown, all_a=tables[0], all_b=tables[1])
