"""A network of regulators and targets: colour and head of an arrow say its direction of effect, width its strength."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from scdiva_core.figures import parts
from scdiva_core.figures.palette import category_style, theme
from scdiva_core.figures.perturbation_bars import cells_of, headed
from scdiva_core.figures.text import escaped

STABLE = 0.8
"""Share of bootstrap draws from which on an edge is drawn unbroken (our choice)."""

_EFFECTS = {1: "raises", -1: "lowers", 0: "unknown"}
_DASH = "4px,3px"
_FEW, _NAMED_TARGETS = 100, 25  # genes up to which all may be named, and targets that are where there are more
_HEAD = ("arrow", "line-ew")  # of an edge that lowers: a bar, as biologists draw it
_ALONG = 0.6  # where the hover text of an edge is: nearer its target, so that two opposite edges have two places
_LETTER, _LINE = 7.4, 13  # pixels of a name's letter and height
_SIDES = {"top center": (0, 1), "bottom center": (0, -1), "middle right": (1, 0), "middle left": (-1, 0)}


class _Look:
    """Sizes in pixels on a page or a phone, and what stays in sight."""

    def __init__(self, graph: nx.DiGraph, focus: str | None, *, dark: bool, narrow: bool) -> None:
        self.dark, self.colours = dark, theme(dark=dark)
        self.regulator, self.target = (11, 6) if narrow else (15, 8)
        self.widths, self.heads = ((0.7, 1.3, 2.2), (5, 6, 8)) if narrow else ((1.0, 1.8, 3.0), (7, 8, 11))
        # The fuller the picture, the fainter its edges, so that crossings stay readable.
        self.opacity = float(np.clip(1.1 - 0.1 * np.log2(max(graph.number_of_edges(), 1) / 8), 0.5, 0.9))
        self.size = (350, 520) if narrow else (860, int(np.clip(380 + len(graph), 440, 680)))
        self.focus = focus
        self.near = set(graph) if focus is None else {focus, *graph.predecessors(focus), *graph.successors(focus)}

    def sees(self, start: str, end: str) -> bool:
        """Whether an edge is one of the focus, or there is no focus."""
        return self.focus is None or self.focus in (start, end)

    def node(self, gene: str, *, regulator: bool) -> int:
        """Diameter of a node."""
        grown = 4 if gene == self.focus else 0
        return (self.regulator if regulator else self.target) + grown

    def effect(self, sign: int) -> str:
        """Colour of an edge: that of higher and lower in the project's other figures, grey for unknown."""
        return self.colours.missing if sign == 0 else category_style(1 if sign > 0 else 0, dark=self.dark)[0]


def network_figure(
    graph: nx.DiGraph,
    positions: pd.DataFrame,
    *,
    focus: str | None = None,
    title: str = "",
    dark: bool = False,
    narrow: bool = False,
) -> go.Figure:
    """Draw a network.

    Parameters
    ----------
    graph
        Genes with ``regulator`` (bool) and ``degree``; edges with ``attention``, ``cells``, ``stability``, ``sign`` and
        what else of the evidence is known (`scdiva_core.tasks.grn_graph.graph`).
    positions
        ``x`` and ``y`` of at least its genes, by gene.
    focus
        Gene whose edges and neighbours stay in sight; the rest is drawn faintly. One that is not in the graph is none.
    title
        Whose network it is.
    dark
        For a dark page.
    narrow
        For a phone: smaller nodes, fewer names.

    Returns
    -------
    Figure
        Edges end in an arrow (raises, effect unknown) or a bar (lowers); three widths for thirds of the attention;
        broken where fewer than `STABLE` of the draws have them. Only nodes carry ``customdata``, the gene's name, so
        that a click tells which; invisible points on the edges show their evidence.
    """
    if not graph.number_of_edges():
        return parts.sentence("No edge meets the filters.", title=title, dark=dark)
    look = _Look(graph, focus if focus in graph else None, dark=dark, narrow=narrow)
    places = positions.loc[list(graph), ["x", "y"]]
    low, high = places.to_numpy().min(axis=0), places.to_numpy().max(axis=0)
    room = 0.04 * (high - low) + 0.3
    ranges = np.column_stack([low - room, high + room])
    xy = dict(zip(places.index, places.to_numpy().tolist(), strict=True))
    figure = go.Figure()
    _add_edges(figure, graph, xy, look)
    _add_nodes(figure, graph, xy, look)
    _add_names(figure, graph, xy, ranges, look)
    _add_legend(figure, graph, look)
    regulators, edges = sum(node["regulator"] for node in graph.nodes.values()), graph.number_of_edges()
    says = f"{regulators:,} regulators (large), {len(graph):,} genes, {edges:,} edges (width: attention)"
    headed(figure, title, says, height=look.size[1], dark=dark)
    hidden: dict[str, Any] = {"visible": False, "fixedrange": False}
    figure.update_xaxes(hidden, range=ranges[0].tolist())
    figure.update_yaxes(hidden, range=ranges[1].tolist())
    # The zoom survives a change of focus or colours, but not another network.
    view = f"{ranges.round(3).tolist()}"
    return figure.update_layout(margin={"l": 8, "r": 8, "b": 8}, dragmode="pan", hovermode="closest", uirevision=view)


def _add_edges(figure: go.Figure, graph: nx.DiGraph, xy: dict[str, list[float]], look: _Look) -> None:
    """One trace for each look that edges have, those out of focus below, the strongest on top."""
    attention = np.array([edge["attention"] for edge in graph.edges.values()])
    thirds = np.quantile(attention, [1 / 3, 2 / 3])
    kinds: dict[tuple[bool, int, int, bool], list[tuple[str, str]]] = {}
    for pair, edge in graph.edges.items():
        step = int((edge["attention"] > thirds).sum())
        stable = bool(edge["stability"] >= STABLE)
        kinds.setdefault((look.sees(*pair), step, int(edge["sign"]), stable), []).append(pair)
    for (near, step, sign, stable), pairs in sorted(kinds.items()):
        colour = look.effect(sign) if near else look.colours.dimmed
        path = np.full((len(pairs), 3, 2), np.nan, dtype=np.float32)
        path[:, :2] = [[xy[a], xy[b]] for a, b in pairs]
        sizes, gaps = np.zeros((2, len(pairs), 3), dtype=np.float32)
        sizes[:, 1] = look.heads[step]
        gaps[:, 1] = [1 + look.node(b, regulator=graph.nodes[b]["regulator"]) / 2 for _, b in pairs]
        figure.add_scatter(
            x=path[..., 0].ravel(),
            y=path[..., 1].ravel(),
            mode="lines+markers",
            line={"color": colour, "width": look.widths[step], "dash": "solid" if stable else _DASH},
            marker={
                "symbol": _HEAD[sign < 0],
                "size": sizes.ravel(),
                "standoff": gaps.ravel(),
                "angleref": "previous",
                "color": colour,
                "line": {"color": colour, "width": max(look.widths[step], 1.5) if sign < 0 else 0},
                "opacity": 1,
            },
            opacity=look.opacity if look.focus is None or not near else 1,
            unselected={"marker": {"opacity": 1}},
            legendgroup=_EFFECTS[sign],
            showlegend=False,
            hoverinfo="skip",
        )
    starts, ends = np.array([[xy[a], xy[b]] for a, b in graph.edges]).swapaxes(0, 1)
    middles = (starts + _ALONG * (ends - starts)).astype(np.float32)
    _add_points(
        figure,
        middles,
        {"size": 7, "color": look.colours.text},
        visible_as=0,
        text=[_edge_words(*pair, edge) for pair, edge in graph.edges.items()],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_nodes(figure: go.Figure, graph: nx.DiGraph, xy: dict[str, list[float]], look: _Look) -> None:
    colours = look.colours
    for regulator, face in ((False, colours.background), (True, colours.text)):
        genes = [gene for gene, node in graph.nodes.items() if node["regulator"] == regulator]
        if not genes:
            continue
        line = [
            category_style(4, dark=look.dark)[0]
            if gene == look.focus
            else (colours.text if gene in look.near else colours.missing)
            for gene in genes
        ]
        marker = {
            "size": [look.node(gene, regulator=regulator) for gene in genes],
            "color": [face if gene in look.near else colours.dimmed for gene in genes],
            "line": {"color": line, "width": [4 if gene == look.focus else 1 for gene in genes]},
        }
        _add_points(
            figure,
            np.array([xy[gene] for gene in genes], dtype=np.float32),
            marker,
            visible_as=1,
            customdata=genes,
            text=[_node_words(graph, gene) for gene in genes],
            hovertemplate="%{text}<extra></extra>",
        )


def _add_points(
    figure: go.Figure, xy: NDArray[np.float32], marker: dict[str, Any], *, visible_as: int, **options: Any
) -> None:
    """Add markers that a click on one of them does not fade."""
    figure.add_scatter(
        x=xy[:, 0],
        y=xy[:, 1],
        mode="markers",
        marker=marker | {"opacity": visible_as},
        selected={"marker": {"opacity": visible_as}},
        unselected={"marker": {"opacity": visible_as}},
        showlegend=False,
        **options,
    )


def _add_names(
    figure: go.Figure,
    graph: nx.DiGraph,
    xy: dict[str, list[float]],
    ranges: NDArray[np.floating],
    look: _Look,
) -> None:
    """Write the names that find room: the focus and its neighbours, or regulators and the targets of most of them."""
    order = sorted(look.near, key=lambda gene: (gene != look.focus, *_importance(graph, gene)))
    if look.focus is None:
        regulators = sum(graph.nodes[gene]["regulator"] for gene in order)
        order = order if len(order) <= _FEW else order[: regulators + _NAMED_TARGETS]
    pixels = (np.array([xy[gene] for gene in graph]) - ranges[:, 0]) / np.ptp(ranges, axis=1) * look.size
    where = dict(zip(graph, pixels, strict=True))
    radius = {gene: look.node(gene, regulator=node["regulator"]) / 2 for gene, node in graph.nodes.items()}
    sides = _sides(order, where, radius, look)
    written = zip(sides, escaped(sides), strict=True)
    bold = [f"<b>{name}</b>" if graph.nodes[gene]["regulator"] else name for gene, name in written]
    figure.add_scatter(
        x=[xy[gene][0] for gene in sides],
        y=[xy[gene][1] for gene in sides],
        mode="markers+text",
        # Of the size of its node: so far from the middle its name begins.
        marker={"size": [2 * radius[gene] for gene in sides], "opacity": 0},
        text=bold,
        textposition=list(sides.values()),
        textfont={"size": 11, "color": look.colours.text, "shadow": "auto"},
        unselected={"marker": {"opacity": 0}, "textfont": {"color": look.colours.text}},
        hoverinfo="skip",
        showlegend=False,
    )


def _sides(
    order: Sequence[str], where: dict[str, NDArray[np.floating]], radius: dict[str, float], look: _Look
) -> dict[str, str]:
    """Side of its node on which each name hides no name or large node, and the fewest small ones; not all have one."""
    found: dict[str, str] = {}
    discs = {gene: _box(where[gene], 2 * size, 2 * size) for gene, size in radius.items()}
    taken = [box for gene, box in discs.items() if radius[gene] > look.target / 2]
    small = np.array([box for gene, box in discs.items() if radius[gene] <= look.target / 2 and gene in look.near])
    for gene in order:
        wide = _LETTER * len(gene)
        free: list[tuple[int, str, NDArray[np.floating]]] = []
        for side, (right, up) in _SIDES.items():
            away = np.array([right * (wide / 2 + radius[gene] + 2), up * (_LINE / 2 + radius[gene] + 1)])
            box = _box(where[gene] + away, wide, _LINE)
            inside = (box[:2] >= 0).all() and (box[2:] <= look.size).all()
            if inside and not _hidden(box, np.array(taken)):
                free.append((_hidden(box, small), side, box))
        if free:
            _, found[gene], box = min(free, key=lambda item: item[0])
            taken.append(box)
    return found


def _hidden(box: NDArray[np.floating], others: NDArray[np.floating]) -> int:
    """How many boxes ``[n, 4]`` one of them overlaps."""
    others = others.reshape(-1, 4)
    return int(((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(axis=1).sum())


def _box(middle: NDArray[np.floating], wide: float, high: float) -> NDArray[np.floating]:
    half = np.array([wide, high]) / 2
    return np.concatenate([middle - half, middle + half])


def _importance(graph: nx.DiGraph, gene: str) -> tuple[bool, int, str]:
    return not graph.nodes[gene]["regulator"], -graph.nodes[gene]["degree"], gene


def _add_legend(figure: go.Figure, graph: nx.DiGraph, look: _Look) -> None:
    signs = [int(edge["sign"]) for edge in graph.edges.values()]
    weak = sum(edge["stability"] < STABLE for edge in graph.edges.values())
    for sign, name in _EFFECTS.items():
        if sign in signs:
            colour, width = look.effect(sign), look.widths[1]
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="lines+markers",
                line={"color": colour, "width": width},
                # In a legend lines run to the right.
                marker={
                    "symbol": "line-ns" if sign < 0 else "triangle-right",
                    "size": 8,
                    "color": colour,
                    "line": {"color": colour, "width": width if sign < 0 else 0},
                },
                name=f"{name} ({signs.count(sign):,})",
                legendgroup=name,
            )
    if weak:
        line = {"color": look.colours.text, "width": look.widths[1], "dash": _DASH}
        name = f"stability < {STABLE:.0%} ({weak:,})"
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)


def _node_words(graph: nx.DiGraph, gene: str) -> str:
    out, into = graph.out_degree(gene), graph.in_degree(gene)
    counts = [_count(out, "target"), _count(into, "regulator")]
    return f"<b>{escaped([gene])[0]}</b><br>" + ", ".join(counts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _edge_words(start: str, end: str, edge: dict[str, Any]) -> str:
    first, second = escaped([start, end])
    known = edge.get("known")
    lines = [
        f"<b>{first} → {second}</b>: {_EFFECTS[int(edge['sign'])] if edge['sign'] else 'effect unknown'}",
        f"attention {edge['attention']:.2f} in {cells_of(edge['cells'])}, stable in {edge['stability']:.0%} of draws",
        ", ".join(_numbers(edge, (("spearman", "Spearman"), ("partial", "partial correlation")))),
        f"database: {known}" if known else "not in the database",
        *_numbers(edge, (("knockout", "log-fold change predicted for a knockout"),)),
    ]
    return "<br>".join(filter(None, lines))


def _numbers(edge: dict[str, Any], columns: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{words} {edge[column]:+.2f}" for column, words in columns if column in edge]
