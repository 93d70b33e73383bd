"""Colours that stand for numbers: one scale for each trace, or one that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from numpy.typing import NDArray

from scdiva_core.figures.static_style import CannotDrawError, css, many


@dataclass(frozen=True)
class Scale:
    """Colours for numbers.

    Parameters
    ----------
    mappable
        Of matplotlib: colours and limits.
    bar
        Plotly's options of its colour bar; None where there is none.
    """

    mappable: ScalarMappable
    bar: Any

    def colours(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """RGBA ``[n, 4]`` of numbers; those without a value are invisible."""
        return self.mappable.to_rgba(np.ma.masked_invalid(values))


def numbers_of(trace: Any) -> NDArray[np.floating] | None:
    """Numbers that a trace shows as colours; None if its colours are colours."""
    if trace.type == "heatmap":
        return np.asarray(trace.z, dtype=float)
    colour = trace.marker.color if trace.type in ("scatter", "scattergl", "bar") else None
    if not many(colour):
        return None
    try:
        return np.asarray(colour, dtype=float)
    except ValueError:
        return None


def scales(figure: go.Figure) -> dict[int | str, Scale]:
    """Make the scales of a figure, by place of the trace in the figure or by name of the shared one.

    Raises
    ------
    CannotDrawError
        Numbers are to be colours, and the figure does not say which.
    """
    shared: dict[str, list[NDArray[np.floating]]] = {}
    found: dict[int | str, Scale] = {}
    for place, trace in enumerate(figure.data):
        values = numbers_of(trace)
        if values is None:
            continue
        options = trace if trace.type == "heatmap" else trace.marker
        if options.coloraxis:
            shared.setdefault(options.coloraxis, []).append(values.ravel())
        else:
            given = trace.type == "heatmap" or bool(options.colorbar.to_plotly_json())
            found[place] = _scale(options, values, shown=given if options.showscale is None else options.showscale)
    for name, parts in shared.items():
        options = figure.layout[name]
        found[name] = _scale(options, np.concatenate(parts), shown=options.showscale is not False)
    return found


def scale_of(trace: Any, place: int, found: dict[int | str, Scale]) -> Scale | None:
    """Scale of a trace among those of its figure; None for a trace without."""
    if numbers_of(trace) is None:
        return None
    options = trace if trace.type == "heatmap" else trace.marker
    return found[options.coloraxis or place]


def _scale(options: Any, values: NDArray[np.floating], *, shown: bool) -> Scale:
    if not options.colorscale:
        msg = "This figure colours numbers without a colour scale, so it cannot be drawn for print."
        raise CannotDrawError(msg)
    letter = "z" if hasattr(options, "zmin") else "c"
    low, high, middle = (options[f"{letter}{end}"] for end in ("min", "max", "mid"))
    known = values[np.isfinite(values)]
    low = low if low is not None else (known.min() if len(known) else 0.0)
    high = high if high is not None else (known.max() if len(known) else 1.0)
    if middle is not None:
        reach = max(high - middle, middle - low)
        low, high = middle - reach, middle + reach
    colours = _colormap(options.colorscale, reverse=bool(options.reversescale))
    limits = Normalize(float(low), float(high) if high > low else float(low) + 1.0)
    return Scale(ScalarMappable(limits, colours), options.colorbar if shown else None)


def _colormap(stops: Any, *, reverse: bool) -> Colormap:
    listed = [(float(position), css(colour)) for position, colour in stops]
    if reverse:
        listed = [(1 - position, colour) for position, colour in reversed(listed)]
    return LinearSegmentedColormap.from_list("scale", listed)
