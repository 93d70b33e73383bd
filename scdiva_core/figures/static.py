"""Plotly figures as PNG and SVG, drawn by matplotlib: no browser, no network, fit for print."""

from __future__ import annotations

import html
import io
import re
import threading
from typing import Any, Literal

import matplotlib
import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_INCH = 96.0  # a plotly pixel is a CSS pixel
_POINT = 0.75  # points in a pixel
_MARKERS = {"circle": "o", "diamond": "D", "cross": "P"}
_LEGEND_ROWS = 26
# matplotlib's settings are global to the process, and pages draw in several threads.
_SETTINGS = threading.Lock()


def render(
    figure: go.Figure,
    kind: Literal["png", "svg"],
    *,
    width: int = 900,
    height: int = 720,
    dpi: int = 300,
) -> bytes:
    """Draw a scatter or violin figure of this package as a file.

    Parameters
    ----------
    figure
        Made by `scdiva_core.figures`.
    kind
        ``"png"`` or ``"svg"``. In an SVG the points are one embedded picture, the text stays text:
        a vector point a cell would make files no program opens.
    width, height
        Plotly pixels, 96 to the inch.
    dpi
        Resolution of the PNG, and of the points in the SVG.

    Returns
    -------
    bytes
        The same figure gives the same bytes.
    """
    layout = figure.layout
    # Text as text, and ids that do not change from one export to the next.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "scdiva", "font.size": 9, "axes.linewidth": 0.6}
    with _SETTINGS, matplotlib.rc_context(settings):
        canvas = Figure(figsize=(width / _INCH, height / _INCH), layout="constrained")
        canvas.set_facecolor(layout.paper_bgcolor or "white")
        _draw(canvas, figure)
        _title(canvas, layout)
        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        canvas.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return file.getvalue()


def plain(text: str | None) -> str:
    """Text of a figure without plotly's markup, entities resolved."""
    lines = re.sub(r"<br\s*/?>", "\n", text or "")
    # A dollar sign would start a formula in matplotlib.
    return html.unescape(re.sub(r"</?(?:b|i|span)\b[^>]*>", "", lines)).replace("$", r"\$")


def _draw(canvas: Figure, figure: go.Figure) -> None:
    violins = [trace for trace in figure.data if trace.type == "violin"]
    if violins:
        for axes, trace in zip(np.atleast_1d(canvas.subplots(1, len(violins))), violins, strict=True):
            _violin(axes, trace, figure.layout)
    else:
        _scatter(canvas.subplots(), figure)


def _title(canvas: Figure, layout: go.Layout) -> None:
    heading, _, note = plain(layout.title.text).partition("\n")
    if heading:
        canvas.suptitle(heading, x=0.01, ha="left", fontsize=12, color=layout.font.color)
    if note:
        warning = re.search(r"color:(#\w{6})", layout.title.text)
        colour = warning[1] if warning else layout.font.color
        canvas.axes[0].set_title(note, loc="left", fontsize=9, color=colour)


def _scatter(axes: Axes, figure: go.Figure) -> None:
    layout = figure.layout
    legend = []
    for trace in figure.data:
        drawn = _points(axes, trace)
        if trace.showlegend is not False:
            legend.append((trace.legendrank or 1000, trace))
        if trace.marker.colorbar.title.text:
            bar = axes.figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=30, pad=0.01)
            bar.set_label(plain(trace.marker.colorbar.title.text), color=layout.font.color)
            bar.ax.tick_params(colors=layout.font.color)
            bar.outline.set_visible(False)
    _plane(axes, layout)
    for note in layout.annotations:
        _name(axes, note)
    if legend:
        _legend(axes, [trace for _, trace in sorted(legend, key=lambda item: item[0])], layout)


def _points(axes: Axes, trace: Any) -> Any:
    marker = trace.marker
    options: dict[str, Any] = {"color": marker.color}
    if marker.colorscale:
        stops = [(position, _css(colour)) for position, colour in marker.colorscale]
        scale = matplotlib.colors.LinearSegmentedColormap.from_list("scale", stops)
        options = {"c": np.asarray(marker.color, dtype=float), "cmap": scale, "vmin": marker.cmin, "vmax": marker.cmax}
    return axes.scatter(
        np.asarray(trace.x, dtype=float),
        np.asarray(trace.y, dtype=float),
        s=(float(marker.size) * _POINT) ** 2,
        alpha=marker.opacity,
        marker=_MARKERS[marker.symbol or "circle"],
        linewidths=0,
        rasterized=True,
        **options,
    )


def _css(colour: str) -> Any:
    """Convert a colour of a plotly scale, written ``#rrggbb`` or ``rgb(r, g, b)``."""
    if colour.startswith("rgb"):
        return tuple(float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3])
    return colour


def _plane(axes: Axes, layout: go.Layout) -> None:
    axes.set_facecolor(layout.plot_bgcolor or "white")
    axes.set(xticks=[], yticks=[], xlim=layout.xaxis.range, ylim=layout.yaxis.range)
    axes.set_xlabel(plain(layout.xaxis.title.text), loc="left", color=layout.font.color)
    axes.set_ylabel(plain(layout.yaxis.title.text), loc="bottom", color=layout.font.color)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(layout.xaxis.linecolor)


def _name(axes: Axes, note: Any) -> None:
    box = {"facecolor": note.bgcolor, "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.text(
        note.x,
        note.y,
        plain(note.text),
        ha="center",
        va="center",
        fontsize=8,
        color=note.font.color,
        bbox=box,
    )


def _legend(axes: Axes, traces: list[Any], layout: go.Layout) -> None:
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=_MARKERS[trace.marker.symbol or "circle"],
            color=trace.marker.color,
            label=plain(trace.name),
        )
        for trace in traces
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        labelcolor=layout.font.color,
        handletextpad=0.2,
        ncols=-(-len(handles) // _LEGEND_ROWS),
    )


def _violin(axes: Axes, trace: Any, layout: go.Layout) -> None:
    values = np.asarray(trace.y, dtype=float)
    axes.set_facecolor(layout.plot_bgcolor or "white")
    # A kernel density needs spread; a constant is a line.
    if len(values) > 1 and np.ptp(values) > 0:
        body = axes.violinplot(values, showextrema=False, widths=0.8)["bodies"][0]
        body.set(facecolor=trace.line.color, edgecolor=trace.line.color, alpha=0.5, rasterized=True)
    if len(values):
        axes.boxplot(
            values,
            widths=0.12,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": layout.plot_bgcolor or "white", "edgecolor": trace.line.color},
            medianprops={"color": trace.line.color},
            whiskerprops={"color": trace.line.color},
            capprops={"color": trace.line.color},
        )
    axes.set_xticks([1], [plain(trace.name)])
    axes.set_ylim(bottom=min(0.0, float(values.min())) if len(values) else 0.0)
    axes.tick_params(colors=layout.font.color)
    axes.grid(axis="y", color=layout.yaxis.gridcolor, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
