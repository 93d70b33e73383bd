"""One gene as measured and as denoised, group by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from scdiva_core.figures import parts
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.perturbation_bars import headed

MOST_GROUPS = 12
"""Groups drawn at most, those with the most cells; more would fill several screens."""

_ROW = 64
_SHIFT, _WIDTH = 0.17, 0.3  # of a row
_SIDES = ("as measured", "denoised")


def before_after(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    groups: Sequence[str | None],
    *,
    title: str = "",
    dark: bool = False,
) -> go.Figure:
    """Draw a gene's values in each group of cells, as measured and denoised.

    Parameters
    ----------
    before, after
        Float ``[n_cells]``, log1p, of the cells that express the gene.
    groups
        Group of each cell; cells without one (None or NaN) are left out.
    title
        Which gene.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Two violins with boxes a group, the largest group first, at most `MOST_GROUPS`.
    """
    names = np.array([str(group) if group is not None and group == group else "" for group in groups], object)
    found, counts = np.unique(names[names != ""].astype(str), return_counts=True)
    if not len(found):
        return parts.sentence("No cell with a group expresses the gene.", title=title, dark=dark)
    order = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    figure = go.Figure()
    for side, (what, values) in enumerate(zip(_SIDES, (before, after), strict=True)):
        colour = category_style(side, dark=dark)[0]
        for height, group in enumerate(found[order[::-1]]):
            own = np.asarray(values, float)[names == group]
            figure.add_violin(
                x=own,
                y=np.full(len(own), height + _SHIFT * (1 - 2 * side) - 0.1),
                orientation="h",
                width=_WIDTH,
                name=what,
                legendgroup=what,
                showlegend=height == 0,
                line={"color": colour, "width": 1.2},
                fillcolor=parts.faint(colour),
                box={"visible": True},
                points=False,
                scalemode="width",
                spanmode="hard",
                hoverinfo="x+name",
            )
    left = f", the {MOST_GROUPS} largest of {len(found):,} groups" if len(found) > MOST_GROUPS else ""
    headed(figure, title, f"Values in the cells that express it{left}", height=60 + _ROW * len(order), dark=dark)
    parts.style_axis(figure, "x", "log1p of counts per 10,000", dark=dark, rangemode="tozero")
    cells = [f"{found[place]} ({counts[place]:,} {'cell' if counts[place] == 1 else 'cells'})" for place in order]
    parts.name_rows(figure, cells, dark=dark)
    figure.update_yaxes(showgrid=False)
    figure.update_annotations(yshift=_ROW / 2 - 8, bgcolor=theme(dark=dark).background)
    return figure.update_layout(violinmode="overlay", margin={"l": 12, "r": 24}, dragmode=False)
