"""Plotly's violins by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from scdiva_core.figures.static_axes import Sheet, Subplot, position_letter, values_of
from scdiva_core.figures.static_style import POINT, CannotDrawError, css

_LAYER = 2.0
_GAP = 0.3  # share of a position that plotly leaves free
_BOX = 0.25  # width of the box in widths of the violin, plotly's


def draw_violin(sheet: Sheet, subplot: Subplot, trace: Any, colour: str) -> None:
    """Draw one violin trace: a violin with its box at each of its positions.

    Parameters
    ----------
    sheet, subplot
        Where.
    trace
        ``violin``.
    colour
        Where it names none.

    Raises
    ------
    CannotDrawError
        It shows its points or is one of several at a position.
    """
    if trace.points not in (False, None) or trace.side not in (None, "both") or sheet.layout.violinmode == "group":
        msg = "Violins with points, with one side or beside each other at one place cannot be drawn for print."
        raise CannotDrawError(msg)
    letter = position_letter(trace)
    along, across = (subplot.x, subplot.y) if letter == "x" else (subplot.y, subplot.x)
    values = across.places(values_of(trace, across.letter))
    places = np.broadcast_to(along.places(values_of(trace, letter)), len(values) if trace[letter] is not None else 1)
    line = css(trace.line.color or colour, trace.opacity)
    face = css(trace.fillcolor) if trace.fillcolor else css(trace.line.color or colour, 0.5)
    upright = "vertical" if letter == "x" else "horizontal"
    for place in np.unique(places):
        own = values[places == place] if trace[letter] is not None else values
        own = own[np.isfinite(own)]
        if len(own):
            _one(subplot.axes, own, float(place), trace, {"line": line, "face": face, "upright": upright})


def _one(axes: Axes, values: NDArray[np.floating], place: float, trace: Any, style: dict[str, Any]) -> None:
    width = trace.width or (1 - _GAP)
    thick = (2 if trace.line.width is None else trace.line.width) * POINT
    # A kernel density needs spread.
    if len(values) > 1 and np.ptp(values) > 0:
        drawn = axes.violinplot(
            values,
            positions=[place],
            widths=width,
            showextrema=False,
            orientation=style["upright"],
            bw_method=_bandwidth if trace.bandwidth is None else trace.bandwidth / values.std(ddof=1),
        )
        drawn["bodies"][0].set(
            facecolor=style["face"],
            edgecolor=style["line"],
            linewidth=thick,
            alpha=None,
            zorder=_LAYER,
        )
    else:
        _across(axes, place, width / 2, values[0], style["upright"], color=style["line"], linewidth=thick)
    if trace.box.visible is not False and trace.box.to_plotly_json():
        thin = {"color": style["line"], "linewidth": thick}
        axes.boxplot(
            values,
            positions=[place],
            widths=width * (trace.box.width or _BOX),
            orientation=style["upright"],
            showfliers=False,
            showcaps=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": css(trace.box.fillcolor) if trace.box.fillcolor else style["face"]}
            | {"edgecolor": style["line"], "linewidth": thick},
            medianprops=thin,
            whiskerprops=thin,
            zorder=_LAYER + 0.1,
        )
    if trace.meanline.visible:
        _across(
            axes,
            place,
            width / 2,
            values.mean(),
            style["upright"],
            color=style["line"],
            linewidth=thick,
            linestyle="--",
        )


def _across(axes: Axes, place: float, half: float, value: float, upright: str, **style: Any) -> None:
    """Draw a line through a violin at a value."""
    along, at = [place - half, place + half], [value, value]
    axes.plot(*((along, at) if upright == "vertical" else (at, along)), zorder=_LAYER, **style)


def _bandwidth(density: Any) -> float:
    """Silverman's rule as plotly has it, in standard deviations."""
    values = density.dataset[0]
    spread, quartiles = values.std(ddof=1), np.subtract(*np.percentile(values, [75, 25])) / 1.349
    least = min(spread, quartiles) if quartiles > 0 else spread
    return float(1.059 * least * len(values) ** -0.2 / spread)
