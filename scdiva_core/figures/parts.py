"""What several figures are put together from: axes, rows with their names above them, and a sentence instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from scdiva_core.figures.layout import base_layout
from scdiva_core.figures.palette import theme
from scdiva_core.figures.text import escaped, shortened

LEGEND_ABOVE: dict[str, Any] = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 12}}
"""Legend between the title and the picture, so that a narrow figure keeps its width."""

ROW_PIXELS = 44
"""Height of a row whose name stands above it."""

_TITLE_CHARACTERS = 90
_NAME_CHARACTERS = 46  # as many as a phone's width holds


def sentence(text: str, *, title: str = "", dark: bool = False) -> go.Figure:
    """Say in words why there is nothing to draw.

    Parameters
    ----------
    text
        One short sentence.
    title
        Of the figure that it stands for.
    dark
        For a dark page.
    """
    figure = go.Figure(layout=base_layout(title=title, note="", height=160, dark=dark))
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure.add_annotation(
        text=escaped([text])[0], x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14}
    )


def style_axis(figure: go.Figure, axis: Literal["x", "y"], title: str, *, dark: bool, **options: Any) -> None:
    """Give all axes of a direction the title, the grid and what else plotly may be told of them.

    Parameters
    ----------
    figure
        Changed.
    axis
        Direction.
    title
        What the numbers are; text from a file is safe.
    dark
        For a dark page.
    **options
        Of plotly's axis.
    """
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    name = {"text": shortened(title, _TITLE_CHARACTERS), "font": {"size": 12}}
    update(title=name, gridcolor=theme(dark=dark).grid, zeroline=False, automargin=True, **options)


def name_rows(figure: go.Figure, names: Sequence[str], *, dark: bool, top: float = 0.7) -> None:
    """Write a name above each row, so that the figure may be narrow.

    Parameters
    ----------
    figure
        With rows at the heights ``len(names) - 1`` down to 0; changed.
    names
        From the top; text from a file is safe.
    dark
        For a dark page.
    top
        Room above the first row, in rows.
    """
    heights = range(len(names) - 1, -1, -1)
    limits = [-0.5, len(names) - 1 + top]
    style_axis(figure, "y", "", dark=dark, tickvals=list(heights), showticklabels=False, range=limits, fixedrange=True)
    for name, height in zip(names, heights, strict=True):
        figure.add_annotation(
            text=shortened(name, _NAME_CHARACTERS),
            x=0,
            xref="paper",
            xanchor="left",
            y=height,
            yshift=18,
            showarrow=False,
            font={"size": 12},
        )


def apart(places: Iterable[int], xy: NDArray[np.floating], most: int) -> list[int]:
    """Pick the first places whose names do not cover each other.

    Parameters
    ----------
    places
        Rows of `xy`, the most important first.
    xy
        Float ``[n, 2]``, in widths and heights of a name.
    most
        Names at most.
    """
    chosen: list[int] = []
    for place in places:
        if len(chosen) == most:
            break
        if not (np.abs(xy[chosen] - xy[place]) < 1).all(axis=1).any():
            chosen.append(int(place))
    return chosen


def cut_inside(name: str) -> str:
    """Shorten a name so that two fit beside each other on a phone, escaped; cell types differ at both ends."""
    return escaped([name if len(name) <= 18 else f"{name[:7].rstrip()}…{name[-10:].lstrip()}"])[0]


def faint(colour: str) -> str:
    """Turn ``#RRGGBB`` into the same colour that lets others through."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.45)"
