"""Figures of the annotation review; each says in a sentence when there is nothing to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots
from scipy.stats import binomtest

from scdiva_core.figures import parts
from scdiva_core.figures.layout import apply_layout
from scdiva_core.figures.palette import VALUE_SCALE, Theme, category_style, theme
from scdiva_core.figures.text import escaped, shortened

SIGNIFICANT = 0.05
"""Adjusted p-value below which a gene of a volcano counts as different (convention)."""

LARGE_FOLD = 1.0
"""Least log2 fold change for it: a doubling (convention)."""

_WIDEST_FOLD = 10.0  # a gene that one side lacks has a fold change without meaning, which must not set the scale
_SMALLEST_Q = 1e-300
_NAMED = 6  # genes named on each side of a volcano
_NAME_ROOM = (0.16, 0.05)  # shares of width and height that a name takes
_LARGEST_DOT = 16.0  # pixels; plotly's legend draws none larger
_SIZES_SHOWN = (0.1, 0.5, 1.0)
_PATTERNS = ("", "/", ".", "\\", "x", "-", "|", "+")
_MOST_BATCHES = 24  # colours that can be told apart


def volcano(table: pd.DataFrame, *, title: str, dark: bool = False) -> go.Figure:
    """Draw each gene by the size of its difference and by how sure it is.

    Parameters
    ----------
    table
        Of `scdiva_core.tasks.differential`: ``symbol``, ``score``, ``log2_fold_change``, ``q``, ``share_inside``,
        ``share_outside``. Genes without fold change or q are left out. ``attrs["replicates"]`` stands at the axis.
    title
        Drawn above.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Genes with q below `SIGNIFICANT` and a fold change of `LARGE_FOLD` or more are triangles that point up for
        more inside and down for less; the others are grey discs. What lies beyond a fold change of 10 or a q of
        1e-300 stands at the edge, with its own number on hover.
    """
    drawn = table[np.isfinite(table["log2_fold_change"]) & table["q"].notna()]
    if drawn.empty:
        return parts.sentence("No gene could be compared.", title=title, dark=dark)
    colours, figure = theme(dark=dark), go.Figure()
    fold, q = drawn["log2_fold_change"].to_numpy(float), drawn["q"].to_numpy(float)
    x, y = np.clip(fold, -_WIDEST_FOLD, _WIDEST_FOLD), -np.log10(np.maximum(q, _SMALLEST_Q)) + 0.0  # no -0
    clear = (q < SIGNIFICANT) & (np.abs(fold) >= LARGE_FOLD)
    hover = drawn[["log2_fold_change", "q", "share_inside", "share_outside"]].to_numpy(float)
    names = np.array(escaped(drawn["symbol"]), dtype=object)
    for genes, what, colour, symbol in (
        (~clear, "no clear difference", colours.missing, "circle"),
        (clear & (fold < 0), "less inside", category_style(0, dark=dark)[0], "triangle-down"),
        (clear & (fold > 0), "more inside", category_style(1, dark=dark)[0], "triangle-up"),
    ):
        figure.add_scattergl(
            x=x[genes],
            y=y[genes],
            mode="markers",
            name=f"{what} ({genes.sum():,})",
            marker={"color": colour, "symbol": symbol, "size": 5 if symbol == "circle" else 8, "opacity": 0.8},
            text=names[genes],
            customdata=hover[genes],
            hovertemplate="<b>%{text}</b><br>log2 fold change %{customdata[0]:.2f}, q %{customdata[1]:.2~g}"
            "<br>detected in %{customdata[2]:.0%} inside, %{customdata[3]:.0%} outside<extra></extra>",
        )
    apply_layout(figure, title=title, note="", height=480, dark=dark)
    figure.update_layout(margin={"l": 56, "t": 84, "b": 48}, legend=parts.LEGEND_ABOVE)
    beyond = int((np.abs(fold) > _WIDEST_FOLD).sum())
    note = f"; {beyond:,} beyond ±{_WIDEST_FOLD:.0f} at the edge" if beyond else ""
    counted = f", {table.attrs['replicates']} as replicates" if "replicates" in table.attrs else ""
    widest = 1.08 * max(float(np.abs(x).max()), 2 * LARGE_FOLD)
    parts.style_axis(figure, "x", f"log2 fold change{note}", dark=dark, range=[-widest, widest])
    parts.style_axis(figure, "y", f"−log10 of q{counted}", dark=dark, rangemode="tozero")
    figure.add_hline(-np.log10(SIGNIFICANT), **_threshold(colours))
    for edge in (-LARGE_FOLD, LARGE_FOLD):
        figure.add_vline(edge, **_threshold(colours))
    order = np.argsort(-np.abs(drawn["score"].to_numpy(float)), kind="stable")
    order = order[clear[order]]
    spread = np.array([_NAME_ROOM[0] * 2 * widest, _NAME_ROOM[1] * max(float(y.max()), 1)])
    for side in (order[fold[order] < 0], order[fold[order] > 0]):
        for place in parts.apart(side, np.column_stack([x, y]) / spread, _NAMED):
            figure.add_annotation(
                x=x[place], y=y[place], text=names[place], showarrow=False, yshift=11, font={"size": 11}
            )
    return figure


def dot_plot(
    profile: pd.DataFrame, positive: Sequence[str], negative: Sequence[str], *, dark: bool = False
) -> go.Figure:
    """Draw marker genes of groups: area for the share of cells that detect a gene, colour for its mean.

    Parameters
    ----------
    profile
        ``group``, ``symbol``, ``mean_log1p`` and ``share``, one row for each pair; groups are drawn in their order.
    positive, negative
        Genes that speak for a cell type, drawn as discs on the left, and against it, as diamonds on the right; in
        their order. Those that the profile lacks are named below.
    dark
        For a dark page.
    """
    there = set(profile["symbol"])
    kinds = [list(dict.fromkeys(kind)) for kind in (positive, negative)]
    shown = [[symbol for symbol in kind if symbol in there] for kind in kinds]
    if not any(shown):
        return parts.sentence("None of these marker genes is in this data set.", dark=dark)
    colours, figure = theme(dark=dark), go.Figure()
    groups = list(dict.fromkeys(profile["group"]))
    heights = {group: len(groups) - 1 - row for row, group in enumerate(groups)}
    start, ticks = 0, []
    for symbols, what, symbol in zip(shown, ("positive", "negative"), ("circle", "diamond"), strict=True):
        if not symbols:
            continue
        place = {gene: start + column for column, gene in enumerate(symbols)}
        rows = profile[profile["symbol"].isin(place)]
        pairs = zip(escaped(rows["symbol"]), escaped(rows["group"]), strict=True)
        figure.add_scatter(
            x=rows["symbol"].map(place).to_numpy(),
            y=rows["group"].map(heights).to_numpy(),
            mode="markers",
            name=f"{what} markers",
            showlegend=False,
            marker={
                "symbol": symbol,
                "size": _LARGEST_DOT * np.sqrt(rows["share"].to_numpy(float)),
                "color": rows["mean_log1p"].to_numpy(float),
                "coloraxis": "coloraxis",
                "opacity": 1,
                "line": {"color": colours.text, "width": 0.5},
            },
            text=[f"<b>{gene}</b>, {group}" for gene, group in pairs],
            customdata=rows["share"].to_numpy(float),
            hovertemplate=f"%{{text}}<br>{what} marker: detected in %{{customdata:.0%}} of the cells"
            "<br>mean log1p %{marker.color:.2f}<extra></extra>",
        )
        figure.add_annotation(
            text=f"<b>{what} markers</b>", x=start - 0.4, xanchor="left", y=len(groups) - 0.15, showarrow=False
        )
        ticks += place.items()
        start += len(symbols) + 1
    for share in _SIZES_SHOWN:
        marker = {"color": colours.missing, "size": _LARGEST_DOT * np.sqrt(share), "symbol": "circle"}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=f"{share:.0%} of cells", marker=marker)
    lacking = [gene for kind, found in zip(kinds, shown, strict=True) for gene in kind if gene not in found]
    apply_layout(figure, title="", note="", height=190 + parts.ROW_PIXELS * len(groups), dark=dark)
    highest = max(float(profile["mean_log1p"].max()), 1e-9)
    bar = {"title": {"text": "mean log1p", "side": "right", "font": {"size": 12}}, "thickness": 10, "outlinewidth": 0}
    scale = {"colorscale": VALUE_SCALE, "cmin": 0, "cmax": highest, "colorbar": bar}
    figure.update_layout(margin={"l": 8, "t": 36}, legend=parts.LEGEND_ABOVE, dragmode=False, coloraxis=scale)
    parts.style_axis(
        figure,
        "x",
        f"not in this data set: {', '.join(lacking)}" if lacking else "",
        dark=dark,
        tickvals=[place for _, place in ticks],
        ticktext=escaped(gene for gene, _ in ticks),
        tickangle=-90,
        range=[-0.6, start - 1.4],
        fixedrange=True,
    )
    parts.name_rows(figure, groups, dark=dark, top=1.1)
    if all(shown):
        figure.add_vline(len(shown[0]), **_threshold(colours))
    return figure


def alluvial(old: Sequence[str], new: Sequence[str], *, dark: bool = False) -> go.Figure:
    """Draw how many cells went from which old label to which new one.

    Parameters
    ----------
    old, new
        ``[n]`` labels of the same cells; a blank one is called "no label".
    dark
        For a dark page.

    Returns
    -------
    Figure
        Old labels on the left, new ones on the right, named with their cells. Cells that kept their label flow in
        grey; the others in the colour of the old one.

    Raises
    ------
    ValueError
        There are more of one than of the other.
    """
    flows = Counter(zip(map(_named, old), map(_named, new), strict=True))
    if not flows:
        return parts.sentence("There are no cells to follow.", dark=dark)
    totals: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for pair, cells in flows.items():
        for side, name in enumerate(pair):
            totals[side][name] += cells
    n_cells = sum(flows.values())
    both = totals[0] + totals[1]
    order = sorted(both, key=lambda name: (-both[name], name))
    colour = {name: category_style(place, dark=dark)[0] for place, name in enumerate(order)}
    nodes = [(side, name) for side in (0, 1) for name in order if name in totals[side]]
    place = {node: number for number, node in enumerate(nodes)}
    pairs = sorted(flows, key=lambda pair: (place[0, pair[0]], place[1, pair[1]]))
    colours = theme(dark=dark)
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            textfont={"color": colours.text, "size": 12, "shadow": "auto"},
            node={
                "label": [f"{parts.cut_inside(name)} · {totals[side][name]:,}" for side, name in nodes],
                "color": [colour[name] for _, name in nodes],
                "customdata": [
                    f"{escaped([name])[0]}<br>{('old', 'new')[side]} label of {_cells(totals[side][name])}"
                    for side, name in nodes
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
                "pad": 14,
                "thickness": 14,
                "line": {"width": 0},
            },
            link={
                "source": [place[0, before] for before, _ in pairs],
                "target": [place[1, after] for _, after in pairs],
                "value": [flows[pair] for pair in pairs],
                "color": [parts.faint(colours.missing if len(set(pair)) == 1 else colour[pair[0]]) for pair in pairs],
                "customdata": [_flow_words(pair, flows[pair], totals[0][pair[0]]) for pair in pairs],
                "hovertemplate": "%{customdata}<extra></extra>",
            },
        )
    )
    changed = sum(cells for (before, after), cells in flows.items() if before != after)
    title = f"{changed:,} of {_cells(n_cells)} changed their label ({changed / n_cells:.1%})"
    height = int(np.clip(26 * max(map(len, totals)) + 100, 260, 1600))
    apply_layout(figure, title=title, note="", height=height, dark=dark)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 48, "b": 12})


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 10, *, dark: bool = False) -> go.Figure:
    """Draw how often labels of each stated probability are right (Guo 2017, figure 1).

    Parameters
    ----------
    confidence
        Float ``[n]`` in [0, 1], the probability given to each label; cells without one are left out.
    correct
        bool ``[n]``.
    bins
        Number of equal-width bins, each closed above.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Above, a dot a bin at its mean probability, with Wilson's 95 % interval, beside the dashed line on which
        labels are as often right as they say; below, the number of cells of each bin on a logarithmic axis.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, bool)
    if confidence.shape != correct.shape:
        msg = f"confidence has the shape {confidence.shape}, correct {correct.shape}"
        raise ValueError(msg)
    known = np.isfinite(confidence)
    if not known.any():
        return parts.sentence("No cell has both a probability and a true label.", dark=dark)
    confidence, correct = confidence[known], correct[known]
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sizes = np.bincount(place, minlength=bins)
    used = np.flatnonzero(sizes)
    stated = np.bincount(place, confidence, minlength=bins)[used] / sizes[used]
    right = np.bincount(place, correct, minlength=bins)[used].astype(int)
    share = right / sizes[used]
    tests = (binomtest(hits, size) for hits, size in zip(right.tolist(), sizes[used].tolist(), strict=True))
    ends = [test.proportion_ci(method="wilson") for test in tests]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.05)
    colours, colour = theme(dark=dark), category_style(0, dark=dark)[0]
    line = {"color": colours.text, "width": 1, "dash": "dash"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="as often as stated", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=stated,
        y=share,
        mode="markers+lines",
        name="labels that are right",
        marker={"color": colour, "size": 9},
        line={"color": colour, "width": 1.5},
        error_y={
            "array": [end.high for end in ends] - share,
            "arrayminus": share - [end.low for end in ends],
            "width": 3,
        },
        text=[
            f"stated {p:.2f}, right {middle:.2f} ({end.low:.2f} to {end.high:.2f})<br>{_cells(size)}"
            for p, middle, end, size in zip(stated, share, ends, sizes[used], strict=True)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_bar(
        x=(used + 0.5) / bins,
        y=sizes[used],
        width=0.9 / bins,
        marker={"color": colours.missing},
        hovertemplate="%{y:,} cells<extra></extra>",
        showlegend=False,
        row=2,
        col=1,
    )
    apply_layout(figure, title="", note="", height=420, dark=dark)
    figure.update_layout(margin={"l": 52, "t": 36, "b": 44}, legend=parts.LEGEND_ABOVE, dragmode=False)
    parts.style_axis(figure, "x", "stated probability", dark=dark, range=[0, 1], fixedrange=True)
    parts.style_axis(figure, "y", "share that is right", dark=dark, range=[-0.02, 1.02], fixedrange=True)
    figure.update_xaxes(title_text="", row=1)
    powers = [np.log10(0.5), np.log10(sizes.max()) + 0.1]  # a bin of one cell must have a bar
    return figure.update_yaxes(title_text="cells", type="log", dtick=1, range=powers, row=2)


def composition(table: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Draw the share of each batch in each group, and in all groups together to compare with.

    Parameters
    ----------
    table
        Cells ``[groups, batches]``; each row is divided by its sum, and rows without cells are left out. Of more than
        24 batches the smallest are drawn as one.
    dark
        For a dark page.

    Returns
    -------
    Figure
        One bar a group, one colour and pattern a batch.
    """
    cells = table.loc[table.sum(axis=1) > 0]
    if cells.empty:
        return parts.sentence("There are no cells to count by batch.", dark=dark)
    counts, batches = cells.to_numpy(), list(cells.columns)
    if len(batches) > _MOST_BATCHES:
        order = np.argsort(-counts.sum(axis=0), kind="stable")
        kept, rest = np.sort(order[: _MOST_BATCHES - 1]), order[_MOST_BATCHES - 1 :]
        counts = np.column_stack([counts[:, kept], counts[:, rest].sum(axis=1)])
        batches = [*(batches[batch] for batch in kept), f"other ({len(rest)} batches)"]
    groups = list(map(str, cells.index))
    if len(groups) > 1:
        counts, groups = np.vstack([counts, counts.sum(axis=0)]), [*groups, "all together"]
    sizes, heights = counts.sum(axis=1), np.arange(len(groups))[::-1]
    lines = {"fillmode": "overlay", "fgcolor": theme(dark=dark).background, "fgopacity": 0.55, "size": 7}
    figure = go.Figure()
    for number, (batch, column) in enumerate(zip(batches, counts.T, strict=True)):
        colour, pattern = category_style(number, dark=dark)[0], {"shape": _PATTERNS[number % len(_PATTERNS)]}
        figure.add_bar(
            x=column / sizes,
            y=heights,
            orientation="h",
            width=0.45,
            name=shortened(batch),
            meta=escaped([batch])[0],
            marker={"color": colour, "pattern": lines | pattern},
            customdata=[f"{part:,} of {_cells(size)}" for part, size in zip(column, sizes, strict=True)],
            hovertemplate="<b>%{meta}</b><br>%{x:.1%}: %{customdata}<extra></extra>",
        )
    apply_layout(figure, title="", note="", height=110 + parts.ROW_PIXELS * len(groups), dark=dark)
    legend = parts.LEGEND_ABOVE | {"traceorder": "normal"}  # as in the bars
    figure.update_layout(barmode="stack", margin={"l": 12, "r": 24, "t": 24}, legend=legend, dragmode=False)
    parts.style_axis(figure, "x", "share of the cells", dark=dark, range=[0, 1], tickformat=".0%", fixedrange=True)
    named = [f"{group} ({size:,})" for group, size in zip(groups, sizes, strict=True)]
    parts.name_rows(figure, named, dark=dark)
    return figure


def _threshold(colours: Theme) -> dict[str, Any]:
    return {"line": {"color": colours.text, "width": 1, "dash": "dot"}, "opacity": 0.5}


def _named(label: object) -> str:
    return " ".join(str(label).split()) or "no label"


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count:,} cells"


def _flow_words(pair: tuple[str, str], cells: int, total: int) -> str:
    before, after = escaped(pair)
    what = f"{before}, kept" if before == after else f"{before} → {after}"
    return f"<b>{what}</b><br>{_cells(cells)}, {cells / total:.1%} of the old label"
