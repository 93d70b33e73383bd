"""A perturbation as a report, and the columns of its tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from pages._ui.knockout_words import EXPRESSION_RELIABILITY, HELP, NO_EXPERIMENT
from scdiva_core.engine_knockout import KnockoutResult
from scdiva_core.figures.perturbation import arrow_map, directions_heat, expression_volcano, transition_sankey
from scdiva_core.figures.perturbation_bars import group_bars, null_histogram, ranked_bars
from scdiva_core.report.contents import Origin, Picture, Report, Section, Table, Text, choices

GROUPS = {
    "group": "Group",
    "n_cells": "Cells",
    "n_read": "Read it",
    "shift": "Shift",
    "null_mean": "Random genes",
    "null_low": "from",
    "null_high": "to",
    "p": "p",
    "q": "q",
}
DIRECTIONS = {
    "group": "Cells of",
    "target": "go",
    "word": "Direction",
    "change": "Change of cosine",
    "null_mean": "Random genes",
    "n": "Read it",
    "p": "p",
    "q": "q",
}
TRANSITIONS = {"before": "Nearest before", "after": "Nearest after", "n": "Cells"}
EXPRESSION = {
    "symbol": "Gene",
    "change": "Change",
    "before": "Before",
    "after": "After",
    "noise": "Noise",
    "p": "p",
    "q": "q",
    "detection": "Detection",
    "n": "Cells",
}
DONORS = {"donor": "Donor", "n": "Read it", "mean": "Shift", "null_mean": "Random genes", "excess": "Beyond"}
CELLS = {
    "name": "Cell",
    "group": "Group",
    "expressed": "Expresses it",
    "read": "Reads it",
    "cosine": "Shift",
    "l2": "Distance (L2)",
}


def bars(result: KnockoutResult, title: str, *, dark: bool) -> go.Figure:
    """Shift of each group, over its null."""
    rows = result.groups.rename(columns={"n_read": "n", "shift": "mean"})
    return group_bars(rows, title=title, dark=dark)


def heat(result: KnockoutResult, title: str, *, dark: bool) -> go.Figure:
    """Directions of each group."""
    rows = result.directions.rename(columns={"group": "own", "change": "mean"})
    return directions_heat(rows, title=title, dark=dark)


def flows(result: KnockoutResult, title: str, *, dark: bool) -> go.Figure:
    """Nearest groups before and after."""
    rows = result.transitions.rename(columns={"before": "from", "after": "to"})
    return transition_sankey(rows, title=title, dark=dark)


def null(result: KnockoutResult, title: str, *, dark: bool) -> go.Figure:
    """The shift among those of random genes."""
    told = result.summary
    p = np.nan if told["p"] is None else told["p"]
    return null_histogram(result.null, told["shift"], p, title=title, dark=dark)


def digits(number: float | None) -> str:
    """A number with three digits; a dash for none."""
    return "–" if number is None or not np.isfinite(number) else f"{number:.3g}"


def hidden_in_words(summary: dict[str, Any]) -> str:
    """Say what is left of the shift when the genes are hidden and not removed; empty where that was not tried."""
    if summary["masked"] is None:
        return ""
    return (
        f"Removed, the genes shift the cells by {digits(summary['shift'])}; hidden in their places by "
        f"{digits(summary['masked'])}. What remains when they are hidden cannot be due to ranks that moved."
    )


def donors_in_words(summary: dict[str, Any]) -> str:
    """Say what the test over donors found, or why there was none."""
    said = summary["donors"]
    return said["words"] if isinstance(said, dict) else said


def report(origin: Origin, result: KnockoutResult, title: str, points: NDArray[np.floating]) -> Report:
    """Write what a perturbation did.

    Parameters
    ----------
    origin
        Where it comes from.
    result, title
        Of the perturbation.
    points
        Float ``[n_obs, 2]``, the map that its arrows are drawn on.
    """
    told = result.summary
    warnings = tuple(Text(words, "warning") for words in told["warnings"])
    said = Text(f"Every other cell shifts by exactly 0. {NO_EXPERIMENT}")
    sections = [
        Section("What came out", (Text(told["caption"], "verdict"), said, *warnings)),
        *_map(result, title, points),
        *_groups(result, title),
        *_genes(result, title),
        _controls(result, title),
    ]
    return Report(title, choices(result.settings.to_dict()), tuple(sections), origin)


def _map(result: KnockoutResult, title: str, points: NDArray[np.floating]) -> list[Section]:
    if result.field is None or result.control is None:
        return []
    drawn = arrow_map(points, result.field, result.control, title=title)
    alt = f"Arrows on the map of the cells: {title}, beside a control"
    return [Section("Where the cells move on the map", (Picture(drawn, alt, HELP["field"]),))]


def _groups(result: KnockoutResult, title: str) -> list[Section]:
    moved = (
        Picture(bars(result, title, dark=False), "Mean shift of each group of cells over the band of random genes"),
        Table(result.groups, GROUPS, "Shift of each group of cells"),
        Text(f"{HELP['shift']} {HELP['null']} Where fewer than 10 cells read the genes, there is no p."),
    )
    ways = result.directions.sort_values("q", kind="stable")
    directed = (
        Picture(heat(result, title, dark=False), "Change of cosine of each group of cells to each other"),
        Table(ways, DIRECTIONS, "Direction of each group of cells to each other"),
        Text(HELP["directions"]),
        Picture(flows(result, title, dark=False), "Flow of cells from the nearest group before to the one after"),
        Table(result.transitions, TRANSITIONS, "Cells by nearest group before and after"),
    )
    return [
        Section("How far each cell type moves", moved),
        Section("Towards which cell types, away from which", directed),
    ]


def _genes(result: KnockoutResult, title: str) -> list[Section]:
    rows = result.expression
    if rows is None:
        return []
    ranked = ranked_bars(rows, "change", axis="predicted change of log1p", title=title)
    items = (
        Text(EXPRESSION_RELIABILITY.replace("**", ""), "warning"),
        Picture(expression_volcano(rows, title=title), "Predicted change of each gene against its q"),
        Picture(ranked, "Genes with the largest predicted change"),
        Table(rows, EXPRESSION, "Predicted change of each gene, the largest first"),
        Text("Predicted log1p of counts per 10,000. Levels are the model's: compare changes, not levels."),
    )
    return [Section("Predicted expression", items)]


def _controls(result: KnockoutResult, title: str) -> Section:
    items: list[Text | Picture | Table] = [
        Picture(null(result, title, dark=False), "Shifts of matched random genes, and of the perturbation"),
        Text(f"Random genes, 90 %: {digits(result.summary['null_low'])} to {digits(result.summary['null_high'])}."),
    ]
    if hidden := hidden_in_words(result.summary):
        items.append(Text(hidden))
    items.append(Text(f"Over donors: {donors_in_words(result.summary)}"))
    if result.donors is not None and len(result.donors):
        items.append(Table(result.donors, DONORS, "Shift beyond random genes in each donor"))
    items.append(Table(result.cells, CELLS, "Shift of every cell"))
    return Section("Among random genes, over donors, cell by cell", tuple(items))
