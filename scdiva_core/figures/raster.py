"""More cells than a browser can hold: one picture made here, in the frame of the small view.

Cells are counted into pixels with numpy. Datashader does the same, but the first picture takes it ten seconds of
importing and compiling where numpy takes a third of one, and no less for the later ones.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_rgb
from matplotlib.image import imsave
from numpy.typing import NDArray
from plotly.colors import sample_colorscale
from scipy.ndimage import distance_transform_edt

from scdiva_core.figures.palette import MAX_CATEGORIES, VALUE_SCALE, category_style, theme
from scdiva_core.figures.scatter import Canvas, category_scatter, point_style, value_scatter

_WIDE, _NARROW = (800, 1280), (800, 720)  # rows and columns of the picture
_SHARP = 1.4  # pixels of the picture to one of a common screen
_FINE = 2.5  # times as many for print
_MOST_BYTES = 700_000  # of the PNG; a third more as text, and with the rest of the figure below 1 MB
_SMALLER = (1.0, 0.7, 0.4)
_SHADES = 15  # steps of opacity: more would not be seen, and make the file larger
_MIXED = 0.45  # how far the second and third round of colours lie from the first
_STEPS = 256  # colours of the scale


@dataclass(frozen=True)
class Window:
    """Part of a map, in its coordinates.

    Parameters
    ----------
    left, right, low, high
        Its edges.
    """

    left: float
    right: float
    low: float
    high: float

    def inside(self, coordinates: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which cells lie in it, bool ``[n_cells]``."""
        x, y = coordinates.T
        return (x >= self.left) & (x <= self.right) & (y >= self.low) & (y <= self.high)

    def frame(self, figure: go.Figure) -> None:
        """Let a figure show this part and no other, whatever was looked at before."""
        figure.update_layout(
            xaxis_range=[self.left, self.right], yaxis_range=[self.low, self.high], uirevision=str(self)
        )


def category_raster(
    coordinates: NDArray[np.floating],
    codes: NDArray[np.integer],
    labels: Sequence[str],
    *,
    shown: NDArray[np.bool_] | None = None,
    names_on_picture: bool = False,
    window: Window | None = None,
    canvas: Canvas | None = None,
    fine: bool = False,
) -> go.Figure:
    """Colour each pixel by the category that most of its cells have, stronger where there are more of them.

    Parameters
    ----------
    coordinates, codes, labels, shown, names_on_picture, canvas
        As for `category_scatter`. Shapes cannot be told apart in a picture, so that the second and third round of
        colours are darker and paler ones (on a dark page: paler and darker).
    window
        Part to be drawn; everything by default.
    fine
        For print; a figure that is not fine has less than 1 MB.

    Returns
    -------
    Figure
        One layout image, two invisible points so that it can be drawn around, and a trace without points for each
        entry of the legend, which counts the cells that are drawn.
    """
    canvas = canvas or Canvas()
    rows = _rows(coordinates, window)
    xy, codes = coordinates[rows], codes[rows]
    seen = np.ones(len(codes), bool) if shown is None else shown[rows]
    counts = np.bincount(codes[seen & (codes >= 0)], minlength=len(labels))
    order = np.argsort(-counts, kind="stable")
    apart = np.isin(np.arange(len(labels)), order[: _most_apart(len(labels))])
    rare = seen & (codes >= 0) & ~np.append(apart, False)[codes]
    unnamed = seen & (codes < 0)
    painted = seen & ~rare & ~unnamed
    figure = _category_frame(coordinates, xy, np.where(painted, codes, -1), rare, labels, names_on_picture, canvas)
    colours = [_colour(index, dark=canvas.dark) for index in range(len(labels))]
    _legend(figure, colours, counts, {"no label": int(unnamed.sum()), "other": int(rare.sum())})
    greys = theme(dark=canvas.dark)

    def paint(sheet: _Sheet) -> None:
        sheet.flat(~seen, greys.dimmed, opaque=True)
        sheet.flat(unnamed | rare, greys.missing)
        sheet.commonest(painted, codes, colours)

    return _placed(figure, xy, paint, window, canvas, fine=fine)


def value_raster(
    coordinates: NDArray[np.floating],
    values: NDArray[np.floating],
    *,
    value_label: str,
    shown: NDArray[np.bool_] | None = None,
    window: Window | None = None,
    canvas: Canvas | None = None,
    fine: bool = False,
) -> go.Figure:
    """Colour each pixel by the mean number of its cells; cells without one are grey, below the others.

    Parameters
    ----------
    coordinates, values, value_label, shown, canvas
        As for `value_scatter`, whose colours these are: a part of the map has the scale of the whole.
    window, fine
        As for `category_raster`.
    """
    canvas = canvas or Canvas()
    values = np.asarray(values, dtype=float)
    finite = values[np.isfinite(values)]
    limits = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    rows = _rows(coordinates, window)
    xy, values = coordinates[rows], values[rows]
    seen = np.ones(len(values), bool) if shown is None else shown[rows]
    known = np.isfinite(values)
    unknown = seen & ~known
    # Two cells of the least and the largest value bring axes, scale and colour bar; a third one the grey.
    points, numbers = _corners(coordinates), [*limits]
    if unknown.any():
        points, numbers = np.vstack([points, points[:1]]), [*numbers, np.nan]
    figure = value_scatter(points, np.array(numbers), value_label=value_label, names=[""] * len(points), canvas=canvas)
    _legend(figure, [], np.zeros(0, int), {"no value": int(unknown.sum())})
    greys = theme(dark=canvas.dark)

    def paint(sheet: _Sheet) -> None:
        sheet.flat(~seen, greys.dimmed, opaque=True)
        sheet.flat(unknown, greys.missing)
        sheet.mean(seen & known, values, limits)

    return _placed(figure, xy, paint, window, canvas, fine=fine)


class _Sheet:
    """A picture of cells in one plane; what is painted later covers what was painted before."""

    def __init__(
        self,
        xy: NDArray[np.floating],
        extent: tuple[float, float, float, float],
        shape: tuple[int, int],
        radius: float,
        opacity: float,
    ) -> None:
        left, right, low, high = extent
        height, width = shape
        across = np.clip((xy[:, 0] - left) * (width / (right - left)), 0, width - 1)
        down = np.clip((high - xy[:, 1]) * (height / (high - low)), 0, height - 1)
        self._pixels = down.astype(np.int64) * width + across.astype(np.int64)
        self._radius, self._opacity = radius, opacity
        self.rgba = np.zeros((height, width, 4), np.uint8)

    def flat(self, cells: NDArray[np.bool_], colour: str, *, opaque: bool = False) -> None:
        """Paint cells in one colour."""
        pixels = self._pixels[cells]
        self._lay(np.bincount(pixels, minlength=self._size), np.zeros(self._size, np.int64), [colour], opaque=opaque)

    def commonest(self, cells: NDArray[np.bool_], codes: NDArray[np.integer], colours: Sequence[str]) -> None:
        """Paint each pixel in the colour of its commonest code, of equally common ones the first."""
        pixels = self._pixels[cells]
        pairs = np.sort(pixels * len(colours) + codes[cells])
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        times = np.diff(np.append(starts, len(pairs)))
        places, kinds = np.divmod(pairs[starts], max(len(colours), 1))
        order = np.lexsort((-kinds, times, places))  # the commonest comes last, and is what stays written
        index = np.zeros(self._size, np.int64)
        index[places[order]] = kinds[order]
        self._lay(np.bincount(pixels, minlength=self._size), index, colours)

    def mean(self, cells: NDArray[np.bool_], values: NDArray[np.floating], limits: tuple[float, float]) -> None:
        """Paint each pixel in the colour of its mean value."""
        pixels, (low, high) = self._pixels[cells], limits
        counts = np.bincount(pixels, minlength=self._size)
        sums = np.bincount(pixels, weights=values[cells], minlength=self._size)
        share = (sums / np.maximum(counts, 1) - low) / ((high - low) or 1.0)
        self._lay(counts, np.clip(share * (_STEPS - 1), 0, _STEPS - 1).round().astype(np.int64), _scale())

    @property
    def _size(self) -> int:
        return self.rgba.shape[0] * self.rgba.shape[1]

    def _lay(
        self,
        counts: NDArray[np.integer],
        index: NDArray[np.integer],
        colours: Sequence[str],
        *,
        opaque: bool = False,
    ) -> None:
        """Draw a disc around each pixel that has cells, so that a lone cell is seen; nearer ones win."""
        if not counts.any():
            return
        height, width, _ = self.rgba.shape
        away, (row, column) = distance_transform_edt((counts == 0).reshape(height, width), return_indices=True)
        near = away <= self._radius
        source = row[near].astype(np.int64) * width + column[near]
        table = np.array([[round(255 * part) for part in _rgb(colour)] for colour in colours], np.uint8)
        top = max(np.percentile(counts[counts > 0], 99), 2)
        dense = np.clip(np.log(counts[source]) / np.log(top), 0, 1)
        alpha = np.ones(len(source)) if opaque else self._opacity + (1 - self._opacity) * dense
        self.rgba[near, :3] = table[index[source]]
        self.rgba[near, 3] = np.round(alpha * _SHADES) * (255 // _SHADES)


def _rows(coordinates: NDArray[np.floating], window: Window | None) -> NDArray[np.bool_]:
    return np.isfinite(coordinates).all(axis=1) if window is None else window.inside(coordinates)


def _most_apart(n_labels: int) -> int:
    """How many categories are drawn apart, as in the small view: one place is left for all others."""
    return n_labels if n_labels <= MAX_CATEGORIES else MAX_CATEGORIES - 1


def _corners(coordinates: NDArray[np.floating]) -> NDArray[np.floating]:
    finite = coordinates[np.isfinite(coordinates).all(axis=1)]
    return np.array([finite.min(axis=0), finite.max(axis=0)]) if len(finite) else np.array([[0.0, 0.0], [1.0, 1.0]])


def _category_frame(
    coordinates: NDArray[np.floating],
    xy: NDArray[np.floating],
    codes: NDArray[np.integer],
    rare: NDArray[np.bool_],
    labels: Sequence[str],
    names_on_picture: bool,
    canvas: Canvas,
) -> go.Figure:
    """Draw the small view for a few cells: two in the middle of each category, a rare one, two in the corners.

    Axes, legend and names on the picture then are what they are there.
    """
    drawn = np.unique(codes[codes >= 0])
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], [drawn, drawn + 1])
    middles = [np.median(xy[order[start:end]], axis=0) for start, end in ends.T]
    points = [*_corners(coordinates), *np.repeat(np.array(middles).reshape(-1, 2), 2, axis=0)]
    kinds = [-1, -1, *np.repeat(drawn, 2)]
    if rare.any():
        points.append(_corners(coordinates)[0])
        kinds.append(np.setdiff1d(np.arange(len(labels)), drawn)[0])
    return category_scatter(
        np.array(points),
        np.array(kinds, np.int64),
        labels,
        names=[""] * len(points),
        names_on_picture=names_on_picture,
        canvas=canvas,
    )


def _legend(figure: go.Figure, colours: Sequence[str], counts: NDArray[np.integer], greys: dict[str, int]) -> None:
    """Keep of the small view's traces what stands in the legend: a colour, a name, and here the number of cells."""
    for trace in figure.data:
        grey = next((name for name in greys if trace.name.startswith(name) and not _is_category(trace)), None)
        if grey is not None:
            count = greys[grey]
        elif _is_category(trace):
            index = trace.legendrank - 1
            count = int(counts[index])
            trace.update(marker={"color": colours[index], "symbol": "circle"})
        else:
            count = 0
        nowhere = [None] * len(trace.x)
        trace.update(x=nowhere, y=nowhere, text=None, hovertemplate=None, hoverinfo="skip")
        if trace.showlegend is not False:
            trace.update(name=f"{trace.name} · {count:,}", showlegend=count > 0)
    # A click on an entry would hide a trace without points, which looks like a fault.
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})


def _is_category(trace: go.Scattergl) -> bool:
    return trace.marker.symbol is not None


def _colour(index: int, *, dark: bool) -> str:
    colours = theme(dark=dark)
    colour, symbol = category_style(index, dark=dark)
    other = {"circle": None, "diamond": colours.text, "cross": colours.background}[symbol]
    if other is None:
        return colour
    mixed = (1 - _MIXED) * np.array(to_rgb(colour)) + _MIXED * np.array(to_rgb(other))
    return "#" + "".join(f"{round(255 * part):02X}" for part in mixed)


@lru_cache(maxsize=1)
def _scale() -> tuple[str, ...]:
    """Colours of the scale for numbers, as plotly mixes them."""
    return tuple(sample_colorscale(VALUE_SCALE, np.linspace(0, 1, _STEPS).tolist()))


def _rgb(colour: str) -> tuple[float, float, float]:
    if colour.startswith("rgb"):
        red, green, blue = (float(part) / 255 for part in colour[4:-1].split(","))
        return red, green, blue
    return to_rgb(colour)


def _without_webgl(figure: go.Figure) -> go.Figure:
    """Give the same figure with traces of plain kind: for the few points left, starting WebGL costs a browser most."""
    made = [{key: value for key, value in trace.to_plotly_json().items() if key != "type"} for trace in figure.data]
    return go.Figure([go.Scatter(trace) for trace in made], figure.layout)


def _placed(
    figure: go.Figure,
    xy: NDArray[np.floating],
    paint: Callable[[_Sheet], None],
    window: Window | None,
    canvas: Canvas,
    *,
    fine: bool,
) -> go.Figure:
    """Put the picture below the traces, as large as fits through the wire."""
    figure = _without_webgl(figure)
    if window is not None:
        window.frame(figure)
    (left, right), (low, high) = figure.layout.xaxis.range, figure.layout.yaxis.range
    size, opacity = point_style(len(xy), canvas.point_size)
    height, width = _NARROW if canvas.narrow else _WIDE
    for factor in (_FINE,) if fine else _SMALLER:
        shape = (round(height * factor), round(width * factor))
        sheet = _Sheet(xy, (left, right, low, high), shape, size / 2 * _SHARP * factor, opacity)
        paint(sheet)
        file = io.BytesIO()
        imsave(file, sheet.rgba, format="png")
        if file.tell() <= _MOST_BYTES:
            break
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
        **{"xref": "x", "yref": "y", "x": left, "y": high, "xanchor": "left", "yanchor": "top"},
        **{"sizex": right - left, "sizey": high - low, "sizing": "stretch", "layer": "below"},
    )
    # Plotly draws around points only: without any there would be no lasso.
    figure.add_trace(
        go.Scatter(
            x=[left, right],
            y=[low, high],
            mode="markers",
            marker={"opacity": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    return figure
