"""Figures of rebuilt cells: by how much was hidden, one cell token by token, gene by gene and type by type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scdiva_core.figures import parts
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.perturbation_bars import headed
from scdiva_core.figures.text import escaped, shortened

MEASURES = {
    "identity": "genes named rightly",
    "l_dist": "L-Dist (lower is better)",
    "bleu": "BLEU of the gene sequence",
    "spearman": "Spearman of true and rebuilt values",
    "mse": "mean squared error of log1p values (lower is better)",
    "r2": "R2 of values",
}
"""What each measure is called on an axis."""

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "hexagon2", "triangle-down", "star")
_PATTERNS = ("", "/", "x", ".", "-", "\\", "+", "|")
_SHIFT = 0.006  # between methods at one mask, as a share hidden
_A_LINE = 4  # methods in a line of the legend on a wide page
_BAR = 0.8  # of a row that the bars fill
_NAMED = 10
_NAME_ROOM = (0.16, 0.06)  # shares of width and height that a name takes
_READINGS = (
    ("rebuilt_value", "at its place, rank known"),
    ("named_value", "gene named"),
    ("neighbour_value", "kNN imputation"),
)


def mask_curve(
    table: pd.DataFrame,
    measure: str,
    *,
    told: str | None = None,
    title: str = "",
    dark: bool = False,
    narrow: bool = False,
) -> go.Figure:
    """Draw how well each method rebuilds cells, by the share that was hidden.

    Parameters
    ----------
    table
        ``mask`` (share), ``method``, ``told``, ``leaks``, ``n``, and the measure with ``_low`` and ``_high``.
    measure
        A key of `MEASURES`.
    told
        Only methods that are told the ``"place"`` or the ``"gene"``; all when None.
    title
        Whose cells.
    dark
        For a dark page.
    narrow
        For a phone: room for a legend of one entry a line.

    Returns
    -------
    Figure
        A line for each method that has the measure, with intervals; dotted with open symbols where hidden content leaks
        to it. Methods lie a little beside each other. A method keeps its colour whatever is drawn beside it.
    """
    methods = list(dict.fromkeys(table["method"]))
    kept = table[np.isfinite(table[measure]) & ((table["told"] == told) | (told is None))]
    if kept.empty:
        return parts.sentence("No method has this measure.", title=title, dark=dark)
    figure, drawn = go.Figure(), [name for name in methods if name in set(kept["method"])]
    for place, name in enumerate(drawn):
        rows = kept[kept["method"] == name].sort_values("mask")
        style, leaks = methods.index(name), bool(rows["leaks"].iloc[0])
        value, low, high = (rows[f"{measure}{part}"].to_numpy(float) for part in ("", "_low", "_high"))
        colour = category_style(style, dark=dark)[0]
        figure.add_scatter(
            x=rows["mask"].to_numpy(float) + _SHIFT * (place - (len(drawn) - 1) / 2),
            y=value,
            mode="lines+markers",
            name=escaped([name])[0],
            line={"color": colour, "width": 2, "dash": "dot" if leaks else "solid"},
            marker={"symbol": f"{_SYMBOLS[style % len(_SYMBOLS)]}{'-open' if leaks else ''}", "size": 8},
            error_y={"array": high - value, "arrayminus": value - low, "thickness": 1.2, "width": 3, "color": colour},
            customdata=[
                f"{mask:.0%} hidden, {n:,} cells: {mean:.3f} ({a:.3f} to {b:.3f})"
                for mask, n, mean, a, b in zip(rows["mask"], rows["n"], value, low, high, strict=True)
            ],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    leaking = "; dotted: hidden content leaks" if kept["leaks"].any() else ""
    lines = -(-len(drawn) // (1 if narrow else _A_LINE))
    says = f"{MEASURES[measure][0].upper()}{MEASURES[measure][1:]}, mean of cells, 95% intervals{leaking}"
    headed(figure, title, says, height=380, dark=dark)
    _make_room(figure, 22 * max(lines - 2, 0))
    shares = sorted(set(kept["mask"]))
    ticks = {"tickvals": shares, "ticktext": [f"{share:.0%}" for share in shares]}
    parts.style_axis(figure, "x", "share of the cell's genes hidden", dark=dark, **ticks)
    parts.style_axis(figure, "y", MEASURES[measure], dark=dark)
    return figure


def method_dots(
    table: pd.DataFrame, measure: str, *, told: str | None = None, title: str = "", dark: bool = False
) -> go.Figure:
    """Draw how well each method rebuilds cells where there is one share hidden, as for genes of a list.

    Parameters
    ----------
    table, measure, told, title, dark
        As for `mask_curve`; a row for each method.

    Returns
    -------
    Figure
        A row with a dot and its interval for each method that has the measure, in the colours of `mask_curve`; open
        where hidden content leaks to it.
    """
    methods = list(dict.fromkeys(table["method"]))
    kept = table[np.isfinite(table[measure]) & ((table["told"] == told) | (told is None))]
    if kept.empty:
        return parts.sentence("No method has this measure.", title=title, dark=dark)
    figure, records = go.Figure(), kept.to_dict("records")
    for height, row in zip(range(len(kept) - 1, -1, -1), records, strict=True):
        style = methods.index(row["method"])
        colour, symbol = category_style(style, dark=dark)[0], _SYMBOLS[style % len(_SYMBOLS)]
        value, low, high = (row[f"{measure}{part}"] for part in ("", "_low", "_high"))
        figure.add_scatter(
            x=[value],
            y=[height],
            mode="markers",
            name=escaped([row["method"]])[0],
            marker={"color": colour, "symbol": f"{symbol}{'-open' if row['leaks'] else ''}", "size": 10},
            error_x={"array": [high - value], "arrayminus": [value - low], "thickness": 1.5, "color": colour},
            customdata=[f"{value:.3f} ({low:.3f} to {high:.3f}), {row['n']:,} cells"],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
            showlegend=False,
        )
    leaking = "; open: hidden content leaks" if kept["leaks"].any() else ""
    says = f"{MEASURES[measure][0].upper()}{MEASURES[measure][1:]}, mean of cells, 95% intervals{leaking}"
    headed(figure, title, says, height=60 + parts.ROW_PIXELS * len(kept), dark=dark, legend=False)
    parts.style_axis(figure, "x", MEASURES[measure], dark=dark, fixedrange=True)
    parts.name_rows(figure, [f"{row['method']}: {row[measure]:.3f}" for row in records], dark=dark)
    return figure.update_layout(margin={"l": 12, "r": 24}, dragmode=False)


def _make_room(figure: go.Figure, pixels: int) -> None:
    """Add lines of legend between the title and the picture."""
    layout = figure.layout
    height = layout.height + pixels
    top = layout.height * (1 - layout.title.y)
    figure.update_layout(height=height, margin={"t": layout.margin.t + pixels}, title={"y": 1 - top / height})


def profile_scatter(profile: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw the hidden tokens of one cell: their true values against the rebuilt ones.

    Parameters
    ----------
    profile
        Of one cell: ``symbol``, ``place``, ``value``, ``hidden``, ``rebuilt_symbol``, ``rebuilt_value``,
        ``named_value`` and ``neighbour_value``.
    title
        Which cell.
    dark
        For a dark page.

    Returns
    -------
    Figure
        A point for each hidden token and reading; on the dotted line the value is right.
    """
    hidden = profile[profile["hidden"]]
    if hidden.empty:
        return parts.sentence("Nothing of this cell was hidden.", title=title, dark=dark)
    figure, truth = go.Figure(), hidden["value"].to_numpy(float)
    words = [
        f"<b>{symbol}</b>, rank {place:,}, true {value:.2f}<br>named {named or 'nothing'} at this place"
        for symbol, place, value, named in zip(
            escaped(hidden["symbol"]), hidden["place"], truth, escaped(hidden["rebuilt_symbol"]), strict=True
        )
    ]
    for place, (column, name) in enumerate(_READINGS):
        figure.add_scatter(
            x=truth,
            y=hidden[column].to_numpy(float),
            mode="markers",
            name=name,
            marker={
                "color": category_style(place, dark=dark)[0],
                "symbol": _SYMBOLS[place],
                "size": 7,
                "opacity": 0.65,
            },
            customdata=words,
            hovertemplate="%{customdata}<br>rebuilt %{y:.2f}<extra>%{fullData.name}</extra>",
        )
    right = int((hidden["symbol"] == hidden["rebuilt_symbol"]).sum())
    says = f"{len(hidden):,} of {len(profile):,} genes hidden, {right:,} named rightly; dotted: the true value"
    headed(figure, title, says, height=420, dark=dark)
    _make_room(figure, 22)  # on a phone each entry of the legend takes a line
    values = hidden[["value", *(column for column, _ in _READINGS)]].to_numpy(float)
    _square(figure, 0.0, float(np.nanmax(values)), "true value (log1p)", "rebuilt value (log1p)", dark=dark)
    return figure


def gene_errors(genes: pd.DataFrame, ours: str, theirs: str, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw each gene's error by one method against that by another.

    Parameters
    ----------
    genes
        ``symbol``, ``n`` and, for both methods, ``mse: <method>``; a row for each gene.
    ours, theirs
        Names of the methods.
    title
        Whose cells.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Root mean squared errors. Genes below the dotted line are rebuilt better by ours; those with the largest
        difference are named.
    """
    if genes.empty:
        return parts.sentence("No gene was hidden often enough.", title=title, dark=dark)
    xy = np.sqrt(genes[[f"mse: {theirs}", f"mse: {ours}"]].to_numpy(float))
    figure, names, better = go.Figure(), escaped(genes["symbol"]), xy[:, 1] < xy[:, 0]
    for rows, what, place in ((better, f"better by {ours}", 0), (~better, f"better by {theirs}", 1)):
        figure.add_scatter(
            x=xy[rows, 0],
            y=xy[rows, 1],
            mode="markers",
            name=f"{shortened(what, 40)} ({rows.sum():,})",
            marker={"color": category_style(place, dark=dark)[0], "symbol": _SYMBOLS[place], "size": 6, "opacity": 0.7},
            text=np.array(names, object)[rows],
            customdata=genes["n"].to_numpy()[rows],
            hovertemplate="<b>%{text}</b>, hidden in %{customdata:,} cells<br>%{x:.2f}, here %{y:.2f}<extra></extra>",
        )
    headed(
        figure,
        title,
        f"Root mean squared error of {len(genes):,} genes; dotted: the same by both",
        height=420,
        dark=dark,
    )
    axes = [f"error by {name} (log1p)" for name in (theirs, ours)]
    reach = _square(figure, 0.0, float(xy.max()), *axes, dark=dark)
    order = np.argsort(-np.abs(xy[:, 0] - xy[:, 1]), kind="stable")
    inside = (xy[order, 0] > _NAME_ROOM[0] / 2 * reach) & (xy[order, 0] < (1 - _NAME_ROOM[0] / 2) * reach)
    for place in parts.apart(order[inside], xy / reach / _NAME_ROOM, _NAMED):
        x, y = xy[place]
        figure.add_annotation(x=x, y=y, text=names[place], showarrow=False, yshift=10, font={"size": 11})
    return figure


def _square(figure: go.Figure, low: float, high: float, x: str, y: str, *, dark: bool) -> float:
    """Give both axes the same range and draw the diagonal; returns the upper end."""
    reach = 1.06 * high or 1.0
    for letter, name in (("x", x), ("y", y)):
        parts.style_axis(figure, letter, name, dark=dark, range=[low, reach])
    line = {"color": theme(dark=dark).text, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=low, y0=low, x1=reach, y1=reach, line=line, opacity=0.6)
    return reach


def type_bars(
    types: pd.DataFrame, measure: str, methods: Sequence[str], *, title: str = "", dark: bool = False
) -> go.Figure:
    """Draw how well methods rebuild the cells of each type.

    Parameters
    ----------
    types
        Of one mask: ``group``, ``method``, ``n`` and the measure.
    measure
        A key of `MEASURES`.
    methods
        From the top within each type; those without the measure are left out.
    title
        Whose cells, and how much was hidden.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Types with the most cells first.
    """
    drawn = types[types["method"].isin(methods) & np.isfinite(types[measure])]
    if drawn.empty:
        return parts.sentence("No method has this measure.", title=title, dark=dark)
    sizes = drawn.groupby("group")["n"].max().sort_values(ascending=False, kind="stable")
    methods = [name for name in methods if name in set(drawn["method"])]
    figure, width = go.Figure(), _BAR / 2 / len(methods) * 1.6
    for place, name in enumerate(methods):
        rows = drawn[drawn["method"] == name].set_index("group").reindex(sizes.index)
        colour = category_style(place, dark=dark)[0]
        figure.add_bar(
            x=rows[measure].to_numpy(float),
            y=np.arange(len(sizes))[::-1] - 0.1 + width * ((len(methods) - 1) / 2 - place),
            width=0.9 * width,
            orientation="h",
            name=escaped([name])[0],
            marker={"color": colour, "pattern": {"shape": _PATTERNS[place % len(_PATTERNS)], "fillmode": "overlay"}},
            customdata=escaped(f"{group}: {value:.3f}" for group, value in rows[measure].items()),
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )
    says = f"{MEASURES[measure][0].upper()}{MEASURES[measure][1:]}, mean of the cells of each type"
    row = 24 + 12 * len(methods)
    headed(figure, title, says, height=70 + row * len(sizes), dark=dark)
    _make_room(figure, 22 * max(len(methods) - 2, 0))
    parts.style_axis(figure, "x", MEASURES[measure], dark=dark, fixedrange=True)
    cells = [f"{group} ({n:,} {'cell' if n == 1 else 'cells'})" for group, n in sizes.items()]
    parts.name_rows(figure, cells, dark=dark)
    figure.update_yaxes(showgrid=False)
    figure.update_annotations(yshift=row / 2 - 6, bgcolor=theme(dark=dark).background)
    return figure.update_layout(barmode="overlay", margin={"l": 12, "r": 24}, dragmode=False)
