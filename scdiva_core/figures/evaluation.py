"""Methods beside each other, on one data set after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.text import escaped, shortened

# Shape tells methods apart as well as colour does; those that are easiest to see come first.
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "hexagon2", "triangle-down", "star")
_ROW_PIXELS = 48
_ENTRY_PIXELS = 22
_LABEL_CHARACTERS = 46  # as many as a phone's width holds


@dataclass(frozen=True)
class Dots:
    """One method's scores.

    Parameters
    ----------
    name
        In the legend.
    values
        Float ``[n_rows]``; NaN draws nothing.
    texts
        What is said of each when it is pointed at, ``[n_rows]``.
    style
        Which colour and shape; keeps its meaning from figure to figure.
    prominent
        Drawn larger, and over the others; the first of a figure over all.
    """

    name: str
    values: NDArray[np.floating]
    texts: Sequence[str]
    style: int
    prominent: bool = False


def dot_plot(
    rows: Sequence[str], methods: Sequence[Dots], *, axis: str, dark: bool = False, narrow: bool = False
) -> go.Figure:
    """One row a data set, one dot a method.

    Parameters
    ----------
    rows
        Names of the data sets, from the top; each stands above its dots, so that the figure may be narrow.
    methods
        In the legend's order.
    axis
        What the numbers are.
    dark
        For a dark page.
    narrow
        For a phone: room for a legend of one entry a line.
    """
    colours, figure = theme(dark=dark), go.Figure()
    heights = np.arange(len(rows))[::-1]
    for rank, dots in sorted(enumerate(methods), key=lambda item: (item[1].prominent, -item[0])):
        colour, _ = category_style(dots.style, dark=dark)
        values = np.asarray(dots.values, dtype=float)
        there = np.isfinite(values)
        figure.add_scatter(
            x=values[there],
            y=heights[there],
            name=escaped([dots.name])[0],
            mode="markers",
            marker={
                "color": colour,
                "symbol": _SYMBOLS[dots.style % len(_SYMBOLS)],
                # The first is smaller than what it lies over: of two that are equal both are seen.
                "size": (13 if rank == 0 else 17) if dots.prominent else 9,
                "opacity": 1 if dots.prominent else 0.8,
                "line": {"color": colours.background, "width": 1.5 if dots.prominent else 0.5},
            },
            customdata=escaped(np.asarray(dots.texts, dtype=object)[there]),
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            legendrank=rank,
        )
    legend = _ENTRY_PIXELS * (len(methods) if narrow else 1)
    apply_layout(figure, title="", note="", height=80 + legend + _ROW_PIXELS * len(rows), dark=dark)
    figure.update_layout(
        margin={"l": 8, "r": 8, "t": 8, "b": 44},
        dragmode=False,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "maxheight": legend + 20},
    )
    figure.update_xaxes(title={"text": escaped([axis])[0], "font": {"size": 12}}, gridcolor=colours.grid)
    figure.update_xaxes(zeroline=False, fixedrange=True, nticks=8, automargin=True)
    figure.update_yaxes(
        tickvals=heights,
        showticklabels=False,
        gridcolor=colours.grid,
        zeroline=False,
        fixedrange=True,
        range=[-0.45, len(rows) - 0.3],
    )
    for name, height in zip(rows, heights, strict=True):
        figure.add_annotation(
            text=shortened(name, _LABEL_CHARACTERS),
            x=0,
            xref="paper",
            xanchor="left",
            y=int(height),
            yshift=17,
            showarrow=False,
            font={"size": 12},
        )
    return figure
