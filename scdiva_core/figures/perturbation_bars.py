"""Figures of a perturbation's size: by group, against its null, and gene by gene of a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from scdiva_core.figures import parts
from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.text import escaped, shortened

SIGNIFICANT = 0.05
"""Adjusted p-value at or below which an effect counts as beyond random genes (convention)."""

_SHIFT = "mean shift (1 − cosine similarity)"
_TITLE_CHARACTERS = 60
_LINE_CHARACTERS = 64  # of the title's second line; as many as a phone's width nearly holds
_TITLE_TOP = 18  # pixels
_FEW_ROWS = 20  # up to here rows have their usual height
_CLOSE_ROW = 30  # pixels
_BAND, _BAR = 0.22, 0.3  # half the height of a null band, and height of a bar, in rows
_FAINT = 0.45  # opacity of a null band
_TEXT_ROOM = 1.28  # of the longest bar, for what is written at its end
_BINS = (10, 60)
_NAMED = 15
_NAME_ROOM = (0.12, 0.05)  # shares of width and height that a name takes
_GAP = "\N{NO-BREAK SPACE}"  # between a bar and what is written at its end
_SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def cells_of(count: float) -> str:
    """Count cells in words."""
    return "1 cell" if count == 1 else f"{int(count):,} cells"


def groups_of(count: int) -> str:
    """Count groups in words."""
    return "1 group" if count == 1 else f"{count:,} groups"


def headed(figure: go.Figure, title: str, says: str, *, height: int, dark: bool, legend: bool = True) -> go.Figure:
    """Give a figure a title that says what was perturbed and, below and smaller, what is shown.

    Parameters
    ----------
    figure
        Changed.
    title
        What was perturbed; without it the second line stands alone.
    says
        What the picture shows, in one sentence.
    height
        Pixels, without those of the title.
    dark
        For a dark page.
    legend
        Leave room for one between the title and the picture.
    """
    lines = [escaped([line])[0] for line in textwrap.wrap(says, _LINE_CHARACTERS)]
    head = shortened(title, _TITLE_CHARACTERS) or lines.pop(0)
    below = "<br>".join(lines)
    top = 44 + 16 * len(lines) + (42 if legend else 12)  # two lines of a legend, as on a phone
    apply_layout(figure, title="", note="", height=height + top, dark=dark)
    text = f"{head}<br><span style='font-size:12px'>{below}</span>" if below else head
    # A share of the height would push the title out of a low figure and into the legend of a high one.
    figure.update_layout(title={"text": text, "y": 1 - _TITLE_TOP / (height + top)})
    figure.update_layout(margin={"l": 56, "r": 12, "t": top, "b": 48}, legend=parts.LEGEND_ABOVE)
    return figure


def group_bars(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw how far the cells of each group shift, over the band in which random genes shift them.

    Parameters
    ----------
    table
        ``group``, ``n`` (reading cells), ``mean`` (shift, 1 - cosine similarity), ``null_mean``, ``null_low`` and
        ``null_high`` (5th and 95th percentile), ``p``, ``q``; NaN where a group was not tested.
    title
        What was perturbed.
    dark
        For a dark page.

    Returns
    -------
    Figure
        The largest shift first. Bars beyond random genes are solid, the others hatched, and each says its q.
    """
    drawn = table[np.isfinite(table["mean"])].sort_values("mean", ascending=False, kind="stable")
    if drawn.empty:
        return parts.sentence("No group has a cell that reads the gene.", title=title, dark=dark)
    figure, colours = go.Figure(), theme(dark=dark)
    heights = np.arange(len(drawn))[::-1]
    marker = {"color": colours.missing, "opacity": _FAINT, "symbol": "square", "size": 12}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name="90% of random genes, dotted their mean")
    hover = [_group_words(row) for row in drawn.to_dict("records")]
    _add_bars(figure, drawn["mean"], heights, drawn["q"], hover, dark=dark)
    rows = zip(drawn.to_dict("records"), heights, strict=True)
    bands = [shape for row, height in rows for shape in _null_band(row, height, dark=dark)]
    figure.update_layout(shapes=bands)
    clear = int((drawn["q"] <= SIGNIFICANT).sum())
    says = f"Mean shift of {groups_of(len(drawn))} of cells; {clear} beyond random genes"
    pixels = parts.ROW_PIXELS if len(drawn) <= _FEW_ROWS else _CLOSE_ROW
    headed(figure, title, says, height=80 + pixels * len(drawn), dark=dark)
    widest = max(float(np.nanmax(drawn[["mean", "null_high"]].to_numpy(float))), 1e-9)
    options = {"range": [0, _TEXT_ROOM * widest], "fixedrange": True}
    parts.style_axis(figure, "x", _SHIFT, dark=dark, **options)
    parts.name_rows(figure, list(map(str, drawn["group"])), dark=dark)
    return figure.update_layout(margin={"l": 12, "r": 24}, dragmode=False)


def null_histogram(null: ArrayLike, observed: float, p: float, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw the effects of matched random genes, and where the perturbed one lies among them.

    Parameters
    ----------
    null
        Float ``[m]``: mean shift of each random gene; those without one are left out.
    observed
        Mean shift of the perturbation.
    p
        Its empirical p-value; NaN when there is none.
    title
        What was perturbed.
    dark
        For a dark page.
    """
    null = np.asarray(null, float)
    null = null[np.isfinite(null)]
    if not len(null):
        return parts.sentence("There is no random gene to compare with.", title=title, dark=dark)
    n_bins = int(np.clip(len(np.histogram_bin_edges(null, "auto")) - 1, *_BINS))
    counts, edges = np.histogram(null, n_bins)
    colours, colour = theme(dark=dark), category_style(1, dark=dark)[0]
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": colours.missing, "line": {"color": colours.background, "width": 1}},
            customdata=[f"{low:.3g} to {high:.3g}" for low, high in zip(edges, edges[1:], strict=False)],
            hovertemplate="%{customdata}: %{y} random genes<extra></extra>",
            showlegend=False,
        )
    )
    sure = f", p {p:.2g}" if np.isfinite(p) else ""
    says = f"Mean shift with each of {len(null):,} matched random genes; line: this perturbation, {observed:.3g}{sure}"
    headed(figure, title, says, height=270, dark=dark, legend=False)
    low, high = min(edges[0], observed), max(edges[-1], observed)
    room = 0.06 * (high - low) or 1e-9
    parts.style_axis(figure, "x", _SHIFT, dark=dark, range=[low - room, high + room], fixedrange=True)
    top = 1.2 * float(counts.max())
    parts.style_axis(figure, "y", "random genes", dark=dark, range=[0, top], fixedrange=True)
    line = {"color": colour, "width": 3}
    figure.add_shape(type="line", x0=observed, x1=observed, y0=0, y1=top, line=line)
    side = "right" if observed > (low + high) / 2 else "left"
    return figure.add_annotation(
        x=observed, y=top, yanchor="top", xanchor=side, text=f" {observed:.3g}{sure} ", showarrow=False
    )


def screen_chart(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw the genes of a screen by how many cells read them and how far these shift.

    Parameters
    ----------
    table
        ``symbol``, ``detection`` (share of the cells that read the gene), ``effect`` (mean shift of these cells) and
        ``q``; genes that were refused have no effect and are counted in the title.
    title
        What was screened.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Both axes logarithmic. Genes beyond their matched random genes are diamonds, and the largest effects among
        them are named; the others are grey discs, those without q rings.
    """
    drawn = table[(table["effect"] > 0) & (table["detection"] > 0)]
    if drawn.empty:
        return parts.sentence("No gene of the screen has an effect to draw.", title=title, dark=dark)
    figure, colours = go.Figure(), theme(dark=dark)
    x, y, q = (drawn[column].to_numpy(float) for column in ("detection", "effect", "q"))
    names = np.array(escaped(drawn["symbol"]), dtype=object)
    clear = q <= SIGNIFICANT
    for genes, what, colour, symbol in (
        (np.isnan(q), "not tested", colours.missing, "circle-open"),
        (q > SIGNIFICANT, f"q > {SIGNIFICANT:g}", colours.missing, "circle"),
        (clear, f"q ≤ {SIGNIFICANT:g}", category_style(1, dark=dark)[0], "diamond"),
    ):
        figure.add_scatter(
            x=x[genes],
            y=y[genes],
            mode="markers",
            name=f"{what} ({genes.sum():,})",
            marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.85},
            text=names[genes],
            customdata=q[genes],
            hovertemplate="<b>%{text}</b><br>shift %{y:.3~g}, read in %{x:.1%} of the cells, q %{customdata:.2~g}"
            "<extra></extra>",
        )
    refused = len(table) - len(drawn)
    rest = f"; {refused:,} without effect are not drawn" if refused else ""
    says = f"Shift of the cells that read each of {len(drawn):,} genes, {int(clear.sum()):,} beyond random genes{rest}"
    headed(figure, title, says, height=400, dark=dark)
    ticks = {"tickvals": list(_SHARES), "ticktext": [f"{share:.1%}".replace(".0%", "%") for share in _SHARES]}
    log = np.log10(np.column_stack([x, y]))
    low, high = log.min(axis=0), log.max(axis=0)
    room = np.maximum(0.08 * (high - low), 0.1)
    ranges = np.column_stack([low - room, high + room]).tolist()
    parts.style_axis(
        figure, "x", "share of the cells that read the gene", dark=dark, type="log", range=ranges[0], **ticks
    )
    parts.style_axis(figure, "y", _SHIFT, dark=dark, type="log", range=ranges[1], tickformat="~g")
    order = np.argsort(-y, kind="stable")
    for place in parts.apart(order[clear[order]], log / (_NAME_ROOM * (high - low + 2 * room)), _NAMED):
        figure.add_annotation(
            x=log[place, 0], y=log[place, 1], text=names[place], showarrow=False, yshift=12, font={"size": 11}
        )
    return figure


def ranked_bars(
    table: pd.DataFrame, value: str, *, axis: str, most: int = 20, title: str = "", dark: bool = False
) -> go.Figure:
    """Draw the genes with the largest numbers, whatever their sign.

    Parameters
    ----------
    table
        ``symbol``, ``q`` and the column `value`; genes without a number are left out.
    value
        Name of the column to rank by.
    axis
        What its numbers are.
    most
        Genes at most.
    title
        What was perturbed or screened.
    dark
        For a dark page.
    """
    known = table[np.isfinite(table[value])]
    if known.empty:
        return parts.sentence("There is no gene to rank.", title=title, dark=dark)
    drawn = known.iloc[np.argsort(-np.abs(known[value].to_numpy(float)), kind="stable")[:most]]
    figure, heights = go.Figure(), np.arange(len(drawn))[::-1]
    rows = zip(escaped(drawn["symbol"]), drawn[value], drawn["q"], strict=True)
    hover = [f"<b>{name}</b><br>{number:+.3g}, {_sure(q)}" for name, number, q in rows]
    _add_bars(figure, drawn[value], heights, drawn["q"], hover, dark=dark, width=0.7)
    says = f"The {len(drawn)} of {len(known):,} genes with the largest {axis}"
    headed(figure, title, says, height=80 + 22 * len(drawn), dark=dark)
    low, high = min(float(drawn[value].min()), 0), max(float(drawn[value].max()), 0)
    room = (_TEXT_ROOM - 1) * max(high - low, 1e-9)
    limits = [low - room if low < 0 else 0, high + room if high > 0 else 0]
    parts.style_axis(figure, "x", axis, dark=dark, range=limits, fixedrange=True)
    names = [shortened(name, 18) for name in drawn["symbol"]]
    ticks: dict[str, Any] = {"tickvals": heights.tolist(), "ticktext": names, "range": [-0.6, len(drawn) - 0.4]}
    parts.style_axis(figure, "y", "", dark=dark, fixedrange=True, **ticks)
    return figure.update_layout(dragmode=False)


def _add_bars(
    figure: go.Figure,
    values: pd.Series,
    heights: NDArray[np.integer],
    q: pd.Series,
    hover: Sequence[str],
    *,
    dark: bool,
    width: float = _BAR,
) -> None:
    """Lie a bar in each row, with its significance as pattern and as text at the end."""
    colours, values, q = theme(dark=dark), values.to_numpy(float), q.to_numpy(float)
    lines = {"fillmode": "overlay", "fgcolor": colours.background, "fgopacity": 0.7, "size": 6}
    colour = category_style(0, dark=dark)[0]
    for rows, name, pattern in (
        (q <= SIGNIFICANT, f"q ≤ {SIGNIFICANT:g}", ""),
        (q > SIGNIFICANT, f"q > {SIGNIFICANT:g}", "/"),
        (np.isnan(q), "not tested", "."),
    ):
        if rows.any():
            figure.add_bar(
                x=values[rows],
                y=heights[rows],
                orientation="h",
                width=width,
                name=name,
                marker={"color": colour, "pattern": lines | {"shape": pattern}},
                customdata=np.asarray(hover, dtype=object)[rows],
                hovertemplate="%{customdata}<extra></extra>",
            )
    for side, rows in (("right", values >= 0), ("left", values < 0)):
        if rows.any():
            figure.add_scatter(
                x=values[rows],
                y=heights[rows],
                mode="text",
                text=[
                    f"{_GAP}<b>{_sure(one)}</b>{_GAP}" if one <= SIGNIFICANT else f"{_GAP}{_sure(one)}{_GAP}"
                    for one in q[rows]
                ],
                textposition=f"middle {side}",
                textfont={"size": 11, "color": colours.text},
                hoverinfo="skip",
                showlegend=False,
            )
    figure.update_layout(barmode="overlay")


def _null_band(row: dict[str, Any], height: int, *, dark: bool) -> list[dict[str, Any]]:
    """Shapes of a group's null: nothing where there is none."""
    colours, ends = theme(dark=dark), {"y0": height - _BAND, "y1": height + _BAND}
    if not np.isfinite(row["null_mean"]):
        return []
    band = {"type": "rect", "layer": "below", "fillcolor": colours.missing, "opacity": _FAINT, "line": {"width": 0}}
    mean = {"type": "line", "line": {"color": colours.text, "width": 1, "dash": "dot"}}
    return [
        band | ends | {"x0": row["null_low"], "x1": row["null_high"]},
        mean | ends | {"x0": row["null_mean"], "x1": row["null_mean"]},
    ]


def _sure(q: float) -> str:
    return f"q {q:.2g}" if np.isfinite(q) else "not tested"


def _group_words(row: dict[str, Any]) -> str:
    words = f"<b>{escaped([row['group']])[0]}</b><br>{cells_of(row['n'])} that read the gene"
    words += f"<br>mean shift {row['mean']:.3g}"
    if np.isfinite(row["null_mean"]):
        words += f"<br>random genes {row['null_mean']:.3g} ({row['null_low']:.3g} to {row['null_high']:.3g})"
    return words + (f"<br>p {row['p']:.2g}, q {row['q']:.2g}" if np.isfinite(row["q"]) else "<br>not tested")
