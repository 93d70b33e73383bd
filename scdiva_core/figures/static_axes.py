"""Plotly's axes and subplots as axes of matplotlib, each at its place in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scdiva_core.figures.static_scale import Scale, scales
from scdiva_core.figures.static_style import CannotDrawError, css, many

_MARGINS = {"l": 80.0, "r": 80.0, "t": 100.0, "b": 80.0}  # plotly's
_LEAST_SHARE = 0.2  # of width and height that the picture keeps, however long the names are
_KINDS = (None, "-", "linear", "log", "category")
Letter = Literal["x", "y"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of plotly.

    Parameters
    ----------
    letter
        Direction.
    name
        ``"x"``, ``"x2"`` ...
    options
        What plotly was told of it.
    categories
        Names at 0, 1, ...; None for an axis of numbers.
    """

    letter: Letter
    name: str
    options: Any
    categories: tuple[str, ...] | None = None

    @property
    def log(self) -> bool:
        """Whether it is logarithmic."""
        return self.options.type == "log"

    def places(self, values: Iterable[Any]) -> NDArray[np.floating]:
        """Numbers on the axis, of numbers or of names."""
        if self.categories is None:
            return np.asarray(values, dtype=float)
        place = {name: float(number) for number, name in enumerate(self.categories)}
        return np.array([place[_name(value)] if _name(value) in place else float(value) for value in values])


@dataclass(frozen=True, eq=False)
class Subplot:
    """A pair of axes, and where they are drawn."""

    axes: Axes
    x: Axis
    y: Axis


@dataclass(eq=False)
class Sheet:
    """A figure of plotly on its way to matplotlib.

    Parameters
    ----------
    canvas
        Matplotlib's figure, at 96 pixels to the inch.
    figure
        Plotly's.
    paper
        Axes over the area between the margins, in which plotly's "paper" coordinates are those of the axes.
    subplots
        By names of the two axes.
    margins
        Left, right, top, bottom, in pixels.
    scales
        Colours for numbers.
    """

    canvas: Figure
    figure: go.Figure
    paper: Axes
    subplots: dict[tuple[str, str], Subplot] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    scales: dict[int | str, Scale] = field(default_factory=dict)

    @property
    def layout(self) -> go.Layout:
        """Of the plotly figure."""
        return self.figure.layout

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of all, in pixels."""
        return self.canvas.bbox.width, self.canvas.bbox.height

    @property
    def area(self) -> tuple[float, float]:
        """Width and height between the margins, in pixels."""
        box = self.paper.get_position()
        return box.width * self.size[0], box.height * self.size[1]

    def of(self, trace: Any) -> Subplot:
        """Where a trace is drawn."""
        return self.subplots[trace.xaxis or "x", trace.yaxis or "y"]

    def home(self, axis: Axis) -> Subplot | None:
        """Where the ticks of an axis are drawn; None for an axis without a subplot."""
        pairs = [pair for pair in self.subplots if axis.name in pair]
        anchored = [pair for pair in pairs if axis.options.anchor in pair]
        return self.subplots[(anchored or pairs)[0]] if pairs else None

    def place(self) -> None:
        """Put everything where the margins leave room."""
        width, height = self.size
        left, bottom = self.margins["l"] / width, self.margins["b"] / height
        across = max(1 - left - self.margins["r"] / width, _LEAST_SHARE)
        up = max(1 - bottom - self.margins["t"] / height, _LEAST_SHARE)
        self.paper.set_position((left, bottom, across, up))
        for subplot in self.subplots.values():
            (x0, x1), (y0, y1) = _domain(self.layout, subplot.x), _domain(self.layout, subplot.y)
            subplot.axes.set_position((left + x0 * across, bottom + y0 * up, (x1 - x0) * across, (y1 - y0) * up))


def visible(figure: go.Figure) -> list[tuple[int, Any]]:
    """Traces that are drawn, with their places in the figure."""
    return [(place, trace) for place, trace in enumerate(figure.data) if trace.visible in (None, True)]


def options_of(layout: go.Layout, name: str) -> Any:
    """What plotly was told of the axis ``"x2"``; its defaults where it was told nothing."""
    key = f"{name[0]}axis{name[1:]}"
    if key in layout:
        return layout[key]
    return go.layout.XAxis() if name[0] == "x" else go.layout.YAxis()


def values_of(trace: Any, letter: Letter) -> Any:
    """What a trace says of a direction, counted where it says nothing."""
    given = trace[letter]
    if trace.type == "violin" and letter == position_letter(trace):
        name = trace[f"{letter}0"] if trace[f"{letter}0"] is not None else (trace.name or "")
        return given if given is not None else [name]
    if given is not None:
        return given
    if trace.type == "heatmap":
        return np.arange(np.asarray(trace.z, dtype=float).shape[1 if letter == "x" else 0])
    other = trace["y" if letter == "x" else "x"]
    start, step = trace[f"{letter}0"] or 0, trace[f"d{letter}"] or 1
    return start + step * np.arange(0 if other is None else len(other))


def position_letter(trace: Any) -> Letter:
    """Direction along which bars and violins stand beside each other."""
    lying = trace.orientation == "h" or (trace.orientation is None and trace.type == "violin" and trace.y is None)
    return "y" if lying else "x"


def lay_out(canvas: Figure, figure: go.Figure) -> Sheet:
    """Make axes for every subplot.

    Parameters
    ----------
    canvas
        Empty.
    figure
        Its data say which subplots there are; a figure without data has one.

    Raises
    ------
    CannotDrawError
        An axis is of a kind that is not known, such as dates.
    """
    layout = figure.layout
    paper = canvas.add_axes((0, 0, 1, 1), zorder=10)
    paper.set_axis_off()
    margins = {
        side: default if layout.margin[side] is None else layout.margin[side] for side, default in _MARGINS.items()
    }
    sheet = Sheet(canvas, figure, paper, margins=margins, scales=scales(figure))
    flat = [trace for _, trace in visible(figure) if trace.type != "sankey"]
    pairs = dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in flat)
    if not figure.data:
        pairs = {("x", "y"): None}
    axes_of: dict[str, Axes] = {}
    for pair in pairs:
        x, y = (_axis(layout, name, flat) for name in pair)
        names = [axis.options.matches or axis.name for axis in (x, y)]
        shared = {f"share{axis.letter}": axes_of.get(name) for axis, name in zip((x, y), names, strict=True)}
        axes = canvas.add_axes((0, 0, 1, 1), label="-".join(pair), **shared)
        # One that lies over another must not hide it, nor shapes that lie below all.
        see_through = x.options.overlaying or y.options.overlaying or layout.plot_bgcolor == layout.paper_bgcolor
        axes.set_facecolor("none" if see_through else css(layout.plot_bgcolor or "white"))
        axes.spines[:].set_visible(False)
        for axis, name in zip((x, y), names, strict=True):
            axes_of.setdefault(name, axes)
            if axis.log:
                axes.set(**{f"{axis.letter}scale": "log"})
        sheet.subplots[pair] = Subplot(axes, x, y)
    sheet.place()
    return sheet


def _axis(layout: go.Layout, name: str, traces: Sequence[Any]) -> Axis:
    letter: Letter = "x" if name[0] == "x" else "y"
    options = options_of(layout, name)
    if options.type not in _KINDS:
        msg = f"An axis of this figure is of the kind {options.type!r}, which cannot be drawn for print."
        raise CannotDrawError(msg)
    said: list[Any] = []
    named = options.type == "category"
    for trace in traces:
        if (trace[f"{letter}axis"] or letter) != name:
            continue
        values = values_of(trace, letter)
        said.extend(values)
        named = named or not _are_numbers(values) or (trace.type == "violin" and trace[letter] is None)
    return Axis(letter, name, options, _categories(options, said) if named else None)


def _are_numbers(values: Any) -> bool:
    kept = np.asarray(values)
    if kept.dtype.kind in "mM":
        msg = "An axis of this figure holds dates, which cannot be drawn for print."
        raise CannotDrawError(msg)
    try:
        kept.astype(float)
    except (TypeError, ValueError):
        return False
    return True


def _categories(options: Any, said: list[Any]) -> tuple[str, ...]:
    order, names = options.categoryorder, list(dict.fromkeys(_name(value) for value in said if value is not None))
    if many(options.categoryarray):
        names = list(dict.fromkeys([*map(_name, options.categoryarray), *names]))
    elif order in ("category ascending", "category descending"):
        names.sort(reverse=order.endswith("descending"))
    elif order not in (None, "trace", "array"):
        msg = f"An axis of this figure is ordered by {order!r}, which cannot be drawn for print."
        raise CannotDrawError(msg)
    return tuple(names)


def _name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)


def _domain(layout: go.Layout, axis: Axis) -> tuple[float, float]:
    under = axis.options.overlaying
    options = options_of(layout, under) if under and under != "free" else axis.options
    return options.domain or (0.0, 1.0)
