"""Plotly's scatter traces by matplotlib: lines, areas, error bars, markers and text."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from scdiva_core.figures.static_arrows import draw_arrows, points_along
from scdiva_core.figures.static_axes import Sheet, Subplot, values_of
from scdiva_core.figures.static_scale import Scale
from scdiva_core.figures.static_style import (
    INCH,
    POINT,
    CannotDrawError,
    css,
    dashes,
    font_colour,
    font_pixels,
    many,
    plain,
    symbol,
    weight,
)

_FEW = 20  # points that plotly marks where it is not told
_STEPS = {"linear": "default", "spline": "default", "hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}
_SIDES = {"left": ("right", -1), "center": ("center", 0), "right": ("left", 1)}
_HEIGHTS = {"top": ("bottom", 1), "middle": ("center", 0), "bottom": ("top", -1)}
# What plotly draws with WebGL lies below what it draws as SVG.
_PICTURE_LAYER, _LAYER = 2.5, 3.0


def mode_of(trace: Any) -> str:
    """Whether a trace is drawn as lines, markers, text, or several of them."""
    if trace.mode is not None:
        return trace.mode
    return "lines+markers" if len(values_of(trace, "y")) < _FEW and trace.type == "scatter" else "lines"


def draw_points(sheet: Sheet, subplot: Subplot, trace: Any, colour: str, scale: Scale | None) -> None:
    """Draw one scatter trace.

    Parameters
    ----------
    sheet, subplot
        Where.
    trace
        ``scatter`` or ``scattergl``; the points of the latter become one picture in an SVG.
    colour
        Of its lines and markers where it names none.
    scale
        For markers whose colours are numbers.

    Raises
    ------
    CannotDrawError
        It is stacked, or has a symbol or arrows that are not known.
    """
    if trace.type == "scatter" and trace.stackgroup:
        msg = "A figure with stacked areas cannot be drawn for print."
        raise CannotDrawError(msg)
    axes, mode = subplot.axes, mode_of(trace)
    x, y = subplot.x.places(values_of(trace, "x")), subplot.y.places(values_of(trace, "y"))
    main = _main_colour(trace, mode, colour)
    if points_along(trace):
        draw_arrows(axes, trace, x, y, main, _LAYER)
        return
    if trace.fill not in (None, "none"):
        _area(axes, trace, x, y, main)
    if "lines" in mode:
        _line(axes, trace, x, y, main)
    for letter, bars in (("x", trace.error_x), ("y", trace.error_y)):
        _error_bars(axes, trace, letter, bars, (x, y), main)
    if "markers" in mode:
        _markers(axes, trace, x, y, main, scale)
    if "text" in mode:
        _texts(sheet, axes, trace, x, y)


def _main_colour(trace: Any, mode: str, colour: str) -> str:
    line, marker = trace.line.color, trace.marker.color
    marker = None if many(marker) else marker
    first, second = (line, marker) if "lines" in mode else (marker, line)
    return first or second or colour


def _layer(trace: Any) -> dict[str, Any]:
    picture = trace.type == "scattergl"
    return {"rasterized": picture, "zorder": _PICTURE_LAYER if picture else _LAYER}


def _line(axes: Axes, trace: Any, x: NDArray[np.floating], y: NDArray[np.floating], colour: str) -> None:
    width = 2.0 if trace.line.width is None else trace.line.width
    there = np.isfinite(x) & np.isfinite(y) if trace.connectgaps else slice(None)
    shape = trace.line.shape or "linear"
    if shape not in _STEPS:
        msg = f"Lines of the shape {shape!r} cannot be drawn for print."
        raise CannotDrawError(msg)
    axes.plot(
        x[there],
        y[there],
        color=css(trace.line.color or colour, trace.opacity),
        linewidth=width * POINT,
        linestyle=dashes(trace.line.dash, width),
        drawstyle=_STEPS[shape],
        **_layer(trace),
    )


def _area(axes: Axes, trace: Any, x: NDArray[np.floating], y: NDArray[np.floating], colour: str) -> None:
    options = {
        "facecolor": css(trace.fillcolor) if trace.fillcolor else css(colour, 0.5),
        "linewidth": 0,
        "zorder": _LAYER - 0.2,
    }
    before = axes.lines[-1] if axes.lines else None
    if trace.fill in ("toself", "tonext"):
        axes.fill(x, y, **options)
    elif trace.fill == "tozeroy" or (trace.fill == "tonexty" and before is None):
        axes.fill_between(x, 0, y, **options)
    elif trace.fill == "tozerox" or (trace.fill == "tonextx" and before is None):
        axes.fill_betweenx(y, 0, x, **options)
    else:  # down to the line before, whose points may be others
        under = np.column_stack(before.get_data())[::-1].astype(float)
        axes.fill(np.append(x, under[:, 0]), np.append(y, under[:, 1]), **options)


def _error_bars(
    axes: Axes, trace: Any, letter: str, bars: Any, xy: tuple[NDArray[np.floating], NDArray[np.floating]], colour: str
) -> None:
    lengths = error_lengths(bars, xy[0 if letter == "x" else 1])
    if lengths is None:
        return
    thickness = (2 if bars.thickness is None else bars.thickness) * POINT
    axes.errorbar(
        *xy,
        **{f"{letter}err": lengths},
        fmt="none",
        ecolor=css(bars.color or colour, trace.opacity),
        elinewidth=thickness,
        capthick=thickness,
        capsize=(4 if bars.width is None else bars.width) * POINT,
        zorder=_LAYER,
    )


def error_lengths(bars: Any, values: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """Lengths below and above, ``[2, n]``; None where a trace has no error bars."""
    if bars is None or bars.visible is False or (bars.array is None and bars.value is None):
        return None
    if bars.array is not None:
        above = np.asarray(bars.array, dtype=float)
        below = above if bars.arrayminus is None else np.asarray(bars.arrayminus, dtype=float)
    else:
        unit = np.abs(values) / 100 if bars.type == "percent" else np.ones(len(values))
        above = bars.value * unit
        below = above if bars.valueminus is None else bars.valueminus * unit
    # Rounding may leave an end at -1e-17.
    return np.maximum(np.nan_to_num(np.stack([below, above])), 0)


def marker_pixels(marker: Any) -> float | NDArray[np.floating]:
    """Diameter of markers in pixels, one or one for each."""
    if not many(marker.size):
        return 6.0 if marker.size is None else float(marker.size)
    size, unit = np.nan_to_num(np.asarray(marker.size, dtype=float)), marker.sizeref or 1.0
    wide = 2 * np.sqrt(size / unit / 2) if marker.sizemode == "area" else size / unit
    return np.maximum(wide, marker.sizemin or 0)


def _markers(
    axes: Axes, trace: Any, x: NDArray[np.floating], y: NDArray[np.floating], colour: str, scale: Scale | None
) -> None:
    marker, count = trace.marker, len(x)
    face = _colours(marker.color, marker.opacity, count, colour, scale) * [
        1,
        1,
        1,
        1 if trace.opacity is None else trace.opacity,
    ]
    width = marker.line.width
    lined = many(width) or bool(width)
    edge = _colours(marker.line.color, marker.opacity, count, "#444444", None)
    sizes = np.broadcast_to(marker_pixels(marker), count)
    widths = np.broadcast_to(np.asarray(width if lined else 0, dtype=float), count)
    names = np.broadcast_to(np.asarray(marker.symbol or "circle", dtype=object), count)
    there = np.isfinite(x) & np.isfinite(y)
    for name in dict.fromkeys(names[there]):
        shape, factor, filled = symbol(name)
        rows = (names == name) & there
        axes.scatter(
            x[rows],
            y[rows],
            s=(sizes[rows] * POINT * factor) ** 2,
            marker=shape,
            facecolors=face[rows] if filled else "none",
            edgecolors=edge[rows] if lined and filled else ("none" if filled else face[rows]),
            linewidths=widths[rows] * POINT if filled or lined else POINT,
            **_layer(trace),
        )


def _colours(given: Any, opacity: Any, count: int, default: str, scale: Scale | None) -> NDArray[np.floating]:
    """RGBA ``[n, 4]``."""
    if scale is not None:
        found = scale.colours(np.asarray(given, dtype=float))
    elif many(given):
        found = np.array([css(each) for each in given])
    else:
        found = np.tile(css(given or default), (count, 1))
    found = np.array(found, dtype=float).reshape(count, 4)
    found[:, 3] *= 1.0 if opacity is None else np.nan_to_num(np.asarray(opacity, dtype=float))
    return found


def _texts(sheet: Sheet, axes: Axes, trace: Any, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    count, font = len(x), trace.textfont
    given = trace.text if many(trace.text) else [trace.text] * count
    places = np.broadcast_to(np.asarray(trace.textposition or "middle center", dtype=object), count)
    marked = np.broadcast_to(marker_pixels(trace.marker), count) if "markers" in mode_of(trace) else np.zeros(count)
    size = font_pixels(sheet.layout, None if many(font.size) else font)
    colours = font.color if many(font.color) else None
    # A shadow keeps a name apart from what it lies on; letters with an edge would be no text in an SVG.
    ground = {"facecolor": css(sheet.layout.paper_bgcolor or "white", 0.65), "linewidth": 0, "pad": 0.5}
    for number in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        upright, across = places[number].split()
        (ha, right), (va, up) = _SIDES[across], _HEIGHTS[upright]
        away = (marked[number] / 2 + 2) / INCH
        move = ScaledTranslation(right * away, up * away, sheet.canvas.dpi_scale_trans)
        axes.text(
            x[number],
            y[number],
            plain(str(given[number] or "")),
            transform=axes.transData + move,
            ha=ha,
            va=va,
            fontsize=size * POINT,
            fontweight=weight(str(given[number] or "")),
            color=css(colours[number]) if colours else font_colour(sheet.layout, font),
            bbox=ground if font.shadow else None,
            zorder=_LAYER + 1,
        )
