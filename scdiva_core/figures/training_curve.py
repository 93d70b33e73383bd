"""How a training went: the losses of each round above, what was measured on held-out cells below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scdiva_core.figures import parts
from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.text import escaped

_HEIGHT = 460
_LEGEND_ROW = 22
_TITLES = ("loss", "score, held-out cells")
_DASHES = ("dash", "dot", "dashdot")


def training_curve(
    curve: Sequence[Mapping[str, Any]],
    losses: Mapping[str, str],
    scores: Mapping[str, str],
    *,
    best: int | None = None,
    levels: Mapping[str, float | None] | None = None,
    note: str = "",
    dark: bool = False,
) -> go.Figure:
    """Draw the records of a training, whether it is over or goes on.

    Parameters
    ----------
    curve
        A record a round: ``round`` or ``epoch``, and the columns named below; None where a round has no value.
    losses, scores
        Column -> what it is called, for the upper and for the lower panel; where no record has a value the panel is
        left out.
    best
        The round whose weights are kept; marked on the first score.
    levels
        What other methods reach -> their score, drawn as level lines; None of one that is not known.
    note
        A warning that must travel with the picture.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Rounds from left to right.
    """
    panels = [
        (title, {name: told for name, told in columns.items() if any(record.get(name) is not None for record in curve)})
        for title, columns in zip(_TITLES, (losses, scores), strict=True)
    ]
    panels = [(title, columns) for title, columns in panels if columns]
    if not panels:
        return parts.sentence("Nothing has been measured yet.", dark=dark)
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.08)
    steps = [_step(record) for record in curve]
    colour = 0
    for row, (title, columns) in enumerate(panels, start=1):
        for name, told in columns.items():
            _line(figure, row, steps, [record.get(name) for record in curve], told, colour, dark)
            colour += 1
        if title == _TITLES[1]:
            _levels(figure, row, steps, levels or {}, dark)
            _mark(figure, row, curve, next(iter(columns)), best, dark)
        figure.update_yaxes(title={"text": title, "font": {"size": 12}}, row=row, col=1)
    lines = -(-len(figure.data) // 2)  # two names fit beside each other on a phone
    top = (40 if note else 16) + _LEGEND_ROW * lines
    apply_layout(figure, title="", note=note, height=_HEIGHT + _LEGEND_ROW * lines, dark=dark)
    figure.update_layout(legend=parts.LEGEND_ABOVE, margin={"t": top, "l": 8, "b": 40}, dragmode=False)
    grid = {"gridcolor": theme(dark=dark).grid, "zeroline": False, "automargin": True, "fixedrange": True}
    figure.update_yaxes(**grid)
    if panels[0][0] == _TITLES[0]:
        figure.update_yaxes(rangemode="tozero", row=1, col=1)
    whole = {"dtick": 1} if len(steps) <= 12 else {}
    figure.update_xaxes(**grid, range=[-0.3, max(steps[-1], 1) + 0.3], **whole)
    figure.update_xaxes(title={"text": "round (0: before it began)", "font": {"size": 12}}, row=len(panels), col=1)
    return figure


def _step(record: Mapping[str, Any]) -> int:
    return record["round"] if "round" in record else record["epoch"]


def _line(
    figure: go.Figure, row: int, steps: list[int], values: list[float | None], told: str, colour: int, dark: bool
) -> None:
    style, symbol = category_style(colour, dark=dark)[0], ("circle", "diamond", "square", "cross", "x")[colour % 5]
    there = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    figure.add_scatter(
        x=[step for step, _ in there],
        y=[value for _, value in there],
        mode="lines+markers",
        name=escaped([told])[0],
        line={"color": style, "width": 2},
        marker={"symbol": symbol, "size": 7},
        hovertemplate="round %{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
        row=row,
        col=1,
    )


def _levels(figure: go.Figure, row: int, steps: list[int], levels: Mapping[str, float | None], dark: bool) -> None:
    """Lines that no round changes: what simpler ways reach."""
    known = {name: value for name, value in levels.items() if value is not None}
    for place, (name, value) in enumerate(known.items()):
        figure.add_scatter(
            x=[-0.3, max(steps[-1], 1) + 0.3],
            y=[value, value],
            mode="lines",
            name=escaped([name])[0],
            line={"color": theme(dark=dark).text, "width": 1.5, "dash": _DASHES[place % len(_DASHES)]},
            hovertemplate="%{y:.3f}<extra>%{fullData.name}</extra>",
            row=row,
            col=1,
        )


def _mark(
    figure: go.Figure, row: int, curve: Sequence[Mapping[str, Any]], name: str, best: int | None, dark: bool
) -> None:
    """Ring around the round that is kept."""
    value = next((record.get(name) for record in curve if _step(record) == best), None)
    if value is None:
        return
    figure.add_scatter(
        x=[best],
        y=[value],
        mode="markers",
        name=f"best: round {best}",
        marker={"symbol": "circle-open", "size": 16, "color": theme(dark=dark).text, "line": {"width": 2}},
        hoverinfo="skip",
        row=row,
        col=1,
    )
