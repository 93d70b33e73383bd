"""Plotly's lines whose markers point along them, by matplotlib: arrows, whatever the shape of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from scdiva_core.figures.static_style import POINT, CannotDrawError, css, dashes

_HALF, _LONG = np.cos(0.4 * np.pi), np.sin(0.4 * np.pi)  # width and length of plotly's arrow, in its size
_BACK = 0.9  # of the head that its line leaves free
_BAR = 0.7  # half of plotly's bar, in its size


def points_along(trace: Any) -> bool:
    """Whether the markers of a trace turn with its line."""
    return trace.type == "scatter" and trace.marker.angleref == "previous"


def draw_arrows(
    axes: Axes, trace: Any, x: NDArray[np.floating], y: NDArray[np.floating], colour: str, zorder: float
) -> None:
    """Draw a trace of arrows, each of two points and a gap.

    Parameters
    ----------
    axes
        Where.
    trace
        Of lines and markers; of sizes and standoffs those of the second points count.
    x, y
        Its points.
    colour
        Of a trace that names none.
    zorder
        What lies over it is drawn later.

    Raises
    ------
    CannotDrawError
        Lines have more points, or heads that are neither arrows nor bars.
    """
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return
    if len(x) % 3 or known[2::3].any() or not (known[::3] & known[1::3]).all():
        msg = "Arrows that are not of two points and a gap cannot be drawn for print."
        raise CannotDrawError(msg)
    head, width = trace.marker.symbol, 2.0 if trace.line.width is None else trace.line.width
    if head not in ("arrow", "line-ew"):
        msg = f"Arrows with the head {head!r} cannot be drawn for print."
        raise CannotDrawError(msg)
    ends = np.column_stack([x, y]).reshape(-1, 3, 2)[:, :2]
    axes.update_datalim(ends.reshape(-1, 2))
    sizes, gaps = (
        np.broadcast_to(np.asarray(usual if given is None else given, float), len(x))[1::3]
        for given, usual in ((trace.marker.size, 6), (trace.marker.standoff, 0))
    )
    paint = css(trace.line.color or colour, trace.opacity)
    bars = head == "line-ew"
    back = gaps if bars else gaps + _BACK * _LONG * sizes
    line = {"colors": [paint], "linewidths": width * POINT, "linestyles": [dashes(trace.line.dash, width)]}
    thick = (trace.marker.line.width or 1) * POINT if bars else 0
    heads = _Heads(ends, gaps, sizes, bars=bars, facecolors=[paint], edgecolors=[paint], linewidths=thick)
    for part in (_Lines(ends, back, **line), heads):
        part.set(zorder=zorder, in_layout=False, transform=IdentityTransform())
        axes.add_collection(part, autolim=False)


def _pixels(
    axes: Axes, ends: NDArray[np.floating], gaps: NDArray[np.floating], unit: float
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Starts, tips and directions ``[n, 2]`` as they are drawn now; `unit` is one of plotly's pixels."""
    starts, tips = axes.transData.transform(ends.reshape(-1, 2)).reshape(-1, 2, 2).swapaxes(0, 1)
    ways = tips - starts
    ways = ways / np.maximum(np.hypot(*ways.T), 1e-9)[:, None]
    return starts, tips - ways * gaps[:, None] * unit, ways


class _Lines(LineCollection):
    """Lines that end before their second points."""

    def __init__(self, ends: NDArray[np.floating], gaps: NDArray[np.floating], **style: Any) -> None:
        super().__init__([], **style)
        self.ends, self.gaps = ends, gaps

    def draw(self, renderer: RendererBase) -> None:
        starts, tips, _ = _pixels(self.axes, self.ends, self.gaps, renderer.points_to_pixels(POINT))
        self.set_segments(np.stack([starts, tips], axis=1))
        super().draw(renderer)


class _Heads(PolyCollection):
    """Triangles at the ends of lines, or with `bars` lines across them."""

    def __init__(
        self,
        ends: NDArray[np.floating],
        gaps: NDArray[np.floating],
        lengths: NDArray[np.floating],
        *,
        bars: bool,
        **style: Any,
    ) -> None:
        super().__init__([], **style)
        self.ends, self.gaps, self.lengths, self.bars = ends, gaps, lengths, bars

    def draw(self, renderer: RendererBase) -> None:
        unit = renderer.points_to_pixels(POINT)
        _, tips, ways = _pixels(self.axes, self.ends, self.gaps, unit)
        ways = ways * (unit * self.lengths)[:, None]
        across = ways[:, ::-1] * [-1, 1]
        if self.bars:
            corners = [tips - _BAR * across, tips + _BAR * across]
        else:
            base = tips - _LONG * ways
            corners = [tips, base - _HALF * across, base + _HALF * across]
        self.set_verts(np.stack(corners, axis=1))
        super().draw(renderer)
