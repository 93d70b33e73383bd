"""Networks as files, read back by the programs they are for."""

from __future__ import annotations

import csv
import io
import json

import networkx as nx
import numpy as np
import pytest

from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.tasks.grn_export import to_gmt, to_graphml, to_json
from scdiva_core.tasks.grn_graph import graph
from tests.unit.tasks.test_grn_graph import EDGES


def test_graphml_comes_back_with_all_attributes_and_types() -> None:
    made = graph(EDGES)
    back = nx.read_graphml(io.BytesIO(to_graphml(made)))
    assert isinstance(back, nx.DiGraph)
    assert dict(back.nodes(data=True)) == dict(made.nodes(data=True))
    assert {(a, b): edge for a, b, edge in back.edges(data=True)} == {
        (a, b): edge for a, b, edge in made.edges(data=True)
    }
    kinds = {name: type(value) for name, value in back.edges["SPI1", "CEBPB"].items()}
    assert (kinds["attention"], kinds["cells"], kinds["sign"], kinds["known"]) == (float, int, int, str)
    assert type(back.nodes["SPI1"]["regulator"]) is bool


def test_json_comes_back_as_the_same_graph() -> None:
    made = graph(EDGES)
    back = nx.node_link_graph(json.loads(to_json(made)), edges="edges")
    assert nx.utils.graphs_equal(back, made)
    assert "NaN" not in to_json(made), "which is no JSON"


def test_names_that_a_format_cannot_hold_are_made_plain_and_markup_stays_text() -> None:
    strange = graph(EDGES.replace({"CD14": "CD\x0014\t<b>"}))
    assert "CD14 <b>" in nx.read_graphml(io.BytesIO(to_graphml(strange)))
    assert "CD14 <b>" in [node["id"] for node in json.loads(to_json(strange))["nodes"]]
    assert "CD\x0014\t<b>" in strange, "the graph itself stays as it is"


def test_regulons_are_gene_sets_signed_apart() -> None:
    lines = [line.split("\t") for line in to_gmt(EDGES.iloc[::-1]).splitlines()]
    assert lines == [
        ["CEBPB(+)", "CEBPB raises 1 gene, by attention", "SPI1"],
        ["CEBPB(-)", "CEBPB lowers 1 gene, by attention", "IL1B"],
        ["GATA1(?)", "GATA1 acts in an unknown direction on 1 gene, by attention", "HBB"],
        ["SPI1(+)", "SPI1 raises 1 gene, by attention", "CEBPB"],
        ["SPI1(?)", "SPI1 acts in an unknown direction on 2 genes, by attention", "CD14", "IL1B"],
    ]
    assert to_gmt(EDGES.iloc[:0]) == ""


def test_a_gene_set_keeps_to_its_line_whatever_genes_are_called() -> None:
    (line,) = to_gmt(EDGES.iloc[:1].replace({"CEBPB": "CEB\tPB\n"})).splitlines()
    assert line.split("\t")[2:] == ["CEB PB"]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_formula_survives_in_a_csv(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(EDGES.replace({"CD14": name})).decode(), newline="")))
    assert rows[2]["target"] == f"'{name}"
    assert rows[5]["attention"] == "-0.1", "numbers stay numbers"


def test_a_csv_holds_every_column_of_every_edge() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(EDGES).decode(), newline="")))
    assert list(rows[0]) == list(EDGES.columns)
    assert [float(row["partial"]) for row in rows] == pytest.approx(EDGES["partial"].to_numpy(float))
    assert [row["knockout"] for row in rows] == ["-0.3", *[""] * 5]
    assert np.all([row["known"] in ("", "raises", "lowers") for row in rows])
