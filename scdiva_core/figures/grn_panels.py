"""Figures around a network: which heads agree with a reference, what a module attends to, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from scdiva_core.figures import parts
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.perturbation_bars import headed
from scdiva_core.figures.text import escaped, shortened

_CELL = 17  # pixels of a row with a name
_MOST_NAMES = 120  # of rows; beyond it names would be a grey wall
_COLUMNS, _PHONE_COLUMNS = 50, 16  # whose names the width holds
_NAMED = 8
_NAME_ROOM = (0.24, 0.05)  # shares of width and height that an edge's name takes
_MEASURES = (("auprc", "AUPRC ratio", "circle", 0), ("epr", "early precision ratio", "diamond", 1))
_APART = 0.14  # between the two measures of a method, in rows
_METHOD = 58  # pixels of a method with its name
_WHERE = (
    ("both", "both", "circle", 2),
    ("only a", "only {}", "diamond", 0),
    ("only b", "only {}", "square", 1),
)


def head_agreement(
    ratios: NDArray[np.floating],
    *,
    chosen: Sequence[tuple[int, int]] = (),
    reference: str = "known regulons",
    title: str = "",
    dark: bool = False,
) -> go.Figure:
    """Draw how well each layer and head agrees with a reference.

    Parameters
    ----------
    ratios
        Float ``[layers, heads]``: AUPRC over that of random scores; NaN where it was not measured.
    chosen
        Layer and head, from 0, of those in use; framed.
    reference
        What they are compared with.
    title
        Whose cells.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Layers and heads are counted from 1, as people do. The number stands in each field; no colour means 1.0, as
        good as random.
    """
    ratios = np.asarray(ratios, dtype=float)
    if not np.isfinite(ratios).any():
        return parts.sentence("No head was compared with the reference.", title=title, dark=dark)
    layers, heads = ratios.shape
    reach = max(float(np.nanmax(np.abs(ratios - 1))), 0.1)
    names = [f"layer {layer + 1}, head {head + 1}" for layer in range(layers) for head in range(heads)]
    ends = [end for end in (1 - reach, 1 + reach) if end >= 0]  # the scale is even around 1, a ratio is never below 0
    bar = {"tickvals": [1, *ends], "ticktext": ["1 random", *(f"{end:.2f}" for end in ends)]}
    figure = go.Figure(
        _heat(
            ratios,
            dark=dark,
            limits=(1 - reach, 1 + reach),
            bar=bar | {"title": {"text": ""}},
            text=[[f"{ratio:.2f}" if np.isfinite(ratio) else "" for ratio in row] for row in ratios],
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=np.array(names, dtype=object).reshape(ratios.shape),
            hovertemplate="%{customdata}: AUPRC %{z:.3f} times that of random scores<extra></extra>",
        )
    )
    for layer, head in chosen:
        edges = {"x0": head - 0.5, "x1": head + 0.5, "y0": layer - 0.5, "y1": layer + 0.5}
        figure.add_shape(type="rect", line={"color": theme(dark=dark).text, "width": 2}, **edges)
    framed = "; framed: in use" if chosen else ""
    says = f"AUPRC against {reference} over that of random scores{framed}"
    headed(figure, title, says, height=90 + 34 * layers, dark=dark, legend=False)
    _name_fields(figure, "x", [str(head + 1) for head in range(heads)], "head", dark=dark, tickangle=0)
    _name_fields(figure, "y", [str(layer + 1) for layer in range(layers)], "layer", dark=dark, turned=True)
    return figure


def module_heat(scores: pd.DataFrame, *, title: str = "", dark: bool = False, narrow: bool = False) -> go.Figure:
    """Draw the attention between the regulators and targets of a module, those alike beside each other.

    Parameters
    ----------
    scores
        Attention z, float: regulators are rows, targets columns; NaN (self pairs, pairs that no cell shows) is blank.
    title
        Whose cells, and which module.
    dark
        For a dark page.
    narrow
        For a phone: fewer columns have names.

    Returns
    -------
    Figure
        In the order of a hierarchical clustering (average linkage of Euclidean distances, blank as 0, leaves in the
        order of Bar-Joseph 2001). The longer side goes down, so that the picture grows in height. Sides with more
        genes than there is room for names have them in the hover text only.
    """
    if not np.isfinite(scores.to_numpy(float)).any():
        return parts.sentence("No cell shows a pair of this module.", title=title, dark=dark)
    drawn = scores.iloc[_alike(scores.to_numpy(float)), _alike(scores.to_numpy(float).T)]
    regulators, targets = drawn.shape
    down, across = "regulator", "target"
    words = [[f"{a} → {b}" for b in escaped(drawn.columns)] for a in escaped(drawn.index)]
    if targets > regulators:
        down, across, drawn, words = across, down, drawn.T, [list(column) for column in zip(*words, strict=True)]
    values = drawn.to_numpy(float)
    reach = max(float(np.nanquantile(np.abs(values), 0.99)), 1e-9)
    figure = go.Figure(
        _heat(
            values,
            dark=dark,
            limits=(-reach, reach),
            bar={"title": {"text": "attention z", "side": "right", "font": {"size": 12}}, "nticks": 5},
            customdata=words,
            hovertemplate="%{customdata}: %{z:+.2f}<extra></extra>",
        )
    )
    says = f"{regulators:,} regulators by {targets:,} targets; 0: as pairs of like rank"
    high = _CELL * len(drawn) if len(drawn) <= _MOST_NAMES else 640
    headed(figure, title, says, height=100 + max(high, 120), dark=dark, legend=False)
    room = _PHONE_COLUMNS if narrow else _COLUMNS
    _name_fields(figure, "x", list(drawn.columns), across, dark=dark, most=room, tickangle=-90)
    _name_fields(figure, "y", list(drawn.index), down, dark=dark, turned=True)
    return figure


def honesty_intervals(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw how much better than random each method finds the pairs of a reference, with intervals.

    Parameters
    ----------
    table
        ``method`` and, for ``auprc`` and ``epr``, ``_ratio``, ``_low`` and ``_high``; one row a method, drawn in their
        order. NaN is left out.
    title
        Whose cells, and which reference.
    dark
        For a dark page.

    Returns
    -------
    Figure
        A disc for the AUPRC ratio and a diamond for the early precision ratio, each with its number; dotted: random.
    """
    measured = table[np.isfinite(table[["auprc_ratio", "epr_ratio"]]).any(axis=1)]
    if measured.empty:
        return parts.sentence("No method was compared with the reference.", title=title, dark=dark)
    figure, colours, heights = go.Figure(), theme(dark=dark), np.arange(len(measured))[::-1]
    for measure, name, symbol, place in _MEASURES:
        ratio, low, high = (measured[f"{measure}_{part}"].to_numpy(float) for part in ("ratio", "low", "high"))
        colour = category_style(place, dark=dark)[0]
        figure.add_scatter(
            x=ratio,
            y=heights + _APART * (1 - 2 * place) - 0.1,
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 9, "color": colour},
            error_x={"array": high - ratio, "arrayminus": ratio - low, "thickness": 1.5, "width": 4, "color": colour},
            customdata=[
                f"<b>{method}</b><br>{name} {r:.2f} ({a:.2f} to {b:.2f})"
                for method, r, a, b in zip(escaped(measured["method"]), ratio, low, high, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
        figure.add_scatter(
            x=np.fmax(high, ratio),
            y=heights + _APART * (1 - 2 * place) - 0.1,
            mode="text",
            text=[f"  {number:.2f}" if np.isfinite(number) else "" for number in ratio],
            textposition="middle right",
            textfont={"size": 11, "color": colours.text},
            hoverinfo="skip",
            showlegend=False,
        )
    says = "Known pairs found, over random scores (dotted: 1); 95% intervals"
    headed(figure, title, says, height=80 + _METHOD * len(measured), dark=dark)
    columns = [f"{measure}_{part}" for measure, *_ in _MEASURES for part in ("ratio", "high")]
    widest = max(float(np.nanmax(measured[columns].to_numpy(float))), 1.0)
    axis = {"range": [0, 1.18 * widest], "fixedrange": True}
    parts.style_axis(figure, "x", "times as good as random", dark=dark, **axis)
    parts.name_rows(figure, list(map(str, measured["method"])), dark=dark)
    figure.update_annotations(bgcolor=colours.background)  # the line must not cross a name
    figure.add_vline(1, line={"color": colours.text, "width": 1, "dash": "dot"})
    return figure.update_layout(margin={"l": 12, "r": 24}, dragmode=False)


def difference_scatter(
    table: pd.DataFrame, names: tuple[str, str] = ("a", "b"), *, title: str = "", dark: bool = False
) -> go.Figure:
    """Draw the attention of edges in one set of cells against that in another.

    Parameters
    ----------
    table
        Of `scdiva_core.tasks.grn_graph.difference`.
    names
        Of the two sets.
    title
        What is compared.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Edges on the dotted line have the same attention in both; colour and symbol say which set's network shows them.
        The largest changes are named. Edges that one of the sets does not know are counted in the title.
    """
    known = np.isfinite(table["change"].to_numpy(float))
    drawn = table[known]
    if drawn.empty:
        return parts.sentence("The two sets share no edge.", title=title, dark=dark)
    figure, colours, texts = go.Figure(), theme(dark=dark), [shortened(name, 14) for name in names]
    for where, words, symbol, place in _WHERE:
        rows = drawn[drawn["where"] == where]
        own = texts[0] if where == "only a" else texts[1]
        figure.add_scatter(
            x=rows["attention_a"].to_numpy(float),
            y=rows["attention_b"].to_numpy(float),
            mode="markers",
            name=f"{words.format(own)} ({len(rows):,})",
            marker={"symbol": symbol, "size": 7, "color": category_style(place, dark=dark)[0], "opacity": 0.8},
            text=_edges(rows),
            customdata=rows["change"].to_numpy(float),
            hovertemplate="<b>%{text}</b><br>%{x:.2f}, then %{y:.2f}: %{customdata:+.2f}<extra></extra>",
        )
    without = f"; {(~known).sum():,} that one set lacks are not drawn" if not known.all() else ""
    headed(figure, title, f"Attention z of {len(drawn):,} edges{without}", height=460, dark=dark)
    xy = drawn[["attention_a", "attention_b"]].to_numpy(float)
    low, high = float(xy.min()), float(xy.max())
    room = 0.08 * (high - low) or 1.0
    limits = [low - room, high + room]
    parts.style_axis(figure, "x", f"attention z in {names[0]}", dark=dark, range=limits)
    parts.style_axis(figure, "y", f"attention z in {names[1]}", dark=dark, range=limits)
    line = {"color": colours.text, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=limits[0], y0=limits[0], x1=limits[1], y1=limits[1], line=line, opacity=0.5)
    order = np.argsort(-np.abs(drawn["change"].to_numpy(float)), kind="stable")
    labels = _edges(drawn)
    # Half a name must not lie beyond the edge.
    inside = (np.abs(xy[:, 0] - np.mean(limits)) < (0.5 - _NAME_ROOM[0] / 2) * np.ptp(limits))[order]
    for place in parts.apart(order[inside], (xy - limits[0]) / np.ptp(limits) / _NAME_ROOM, _NAMED):
        x, y = xy[place]
        figure.add_annotation(x=x, y=y, text=labels[place], showarrow=False, yshift=11, font={"size": 11})
    return figure


def _edges(table: pd.DataFrame) -> list[str]:
    return [f"{a} → {b}" for a, b in zip(escaped(table["regulator"]), escaped(table["target"]), strict=True)]


def _alike(values: NDArray[np.floating]) -> NDArray[np.integer]:
    """Order of rows by clustering."""
    if len(values) < 3:
        return np.arange(len(values))
    return leaves_list(linkage(np.nan_to_num(values), "average", optimal_ordering=True))


def _heat(
    values: NDArray[np.floating], *, dark: bool, limits: tuple[float, float], bar: dict[str, Any], **options: Any
) -> go.Heatmap:
    """Diverging colours around the middle of the limits; every field has a place 0, 1, 2 ... on both axes."""
    low, high = (category_style(place, dark=dark)[0] for place in (0, 1))
    return go.Heatmap(
        z=values,
        x=np.arange(values.shape[1]),
        y=np.arange(values.shape[0]),
        zmin=limits[0],
        zmax=limits[1],
        colorscale=[[0, low], [0.5, theme(dark=dark).background], [1, high]],
        colorbar={"thickness": 10, "outlinewidth": 0} | bar,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        **options,
    )


def _name_fields(
    figure: go.Figure,
    letter: str,
    names: Sequence[str],
    what: str,
    *,
    dark: bool,
    most: int = _MOST_NAMES,
    turned: bool = False,
    **options: Any,
) -> None:
    """Name rows or columns where there is room; `turned` has the first on top."""
    shown = [shortened(name, 18) for name in names] if len(names) <= most else [""] * len(names)
    limits = [len(names) - 0.5, -0.5] if turned else [-0.5, len(names) - 0.5]
    ticks = {"tickvals": list(range(len(names))), "ticktext": shown, "range": limits}
    title = what if len(names) <= most else f"{len(names):,} {what}s"
    parts.style_axis(figure, letter, title, dark=dark, fixedrange=True, showgrid=False, **ticks, **options)
    (figure.update_xaxes if letter == "x" else figure.update_yaxes)(title_standoff=10)  # names of genes are long
