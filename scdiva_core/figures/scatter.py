"""Cells as points on a plane, coloured by a category or by a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from scdiva_core.figures.layout import base_layout, plain_axis
from scdiva_core.figures.palette import MAX_CATEGORIES, VALUE_SCALE, category_style, theme
from scdiva_core.figures.text import escaped, shortened

_MAX_NAMES_ON_PICTURE = 40
_TOOL_BAR = 36  # pixels of plotly's tool bar, which a touch screen shows all the time


@dataclass(frozen=True)
class Canvas:
    """What a scatter figure shows besides the colours.

    Parameters
    ----------
    title
        What the picture shows.
    axes
        Labels of the two axes.
    note
        Warning that must travel with the picture; empty for none.
    height
        Pixels.
    dark
        For a dark page.
    point_size
        Factor on the size that fits the number of cells.
    narrow
        For narrow places: the legend below the picture instead of beside it, the title below the tool bar.
    """

    title: str = ""
    axes: tuple[str, str] = ("UMAP 1", "UMAP 2")
    note: str = ""
    height: int = 620
    dark: bool = False
    point_size: float = 1.0
    narrow: bool = False


def point_style(n_cells: int, factor: float = 1.0) -> tuple[float, float]:
    """Diameter in pixels and opacity of a point, smaller and fainter the more there are (our choice)."""
    size = float(np.clip(260 / np.sqrt(max(n_cells, 1)), 1.6, 9.0))
    opacity = float(np.clip(1.15 - 0.1 * np.log10(max(n_cells, 10)), 0.45, 0.95))
    return round(size * factor, 2), round(opacity, 2)


def category_scatter(
    coordinates: NDArray[np.floating],
    codes: NDArray[np.integer],
    labels: Sequence[str],
    *,
    names: Sequence[str],
    shown: NDArray[np.bool_] | None = None,
    names_on_picture: bool = False,
    canvas: Canvas | None = None,
) -> go.Figure:
    """Colour cells by category, one trace a category, the largest drawn first so that rare ones stay visible.

    Parameters
    ----------
    coordinates
        Float ``[n_cells, 2]``.
    codes
        Int ``[n_cells]``: index into `labels`, -1 for none.
    labels
        Name of each category. The colour belongs to the position, so a filter does not change it.
    names
        ``[n_cells]``, shown on hover.
    shown
        Bool ``[n_cells]``; the others are drawn grey, behind. None shows all.
    names_on_picture
        Write each category's name at the median of its cells.
    canvas
        Title, axes, size.

    Returns
    -------
    Figure
        Names are escaped: markup in a label is drawn, not read.
    """
    shown = np.ones(len(codes), dtype=bool) if shown is None else shown
    paint = _Painter(coordinates, names, canvas or Canvas())
    paint.dimmed(~shown)
    counts = np.bincount(codes[shown & (codes >= 0)], minlength=len(labels))
    together = _too_many(counts)
    paint.grey(shown & (codes < 0), "no label", MAX_CATEGORIES + 2)
    for index in np.argsort(-counts, kind="stable"):
        if counts[index] and index not in together:
            paint.category(shown & (codes == index), str(labels[index]), int(index))
    paint.grey(shown & np.isin(codes, together), f"other ({len(together)} categories)", MAX_CATEGORIES + 1)
    if names_on_picture and np.count_nonzero(counts) <= _MAX_NAMES_ON_PICTURE:
        for index in np.flatnonzero(counts):
            paint.name(shown & (codes == index), str(labels[index]))
    return paint.figure


def value_scatter(
    coordinates: NDArray[np.floating],
    values: NDArray[np.floating],
    *,
    value_label: str,
    names: Sequence[str],
    shown: NDArray[np.bool_] | None = None,
    canvas: Canvas | None = None,
) -> go.Figure:
    """Colour cells by a number, high values drawn last; cells without one are grey.

    Parameters
    ----------
    coordinates
        Float ``[n_cells, 2]``.
    values
        Float ``[n_cells]``, NaN for none.
    value_label
        What the number is, with its unit; stands beside the colour bar and in the hover text.
    names
        ``[n_cells]``, shown on hover.
    shown
        Bool ``[n_cells]``; the others are drawn grey, behind. None shows all.
    canvas
        Title, axes, size.
    """
    values = np.asarray(values, dtype=float)
    shown = np.ones(len(values), dtype=bool) if shown is None else shown
    known = np.isfinite(values)
    paint = _Painter(coordinates, names, canvas or Canvas())
    paint.dimmed(~shown)
    paint.grey(shown & ~known, "no value", 1)
    rows = np.flatnonzero(shown & known)
    rows = rows[np.argsort(values[rows], kind="stable")]
    limits = (values[known].min(), values[known].max()) if known.any() else (0.0, 1.0)
    paint.values(rows, values, value_label, limits)
    return paint.figure


class _Painter:
    """Adds traces to one figure of the given cells."""

    def __init__(self, coordinates: NDArray[np.floating], names: Sequence[str], canvas: Canvas) -> None:
        # Single precision: half the bytes to the browser.
        self.coordinates = np.asarray(coordinates, dtype=np.float32)
        self.names, self.canvas = names, canvas
        self.colours = theme(dark=canvas.dark)
        self.size, self.opacity = point_style(len(coordinates), canvas.point_size)
        self.figure = go.Figure(
            layout=base_layout(title=canvas.title, note=canvas.note, height=canvas.height, dark=canvas.dark)
        )
        if canvas.narrow:
            self.figure.update_layout(title_y=1 - _TOOL_BAR / canvas.height, margin_t=62 + _TOOL_BAR)
        for axis, label, column in zip(("xaxis", "yaxis"), canvas.axes, self.coordinates.T, strict=True):
            self.figure.update_layout({axis: {**plain_axis(label, self.colours), "range": _padded(column)}})
        self.figure.update_layout(
            dragmode="lasso",
            legend={
                "itemsizing": "constant",
                "tracegroupgap": 0,
                "font": {"size": 12},
                **_legend_place(canvas),
            },
            newselection={"line": {"color": self.colours.text, "width": 1.5, "dash": "dot"}},
        )

    def dimmed(self, cells: NDArray[np.bool_]) -> None:
        if cells.any():
            marker = {"size": self.size, "color": self.colours.dimmed}
            self._add(cells, "filtered out", marker, hoverinfo="skip", showlegend=False)

    def grey(self, cells: NDArray[np.bool_], label: str, rank: int) -> None:
        if cells.any():
            marker = {"size": self.size, "opacity": self.opacity, "color": self.colours.missing}
            self._add(cells, label, marker, legendrank=rank, **self._hover(cells, "<b>%{meta}</b>"))

    def category(self, cells: NDArray[np.bool_], label: str, index: int) -> None:
        colour, symbol = category_style(index, dark=self.canvas.dark)
        size = self.size if symbol == "circle" else self.size * 1.25  # the others look smaller than a disc
        marker = {"size": size, "opacity": self.opacity, "color": colour, "symbol": symbol}
        self._add(cells, label, marker, legendrank=index + 1, **self._hover(cells, "<b>%{meta}</b>"))

    def values(
        self,
        rows: NDArray[np.integer],
        values: NDArray[np.floating],
        label: str,
        limits: tuple[float, float],
    ) -> None:
        title = {"text": escaped([label])[0], "side": "right", "font": {"size": 12}}
        marker = {
            "size": self.size,
            "opacity": self.opacity,
            "color": np.round(values[rows], 4),
            "colorscale": VALUE_SCALE,
            "cmin": limits[0],
            "cmax": limits[1],
            "colorbar": {"title": title, "thickness": 12, "outlinewidth": 0, "len": 0.8},
        }
        hover = self._hover(rows, "%{meta}: <b>%{marker.color:.4~g}</b>")
        self._add(rows, label, marker, showlegend=False, **hover)

    def name(self, cells: NDArray[np.bool_], label: str) -> None:
        x, y = np.median(self.coordinates[cells], axis=0)
        self.figure.add_annotation(
            x=float(x),
            y=float(y),
            text=shortened(label, 22),
            showarrow=False,
            font={"size": 12, "color": self.colours.text},
            bgcolor=self.colours.background,
            borderpad=1,
            opacity=0.85,
        )

    def _hover(self, rows: NDArray, what: str) -> dict[str, object]:
        names = np.asarray(self.names, dtype=object)[rows]
        return {"text": escaped(names), "hovertemplate": f"%{{text}}<br>{what}<extra></extra>"}

    def _add(self, rows: NDArray, label: str, marker: dict[str, object], **options: object) -> None:
        trace = go.Scattergl(
            x=self.coordinates[rows, 0],
            y=self.coordinates[rows, 1],
            mode="markers",
            name=shortened(label),
            meta=escaped([label])[0],
            marker=marker,
            unselected={"marker": {"opacity": 0.15}},
            **options,
        )
        self.figure.add_trace(trace)


def _legend_place(canvas: Canvas) -> dict[str, object]:
    if canvas.narrow:
        return {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.08, "yanchor": "top"}
    return {"x": 1.01, "y": 1}


def _padded(column: NDArray[np.floating]) -> list[float]:
    """Range of an axis, fixed so that a filter or a colour does not move the picture."""
    finite = column[np.isfinite(column)]
    if not len(finite):
        return [0.0, 1.0]
    low, high = float(finite.min()), float(finite.max())
    margin = 0.04 * (high - low) or 1.0
    return [low - margin, high + margin]


def _too_many(counts: NDArray[np.integer]) -> NDArray[np.integer]:
    """Categories to be drawn as one: the smallest, as soon as there are more than can be told apart."""
    if len(counts) <= MAX_CATEGORIES:
        return np.zeros(0, dtype=int)
    return np.argsort(-counts, kind="stable")[MAX_CATEGORIES - 1 :]
