"""Plotly's templates: what a figure does not say itself, its template says."""

from __future__ import annotations

import re
from typing import Any

import plotly.graph_objects as go


def resolved(figure: go.Figure) -> go.Figure:
    """Write what the template of a figure says into the figure; the given one stays as it is.

    Parameters
    ----------
    figure
        ``go.Figure()`` brings the template "plotly" along, and what it says stays where "none" is set later.
    """
    template = figure.layout.template
    if not template.to_plotly_json():
        return figure
    usual = template.layout.to_plotly_json()
    own = figure.layout.to_plotly_json()
    own.pop("template")
    notes, shapes = usual.pop("annotationdefaults", {}), usual.pop("shapedefaults", {})
    layout = _merged(usual, own)
    for key, axis in own.items():
        if re.fullmatch(r"[xy]axis\d+", key):
            layout[key] = _merged(usual.get(key[:5], {}), axis)
    for key, defaults in (("annotations", notes), ("shapes", shapes)):
        layout[key] = [_merged(defaults, item) for item in own.get(key, ())]
    made = go.Figure(layout={"template": "none"} | layout)
    made.add_traces([_trace(trace, template) for trace in figure.data])
    return made


def _trace(trace: Any, template: Any) -> Any:
    usual = template.data[trace.type]
    if not usual:
        return trace
    own = trace.to_plotly_json()
    made = type(trace)(_merged(usual[0].to_plotly_json(), own))
    marker = own.get("marker", {})
    # A colour bar is shown where the figure itself speaks of one.
    if trace.type in ("scatter", "scattergl", "bar") and "showscale" not in marker:
        made.marker.showscale = "colorbar" in marker
    return made


def _merged(usual: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = dict(usual)
    for key, value in own.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found
