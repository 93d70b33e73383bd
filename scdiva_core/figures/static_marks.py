"""Plotly's shapes and annotations by matplotlib."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse, Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory

from scdiva_core.figures.static_axes import Axis, Sheet, Subplot
from scdiva_core.figures.static_style import (
    INCH,
    POINT,
    CannotDrawError,
    css,
    dashes,
    font_colour,
    font_pixels,
    plain,
    weight,
)

_BELOW, _BETWEEN, _ABOVE, _TEXT = 0.4, 1.5, 4.0, 6.0
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_STEPS = {"M": (Path.MOVETO, 2), "L": (Path.LINETO, 2), "Q": (Path.CURVE3, 4), "C": (Path.CURVE4, 6)}


def draw_shapes(sheet: Sheet) -> None:
    """Draw all shapes; those in units of an axis widen its range, as in plotly.

    Raises
    ------
    CannotDrawError
        A shape is of a kind that is not known.
    """
    for shape in sheet.layout.shapes:
        place = _place(sheet, shape)
        if place is None or shape.visible is False:
            continue
        axes, transform, (x, y) = place
        width = 2 if shape.line.width is None else shape.line.width
        style = {
            "transform": transform,
            "edgecolor": css(shape.line.color or "#444444", shape.opacity),
            "linewidth": width * POINT,
            "linestyle": dashes(shape.line.dash, width),
            "zorder": {"below": _BELOW, "between": _BETWEEN}.get(shape.layer, _ABOVE),
            "clip_on": "paper" not in (shape.xref, shape.yref),
            "facecolor": css(shape.fillcolor, shape.opacity) if shape.fillcolor else "none",
        }
        patch = _patch(shape, x, y, style)
        if axes is sheet.paper and shape.layer == "below":
            patch.set_zorder(-1)
            sheet.canvas.add_artist(patch)
        else:
            axes.add_patch(patch)
        _shape_label(sheet, axes, shape, transform, x, y)


def draw_annotations(sheet: Sheet) -> None:
    """Write all annotations whose points are in range; to be called when the ranges are known."""
    for note in sheet.layout.annotations:
        place = _place(sheet, note)
        if place is None or note.visible is False:
            continue
        axes, transform, axis = place
        x, y = (_position(note[letter], which) for letter, which in zip("xy", axis, strict=True))
        if all(_in_range(axes, which, value) for which, value in zip(axis, (x, y), strict=True)):
            _annotate(sheet, axes, note, transform, (x, y))


def _place(sheet: Sheet, item: Any) -> tuple[Axes, Transform, tuple[Axis | None, Axis | None]] | None:
    """Axes, coordinates, and the axes in whose units they are; None where the item belongs to no subplot."""
    found: list[tuple[Subplot | None, Axis | None, Transform]] = []
    for letter in ("x", "y"):
        name, _, domain = (item[f"{letter}ref"] or (letter if sheet.subplots else "paper")).partition(" ")
        if name == "paper":
            found.append((None, None, sheet.paper.transAxes))
            continue
        pair = next((pair for pair in sheet.subplots if name in pair), None)
        if pair is None:
            return None
        subplot = sheet.subplots[pair]
        axes = subplot.axes
        axis = None if domain else (subplot.x if letter == "x" else subplot.y)
        found.append((subplot, axis, axes.transAxes if domain else axes.transData))
    (across, x, first), (up, y, second) = found
    home = next((subplot.axes for subplot in (up, across) if subplot is not None), sheet.paper)
    if up is not None and across is not None and x is not None and y is not None:
        home = sheet.subplots.get((x.name, y.name), up).axes
        first = second = home.transData
    return home, first if first is second else blended_transform_factory(first, second), (x, y)


def _position(value: Any, axis: Axis | None) -> float:
    if axis is None:
        return float(value)
    if axis.log:
        return 10.0 ** float(value)  # annotations are told powers
    return float(axis.places([value])[0])


def _in_range(axes: Axes, axis: Axis | None, value: float) -> bool:
    if axis is None:
        return True
    low, high = sorted(axes.get_xlim() if axis.letter == "x" else axes.get_ylim())
    slack = 1e-9 * (high - low)
    return low - slack <= value <= high + slack


def _patch(shape: Any, x: Axis | None, y: Axis | None, style: dict[str, Any]) -> Patch:
    kind = shape.type or "rect"
    if kind == "path":
        return PathPatch(_path(shape.path, x, y), **style)
    (x0, x1), (y0, y1) = (
        [float(value) if axis is None else float(axis.places([value])[0]) for value in ends]
        for axis, ends in ((x, (shape.x0, shape.x1)), (y, (shape.y0, shape.y1)))
    )
    if kind == "line":
        return PathPatch(Path([(x0, y0), (x1, y1)]), **(style | {"facecolor": "none"}))
    if kind == "rect":
        return Rectangle((x0, y0), x1 - x0, y1 - y0, **style)
    if kind == "circle":
        return Ellipse(((x0 + x1) / 2, (y0 + y1) / 2), abs(x1 - x0), abs(y1 - y0), **style)
    msg = f"A shape of the kind {kind!r} cannot be drawn for print."
    raise CannotDrawError(msg)


def _path(text: str, x: Axis | None, y: Axis | None) -> Path:
    """Read an SVG path in the units of the axes; plotly knows capital letters only."""
    points: list[tuple[float, float]] = []
    codes: list[int] = []
    for step, rest in re.findall(rf"([A-DF-Za-df-z])((?:[\s,]|{_NUMBER})*)", text):
        numbers = [float(part) for part in re.findall(_NUMBER, rest)]
        if step in "Zz":
            points.append(points[-1])
            codes.append(Path.CLOSEPOLY)
        elif step in "HV":
            last = points[-1]
            points += [(value, last[1]) if step == "H" else (last[0], value) for value in numbers]
            codes += [Path.LINETO] * len(numbers)
        elif step in _STEPS and len(numbers) % _STEPS[step][1] == 0:
            pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
            points += pairs
            codes += [_STEPS[step][0]] * len(pairs)
            if step == "M":
                codes[len(codes) - len(pairs) + 1 :] = [Path.LINETO] * (len(pairs) - 1)
        else:
            msg = f"The path {text!r} of a shape cannot be drawn for print."
            raise CannotDrawError(msg)
    places = np.array(points, dtype=float)
    for column, axis in enumerate((x, y)):
        if axis is not None:
            places[:, column] = axis.places(places[:, column])
    return Path(places, codes)


def _shape_label(sheet: Sheet, axes: Axes, shape: Any, transform: Transform, x: Axis | None, y: Axis | None) -> None:
    label = shape.label
    if not label.text:
        return
    ends = [
        [float(value) if axis is None else float(axis.places([value])[0]) for value in pair]
        for axis, pair in ((x, (shape.x0, shape.x1)), (y, (shape.y0, shape.y1)))
    ]
    axes.text(
        *(sum(pair) / 2 for pair in ends),
        plain(label.text),
        transform=transform,
        ha="center",
        va="center",
        fontsize=font_pixels(sheet.layout, label.font) * POINT,
        color=font_colour(sheet.layout, label.font),
        zorder=_TEXT,
    )


def _annotate(sheet: Sheet, axes: Axes, note: Any, transform: Transform, xy: tuple[float, float]) -> None:
    layout, text = sheet.layout, plain(note.text)
    arrow = note.showarrow is not False
    box = None
    if note.bgcolor or note.bordercolor:
        box = {
            "facecolor": css(note.bgcolor, note.opacity) if note.bgcolor else "none",
            "edgecolor": css(note.bordercolor) if note.bordercolor else "none",
            "linewidth": (1 if note.borderwidth is None else note.borderwidth) * POINT,
            "pad": (1 if note.borderpad is None else note.borderpad) * POINT,
        }
    shift = ScaledTranslation((note.xshift or 0) / INCH, (note.yshift or 0) / INCH, sheet.canvas.dpi_scale_trans)
    options: dict[str, Any] = {
        "xycoords": transform + shift,
        "ha": _across(note, arrow=arrow),
        "va": _up(note, arrow=arrow),
        "rotation": -(note.textangle or 0),
        "multialignment": note.align or "center",
        "fontsize": font_pixels(layout, note.font, default=font_pixels(layout) if not arrow else 12) * POINT,
        "fontweight": weight(note.text),
        "color": font_colour(layout, note.font),
        "annotation_clip": False,
        "zorder": _TEXT,
    }
    if box:
        options["bbox"] = box
    if arrow:
        options |= _arrow(axes, note, transform)
    axes.annotate(text, xy, **options)


def _across(note: Any, *, arrow: bool) -> str:
    if note.xanchor in ("left", "center", "right"):
        return note.xanchor
    if arrow or not _on_paper(note.xref):
        return "center"
    return "left" if note.x < 1 / 3 else "right" if note.x > 2 / 3 else "center"


def _up(note: Any, *, arrow: bool) -> str:
    if note.yanchor in ("top", "middle", "bottom"):
        return {"middle": "center"}.get(note.yanchor, note.yanchor)
    if arrow or not _on_paper(note.yref):
        return "center"
    return "bottom" if note.y < 1 / 3 else "top" if note.y > 2 / 3 else "center"


def _on_paper(reference: str | None) -> bool:
    return reference == "paper" or bool(reference and reference.endswith(" domain"))


def _arrow(axes: Axes, note: Any, transform: Transform) -> dict[str, Any]:
    """Arrow from the text, or from a place of its own, to the point."""
    width = (2 if note.arrowwidth is None else note.arrowwidth) * POINT
    scale = (1 if note.arrowsize is None else note.arrowsize) * 6 * max(width, 0.75)
    style = {
        "arrowstyle": "-" if note.arrowhead == 0 else "-|>",
        "color": css(note.arrowcolor or "#444444", note.opacity),
        "linewidth": width,
        "mutation_scale": scale,
        "shrinkA": 0,
        "shrinkB": (note.standoff or 0) * POINT,
    }
    if note.axref in (None, "pixel"):
        away = (-10 if note.ax is None else note.ax, 30 if note.ay is None else -note.ay)
        return {"xytext": (away[0] * POINT, away[1] * POINT), "textcoords": "offset points", "arrowprops": style}
    return {"xytext": (note.ax, note.ay), "textcoords": axes.transData, "arrowprops": style}
