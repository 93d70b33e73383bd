"""Figures of a perturbation's direction: arrows on the map, groups towards groups, flows, and predicted changes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from scdiva_core.figures import parts
from scdiva_core.figures.layout import plain_axis
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.perturbation_bars import SIGNIFICANT, cells_of, groups_of, headed
from scdiva_core.figures.sample import drawn_rows
from scdiva_core.figures.scatter import point_style
from scdiva_core.figures.text import escaped

_LONGEST_ARROW = 1.4  # squares of the grid
_BARB = 0.35  # of an arrow's length
_BARB_ANGLE = np.deg2rad(25)
_MARGIN = 0.04  # of the map's extent
_NAMED = 8  # genes named on each side of a volcano
_NAME_ROOM = (0.16, 0.05)  # shares of width and height that a name takes
_MARKS = {"towards": "+", "away": "−"}


def arrow_map(
    points: NDArray[np.floating], field: pd.DataFrame, control: pd.DataFrame, *, title: str, dark: bool = False
) -> go.Figure:
    """Draw where perturbed cells move on the map, beside where a control moves.

    Parameters
    ----------
    points
        Float ``[n, 2]`` of all cells of the map, drawn faintly; of more than a browser holds a fixed sample.
    field, control
        Of `scdiva_core.tasks.vector_field`: ``x``, ``y``, ``dx``, ``dy``, ``n``. ``control.attrs["words"]`` says what
        the control is.
    title
        What was perturbed.
    dark
        For a dark page.

    Returns
    -------
    Figure
        The field large, the control small, on the same map and with arrows enlarged alike, so that their lengths
        compare; the title says by how much.
    """
    length = max(float(np.hypot(table["dx"], table["dy"]).max()) if len(table) else 0.0 for table in (field, control))
    if field.empty or not length:
        return parts.sentence("In no part of the map do enough cells move to draw an arrow.", title=title, dark=dark)
    words = str(control.attrs.get("words", "control"))
    factor = _LONGEST_ARROW * _step(points, field, control) / length
    figure = make_subplots(
        1, 2, column_widths=[0.7, 0.3], horizontal_spacing=0.03, subplot_titles=["perturbed", "control"]
    )
    colours = theme(dark=dark)
    drawn = points[drawn_rows(len(points))]
    size, opacity = point_style(len(drawn))
    for column, table in ((1, field), (2, control)):
        colour = category_style(1, dark=dark)[0] if column == 1 else colours.text
        marker = {"color": colours.missing, "size": size / column, "opacity": opacity / 2}
        figure.add_scattergl(
            x=drawn[:, 0], y=drawn[:, 1], mode="markers", marker=marker, hoverinfo="skip", row=1, col=column
        )
        x, y = _arrows(table, factor)
        line = {"color": colour, "width": 2 if column == 1 else 1}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", row=1, col=column)
        figure.add_scatter(
            x=table["x"],
            y=table["y"],
            mode="markers",
            marker={"color": colour, "size": 5 if column == 1 else 1.5},
            text=[
                f"mean move of {cells_of(n)}: {np.hypot(dx, dy):.2g}"
                for dx, dy, n in table[["dx", "dy", "n"]].itertuples(index=False)
            ],
            hovertemplate="%{text}<extra></extra>",
            row=1,
            col=column,
        )
    says = f"Mean moves on the map of {cells_of(field['n'].sum())}, drawn {factor:.2g} times as long; control: {words}"
    headed(figure, title, says, height=520, dark=dark, legend=False)
    figure.update_annotations(font={"size": 12})
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    room = _MARGIN * (high - low) + _LONGEST_ARROW * _step(points, field, control)
    for column, anchor in ((1, "x"), (2, "x2")):
        across, up = (plain_axis(label if column == 1 else "", colours) for label in ("UMAP 1", "UMAP 2"))
        # Both directions to one scale, or arrows would point elsewhere in the narrow panel.
        across |= {"range": [low[0] - room[0], high[0] + room[0]], "constrain": "domain"}
        up |= {"range": [low[1] - room[1], high[1] + room[1]], "constrain": "domain", "constraintoward": "top"}
        figure.update_xaxes(across, row=1, col=column)
        figure.update_yaxes(up, scaleanchor=anchor, row=1, col=column)
    return figure.update_layout(showlegend=False)


def directions_heat(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw how much each group of cells turns towards or away from each group.

    Parameters
    ----------
    table
        Of `scdiva_core.tasks.perturbation_direction.direction_table`: ``own``, ``target``, ``n``, ``mean``,
        ``null_mean``, ``p``, ``q``, ``word``.
    title
        What was perturbed.
    dark
        For a dark page.

    Returns
    -------
    Figure
        A row a group, a column a target, both in the order of the table; a plus or minus in what lies beyond random
        genes, so that nothing rests on colour. What was not measured is left blank.
    """
    if table.empty:
        return parts.sentence("No group has a cell that reads the gene.", title=title, dark=dark)
    colours, own, targets = theme(dark=dark), list(dict.fromkeys(table["own"])), list(dict.fromkeys(table["target"]))
    row = table["own"].map({name: len(own) - 1 - place for place, name in enumerate(own)}).to_numpy()
    column = table["target"].map({name: place for place, name in enumerate(targets)}).to_numpy()
    change, words = np.full((len(own), len(targets)), np.nan), np.full((len(own), len(targets)), "", dtype=object)
    change[row, column] = table["mean"]
    words[row, column] = [_direction_words(pair) for pair in table.to_dict("records")]
    widest = max(float(np.nanmax(np.abs(change))), 1e-9) if np.isfinite(change).any() else 1.0
    away, towards = (category_style(place, dark=dark)[0] for place in (0, 1))
    bar = {"title": {"text": "change of cosine", "side": "right", "font": {"size": 12}}, "thickness": 10}
    figure = go.Figure(
        go.Heatmap(
            z=change,
            x=np.arange(len(targets)),
            y=np.arange(len(own)),
            zmin=-widest,
            zmax=widest,
            colorscale=[[0, away], [0.5, colours.background], [1, towards]],
            colorbar=bar | {"outlinewidth": 0},
            xgap=1,
            ygap=1,
            customdata=words,
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
        )
    )
    marked = table["word"].isin(_MARKS).to_numpy()
    text = table["word"][marked].map(_MARKS)
    font = {"size": 14, "color": colours.text}
    figure.add_scatter(
        x=column[marked], y=row[marked], mode="text", text=text, textfont=font, hoverinfo="skip", showlegend=False
    )
    says = f"How {groups_of(len(own))} (rows) turn to {len(targets)} (columns): + towards, − away, beyond random genes"
    headed(figure, title, says, height=250 + 22 * len(own), dark=dark, legend=False)
    options = {"fixedrange": True, "showgrid": False}
    names = [parts.cut_inside(str(name)) for name in targets]
    parts.style_axis(
        figure,
        "x",
        "",
        dark=dark,
        tickvals=list(range(len(targets))),
        ticktext=names,
        tickangle=-90,
        range=[-0.5, len(targets) - 0.5],
        **options,
    )
    names = [parts.cut_inside(str(name)) for name in reversed(own)]
    limits = [-0.5, len(own) - 0.5]
    parts.style_axis(
        figure, "y", "", dark=dark, tickvals=list(range(len(own))), ticktext=names, range=limits, **options
    )
    return figure


def expression_volcano(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw each gene by its predicted change and by how sure it is that random genes do not bring it about.

    Parameters
    ----------
    table
        ``symbol``, ``change`` (of log1p expression) and ``q``; genes without either number are left out.
    title
        What was perturbed.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Genes with q at most `SIGNIFICANT` are triangles that point up for more and down for less; the others are
        grey discs. The largest changes are named.
    """
    drawn = table[np.isfinite(table["change"]) & table["q"].notna()]
    if drawn.empty:
        return parts.sentence("No predicted change was tested.", title=title, dark=dark)
    figure, colours = go.Figure(), theme(dark=dark)
    x, q = drawn["change"].to_numpy(float), drawn["q"].to_numpy(float)
    y = -np.log10(np.maximum(q, 1e-300)) + 0.0  # no -0
    names = np.array(escaped(drawn["symbol"]), dtype=object)
    clear = q <= SIGNIFICANT
    for genes, what, colour, symbol in (
        (~clear, "not clear", colours.missing, "circle"),
        (clear & (x < 0), "lower", category_style(0, dark=dark)[0], "triangle-down"),
        (clear & (x >= 0), "higher", category_style(1, dark=dark)[0], "triangle-up"),
    ):
        figure.add_scattergl(
            x=x[genes],
            y=y[genes],
            mode="markers",
            name=f"{what} ({genes.sum():,})",
            marker={"color": colour, "symbol": symbol, "size": 5 if symbol == "circle" else 8, "opacity": 0.8},
            text=names[genes],
            customdata=q[genes],
            hovertemplate="<b>%{text}</b><br>change %{x:+.3~g} of log1p, q %{customdata:.2~g}<extra></extra>",
        )
    says = f"Predicted change of {len(drawn):,} genes; {int(clear.sum()):,} beyond random genes"
    headed(figure, title, says, height=480, dark=dark)
    widest = 1.08 * max(float(np.abs(x).max()), 1e-9)
    parts.style_axis(figure, "x", "predicted change of log1p expression", dark=dark, range=[-widest, widest])
    parts.style_axis(figure, "y", "−log10 of q", dark=dark, rangemode="tozero")
    figure.add_hline(-np.log10(SIGNIFICANT), line={"color": colours.text, "width": 1, "dash": "dot"}, opacity=0.5)
    order = np.argsort(-np.abs(x), kind="stable")
    order = order[clear[order]]
    spread = np.array([_NAME_ROOM[0] * 2 * widest, _NAME_ROOM[1] * max(float(y.max()), 1)])
    for side in (order[x[order] < 0], order[x[order] >= 0]):
        for place in parts.apart(side, np.column_stack([x, y]) / spread, _NAMED):
            figure.add_annotation(
                x=x[place], y=y[place], text=names[place], showarrow=False, yshift=11, font={"size": 11}
            )
    return figure


def transition_sankey(table: pd.DataFrame, *, title: str = "", dark: bool = False) -> go.Figure:
    """Draw to which group's middle cells lie nearest, before and after the perturbation.

    Parameters
    ----------
    table
        Of `scdiva_core.tasks.perturbation_direction.transitions`: ``from``, ``to``, ``n``.
    title
        What was perturbed.
    dark
        For a dark page.

    Returns
    -------
    Figure
        Groups before on the left, after on the right, the largest first. Cells that stay flow in grey; the others in
        the colour of the group that they leave.
    """
    total = int(table["n"].sum())
    if not total:
        return parts.sentence("No cell reads the gene.", title=title, dark=dark)
    flows = [(str(start), str(end), int(n)) for start, end, n in table[["from", "to", "n"]].itertuples(index=False)]
    sides: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for start, end, n in flows:
        sides[0][start] += n
        sides[1][end] += n
    both = sides[0] + sides[1]
    order = sorted(both, key=lambda name: (-both[name], name))
    colour = {name: category_style(place, dark=dark)[0] for place, name in enumerate(order)}
    nodes = [(side, name) for side in (0, 1) for name in order if name in sides[side]]
    place = {node: number for number, node in enumerate(nodes)}
    colours, when = theme(dark=dark), ("before", "after")
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            textfont={"color": colours.text, "size": 12, "shadow": "auto"},
            node={
                "label": [f"{parts.cut_inside(name)} · {sides[side][name]:,}" for side, name in nodes],
                "color": [colour[name] for _, name in nodes],
                "customdata": [f"{escaped([name])[0]}<br>{cells_of(sides[s][name])} {when[s]}" for s, name in nodes],
                "hovertemplate": "%{customdata}<extra></extra>",
                "pad": 14,
                "thickness": 14,
                "line": {"width": 0},
            },
            link={
                "source": [place[0, start] for start, _, _ in flows],
                "target": [place[1, end] for _, end, _ in flows],
                "value": [n for _, _, n in flows],
                "color": [parts.faint(colours.missing if a == b else colour[a]) for a, b, _ in flows],
                "customdata": [_flow_words(*flow, sides[0][flow[0]]) for flow in flows],
                "hovertemplate": "%{customdata}<extra></extra>",
            },
        )
    )
    changed = sum(n for start, end, n in flows if start != end)
    says = f"{changed:,} of {cells_of(total)} ({changed / total:.1%}) are then nearest to another group"
    height = int(np.clip(26 * max(map(len, sides)) + 120, 280, 1600))
    headed(figure, title, says, height=height, dark=dark, legend=False)
    return figure.update_layout(margin={"l": 8, "r": 8, "b": 12})


def _step(points: NDArray[np.floating], *fields: pd.DataFrame) -> float:
    """Side of a square of the grid, as the knots show it."""
    columns = [np.unique(np.concatenate([table[axis] for table in fields])) for axis in ("x", "y")]
    gaps = np.concatenate([np.diff(column) for column in columns])
    # A single knot shows none.
    return float(gaps.min()) if len(gaps) else float(np.ptp(points, axis=0).max()) / 10 or 1.0


def _arrows(table: pd.DataFrame, factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One broken line through all arrows: tail, tip, barb, tip, barb."""
    tail = table["x"].to_numpy(float) + 1j * table["y"].to_numpy(float)
    move = factor * (table["dx"].to_numpy(float) + 1j * table["dy"].to_numpy(float))
    barbs = [tail + move * (1 - _BARB * np.exp(1j * angle)) for angle in (_BARB_ANGLE, -_BARB_ANGLE)]
    path = np.column_stack([tail, tail + move, barbs[0], tail + move, barbs[1], np.full(len(table), np.nan)]).ravel()
    return path.real, np.where(np.isnan(path.real), np.nan, path.imag)


def _direction_words(pair: dict) -> str:
    own, target = escaped([pair["own"], pair["target"]])
    random = f" (random genes {pair['null_mean']:+.2g})" if np.isfinite(pair["null_mean"]) else ""
    sure = f"<br>p {pair['p']:.2g}, q {pair['q']:.2g}" if np.isfinite(pair["q"]) else ""
    return (
        f"<b>{own} to {target}: {pair['word']}</b><br>change of cosine {pair['mean']:+.2g}{random}{sure}"
        f"<br>{cells_of(pair['n'])} that read the gene"
    )


def _flow_words(start: str, end: str, n: int, total: int) -> str:
    before, after = escaped([start, end])
    what = f"{before}, stay" if start == end else f"{before} → {after}"
    return f"<b>{what}</b><br>{cells_of(n)}, {n / total:.1%} of those before"
