"""Distributions over cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.text import escaped


def violins(
    columns: Mapping[str, NDArray[np.floating]],
    *,
    title: str = "",
    height: int = 320,
    dark: bool = False,
) -> go.Figure:
    """One violin with its box a quantity, side by side, each on its own axis.

    Parameters
    ----------
    columns
        Label with unit -> float ``[n_cells]``; NaN is left out.
    title
        Drawn above.
    height
        Pixels.
    dark
        For a dark page.

    Returns
    -------
    Figure
        The violin is cut at the smallest and largest value: no density where there are no cells.
    """
    figure = make_subplots(rows=1, cols=max(len(columns), 1), horizontal_spacing=0.09)
    colours = theme(dark=dark)
    for position, (label, values) in enumerate(columns.items(), start=1):
        values = np.asarray(values, dtype=float)
        colour, _ = category_style(position - 1, dark=dark)
        violin = go.Violin(
            y=np.round(values[np.isfinite(values)], 4),
            name=escaped([label])[0],
            line={"color": colour, "width": 1.5},
            box={"visible": True, "width": 0.16},
            points=False,
            spanmode="hard",
            width=0.9,
            hoveron="violins",
            showlegend=False,
        )
        figure.add_trace(violin, row=1, col=position)
    apply_layout(figure, title=title, note="", height=height, dark=dark)
    figure.update_layout(margin={"l": 48, "r": 8, "t": 44 if title else 12, "b": 30 if len(columns) > 1 else 8})
    figure.update_yaxes(gridcolor=colours.grid, zeroline=False, rangemode="tozero", nticks=6)
    # A single quantity is named by what stands around the figure.
    figure.update_xaxes(showgrid=False, zeroline=False, showticklabels=len(columns) > 1, range=[-0.6, 0.6])
    return figure
