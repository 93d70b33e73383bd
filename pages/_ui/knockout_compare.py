"""Two results of this session side by side."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import knockout_work
from pages._ui.annotation_export import table_download
from pages._ui.asked_list import AskedList
from pages._ui.knockout_result import Shown, bars, heat
from pages._ui.knockout_words import HELP
from pages._ui.parts import NO_NUMBER, column_config, figure
from scdiva_core.data.h5ad import H5adDataset

_ENDS = ("A", "B")


def side_by_side(asked: AskedList, cells: H5adDataset, name: str) -> None:
    """Draw two results beside each other, with the same scales.

    Parameters
    ----------
    asked
        The list.
    cells
        The open data set.
    name
        Of the data set.
    """
    place = st.expander(
        "Compare two perturbations", icon=":material/compare_arrows:", key="ko-compare", on_change="rerun"
    )
    if place.open:  # four figures more
        with place:
            _compared(asked, cells, name)


def _compared(asked: AskedList, cells: H5adDataset, name: str) -> None:
    found = {item.key: (item, knockout_work.result(cells, item)) for item in asked}
    done = {key: Shown(item, result, f"{name}-{item.title}") for key, (item, result) in found.items() if result}
    if len(done) < len(_ENDS):
        st.caption(
            "Results of this session stand side by side here, with the same scales. Run a second perturbation above, "
            "for example another gene in the same cells."
        )
        return
    chosen = []
    for place, (end, column) in enumerate(zip(_ENDS, st.columns(2), strict=True)):
        key = column.selectbox(
            end,
            list(done),
            index=place,
            format_func=lambda key: f"{done[key].title} ({done[key].item.how})",
            key=f"ko-compare-{end}",
        )
        chosen.append(done[key])
    if chosen[0] is chosen[1]:
        st.info("Both sides show the same. Choose another one on one side.", icon=":material/info:")
        return
    _figures(chosen)
    _table(chosen, f"{name}-compared")


def _figures(chosen: list[Shown]) -> None:
    widest = max(_widest_bar(shown) for shown in chosen)
    deepest = max(_deepest(shown) for shown in chosen)
    for what, draw, alt in (
        ("bars", lambda shown, dark: _to(bars(shown, dark=dark), widest), "Mean shift of each group of cells"),
        ("heat", lambda shown, dark: _coloured(heat(shown, dark=dark), deepest), "Directions of each group of cells"),
    ):
        for end, shown, column in zip(_ENDS, chosen, st.columns(2), strict=True):
            with column:
                figure(
                    lambda dark, shown=shown, draw=draw: draw(shown, dark),
                    f"{shown.file}-{what}",
                    key=f"ko-compare-{what}-{end}",
                    alt=f"{alt}: {shown.title}",
                )


def _widest_bar(shown: Shown) -> float:
    """End of the longest bar or band."""
    ends = shown.result.groups[["shift", "null_high"]].to_numpy(float)
    return float(np.nanmax(ends)) if np.isfinite(ends).any() else 0.0


def _deepest(shown: Shown) -> float:
    changes = shown.result.directions["change"].abs().to_numpy(float)
    return float(np.nanmax(changes)) if np.isfinite(changes).any() else 0.0


def _to(drawn: go.Figure, widest: float) -> go.Figure:
    """One scale for both figures of bars, with room for what is written at their ends."""
    return drawn.update_xaxes(range=[0, 1.28 * widest]) if widest else drawn


def _coloured(drawn: go.Figure, deepest: float) -> go.Figure:
    """One scale for both heat maps."""
    return drawn.update_traces(zmin=-deepest, zmax=deepest, selector={"type": "heatmap"}) if deepest else drawn


def _table(chosen: list[Shown], name: str) -> None:
    kept = ["group", "n_read", "shift", "q"]
    first, second = (shown.result.groups[kept] for shown in chosen)
    both = first.merge(second, on="group", how="outer", suffixes=(" A", " B"))
    if both.empty:
        return
    columns = {"group": "Group"}
    for end in _ENDS:
        columns |= {f"n_read {end}": f"Read {end}", f"shift {end}": f"Shift {end}", f"q {end}": f"q {end}"}
    config = column_config(both, columns, {f"shift {end}": HELP["shift"] for end in _ENDS})
    st.dataframe(
        both,
        hide_index=True,
        placeholder=NO_NUMBER,
        width="stretch",
        key="ko-compare-table",
        column_order=list(columns),
        column_config=config,
        alt="Shift of each group of cells by both perturbations",
    )
    table_download("Table (CSV)", both, name, key="ko-compare-csv")
