"""Which edges of a network to draw, where its genes lie, and what can be asked of it as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import igraph
import networkx as nx
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.errors import DataError

SIGNED = ("spearman", "partial", "knockout", "sign")
"""Columns of evidence in which a number far below 0 says as much as one far above: thresholds ask for their size."""

MOST_NODES = 300
"""Genes of a network that is drawn, at most; beyond that nobody follows an edge (our choice)."""

MOST_EDGES = 600
"""Edges likewise; they are drawn anew in less than a second."""

LEAST_STRENGTH = 0.01
"""Attention that an edge counts with on a path, at least: one at or below even attention leads on, but not far."""

_GAP = 1.0  # between components, in lengths of an edge
_WIDER = 1.3  # than high: as a page is


@dataclass(frozen=True, eq=False)
class Selection:
    """Edges to draw, and how many were left out for what reason.

    Parameters
    ----------
    edges
        Those that stay, by attention, indexed from 0.
    total
        Edges before the selection.
    refused
        Left out because a filter or threshold refuses them.
    beyond_top
        Left out because their regulator has enough that rank higher.
    beyond_nodes
        Left out because they would bring in too many genes.
    beyond_edges
        Left out because enough edges are stronger.
    """

    edges: pd.DataFrame
    total: int
    refused: int
    beyond_top: int
    beyond_nodes: int
    beyond_edges: int

    @property
    def says(self) -> str:
        """The counts in one sentence."""
        reasons = (
            (self.refused, "do not meet the filters"),
            (self.beyond_top, "rank lower among their regulator's"),
            (self.beyond_nodes, "would bring in too many genes"),
            (self.beyond_edges, "are weaker than those"),
        )
        why = [f"{count:,} {reason}" for count, reason in reasons if count]
        return f"{len(self.edges):,} of {self.total:,} edges" + (f"; {', '.join(why)}" if why else "") + "."


@dataclass(frozen=True, eq=False)
class Path:
    """A way from one gene to another.

    Parameters
    ----------
    genes
        From start to end.
    edges
        One row a step, with the evidence that is known; regulator and target as the edge itself has them.
    words
        The way as arrows, and how many of them point back.
    """

    genes: tuple[str, ...]
    edges: pd.DataFrame
    words: str


def select(
    edges: pd.DataFrame,
    *,
    regulators: Sequence[str] = (),
    per_regulator: int = 10,
    minimum: Mapping[str, float] | None = None,
    known_only: bool = False,
    most_nodes: int = MOST_NODES,
    most_edges: int = MOST_EDGES,
) -> Selection:
    """Pick the edges of a network that can be read.

    Parameters
    ----------
    edges
        Table of `scdiva_core.tasks.grn_evidence.evidence`.
    regulators
        Symbols of those to keep; none keeps all.
    per_regulator
        Targets of each regulator, those with the most attention first.
    minimum
        Least number by column; of those in `SIGNED` the size counts. A number that is missing meets no threshold.
    known_only
        Keep only edges that the regulon database lists.
    most_nodes, most_edges
        Genes and edges at most. Edges are taken by attention (our choice); one that needs a gene too many is passed
        over.

    Raises
    ------
    DataError
        A regulator has no edge in the table, or a threshold is on a column that holds no numbers.
    """
    minimum = minimum or {}
    _check(edges, regulators, minimum)
    kept = np.ones(len(edges), dtype=bool)
    if len(regulators):
        kept &= edges["regulator"].isin(regulators).to_numpy()
    for column, least in minimum.items():
        values = edges[column].to_numpy(float)
        kept &= (np.abs(values) if column in SIGNED else values) >= least
    if known_only:
        kept &= edges["known"].to_numpy() != ""
    passed = edges[kept].sort_values("attention", ascending=False, kind="stable", ignore_index=True)
    top = passed[(passed.groupby("regulator").cumcount() < per_regulator).to_numpy(bool)]
    within = top[_within(top, most_nodes)].reset_index(drop=True)
    drawn = within.head(most_edges)
    sizes = map(len, (edges, passed, top, within, drawn))
    return Selection(drawn, len(edges), *(more - fewer for more, fewer in pairwise(sizes)))


def graph(edges: pd.DataFrame) -> nx.DiGraph:
    """Make a graph of an edge table.

    Parameters
    ----------
    edges
        ``regulator``, ``target`` and evidence; every pair once.

    Returns
    -------
    DiGraph
        Genes are nodes, with ``regulator`` (bool: it has a target here) and ``degree`` (edges in and out). Edges have
        the evidence as plain numbers and text; one that is missing (NaN) is left out.
    """
    made = nx.DiGraph()
    for row in edges.to_dict("records"):
        pair = str(row.pop("regulator")), str(row.pop("target"))
        # NaN is the one value that differs from itself; in files it has as many spellings as readers.
        made.add_edge(*pair, **{name: value for name, value in row.items() if value == value})
    for gene, node in made.nodes.items():
        node.update(regulator=made.out_degree(gene) > 0, degree=made.degree(gene))
    return made


def layout(graph: nx.DiGraph, seed: int = 0) -> pd.DataFrame:
    """Place genes so that distance on the plane follows distance in the graph (Kamada & Kawai 1989, igraph).

    Parameters
    ----------
    graph
        Directions and evidence have no part in it.
    seed
        Of the places that it starts from; the same seed gives the same picture.

    Returns
    -------
    DataFrame
        ``x`` and ``y`` (float64, an edge is about 1 long) by gene, in the order of the graph. Components lie side by
        side, the largest first, in rows from the top.
    """
    generator = np.random.default_rng(seed)
    place = {gene: number for number, gene in enumerate(graph)}
    found = np.zeros((len(place), 2))
    # Sorted by what does not depend on the order in which sets are walked through.
    parts = sorted(
        (sorted(place[gene] for gene in part) for part in nx.weakly_connected_components(graph)),
        key=lambda part: (-len(part), part[0]),
    )
    for part in parts:
        own = {number: position for position, number in enumerate(part)}
        pairs = {(own[place[a]], own[place[b]]) for a, b in graph.edges if place[a] in own}
        start = generator.normal(size=(len(part), 2)).tolist()
        drawn = igraph.Graph(len(part), sorted(pairs)).layout_kamada_kawai(seed=start)
        found[part] = np.array(drawn.coords)
    for part, corner in zip(parts, _packed([np.ptp(found[part], axis=0) for part in parts]), strict=True):
        found[part] += corner - found[part].min(axis=0)
    return pd.DataFrame(found, columns=["x", "y"], index=pd.Index(list(graph), name="gene"))


def ego(graph: nx.DiGraph, gene: str, radius: int = 1) -> nx.DiGraph:
    """Take the part of a graph around a gene, whichever way the arrows point.

    Parameters
    ----------
    graph
        Not changed; the part is a copy with all evidence and the ``degree`` of the whole.
    gene
        In the middle.
    radius
        Steps.

    Raises
    ------
    DataError
        The gene is not in the graph.
    """
    _find(graph, gene)
    return nx.ego_graph(graph, gene, radius=radius, undirected=True)


def path(graph: nx.DiGraph, start: str, end: str, *, directed: bool = True) -> Path:
    """Find the shortest way between two genes, where a step is the shorter the more attention its edge has.

    Parameters
    ----------
    graph
        Of `graph`. A step is 1 / attention long (our choice), with attention of at least `LEAST_STRENGTH`.
    start, end
        Genes.
    directed
        Only along the arrows; otherwise also against them, which the words then say.

    Raises
    ------
    DataError
        One of the genes is not in the graph, or no way leads from one to the other.
    """
    _find(graph, start)
    _find(graph, end)
    ways = graph if directed else graph.to_undirected(as_view=True)
    try:
        genes = nx.dijkstra_path(ways, start, end, lambda a, b, _: min(_lengths(graph, a, b, directed).values()))
    except nx.NetworkXNoPath:
        along = " along the arrows" if directed else ""
        msg = f"No way leads from {start} to {end}{along} in this network of {len(graph):,} genes."
        raise DataError(msg, "Show more edges" + (", or ignore the directions." if directed else ".")) from None
    steps = []
    for a, b in pairwise(genes):
        lengths = _lengths(graph, a, b, directed)
        steps.append(min(lengths, key=lengths.__getitem__))
    rows = [{"regulator": a, "target": b, **graph.edges[a, b]} for a, b in steps]
    back = [pair != step for pair, step in zip(pairwise(genes), steps, strict=True)]
    arrows = "".join(f" {'←' if turned else '→'} {gene}" for gene, turned in zip(genes[1:], back, strict=True))
    against = f", {sum(back)} against the arrow" if any(back) else ""
    count = f"{len(steps)} step{'' if len(steps) == 1 else 's'}"
    return Path(tuple(genes), pd.DataFrame(rows), f"{start}{arrows}: {count}{against}.")


def centralities(graph: nx.DiGraph) -> pd.DataFrame:
    """Measure how central each gene is; every edge counts alike, whatever its evidence.

    Parameters
    ----------
    graph
        Of `graph`.

    Returns
    -------
    DataFrame
        One row a gene, those with most targets first: ``gene``, ``regulator`` (bool), ``out_degree`` (targets),
        ``in_degree`` (regulators), ``betweenness`` (share of the shortest ways between other genes, along the arrows,
        that lead through it; Brandes 2001), ``pagerank`` (along the arrows, so high where regulators of regulators
        meet) and ``eigenvector`` (of the largest component, arrows ignored, because along them most networks of
        regulators and targets have none; length 1, NaN in other components).
    """
    table = pd.DataFrame({"gene": list(graph), "regulator": [graph.nodes[gene]["regulator"] for gene in graph]})
    eigenvector = _eigenvector(graph)
    for name, values in (
        ("out_degree", dict(graph.out_degree)),
        ("in_degree", dict(graph.in_degree)),
        ("betweenness", nx.betweenness_centrality(graph)),
        ("pagerank", nx.pagerank(graph)),
        ("eigenvector", eigenvector),
    ):
        table[name] = table["gene"].map(values).astype(int if name.endswith("degree") else float)
    order = ["out_degree", "in_degree", "gene"]
    return table.sort_values(order, ascending=[False, False, True], ignore_index=True)


def regulon(edges: pd.DataFrame, regulator: str) -> pd.DataFrame:
    """Rows of one regulator, those with the most attention first, indexed from 0.

    Raises
    ------
    DataError
        It has no edge in the table.
    """
    _check(edges, [regulator], {})
    own = edges[edges["regulator"] == regulator]
    return own.sort_values("attention", ascending=False, kind="stable", ignore_index=True)


def difference(
    a: pd.DataFrame, b: pd.DataFrame, *, all_a: pd.DataFrame | None = None, all_b: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compare the networks of two cell sets edge by edge.

    Parameters
    ----------
    a, b
        Edges that each set shows.
    all_a, all_b
        Tables that they were selected from: they know the attention of edges that a set does not show.

    Returns
    -------
    DataFrame
        One row an edge that either shows, the largest change first: ``regulator``, ``target``, ``where`` (``"only a"``,
        ``"only b"`` or ``"both"``), ``attention_a``, ``attention_b`` (NaN where a set does not know the edge),
        ``change`` (b less a), ``sign_a`` and ``sign_b`` (0 where unknown).
    """
    keys = ["regulator", "target"]
    shown = a[keys].merge(b[keys], how="outer", on=keys, indicator="where")
    shown["where"] = shown["where"].astype(str).map({"left_only": "only a", "right_only": "only b", "both": "both"})
    for name, table in (("a", a if all_a is None else all_a), ("b", b if all_b is None else all_b)):
        numbers = table[[*keys, "attention", "sign"]].set_index(keys).add_suffix(f"_{name}")
        shown = shown.join(numbers, on=keys)
        shown[f"sign_{name}"] = shown[f"sign_{name}"].fillna(0).astype(np.int8)
    shown["change"] = shown["attention_b"] - shown["attention_a"]
    shown = shown.sort_values("change", key=np.abs, ascending=False, kind="stable", ignore_index=True)
    return shown[[*keys, "where", "attention_a", "attention_b", "change", "sign_a", "sign_b"]]


def _check(edges: pd.DataFrame, regulators: Sequence[str], minimum: Mapping[str, float]) -> None:
    there = set(edges["regulator"])
    for name in regulators:
        if name not in there:
            msg = f"{name!r} is none of the {len(there):,} regulators of this network."
            raise DataError(msg, "Choose one that the cells read and that has targets here.")
    numbers = list(edges.select_dtypes("number"))
    for name in minimum:
        if name not in numbers:
            msg = f"The edges have no numbers named {name!r}."
            raise DataError(msg, f"A threshold can be set on {', '.join(numbers)}.")


def _within(edges: pd.DataFrame, most: int) -> NDArray[np.bool_]:
    """Edges, taken in their order, whose genes are no more than allowed."""
    there: set[str] = set()
    kept = np.zeros(len(edges), dtype=bool)
    for row, pair in enumerate(zip(edges["regulator"], edges["target"], strict=True)):
        if len(there.union(pair)) <= most:
            there.update(pair)
            kept[row] = True
    return kept


def _packed(sizes: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Lower left corners of boxes in rows, the first at the top left, where all together are drawn largest."""
    if not sizes:
        return np.zeros((0, 2))
    boxes = np.array(sizes) + _GAP
    widths = np.cumsum(boxes[:, 0])
    rows = [_rows(boxes, width) for width in widths[widths >= boxes[:, 0].max()]]
    return min(rows, key=lambda row: max((row[:, 0] + boxes[:, 0]).max() / _WIDER, -row[:, 1].min()))


def _rows(boxes: NDArray[np.floating], width: float) -> NDArray[np.float64]:
    """Fill rows of a width from the left, and go on below when a row is full."""
    corners, left, top, low = np.zeros(boxes.shape), 0.0, 0.0, 0.0
    for number, (wide, high) in enumerate(boxes):
        if left + wide > width + 1e-9:
            left, top = 0.0, low
        corners[number] = left, top - high
        left, low = left + wide, min(low, top - high)
    return corners


def _find(graph: nx.DiGraph, gene: str) -> None:
    if gene not in graph:
        msg = f"{gene} is none of the {len(graph):,} genes of this network."
        raise DataError(msg, "Show more edges, or choose a gene that is drawn.")


def _lengths(graph: nx.DiGraph, a: str, b: str, directed: bool) -> dict[tuple[str, str], float]:
    """Length of each edge between two neighbours that may be walked from the first to the second."""
    pairs = [(a, b)] if directed else [(a, b), (b, a)]
    return {pair: 1 / max(graph.edges[pair]["attention"], LEAST_STRENGTH) for pair in pairs if pair in graph.edges}


def _eigenvector(graph: nx.DiGraph) -> dict[str, float]:
    """By gene of the largest component; dense, because it is small and power iteration stops short of ties."""
    if not graph:
        return {}
    genes = min(map(sorted, nx.weakly_connected_components(graph)), key=lambda genes: (-len(genes), genes))
    joined = nx.to_numpy_array(graph.to_undirected(as_view=True), nodelist=genes, weight=None)
    _, vectors = np.linalg.eigh(joined)
    return dict(zip(genes, np.abs(vectors[:, -1]).tolist(), strict=True))
