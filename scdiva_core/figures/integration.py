"""What integration was worth: bars for each method, one panel a measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.parts import sentence, style_axis
from scdiva_core.figures.text import escaped

MEASURES = {"avg_bio": "Types held together (Avg-Bio)", "avg_batch": "Batches mixed (Avg-Batch)"}
"""Panels drawn unless others are asked for."""

_ROW_PIXELS = 30
_GAP = 0.3  # of the height between all panels, for the title of the next


def metric_bars(
    table: pd.DataFrame,
    names: Mapping[str, str],
    *,
    measures: Mapping[str, str] = MEASURES,
    highlighted: Sequence[str] = (),
    chance: Mapping[str, float] = MappingProxyType({}),
    note: str = "",
    dark: bool = False,
) -> go.Figure:
    """One bar a method, one panel a measure, one below the other so that the figure may be narrow.

    Parameters
    ----------
    table
        A row for each method: ``method``, the measures (0 to 1, higher is better) and perhaps ``<measure>_std``. A
        measure that is not there, or NaN throughout, gets no panel.
    names
        Methods for people; a method that it lacks keeps its own name.
    measures
        Column -> title of its panel.
    highlighted
        Methods drawn in the first colour; the others in the second.
    chance
        Measure -> what it says of vectors that know nothing of their cells, a dotted line; none where it is missing.
    note
        A warning that must travel with the picture.
    dark
        For a dark page.
    """
    there = {name: title for name, title in measures.items() if name in table and table[name].notna().any()}
    if not there or not len(table):
        return sentence("Nothing was measured: without types nothing shows how well they hold together.", dark=dark)
    figure = make_subplots(
        rows=len(there), cols=1, subplot_titles=escaped(list(there.values())), vertical_spacing=_GAP / len(there)
    )
    labels = escaped([names.get(name, name) for name in table["method"]])
    colours = [category_style(0 if name in highlighted else 1, dark=dark)[0] for name in table["method"]]
    for row, name in enumerate(there, start=1):
        values = table[name].to_numpy(float)
        spread = table[f"{name}_std"].to_numpy(float) if f"{name}_std" in table else None
        figure.add_bar(
            x=values,
            y=labels,
            orientation="h",
            marker_color=colours,
            error_x=None if spread is None else {"type": "data", "array": spread},
            text=["" if np.isnan(value) else f"{value:.3f}" for value in values],
            textposition="inside",
            insidetextanchor="start",
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
        if name in chance:
            figure.add_vline(
                x=chance[name], row=row, col=1, line={"dash": "dot", "width": 1.5, "color": theme(dark=dark).text}
            )
    height = 70 + len(there) * (60 + _ROW_PIXELS * len(table))
    apply_layout(figure, title="", note=note, height=height, dark=dark)
    figure.update_layout(dragmode=False, margin={"l": 8, "r": 8, "t": 62 if note else 40, "b": 30})
    style_axis(figure, "x", "", dark=dark, range=[0, 1.02], fixedrange=True)
    style_axis(figure, "y", "", dark=dark, autorange="reversed", fixedrange=True)
    return figure
