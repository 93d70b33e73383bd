"""A network as a figure: what an edge looks like, what can be clicked, and that it stays light."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.grn_network import network_figure
from scdiva_core.figures.palette import DARK, LIGHT, category_style
from scdiva_core.figures.static import render
from tests.unit.figures.test_static import texts
from tests.unit.figures.test_static_figures import picture


def network(edges: list[tuple[str, str, float, float, int]]) -> nx.DiGraph:
    """Regulator, target, attention, stability and sign."""
    made = nx.DiGraph()
    for regulator, target, attention, stability, sign in edges:
        evidence = {"attention": attention, "stability": stability, "sign": sign, "cells": 1, "known": ""}
        made.add_edge(regulator, target, **evidence)
    for gene, node in made.nodes.items():
        node.update(regulator=made.out_degree(gene) > 0, degree=made.degree(gene))
    return made


SMALL = network(
    [
        ("SPI1", "<CD14>", 3.0, 0.95, 1),
        ("SPI1", "IL1B", 2.0, 0.8, -1),
        ("CEBPB", "IL1B", 1.0, 0.5, 0),
        ("CEBPB", "SPI1", 0.5, 0.1, 0),
    ]
)
SMALL.edges["SPI1", "<CD14>"].update(known="raises", spearman=0.5, partial=-0.25, knockout=-0.125)
PLACES = pd.DataFrame({"x": [0.0, 1, 1, 0], "y": [0.0, 0, 1, 1]}, index=["SPI1", "<CD14>", "IL1B", "CEBPB"])


def large() -> tuple[nx.DiGraph, pd.DataFrame]:
    """300 genes and 900 edges at random places."""
    generator = np.random.default_rng(0)
    genes = [f"GENE{number}" for number in range(300)]
    first = [(target % 60, target) for target in range(60, 300)]
    others = sorted({(regulator, target) for regulator in range(60) for target in range(60, 300)} - set(first))
    rest = [others[place] for place in generator.choice(len(others), 660, replace=False)]
    pairs = [(genes[regulator], genes[target]) for regulator, target in first + rest]
    strengths = (4 * generator.random(900)).tolist()
    edges = [(*pair, z, z % 1, int(z * 10) % 3 - 1) for pair, z in zip(pairs, strengths, strict=True)]
    places = pd.DataFrame(generator.random((300, 2)) * 12, columns=["x", "y"], index=genes)
    return network(edges), places


def edge_traces(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.marker.angleref == "previous"]


def ends(trace: go.Scatter) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    xy = np.column_stack([trace.x, trace.y]).reshape(-1, 3, 2)
    assert np.isnan(xy[:, 2]).all()
    return [(tuple(start), tuple(end)) for start, end in xy[:, :2].tolist()]


def edge_of(figure: go.Figure, start: str, end: str) -> go.Scatter:
    """The trace that draws an edge between two genes of `PLACES`."""
    where = (tuple(PLACES.loc[start]), tuple(PLACES.loc[end]))
    (found,) = [trace for trace in edge_traces(figure) if where in ends(trace)]
    return found


def nodes(figure: go.Figure) -> dict[str, dict]:
    """Colour, size and outline of each gene that can be clicked."""
    found = {}
    for trace in figure.data:
        for place, gene in enumerate(() if trace.customdata is None else trace.customdata):
            marker = trace.marker
            look = {"colour": marker.color[place], "size": marker.size[place], "line": marker.line.color[place]}
            found[gene] = look | {"xy": (trace.x[place], trace.y[place])}
    return found


def names(figure: go.Figure) -> list[str]:
    (trace,) = [trace for trace in figure.data if trace.mode == "markers+text"]
    return list(trace.text)


def test_an_edge_shows_effect_strength_and_stability() -> None:
    figure = network_figure(SMALL, PLACES)
    raises, lowers = edge_of(figure, "SPI1", "<CD14>"), edge_of(figure, "SPI1", "IL1B")
    unknown, weak = edge_of(figure, "CEBPB", "IL1B"), edge_of(figure, "CEBPB", "SPI1")
    assert [t.line.color for t in (raises, lowers, unknown, weak)] == [
        category_style(1)[0],
        category_style(0)[0],
        LIGHT.missing,
        LIGHT.missing,
    ]
    assert [t.marker.symbol for t in (raises, lowers, unknown, weak)] == ["arrow", "line-ew", "arrow", "arrow"]
    # Thirds of the attention lie at 1 and 2: what is at a border belongs below.
    widths = [t.line.width for t in (raises, lowers, unknown, weak)]
    assert widths[0] > widths[1] > widths[2] == widths[3]
    assert [t.line.dash for t in (raises, lowers)] == ["solid", "solid"], "0.8 is stable"
    assert "px" in unknown.line.dash
    assert weak.line.dash == unknown.line.dash


def test_heads_end_at_the_rim_of_their_target() -> None:
    figure = network_figure(SMALL, PLACES)
    look = nodes(figure)
    for start, end in SMALL.edges:
        trace = edge_of(figure, start, end)
        place = 3 * ends(trace).index((tuple(PLACES.loc[start]), tuple(PLACES.loc[end])))
        assert trace.marker.size[place] == 0
        assert trace.marker.size[place + 1] > 0
        assert trace.marker.standoff[place + 1] == look[end]["size"] / 2 + 1


def test_only_genes_carry_what_a_click_returns_and_lie_on_top() -> None:
    figure = network_figure(SMALL, PLACES)
    assert {gene: look["xy"] for gene, look in nodes(figure).items()} == {
        gene: tuple(PLACES.loc[gene]) for gene in PLACES.index
    }
    last = max(place for place, trace in enumerate(figure.data) if trace.marker.angleref == "previous")
    assert all(place > last for place, trace in enumerate(figure.data) if trace.customdata is not None)
    sizes = {gene: look["size"] for gene, look in nodes(figure).items()}
    assert sizes["SPI1"] == sizes["CEBPB"] > sizes["IL1B"] == sizes["<CD14>"]


def test_a_click_fades_nothing() -> None:
    for trace in network_figure(SMALL, PLACES).data:
        if trace.x[0] is not None:
            own = 1 if trace.marker.opacity is None else trace.marker.opacity
            assert trace.unselected.marker.opacity == own


def test_hovering_over_an_edge_tells_its_evidence() -> None:
    figure = network_figure(SMALL, PLACES)
    (trace,) = [t for t in figure.data if t.text is not None and t.mode == "markers" and t.marker.opacity == 0]
    hover = dict(zip(SMALL.edges, trace.text, strict=True))
    assert hover["SPI1", "<CD14>"] == (
        "<b>SPI1 → &lt;CD14&gt;</b>: raises<br>attention 3.00 in 1 cell, stable in 95% of draws"
        "<br>Spearman +0.50, partial correlation -0.25<br>database: raises"
        "<br>log-fold change predicted for a knockout -0.12"
    )
    assert hover["CEBPB", "SPI1"] == (
        "<b>CEBPB → SPI1</b>: effect unknown<br>attention 0.50 in 1 cell, stable in 10% of draws<br>not in the database"
    )
    assert all(t.hoverinfo == "skip" for t in edge_traces(figure))
    # Two opposite edges have two places.
    both = network([("A", "B", 1, 1, 1), ("B", "A", 1, 1, 1)])
    figure = network_figure(both, pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 0.0]}, index=["A", "B"]))
    (trace,) = [t for t in figure.data if t.text is not None and t.mode == "markers" and t.marker.opacity == 0]
    assert trace.x == pytest.approx([0.6, 0.4])


def test_the_legend_explains_colours_and_dashes_that_are_there() -> None:
    shown = [trace.name for trace in network_figure(SMALL, PLACES).data if trace.name]
    assert shown == ["raises (1)", "lowers (1)", "unknown (2)", "stability < 80% (2)"]
    plain = network([("A", "B", 1, 1, 1), ("A", "C", 1, 1, 1)])
    shown = [trace.name for trace in network_figure(plain, PLACES.set_axis(["A", "B", "C", "D"])).data if trace.name]
    assert shown == ["raises (2)"]


def test_a_focus_keeps_its_neighbours_in_sight() -> None:
    figure = network_figure(SMALL, PLACES, focus="<CD14>")
    look = nodes(figure)
    assert look["CEBPB"]["colour"] == look["IL1B"]["colour"] == LIGHT.dimmed
    assert look["SPI1"]["colour"] == LIGHT.text
    assert look["<CD14>"]["line"] not in (look["SPI1"]["line"], LIGHT.missing)
    assert edge_of(figure, "CEBPB", "IL1B").line.color == LIGHT.dimmed
    assert edge_of(figure, "SPI1", "<CD14>").line.color == category_style(1)[0]
    assert names(figure) == ["&lt;CD14&gt;", "<b>SPI1</b>"]
    assert network_figure(SMALL, PLACES, focus="PAX5").to_json() == network_figure(SMALL, PLACES).to_json()


def test_names_cover_neither_each_other_nor_large_nodes() -> None:
    graph, places = large()
    figure = network_figure(graph, places)
    shown = names(figure)
    assert len(shown) > 40
    assert sum(name.startswith("<b>") for name in shown) > 30, "regulators first"
    assert len(names(network_figure(graph, places, narrow=True))) < len(shown)
    close = places.assign(x=np.arange(300) / 1e4, y=0.0)
    assert len(names(network_figure(graph, close))) < len(shown) / 2, "no room, no name"


def test_a_large_network_is_light_and_the_same_each_time() -> None:
    graph, places = large()
    assert (len(graph), graph.number_of_edges()) == (300, 900)
    figure = network_figure(graph, places, title="B cells & more")
    assert len(figure.to_json()) < 500_000
    assert figure.to_json() == network_figure(graph, places, title="B cells & more").to_json()
    assert len(figure.data) < 40, "edges that look alike are one trace"
    assert figure.layout.title.text.startswith("B cells &amp; more<br>")
    assert "60 regulators (large), 300 genes, 900 edges (width: attention)" in figure.layout.title.text


def test_the_zoom_survives_a_focus_but_not_another_network() -> None:
    view = network_figure(SMALL, PLACES).layout.uirevision
    assert network_figure(SMALL, PLACES, focus="SPI1", dark=True).layout.uirevision == view
    assert network_figure(SMALL, PLACES * 2).layout.uirevision != view


def test_no_edge_is_said() -> None:
    figure = network_figure(nx.DiGraph(), PLACES.iloc[:0], title="T cells")
    assert [note.text for note in figure.layout.annotations] == ["No edge meets the filters."]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [800, 390])
def test_a_network_is_drawn_whole_as_a_file(dark: bool, width: int) -> None:
    figure = network_figure(SMALL, PLACES, title="Monocytes", dark=dark, narrow=width == 390)
    svg = texts(render(figure, "svg", width=width, height=int(figure.layout.height)))
    for word in ("Monocytes", "SPI1", "CEBPB", "IL1B", "<CD14>", "raises (1)", "stability < 80% (2)", "4 genes"):
        assert word in svg
    drawn = picture(figure, width)
    other = np.abs(drawn - drawn[0, 0]).max(axis=2) > 0.1
    assert (drawn[0, 0].max() < 0.2) == dark
    assert not any(edge.any() for edge in (other[:2], other[-2:], other[:, :2], other[:, -2:])), "nothing is cut"
    assert figure.layout.paper_bgcolor == (DARK if dark else LIGHT).background
