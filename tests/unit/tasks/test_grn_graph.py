"""What is drawn of a network, where, and what can be asked of it; numbers worked out by hand."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.regulons import regulons
from scdiva_core.errors import DataError
from scdiva_core.tasks.grn_evidence import EDGE_COLUMNS
from scdiva_core.tasks.grn_graph import centralities, difference, ego, graph, layout, path, regulon, select

# regulator, target, attention, cells, stability, spearman, partial, sign, known, knockout
EDGES = pd.DataFrame(
    [
        ("SPI1", "CEBPB", 2.0, 90, 1.0, 0.5, 0.20, 1, "raises", -0.3),
        ("CEBPB", "IL1B", 1.0, 80, 0.9, 0.4, -0.10, -1, "", np.nan),
        ("SPI1", "CD14", 0.8, 70, 0.7, -0.6, 0.00, 0, "lowers", np.nan),
        ("GATA1", "HBB", 0.5, 60, 0.4, 0.1, 0.01, 0, "", np.nan),
        ("SPI1", "IL1B", 0.25, 50, 0.3, 0.0, 0.02, 0, "raises", np.nan),
        ("CEBPB", "SPI1", -0.1, 40, 0.2, 0.5, 0.20, 1, "", np.nan),
    ],
    columns=list(EDGE_COLUMNS),
).astype({"sign": np.int8})


def pairs(edges: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(edges["regulator"], edges["target"], strict=True))


def real_network(regulators: int, targets: int) -> pd.DataFrame:
    """Pairs of the regulon database with made-up attention."""
    table = regulons().table
    table = table[table["regulator"].isin(regulons().regulators) & (table["regulator"] != table["target"])]
    largest = table["regulator"].value_counts().index[:regulators]
    edges = table[table["regulator"].isin(largest)].groupby("regulator").head(targets).reset_index(drop=True)
    attention = np.random.default_rng(0).gamma(3, 0.3, len(edges))
    return edges.assign(
        attention=attention, cells=100, stability=0.9, spearman=0.1, partial=0.1, known="", knockout=0.0
    )


def test_all_edges_stay_where_nothing_is_asked_for_and_the_order_is_by_attention() -> None:
    found = select(EDGES.sample(frac=1, random_state=0))
    assert pairs(found.edges) == pairs(EDGES)
    assert list(found.edges.index) == list(range(6))
    assert found.says == "6 of 6 edges."


def test_filters_and_thresholds_count_what_they_refuse() -> None:
    found = select(EDGES, regulators=["SPI1"], minimum={"spearman": 0.4})
    assert pairs(found.edges) == [("SPI1", "CEBPB"), ("SPI1", "CD14")], "the size of a correlation counts"
    assert (found.total, found.refused, found.beyond_top, found.beyond_nodes) == (6, 4, 0, 0)
    assert pairs(select(EDGES, minimum={"attention": 0.9}).edges) == pairs(EDGES)[:2], "low attention is no high one"
    assert pairs(select(EDGES, minimum={"sign": 1}).edges) == [pairs(EDGES)[row] for row in (0, 1, 5)]
    assert pairs(select(EDGES, minimum={"knockout": 0.1}).edges) == pairs(EDGES)[:1], "unknown meets no threshold"
    assert pairs(select(EDGES, known_only=True).edges) == [pairs(EDGES)[row] for row in (0, 2, 4)]


def test_the_best_of_each_regulator_and_no_gene_too_many() -> None:
    found = select(EDGES, per_regulator=1)
    assert pairs(found.edges) == [("SPI1", "CEBPB"), ("CEBPB", "IL1B"), ("GATA1", "HBB")]
    assert found.beyond_top == 3
    few = select(EDGES, most_nodes=3)
    # CD14 and HBB would be a fourth gene; what lies among the three stays.
    assert pairs(few.edges) == [pairs(EDGES)[row] for row in (0, 1, 4, 5)]
    assert few.says == "4 of 6 edges; 2 would bring in too many genes."
    strongest = select(EDGES, most_edges=2)
    assert pairs(strongest.edges) == pairs(EDGES)[:2]
    assert strongest.says == "2 of 6 edges; 4 are weaker than those."


def test_an_empty_selection_is_a_graph_without_genes() -> None:
    empty = select(EDGES, minimum={"attention": 9})
    assert empty.says == "0 of 6 edges; 6 do not meet the filters."
    made = graph(empty.edges)
    assert len(made) == len(layout(made)) == len(centralities(made)) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regulators": ["SPI1", "PAX5"]}, "'PAX5' is none of the 3 regulators of this network."),
        ({"minimum": {"known": 1}}, "The edges have no numbers named 'known'."),
    ],
)
def test_what_the_edges_do_not_have_cannot_be_asked_for(options: dict, words: str) -> None:
    with pytest.raises(DataError) as caught:
        select(EDGES, **options)
    assert caught.value.message == words


def test_a_graph_has_the_evidence_as_plain_values_without_the_missing() -> None:
    made = graph(EDGES)
    assert made.number_of_edges() == 6
    edge = made.edges["SPI1", "CEBPB"]
    assert edge == {name: EDGES.iloc[0][name] for name in EDGE_COLUMNS[2:]}
    assert {type(value) for value in edge.values()} == {int, float, str}
    assert "knockout" not in made.edges["CEBPB", "IL1B"]
    assert dict(made.nodes(data=True))["SPI1"] == {"regulator": True, "degree": 4}
    assert dict(made.nodes(data=True))["IL1B"] == {"regulator": False, "degree": 2}


def test_a_layout_is_the_same_each_time_and_keeps_components_apart() -> None:
    made = graph(EDGES)
    places = layout(made)
    assert list(places.index) == list(made)
    pd.testing.assert_frame_equal(places, layout(made))
    assert not places.equals(layout(made, seed=1))
    blood, red = places.drop(index=["GATA1", "HBB"]), places.loc[["GATA1", "HBB"]]
    beside = red["x"].min() >= blood["x"].max() + 0.9 or red["y"].max() <= blood["y"].min() - 0.9
    assert beside, "at least an edge's length lies between them"


def test_neighbours_lie_nearer_than_others() -> None:
    made = graph(real_network(12, 25))
    xy = layout(made).loc[list(made)].to_numpy()
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    joined = nx.to_numpy_array(made, weight=None) > 0
    assert np.median(apart[joined]) < 0.5 * np.median(apart[~joined])
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 0.02, "no gene lies on another"


def test_a_gene_and_those_around_it() -> None:
    made = graph(EDGES)
    assert set(ego(made, "IL1B")) == {"IL1B", "CEBPB", "SPI1"}
    assert set(ego(made, "CD14", radius=2)) == {"CD14", "SPI1", "CEBPB", "IL1B"}
    assert ego(made, "IL1B").edges["SPI1", "IL1B"]["attention"] == 0.25
    with pytest.raises(DataError, match="PAX5 is none of the 6 genes of this network"):
        ego(made, "PAX5")


def test_a_way_follows_the_edges_with_most_attention() -> None:
    made = graph(EDGES)
    found = path(made, "SPI1", "IL1B")
    # Two steps of 1/2 and 1 are shorter than one of 1/0.25.
    assert found.genes == ("SPI1", "CEBPB", "IL1B")
    assert found.words == "SPI1 → CEBPB → IL1B: 2 steps."
    assert pairs(found.edges) == [("SPI1", "CEBPB"), ("CEBPB", "IL1B")]
    assert list(found.edges["attention"]) == [2.0, 1.0]
    assert path(made, "CEBPB", "SPI1").words == "CEBPB → SPI1: 1 step.", "even with little attention"


def test_a_way_against_the_arrows_says_so() -> None:
    made = graph(EDGES)
    with pytest.raises(DataError, match="No way leads from CD14 to IL1B along the arrows .* of 6 genes") as caught:
        path(made, "CD14", "IL1B")
    assert "ignore the directions" in caught.value.hint
    found = path(made, "CD14", "IL1B", directed=False)
    assert found.words == "CD14 ← SPI1 → CEBPB → IL1B: 3 steps, 1 against the arrow."
    assert pairs(found.edges)[0] == ("SPI1", "CD14"), "the edge as it is"
    # Of the two edges between them the one with more attention.
    assert path(made, "CEBPB", "SPI1", directed=False).words == "CEBPB ← SPI1: 1 step, 1 against the arrow."
    with pytest.raises(DataError, match="No way leads from CD14 to HBB in this network"):
        path(made, "CD14", "HBB", directed=False)


def test_centralities_of_a_star_and_a_pair() -> None:
    edges = pd.DataFrame({"regulator": ["A", "A", "A", "X"], "target": ["B", "C", "D", "Y"]})
    table = centralities(graph(edges)).set_index("gene")
    assert list(table.index) == ["A", "X", "B", "C", "D", "Y"]
    assert list(table["out_degree"]) == [3, 1, 0, 0, 0, 0]
    assert list(table["in_degree"]) == [0, 0, 1, 1, 1, 1]
    assert list(table["regulator"]) == [True, True, False, False, False, False]
    # The middle of a star has as much as all its ends together, squared: 1/2 = 3 (1/6).
    assert table["eigenvector"].to_numpy() == pytest.approx([0.5**0.5, np.nan, *[6**-0.5] * 3, np.nan], nan_ok=True)
    assert table["pagerank"].sum() == pytest.approx(1)
    assert table.loc["Y", "pagerank"] > table.loc["B", "pagerank"] > table.loc["A", "pagerank"]
    assert (table["betweenness"] == 0).all()


def test_betweenness_and_eigenvector_of_a_chain_with_an_edge_back() -> None:
    edges = pd.DataFrame({"regulator": ["A", "B", "B"], "target": ["B", "C", "A"]})
    table = centralities(graph(edges)).set_index("gene")
    # Of the two ordered pairs without B the way A to C leads through it, C to A does not exist.
    assert table.loc["B", "betweenness"] == pytest.approx(0.5)
    # Arrows ignored, two edges between A and B are one.
    assert table.loc[["A", "B", "C"], "eigenvector"].tolist() == pytest.approx([0.5, 0.5**0.5, 0.5])


def test_a_regulon_is_listed_by_attention() -> None:
    assert list(regulon(EDGES.iloc[::-1], "SPI1")["target"]) == ["CEBPB", "CD14", "IL1B"]
    with pytest.raises(DataError, match="'IL1B' is none of the 3 regulators"):
        regulon(EDGES, "IL1B")


def test_the_difference_of_two_sets_edge_by_edge() -> None:
    other = EDGES.assign(attention=EDGES["attention"] + [0.5, -2.0, 0.0, 0.0, 0.0, 0.0]).iloc[1:]
    found = difference(EDGES.iloc[:2], other.iloc[:2], all_b=other)
    assert pairs(found) == [("CEBPB", "IL1B"), ("SPI1", "CD14"), ("SPI1", "CEBPB")]
    assert list(found["where"]) == ["both", "only b", "only a"]
    assert found["change"].tolist() == pytest.approx([-2.0, np.nan, np.nan], nan_ok=True)
    everything = difference(EDGES.iloc[:2], other.iloc[:2], all_a=EDGES, all_b=other).set_index(["regulator", "target"])
    row = everything.loc[("SPI1", "CD14")]
    assert (row["where"], row["attention_a"], row["attention_b"], row["change"]) == ("only b", 0.8, 0.8, 0.0)
    assert (everything.loc[("SPI1", "CEBPB"), "sign_a"], everything.loc[("SPI1", "CEBPB"), "sign_b"]) == (1, 0)


def test_a_large_network_is_cut_to_what_can_be_drawn() -> None:
    found = select(real_network(100, 40), per_regulator=15)
    made = graph(found.edges)
    assert len(made) == 300
    assert found.total == len(found.edges) + found.beyond_top + found.beyond_nodes + found.beyond_edges
    assert np.isfinite(layout(made).to_numpy()).all()
