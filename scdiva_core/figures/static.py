"""Plotly figures as PNG and SVG, drawn by matplotlib: no browser, no network, fit for print."""

from __future__ import annotations

import io
import re
import threading
from typing import Any, Literal

import matplotlib
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from scdiva_core.figures.static_axes import Sheet, lay_out, visible
from scdiva_core.figures.static_bars import draw_bars
from scdiva_core.figures.static_heatmap import draw_heatmap
from scdiva_core.figures.static_images import draw_images
from scdiva_core.figures.static_legend import Entry, add_colour_bars, add_legend, entries
from scdiva_core.figures.static_marks import draw_annotations, draw_shapes
from scdiva_core.figures.static_points import draw_points
from scdiva_core.figures.static_sankey import draw_sankey
from scdiva_core.figures.static_scale import scale_of
from scdiva_core.figures.static_style import (
    INCH,
    POINT,
    CannotDrawError,
    css,
    font_colour,
    font_pixels,
    plain,
    usual_colour,
    wrapped,
)
from scdiva_core.figures.static_template import resolved
from scdiva_core.figures.static_ticks import dress, untangle
from scdiva_core.figures.static_violin import draw_violin

_EDGE = 6  # pixels that stay free around all
_ROUNDS = 4  # a wider margin moves the legend, which may need another
_NOTE = 12.0  # pixels of what stands below the title
_KINDS = ("scatter", "scattergl", "bar", "heatmap", "violin", "sankey")
# Matplotlib's settings are global to the process, and pages draw in several threads.
_SETTINGS = threading.Lock()


def render(
    figure: go.Figure,
    kind: Literal["png", "svg"],
    *,
    width: int = 900,
    height: int = 720,
    dpi: int = 300,
) -> bytes:
    """Draw a figure as a file.

    Parameters
    ----------
    figure
        Of scatter, bar, heatmap, violin and sankey traces.
    kind
        ``"png"`` or ``"svg"``. In an SVG the text stays text, and the points of ``scattergl`` traces are one embedded
        picture: a vector point a cell would make files no program opens.
    width, height
        Plotly pixels, 96 to the inch. Margins grow until nothing is cut.
    dpi
        Resolution of the PNG, and of the points in the SVG.

    Returns
    -------
    bytes
        The same figure gives the same bytes.

    Raises
    ------
    CannotDrawError
        The figure holds something that is not known here; better no picture than a wrong one.
    """
    for trace in figure.data:
        if trace.type not in _KINDS:
            msg = f"A figure of the kind {trace.type!r} cannot be drawn as PNG or SVG. Take it home as HTML."
            raise CannotDrawError(msg)
    figure = resolved(figure)
    # Text as text and of the same width at any resolution, and ids that do not change from one export to the next.
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "scdiva",
        "text.hinting": "none",
        "hatch.linewidth": 1.0,
    }
    with _SETTINGS, matplotlib.rc_context():
        matplotlib.rcdefaults()  # libraries change them on import, and users in a matplotlibrc
        matplotlib.rcParams.update(settings)
        canvas = Figure(figsize=(width / INCH, height / INCH), dpi=INCH)
        canvas.set_facecolor(css(figure.layout.paper_bgcolor or "white"))
        _compose(canvas, figure)
        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        canvas.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return file.getvalue()


def _compose(canvas: Figure, figure: go.Figure) -> None:
    renderer = FigureCanvasAgg(canvas).get_renderer()
    sheet = lay_out(canvas, figure)
    colours = [usual_colour(figure.layout, place) for place in range(len(figure.data))]
    draw_images(sheet)
    _draw(sheet, colours)
    draw_shapes(sheet)
    dress(sheet)
    draw_annotations(sheet)
    _fit(sheet, entries(sheet, colours), _title(sheet, renderer), renderer)


def _draw(sheet: Sheet, colours: list[str]) -> None:
    bars: dict[tuple[str, str], list[tuple[int, Any, str]]] = {}
    for place, trace in visible(sheet.figure):
        colour, scale = colours[place], scale_of(trace, place, sheet.scales)
        if trace.type == "sankey":
            draw_sankey(sheet, trace)
        elif trace.type == "bar":
            bars.setdefault((trace.xaxis or "x", trace.yaxis or "y"), []).append((place, trace, colour))
        elif trace.type == "heatmap":
            draw_heatmap(sheet, sheet.of(trace), trace, scale)
        elif trace.type == "violin":
            draw_violin(sheet, sheet.of(trace), trace, colour)
        else:
            draw_points(sheet, sheet.of(trace), trace, colour, scale)
    for pair, traces in bars.items():
        draw_bars(sheet, sheet.subplots[pair], traces)


def _title(sheet: Sheet, renderer: Any) -> float:
    """Write the title and, smaller, what stands below it; returns the height down to which nothing else may reach."""
    layout, title = sheet.layout, sheet.layout.title
    heading, _, note = plain(title.text).partition("\n")
    if title.subtitle.text:
        note = "\n".join(filter(None, [note, plain(title.subtitle.text)]))
    width, height = sheet.size
    x, y = 0.5 if title.x is None else title.x, 0.98 if title.y is None else title.y
    usual = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "center"
    side = usual if title.xanchor in (None, "auto") else title.xanchor
    room = {"left": 1 - x, "center": 2 * min(x, 1 - x), "right": x}[side] * width - _EDGE
    warning = re.search(r"color:\s*([^;'\"]+)", title.text or "")
    top, colour = y * height, font_colour(layout, title.font)
    styles = (
        (heading, font_pixels(layout, title.font, default=17), colour),
        (note, _NOTE, css(warning[1]) if warning else colour),
    )
    for text, pixels, paint in styles:
        if text:
            drawn = sheet.canvas.text(
                x, top / height, wrapped(text, room, pixels), ha=side, va="top", fontsize=pixels * POINT, color=paint
            )
            top = drawn.get_window_extent(renderer).y0 - _EDGE / 2
    return min(top if y > 0.5 else height, height - _EDGE)


def _fit(sheet: Sheet, named: list[Entry], top: float, renderer: Any) -> None:
    """Widen the margins until names, legend and colour bars have room."""
    width, _ = sheet.size
    limits = {"l": _EDGE, "b": _EDGE, "r": width - _EDGE, "t": top}
    bars: list[Axes] = []
    for last in range(_ROUNDS):
        for bar in bars:
            bar.remove()
        sheet.place()
        add_legend(sheet, named, renderer)
        bars = add_colour_bars(sheet)
        untangle(sheet, renderer)
        found = [box for axes in sheet.canvas.axes if (box := axes.get_tightbbox(renderer)) is not None]
        box = Bbox.union(found)
        lacking = {
            "l": limits["l"] - box.x0,
            "b": limits["b"] - box.y0,
            "r": box.x1 - limits["r"],
            "t": box.y1 - limits["t"],
        }
        if max(lacking.values()) < 1 or last == _ROUNDS - 1:
            return
        sheet.margins = {side: sheet.margins[side] + max(lacking[side], 0) for side in sheet.margins}
