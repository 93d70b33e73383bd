"""Plotly's bars by matplotlib: beside each other, stacked or lying, with patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.figures.static_axes import Sheet, Subplot, position_letter, values_of
from scdiva_core.figures.static_points import error_lengths
from scdiva_core.figures.static_style import (
    POINT,
    CannotDrawError,
    contrast,
    css,
    font_colour,
    font_pixels,
    many,
    number,
    plain,
)

_HATCHES = {"": "", "/": "///", "\\": "\\\\\\", "x": "xxx", "-": "---", "|": "|||", "+": "+++", ".": "..."}
_LAYER = 2.0
_Bar = tuple[int, Any, str]


def bar_style(marker: Any, colour: Any, shape: str) -> dict[str, Any]:
    """Face, pattern and line of a bar, for `matplotlib.patches.Patch`."""
    pattern, line = marker.pattern, marker.line
    front = pattern.fgcolor if isinstance(pattern.fgcolor, str) else None
    over = pattern.fillmode == "overlay"
    if shape not in _HATCHES:
        msg = f"The pattern {shape!r} of this figure is not known, so it cannot be drawn for print."
        raise CannotDrawError(msg)
    opacity = (1.0 if over else 0.5) if pattern.fgopacity is None else pattern.fgopacity
    width = line.width if isinstance(line.width, int | float) else 0
    solid = over or not shape
    back = pattern.bgcolor if isinstance(pattern.bgcolor, str) else "transparent"
    return {
        "facecolor": colour if solid else css(back),
        "edgecolor": css(line.color if isinstance(line.color, str) else "#444444") if width else "none",
        "linewidth": width * POINT,
        "hatch": _HATCHES[shape],
        "hatchcolor": css(front, opacity) if front else (css(contrast(colour), opacity) if over else colour),
    }


def draw_bars(sheet: Sheet, subplot: Subplot, bars: list[_Bar]) -> None:
    """Draw all bars of a subplot.

    Parameters
    ----------
    sheet, subplot
        Where.
    bars
        Place of the trace in the figure, the trace, and its colour where it names none.

    Raises
    ------
    CannotDrawError
        They are scaled by plotly, or have a pattern that is not known.
    """
    layout = sheet.layout
    if layout.barnorm:
        msg = "Bars that plotly scales to a sum cannot be drawn for print."
        raise CannotDrawError(msg)
    mode, tops, groups = layout.barmode or "group", {}, {}
    for _, trace, _ in bars:
        groups.setdefault(trace.offsetgroup or ("" if mode != "group" else id(trace)), len(groups))
    step = _step(subplot, bars)
    for place, trace, colour in bars:
        letter = position_letter(trace)
        along, across = (subplot.x, subplot.y) if letter == "x" else (subplot.y, subplot.x)
        middle = along.places(values_of(trace, letter))
        length = across.places(values_of(trace, across.letter))
        count = len(groups) if mode == "group" else 1
        room = step * (1 - (0.2 if layout.bargap is None else layout.bargap)) / count
        width = np.broadcast_to(
            room * (1 - (layout.bargroupgap or 0)) if trace.width is None else trace.width, len(middle)
        )
        if mode == "group":
            number_in = groups[trace.offsetgroup or id(trace)]
            middle = middle + (number_in - (count - 1) / 2) * (room if trace.width is None else width)
        if trace.offset is not None:
            middle = along.places(values_of(trace, letter)) + np.asarray(trace.offset, dtype=float) + width / 2
        start = _start(trace, mode, middle, length, tops)
        _draw(sheet, subplot, (place, trace, colour), (middle, width, start, length))


def _step(subplot: Subplot, bars: list[_Bar]) -> float:
    """Room of a position: the least distance between two."""
    places = []
    for _, trace, _ in bars:
        letter = position_letter(trace)
        axis = subplot.x if letter == "x" else subplot.y
        places.append(axis.places(values_of(trace, letter)))
    apart = np.diff(np.unique(np.concatenate(places)))
    return float(apart.min()) if len(apart) else 1.0


def _start(
    trace: Any,
    mode: str,
    middle: NDArray[np.floating],
    length: NDArray[np.floating],
    tops: dict[tuple[float, bool], float],
) -> NDArray[np.floating]:
    """Where bars begin: at their base, or on the bars below; those below zero have a stack of their own if relative."""
    if trace.base is not None:
        return np.broadcast_to(np.asarray(trace.base, dtype=float), len(middle))
    if mode not in ("stack", "relative"):
        return np.zeros(len(middle))
    starts = np.zeros(len(middle))
    for row, (place, size) in enumerate(zip(middle.tolist(), np.nan_to_num(length).tolist(), strict=True)):
        key = (place, mode == "relative" and size < 0)
        starts[row] = tops.get(key, 0.0)
        tops[key] = starts[row] + size
    return starts


def _draw(sheet: Sheet, subplot: Subplot, bar: _Bar, box: tuple[NDArray[np.floating], ...]) -> None:
    place, trace, colour = bar
    middle, width, start, length = box
    marker, scale, count = trace.marker, sheet.scales.get(trace.marker.coloraxis or place), len(box[0])
    opacity = np.broadcast_to(np.asarray(1.0 if marker.opacity is None else marker.opacity, dtype=float), count)
    faint = opacity * (1.0 if trace.opacity is None else trace.opacity)
    if scale is not None:
        faces = scale.colours(np.asarray(marker.color, dtype=float)) * np.column_stack([np.ones((count, 3)), faint])
    else:
        named = marker.color if many(marker.color) else [marker.color or colour] * count
        faces = [css(each, alpha) for each, alpha in zip(named, faint, strict=True)]
    shapes = marker.pattern.shape if many(marker.pattern.shape) else [marker.pattern.shape or ""] * count
    lying = position_letter(trace) == "y"
    for row in np.flatnonzero(np.isfinite(length) & np.isfinite(middle)):
        style = bar_style(marker, faces[row], shapes[row] or "") | {"zorder": _LAYER}
        if lying:
            subplot.axes.barh(middle[row], length[row], width[row], left=start[row], **style)
        else:
            subplot.axes.bar(middle[row], length[row], width[row], bottom=start[row], **style)
    _errors(subplot, trace, middle, start + length, lying=lying)
    _texts(sheet, subplot, trace, box, faces)


def _errors(
    subplot: Subplot, trace: Any, middle: NDArray[np.floating], end: NDArray[np.floating], *, lying: bool
) -> None:
    bars = trace.error_x if lying else trace.error_y
    lengths = error_lengths(bars, end)
    if lengths is None:
        return
    thickness = (2 if bars.thickness is None else bars.thickness) * POINT
    subplot.axes.errorbar(
        *((end, middle) if lying else (middle, end)),
        **{"xerr" if lying else "yerr": lengths},
        fmt="none",
        ecolor=css(bars.color or "#444444"),
        elinewidth=thickness,
        capsize=(4 if bars.width is None else bars.width) * POINT,
        zorder=_LAYER + 0.1,
    )


def _texts(sheet: Sheet, subplot: Subplot, trace: Any, box: tuple[NDArray[np.floating], ...], faces: Any) -> None:
    """Write on the bars, or beyond their ends; on a dark bar in white."""
    if trace.texttemplate:
        msg = "Bars with a text template cannot be drawn for print; give them text."
        raise CannotDrawError(msg)
    if trace.text is None or trace.textposition == "none":
        return
    middle, _, start, length = box
    lying = position_letter(trace) == "y"
    texts = trace.text if many(trace.text) else [trace.text] * len(middle)
    inside = trace.textposition == "inside"
    for row in np.flatnonzero(np.isfinite(length) & np.isfinite(middle)):
        text = texts[row] if isinstance(texts[row], str) else number(float(texts[row]))
        end, forward = start[row] + length[row], length[row] >= 0
        place = start[row] + length[row] / 2 if inside else end
        beyond = ("left" if forward else "right") if lying else ("bottom" if forward else "top")
        subplot.axes.annotate(
            plain(text),
            (place, middle[row]) if lying else (middle[row], place),
            xytext=(0, 0) if inside else ((3, 0) if lying else (0, 3)) if forward else ((-3, 0) if lying else (0, -3)),
            textcoords="offset points",
            ha="center" if inside or not lying else beyond,
            va="center" if inside or lying else beyond,
            fontsize=font_pixels(sheet.layout, trace.textfont) * POINT,
            color=contrast(faces[row]) if inside else font_colour(sheet.layout, trace.textfont),
            annotation_clip=False,
            zorder=_LAYER + 2,
        )
