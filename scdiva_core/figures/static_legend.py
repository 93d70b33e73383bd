"""Plotly's legend and colour bars by matplotlib, at their places beside or above the picture."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from scdiva_core.figures.static_axes import Sheet, visible
from scdiva_core.figures.static_bars import bar_style
from scdiva_core.figures.static_points import marker_pixels, mode_of
from scdiva_core.figures.static_scale import Scale, scale_of
from scdiva_core.figures.static_style import (
    POINT,
    css,
    dashes,
    font_colour,
    font_pixels,
    many,
    number,
    plain,
    symbol,
    wrapped,
)

_RANK = 1000  # plotly's
_LARGEST, _SAME = 16.0, 8.0  # pixels of a marker in the legend, at most, and where all are as large
_GAP = 8  # pixels between a legend and the edge
_BARS = {"thickness": 30, "len": 1.0, "x": 1.02, "y": 0.5, "xpad": 10, "ypad": 10}  # plotly's
_TICK_ROOM = 40
_HEIGHTS = {"top": "upper", "middle": "center", "bottom": "lower"}
_DEFAULT_ON = ("scatter", "scattergl", "bar", "violin")


class Entry(NamedTuple):
    """One trace in the legend: what is drawn, and its name."""

    handle: Artist
    name: str


def entries(sheet: Sheet, colours: list[str]) -> list[Entry]:
    """Traces that plotly would name, in its order.

    Parameters
    ----------
    sheet
        The figure.
    colours
        Of each trace that names none.
    """
    layout = sheet.layout
    counted = [item for item in visible(sheet.figure) if item[1].type in _DEFAULT_ON]
    named = [(place, trace) for place, trace in counted if trace.showlegend is not False]
    alone = len(counted) < 2 and not any(trace.showlegend for _, trace in named)
    if layout.showlegend is False or not named or (alone and not layout.showlegend):
        return []
    named.sort(key=lambda item: _RANK if item[1].legendrank is None else item[1].legendrank)
    order = layout.legend.traceorder
    turned = any(
        layout.barmode == "stack" if trace.type == "bar" else (trace["fill"] or "").startswith("tonext")
        for _, trace in named
        if trace.type in ("bar", "scatter")
    )
    if "reversed" in (order or ("reversed" if turned else "normal")):
        named.reverse()
    constant = layout.legend.itemsizing == "constant"
    return [
        Entry(
            _handle(trace, colours[place], scale_of(trace, place, sheet.scales), constant=constant),
            plain(trace.name) or f"trace {place}",
        )
        for place, trace in named
    ]


def add_legend(sheet: Sheet, named: list[Entry], renderer: Any) -> None:
    """Put the legend where plotly has it, in as many columns as fit; an older one goes."""
    old = sheet.paper.get_legend()
    if old is not None:
        old.remove()
    if not named:
        return
    options = sheet.layout.legend
    lying = options.orientation == "h"
    width, height = sheet.size
    for columns in range(len(named), 0, -1) if lying else range(1, len(named) + 1):
        drawn = _legend(sheet, named, columns)
        box = drawn.get_window_extent(renderer)
        last = columns == (1 if lying else len(named))
        room = min(sheet.area[1] + 2 * _GAP, height)
        # One that lies begins where the picture begins, not at the edge.
        if last or (box.width <= width - 2 * _GAP and box.x1 <= width if lying else box.height <= room):
            return
        drawn.remove()


def _legend(sheet: Sheet, named: list[Entry], columns: int) -> Legend:
    layout, options = sheet.layout, sheet.layout.legend
    lying = options.orientation == "h"
    x = (0.0 if lying else 1.02) if options.x is None else options.x
    y = (-0.1 if lying else 1.0) if options.y is None else options.y
    usual = "top" if lying or y > 2 / 3 else "bottom" if y < 1 / 3 else "middle"
    across = "left" if options.xanchor in (None, "auto") else options.xanchor
    up = _HEIGHTS[usual if options.yanchor in (None, "auto") else options.yanchor]
    size = font_pixels(layout, options.font) * POINT
    # Matplotlib fills columns, plotly rows.
    shown = (
        [named[place] for column in range(columns) for place in range(column, len(named), columns)] if lying else named
    )
    drawn = sheet.paper.legend(
        [entry.handle for entry in shown],
        [entry.name for entry in shown],
        loc="center" if up == across else f"{up} {across}",
        bbox_to_anchor=(x, y),
        bbox_transform=sheet.paper.transAxes,
        ncols=columns,
        title=plain(options.title.text) or None,
        title_fontsize=size,
        alignment="left",
        fontsize=size,
        labelcolor=font_colour(layout, options.font),
        frameon=bool(options.bgcolor or options.bordercolor),
        facecolor=css(options.bgcolor) if options.bgcolor else "none",
        edgecolor=css(options.bordercolor) if options.bordercolor else "none",
        borderaxespad=0.0,
        handlelength=2.4,
        handletextpad=0.4,
        columnspacing=1.2,
        labelspacing=0.35,
    )
    drawn.get_title().set_color(font_colour(layout, options.title.font, options.font))
    drawn.set_zorder(7)
    return drawn


def _handle(trace: Any, colour: str, scale: Scale | None, *, constant: bool) -> Artist:
    if trace.type == "bar":
        marker = trace.marker
        shape = marker.pattern.shape
        face = _first_colour(marker.color, colour, scale)
        opacity = marker.opacity if isinstance(marker.opacity, int | float) else None
        style = bar_style(
            marker,
            css(face, opacity) if isinstance(face, str) else face,
            (shape[0] if many(shape) and shape else shape) or "",
        )
        return Patch(**style)
    if trace.type == "violin":
        line = trace.line.color or colour
        return Patch(facecolor=css(trace.fillcolor) if trace.fillcolor else css(line, 0.5), edgecolor=css(line))
    return _line_handle(trace, colour, scale, constant=constant)


def _line_handle(trace: Any, colour: str, scale: Scale | None, *, constant: bool) -> Line2D:
    mode, marker, width = mode_of(trace), trace.marker, 2.0 if trace.line.width is None else trace.line.width
    face = _first_colour(marker.color, trace.line.color or colour, scale)
    line = trace.line.color or (face if isinstance(face, str) else colour)
    name = marker.symbol[0] if many(marker.symbol) and len(marker.symbol) else marker.symbol
    shape, factor, filled = symbol(name if isinstance(name, str) else None)
    pixels = marker_pixels(marker)
    size = _SAME if constant else min(float(np.mean(pixels)) if np.size(pixels) else _SAME, _LARGEST)
    opacity = marker.opacity if isinstance(marker.opacity, int | float) and not constant else None
    seen = css(face, opacity) if isinstance(face, str) else face
    edge = marker.line.width if isinstance(marker.line.width, int | float) else 0
    return Line2D(
        [],
        [],
        color=css(line, trace.opacity),
        linewidth=width * POINT,
        linestyle=dashes(trace.line.dash, width) if "lines" in mode else "none",
        marker=shape if "markers" in mode else "none",
        markersize=size * factor * POINT,
        markerfacecolor=seen if filled else "none",
        markeredgecolor=css(marker.line.color) if filled and edge and isinstance(marker.line.color, str) else seen,
        markeredgewidth=edge * POINT if filled else POINT,
    )


def _first_colour(given: Any, default: str, scale: Scale | None) -> Any:
    """One colour for a trace of many: the middle of its scale, or that of its first point."""
    if scale is not None:
        return scale.mappable.cmap(0.5)
    if many(given):
        return given[0] if len(given) else default
    return given or default


def add_colour_bars(sheet: Sheet) -> list[Axes]:
    """Draw the colour bars.

    Returns
    -------
    list of Axes
        One each; they lie where the margins are now.
    """
    drawn = []
    for scale in sheet.scales.values():
        if scale.bar is not None:
            drawn.append(_colour_bar(sheet, scale, scale.bar))
    return drawn


def _colour_bar(sheet: Sheet, scale: Scale, bar: Any) -> Axes:
    layout, lying = sheet.layout, bar.orientation == "h"
    given = {name: default if bar[name] is None else bar[name] for name, default in _BARS.items()}
    if lying:
        given |= {"x": 0.5 if bar.x is None else bar.x, "y": 1.02 if bar.y is None else bar.y}
    area = dict(zip("xy", sheet.area, strict=True))
    along, across = ("x", "y") if lying else ("y", "x")
    share = given["len"] / area[along] if bar.lenmode == "pixels" else given["len"]
    length = max(share - 2 * given[f"{along}pad"] / area[along], 0.05)
    thick = given["thickness"] / area[across]
    anchors = {"left": 0, "bottom": 0, "center": 0.5, "middle": 0.5, "right": 1, "top": 1}
    start = given[along] - anchors[bar[f"{along}anchor"] or "middle"] * length
    side = given[across] + given[f"{across}pad"] / area[across] - anchors[bar[f"{across}anchor"] or "left"] * thick
    place = (start, side, length, thick) if lying else (side, start, thick, length)
    axes = sheet.paper.inset_axes(place, transform=sheet.paper.transAxes)
    ruler = matplotlib.colorbar.Colorbar(axes, scale.mappable, orientation="horizontal" if lying else "vertical")
    ruler.outline.set(linewidth=(1 if bar.outlinewidth is None else bar.outlinewidth) * POINT, edgecolor="#444444")
    _bar_ticks(ruler, bar, length * area[along])
    axes.tick_params(
        length=0,
        pad=3 * POINT,
        labelsize=font_pixels(layout, bar.tickfont, default=12) * POINT,
        labelcolor=font_colour(layout, bar.tickfont),
    )
    text, size = plain(bar.title.text), font_pixels(layout, bar.title.font)
    style = {"fontsize": size * POINT, "color": font_colour(layout, bar.title.font)}
    if text and (bar.title.side == "right" or lying):
        ruler.set_label(wrapped(text, max(length * area[along], 120), size), **style)
    elif text:
        axes.set_title(wrapped(text, 120, size), loc="left", **style)
    return axes


def _bar_ticks(ruler: Any, bar: Any, pixels: float) -> None:
    if bar.tickvals is not None:
        names = bar.ticktext if bar.ticktext is not None else [number(value, bar.tickformat) for value in bar.tickvals]
        ruler.locator, ruler.formatter = (
            FixedLocator(bar.tickvals),
            FixedFormatter([plain(str(name)) for name in names]),
        )
    else:
        room = max(int(pixels // _TICK_ROOM), 2)
        ruler.locator = MaxNLocator(min(bar.nticks or room, room), steps=[1, 2, 5, 10])
        ruler.formatter = FuncFormatter(lambda value, _place: number(value, bar.tickformat))
    ruler.update_ticks()
