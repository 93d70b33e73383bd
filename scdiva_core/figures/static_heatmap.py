"""Plotly's heat maps by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.figures.static_axes import Axis, Sheet, Subplot, values_of
from scdiva_core.figures.static_scale import Scale
from scdiva_core.figures.static_style import (
    POINT,
    CannotDrawError,
    contrast,
    css,
    font_colour,
    font_pixels,
    number,
    plain,
)

_MOST_VECTORS = 2500  # fields; more become one picture in an SVG
_LAYER = 1.0


def draw_heatmap(sheet: Sheet, subplot: Subplot, trace: Any, scale: Scale) -> None:
    """Draw one heat map; fields without a value show what lies behind.

    Parameters
    ----------
    sheet, subplot
        Where.
    trace
        ``heatmap``.
    scale
        Its colours.

    Raises
    ------
    CannotDrawError
        Its text is made by a template that is not known, or it is smoothed.
    """
    if trace.zsmooth:
        msg = "A smoothed heat map cannot be drawn for print."
        raise CannotDrawError(msg)
    values = np.asarray(trace.z, dtype=float)
    if trace.transpose:
        values = values.T
    x, y = (
        _edges(axis, values_of(trace, axis.letter), count)
        for axis, count in ((subplot.x, values.shape[1]), (subplot.y, values.shape[0]))
    )
    lines = max(trace.xgap or 0, trace.ygap or 0) * POINT
    subplot.axes.pcolormesh(
        x,
        y,
        np.ma.masked_invalid(values),
        cmap=scale.mappable.cmap,
        norm=scale.mappable.norm,
        edgecolors=css(sheet.layout.plot_bgcolor or "white") if lines else "none",
        linewidth=lines,
        alpha=trace.opacity,
        rasterized=values.size > _MOST_VECTORS,
        zorder=_LAYER,
    )
    _texts(sheet, subplot, trace, values, scale, (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2)


def _edges(axis: Axis, given: Any, count: int) -> NDArray[np.floating]:
    places = axis.places(given)
    if len(places) == count + 1:
        return places
    if len(places) == 1:
        return places[0] + np.array([-0.5, 0.5])
    between = (places[:-1] + places[1:]) / 2
    return np.concatenate([[2 * places[0] - between[0]], between, [2 * places[-1] - between[-1]]])


def _texts(
    sheet: Sheet,
    subplot: Subplot,
    trace: Any,
    values: NDArray[np.floating],
    scale: Scale,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
) -> None:
    """Write on the fields, in what can be seen on their colour."""
    template = trace.texttemplate
    if not template:
        return
    for row, column in np.argwhere(np.isfinite(values)):
        usual = contrast(scale.mappable.to_rgba(values[row, column]))
        colour = font_colour(sheet.layout, trace.textfont) if trace.textfont.color else usual
        subplot.axes.text(
            x[column],
            y[row],
            _filled(template, trace, values, int(row), int(column)),
            ha="center",
            va="center",
            fontsize=font_pixels(sheet.layout, trace.textfont) * POINT,
            color=colour,
            zorder=_LAYER + 4,
        )


def _filled(template: str, trace: Any, values: NDArray[np.floating], row: int, column: int) -> str:
    kind, _, form = template.removeprefix("%{").removesuffix("}").partition(":")
    if template != f"%{{{kind}{':' if form else ''}{form}}}" or kind not in ("z", "text"):
        msg = f"The text template {template!r} of a heat map is not known, so it cannot be drawn for print."
        raise CannotDrawError(msg)
    return number(float(values[row, column]), form) if kind == "z" else plain(str(trace.text[row][column] or ""))
