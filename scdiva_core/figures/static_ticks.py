"""Ranges, ticks, grids and titles of axes, after the data are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axis import Axis as Ruler
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, MaxNLocator, MultipleLocator

from scdiva_core.figures.static_axes import Axis, Sheet, Subplot, options_of
from scdiva_core.figures.static_style import POINT, css, font_colour, font_pixels, number, plain, wrapped

_GRID, _LINE = "#EEEEEE", "#444444"  # plotly's
_TICK_ROOM = {"x": 80, "y": 40}  # pixels a tick, as plotly has it
_FEWEST, _MOST = {"x": 3, "y": 5}, 10
_LEAST_ROOM = 12  # pixels a name needs
_LABEL_PAD = 3


def dress(sheet: Sheet) -> None:
    """Give all axes their ranges, and then what can be read of them."""
    for subplot in sheet.subplots.values():
        subplot.axes.autoscale_view()
    for subplot in sheet.subplots.values():
        for axis in (subplot.x, subplot.y):
            _limit(subplot, axis, sheet)
    for subplot in sheet.subplots.values():
        for axis in (subplot.x, subplot.y):
            _ruler(sheet, subplot, axis)
        _same_unit(subplot)


def untangle(sheet: Sheet, renderer: Any) -> None:
    """Turn names below an axis that would run into each other."""
    for subplot in sheet.subplots.values():
        ruler = subplot.axes.xaxis
        if subplot.x.options.tickangle is not None or not subplot.axes.get_visible():
            continue
        ruler.set_tick_params(rotation=0)
        for label in ruler.get_ticklabels():
            label.set(ha="center", rotation_mode="default")
        labels = [label for label in ruler.get_ticklabels() if label.get_visible() and label.get_text()]
        boxes = sorted((label.get_window_extent(renderer) for label in labels), key=lambda box: box.x0)
        if any(left.x1 > right.x0 for left, right in zip(boxes, boxes[1:], strict=False)):
            steps = np.diff([box.x0 + box.width / 2 for box in boxes])
            upright = steps.min() < 2.5 * boxes[0].height
            ruler.set_tick_params(rotation=90 if upright else -30)
            for label in labels:
                label.set(ha="center" if upright else "left", rotation_mode="default" if upright else "anchor")


def _limit(subplot: Subplot, axis: Axis, sheet: Sheet) -> None:
    options = axis.options
    limits, set_limits = (
        (subplot.axes.get_xlim, subplot.axes.set_xlim)
        if axis.letter == "x"
        else (subplot.axes.get_ylim, subplot.axes.set_ylim)
    )
    # Axes of one unit are widened when they are drawn.
    free = bool(subplot.x.options.scaleanchor or subplot.y.options.scaleanchor)
    given = options.range
    if given is None and options.matches:
        given = options_of(sheet.layout, options.matches).range
    low, high = sorted(limits())
    if given is None:
        if axis.categories is not None:
            low, high = min(low, -0.5), max(high, len(axis.categories) - 0.5)
        if options.rangemode == "tozero" and not axis.log:
            data = subplot.axes.dataLim.intervalx if axis.letter == "x" else subplot.axes.dataLim.intervaly
            low, high = (0.0 if data[0] >= 0 else low), (0.0 if data[1] <= 0 else high)
            high = high if high > low else low + 1.0
        set_limits(*((high, low) if options.autorange == "reversed" else (low, high)), auto=free)
        return
    ends = [end if end is None or not axis.log else 10.0**end for end in given]
    set_limits(low if ends[0] is None else ends[0], high if ends[1] is None else ends[1], auto=free)


def _ruler(sheet: Sheet, subplot: Subplot, axis: Axis) -> None:
    axes, options, layout = subplot.axes, axis.options, sheet.layout
    ruler = axes.xaxis if axis.letter == "x" else axes.yaxis
    ruler.minorticks_off()
    first, second = ("bottom", "top") if axis.letter == "x" else ("left", "right")
    if options.visible is False or sheet.home(axis) is not subplot:
        ruler.set_tick_params(which="both", **dict.fromkeys((first, second, f"label{first}", f"label{second}"), False))
        return
    side = options.side or first
    other = second if side == first else first
    pixels = (
        axes.get_position().width * sheet.size[0] if axis.letter == "x" else sheet.size[1] * axes.get_position().height
    )
    _ticks(ruler, axis, pixels)
    named, marked = options.showticklabels is not False, bool(options.ticks)
    ruler.set_tick_params(
        **{side: marked, other: False, f"label{side}": named, f"label{other}": False},
        length=(options.ticklen or 5) * POINT if marked else 0,
        direction="in" if options.ticks == "inside" else "out",
        color=css(options.tickcolor or _LINE),
        width=(1 if options.tickwidth is None else options.tickwidth) * POINT,
        pad=_LABEL_PAD * POINT,
        labelsize=font_pixels(layout, options.tickfont) * POINT,
        labelcolor=font_colour(layout, options.tickfont),
        **({} if options.tickangle is None else {"rotation": -options.tickangle}),
    )
    ruler.set_label_position(side)
    _title(sheet, ruler, axis, pixels)
    _lines(subplot, axis, ruler, side, other)


def _ticks(ruler: Ruler, axis: Axis, pixels: float) -> None:
    options = axis.options
    room = int(np.clip(pixels // _TICK_ROOM[axis.letter] + 1, _FEWEST[axis.letter], _MOST))
    before, after = plain(options.tickprefix), plain(options.ticksuffix)

    def write(value: float, _place: int | None = None) -> str:
        return f"{before}{number(value, options.tickformat)}{after}"

    if options.tickvals is not None:
        places = axis.places(options.tickvals)
        names = [write(place) for place in places] if options.ticktext is None else map(plain, options.ticktext)
        _fix(ruler, places, list(names))
    elif axis.categories is not None:
        step = max(int(np.ceil(len(axis.categories) * _LEAST_ROOM / max(pixels, 1))), 1)
        _fix(ruler, np.arange(len(axis.categories))[::step], [plain(name) for name in axis.categories[::step]])
    elif axis.log:
        low, high = sorted(ruler.get_view_interval())
        few = high / low < 100 and options.dtick is None
        ruler.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=max(room, 4)))
        _write(ruler, write)
    else:
        steps = [1, 2, 5, 10]
        locator = (
            MultipleLocator(float(options.dtick), float(options.tick0 or 0))
            if options.dtick
            else MaxNLocator(min(options.nticks or room, room), steps=steps)
        )
        ruler.set_major_locator(locator)
        _write(ruler, write)


def _fix(ruler: Ruler, places: Any, names: list[str]) -> None:
    ruler.set_major_locator(FixedLocator(places))
    ruler.set_major_formatter(FixedFormatter(names))


def _write(ruler: Ruler, write: Callable[[float, int | None], str]) -> None:
    ruler.set_major_formatter(FuncFormatter(write))


def _title(sheet: Sheet, ruler: Ruler, axis: Axis, pixels: float) -> None:
    title = axis.options.title
    text = plain(title.text)
    if not text:
        return
    size = font_pixels(sheet.layout, title.font, default=1.2 * font_pixels(sheet.layout))
    ruler.set_label_text(
        wrapped(text, max(pixels, 160), size), fontsize=size * POINT, color=font_colour(sheet.layout, title.font)
    )
    ruler.labelpad = (6 if title.standoff is None else title.standoff) * POINT


def _lines(subplot: Subplot, axis: Axis, ruler: Ruler, side: str, other: str) -> None:
    """Grid, the line at zero and the line of the axis itself."""
    options, axes = axis.options, subplot.axes
    crossed = axes.collections and any(hasattr(item, "get_coordinates") for item in axes.collections)  # a heat map
    grid = not crossed if options.showgrid is None else options.showgrid
    width = (1 if options.gridwidth is None else options.gridwidth) * POINT
    axes.set_axisbelow(True)
    if grid:
        ruler.grid(True, color=css(options.gridcolor or _GRID), linewidth=width)
    else:
        ruler.grid(False)
    zero = grid if options.zeroline is None else options.zeroline
    low, high = sorted(ruler.get_view_interval())
    if zero and axis.categories is None and not axis.log and low < 0 < high:
        draw = axes.axvline if axis.letter == "x" else axes.axhline
        draw(0, color=css(options.zerolinecolor or _LINE), linewidth=(options.zerolinewidth or 1) * POINT, zorder=0.6)
    if options.showline:
        for place in (side, other) if options.mirror else (side,):
            axes.spines[place].set(
                visible=True, color=css(options.linecolor or _LINE), linewidth=(options.linewidth or 1) * POINT
            )


def _same_unit(subplot: Subplot) -> None:
    for axis, ratio in ((subplot.y, 1.0), (subplot.x, -1.0)):
        if axis.options.scaleanchor:
            subplot.axes.set_aspect((axis.options.scaleratio or 1.0) ** ratio, adjustable="datalim")
