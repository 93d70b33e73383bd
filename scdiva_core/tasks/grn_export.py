"""Networks as files that other programs read; names of genes are plain text in each of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

import networkx as nx
import pandas as pd

_SIGNS = ((1, "(+)", "raises"), (-1, "(-)", "lowers"), (0, "(?)", "acts in an unknown direction on"))


def to_graphml(graph: nx.DiGraph) -> bytes:
    """Write a graph as GraphML, for Cytoscape, Gephi and ``networkx.read_graphml``.

    Parameters
    ----------
    graph
        Of `scdiva_core.tasks.grn_graph.graph`.

    Returns
    -------
    bytes
        UTF-8 XML with all attributes of genes and edges and their types.
    """
    file = io.BytesIO()
    nx.write_graphml_xml(_plainly_named(graph), file)
    return file.getvalue()


def to_json(graph: nx.DiGraph) -> str:
    """Write a graph as node-link JSON, as ``networkx.node_link_graph(data, edges="edges")`` and D3 read it.

    Parameters
    ----------
    graph
        Of `scdiva_core.tasks.grn_graph.graph`.
    """
    return json.dumps(nx.node_link_data(_plainly_named(graph), edges="edges"), allow_nan=False, indent=1)


def to_gmt(edges: pd.DataFrame) -> str:
    """Write regulons as gene sets (GMT), for enrichment tools.

    Parameters
    ----------
    edges
        ``regulator``, ``target``, ``attention`` and ``sign``.

    Returns
    -------
    str
        A line a regulon: name, description, targets, those with the most attention first. Targets that the regulator
        raises, lowers, or acts on in an unknown direction are regulons apart: ``SPI1(+)``, ``SPI1(-)``, ``SPI1(?)``
        (the names are pySCENIC's, the last is ours).
    """
    ranked = edges.sort_values("attention", ascending=False, kind="stable")
    lines = []
    for regulator, own in ranked.groupby("regulator", sort=True):
        for sign, mark, verb in _SIGNS:
            targets = _plain(own.loc[own["sign"] == sign, "target"])
            if targets:
                name = _plain([regulator])[0]
                genes = "1 gene" if len(targets) == 1 else f"{len(targets)} genes"
                lines.append("\t".join([f"{name}{mark}", f"{name} {verb} {genes}, by attention", *targets]) + "\n")
    return "".join(lines)


def _plain(names: Iterable[object]) -> list[str]:
    """Names on one line each, without what XML may not hold."""
    lines = (" ".join(str(name).split()) for name in names)
    return ["".join(letter for letter in line if letter.isprintable()) for line in lines]


def _plainly_named(graph: nx.DiGraph) -> nx.DiGraph:
    return nx.relabel_nodes(graph, dict(zip(graph, _plain(graph), strict=True)))
