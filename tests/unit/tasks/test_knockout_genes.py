"""Genes to perturb: counted by hand, found by any name, read from pasted lists, listed for a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.regulons import regulons
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks.knockout_genes import (
    FEWEST_CELLS,
    find_genes,
    gene_table,
    parse_gene_list,
    screen_genes,
)

# A vocabulary that names genes as it likes: SLC9A3R1 is an older symbol of NHERF1, ENSG00000102145 is GATA1.
TOKENS = ["<pad>", "SPI1", "CAD", "SLC9A3R1", "ENSG00000102145", "C1orf43", "SPIB", "CDH1"]
NAMES = ["SPI1", "CAD", "NHERF1", "GATA1", "C1orf43", "CDH1", "TP53"]  # TP53 is not in the vocabulary
COUNTS = np.array(
    [
        [1, 0, 0, 4, 0, 5, 0],
        [2, 0, 0, 0, 0, 0, 8],
        [0, 0, 5, 5, 0, 0, 0],
        [0, 0, 0, 10, 0, 0, 0],
    ]
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[H5adDataset]:
    """Four cells of ten molecules each by `NAMES`."""
    cells = anndata.AnnData(sp.csr_matrix(COUNTS.astype(np.float32)))
    cells.obs_names, cells.var_names = list("abcd"), NAMES
    path = tmp_path_factory.mktemp("genes") / "tiny.h5ad"
    cells.write_h5ad(path)
    with open_h5ad(path, GeneVocabulary(TOKENS), values="counts", min_share=0.0) as opened:
        yield opened


# ------------------------------------------------------------------- table


def test_the_table_counts_cells_by_hand(tiny: H5adDataset) -> None:
    table = gene_table(tiny, ["x", "y", "x", None])
    assert list(table) == ["symbol", "detection", "mean", "detection in x", "detection in y"]
    assert table["symbol"].tolist() == ["SPI1", "CAD", "SLC9A3R1", "GATA1", "C1orf43", "CDH1"]
    assert tuple(table["symbol"]) == tiny.gene_symbols
    assert table["detection"].tolist() == [0.5, 0, 0.25, 0.75, 0, 0.25]
    assert table["detection in x"].tolist() == [0.5, 0, 0.5, 1, 0, 0.5]
    assert table["detection in y"].tolist() == [1, 0, 0, 0, 0, 0]
    # Ten molecules a cell, TP53's counted too, so one is 1,000 in 10,000.
    one, two, four, five, ten = np.log1p(np.array([1, 2, 4, 5, 10]) * 1000.0)
    np.testing.assert_allclose(
        table["mean"], [(one + two) / 4, 0, five / 4, (four + five + ten) / 4, 0, five / 4], rtol=1e-6
    )
    assert table.attrs == {"cells": 4, "sizes": {"x": 2, "y": 1}}


def test_only_the_chosen_cells_count_and_groups_without_one_are_left_out(tiny: H5adDataset) -> None:
    table = gene_table(tiny, pd.Categorical(["x", "y", "x", "z"]), [2, 0, 2])
    assert [name for name in table if name.startswith("detection in ")] == ["detection in x"]
    assert table["detection"].tolist() == table["detection in x"].tolist() == [0.5, 0, 0.5, 1, 0, 0.5]
    assert table.attrs == {"cells": 2, "sizes": {"x": 2}}


def test_without_groups_there_are_no_columns_of_groups(tiny: H5adDataset) -> None:
    assert list(gene_table(tiny, None)) == ["symbol", "detection", "mean"]


def test_the_table_is_that_of_the_whole_matrix(dataset: H5adDataset) -> None:
    values = sp.vstack([block for _, block in dataset.chunks(50)], format="csr").toarray()
    types = dataset.obs["cell_type"].astype(str).to_numpy()
    cells = np.arange(0, 160, 3)
    table = gene_table(dataset, types, cells)
    np.testing.assert_allclose(table["detection"], (values[cells] > 0).mean(axis=0))
    np.testing.assert_allclose(table["mean"], values[cells].mean(axis=0), rtol=1e-5)
    assert len(table.attrs["sizes"]) > 2
    for name, size in table.attrs["sizes"].items():
        inside = cells[types[cells] == name]
        assert len(inside) == size
        np.testing.assert_allclose(table[f"detection in {name}"], (values[inside] > 0).mean(axis=0))


@pytest.mark.parametrize(
    ("groups", "cells", "problem"),
    [
        (None, [], "There are 4 cells in the file, and no cells were chosen"),
        (None, [1, 4], "There are 4 cells in the file, and cells 1 to 4 were chosen"),
        (None, [-1, 2], "cells -1 to 2 were chosen"),
        (["x", "y"], None, "There are 2 groups, but tiny.h5ad has 4 cells"),
    ],
)
def test_cells_and_groups_of_another_file_are_refused(
    tiny: H5adDataset, groups: list[str] | None, cells: list[int] | None, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        gene_table(tiny, groups, cells)


@pytest.mark.parametrize("kind", [None, "regulators", "variable"])
def test_the_work_tells_how_far_it_is_and_stops_when_asked(dataset: H5adDataset, kind: str | None) -> None:
    def work(**how) -> object:
        return gene_table(dataset, None, **how) if kind is None else screen_genes(dataset, kind, **how)

    told: list[tuple[int, int]] = []
    work(progress=lambda done, total, _: told.append((done, total)))
    assert told[0] == (0, 160)
    assert told[-1] == (160, 160)
    with pytest.raises(Cancelled):
        work(cancelled=lambda: True)


# ------------------------------------------------------------------ search


def symbols(table: pd.DataFrame, text: str) -> list[str]:
    return find_genes(table, text)["symbol"].tolist()


@pytest.fixture
def some() -> pd.DataFrame:
    """Genes with their detection, as `gene_table` tells it."""
    detection = {"SPI1": 0.1, "SPIB": 0.4, "CRISPLD2": 0.2, "CASPIN": 0.9, "SPIN1": 0.3, "POU5F1": 0.0, "C1orf43": 0.5}
    return pd.DataFrame({"symbol": detection.keys(), "detection": detection.values()})


def test_beginnings_come_before_insides_and_the_most_detected_first(some: pd.DataFrame) -> None:
    assert symbols(some, "spi")[:4] == ["SPIB", "SPIN1", "SPI1", "CASPIN"]
    assert symbols(some, " SPI1 ")[0] == "SPI1"
    assert symbols(some, "isp") == ["CRISPLD2"]
    assert symbols(some, "c1ORF43") == ["C1orf43"]
    assert symbols(some, "no such gene") == []


@pytest.mark.parametrize(
    ("text", "symbol", "found_as"),
    [
        ("PU.1", "SPI1", "PU.1"),
        ("pu.1", "SPI1", "PU.1"),
        ("OCT4", "POU5F1", "Oct4"),
        ("ensg00000066336", "SPI1", "ENSG00000066336"),
        ("SPI1", "SPI1", ""),
    ],
)
def test_other_names_find_the_gene_and_are_told(some: pd.DataFrame, text: str, symbol: str, found_as: str) -> None:
    assert find_genes(some, text).iloc[0][["symbol", "found_as"]].tolist() == [symbol, found_as]


def test_the_beginning_of_another_name_comes_last(some: pd.DataFrame) -> None:
    found = find_genes(some, "oct")
    assert found["symbol"].tolist() == ["POU5F1"]
    assert found["found_as"].tolist() == ["Oct4"]


def test_a_gene_under_an_older_symbol_is_found_by_its_new_one(tiny: H5adDataset) -> None:
    found = find_genes(gene_table(tiny, None), "nherf1")
    assert found[["symbol", "found_as"]].to_numpy().tolist() == [["SLC9A3R1", "NHERF1"]]


def test_empty_text_lists_all_genes_and_the_table_stays_as_it_was(some: pd.DataFrame) -> None:
    before = some.copy()
    found = find_genes(some, "  ")
    assert found["symbol"].tolist() == ["CASPIN", "C1orf43", "SPIB", "SPIN1", "CRISPLD2", "SPI1", "POU5F1"]
    assert set(found["found_as"]) == {""}
    pd.testing.assert_frame_equal(some, before)


def test_a_table_without_genes_is_searched_too(some: pd.DataFrame) -> None:
    assert find_genes(some[:0], "spi").empty


@given(text=st.text(max_size=6))
@settings(deadline=None)
def test_search_takes_any_text(text: str) -> None:
    table = pd.DataFrame({"symbol": ["SPI1", "HLA-A", "AC004687.1"], "detection": [0.5, 0.2, 0.1]})
    found = find_genes(table, text)
    assert set(found["symbol"]) <= set(table["symbol"])
    assert found["symbol"].is_unique
    wanted = text.strip().casefold()
    for row in found.itertuples():
        assert wanted in row.symbol.casefold() or row.found_as.casefold().startswith(wanted)


# ------------------------------------------------------------ pasted lists


def test_a_list_is_read_whatever_stands_between_the_names(tiny: H5adDataset) -> None:
    found, unknown = parse_gene_list("SPI1, GATA1;CAD\n C1orf43\t'CDH1' \"TP53\"\r\n,;", tiny)
    assert list(found) == ["SPI1", "GATA1", "CAD", "C1orf43", "CDH1"]
    assert all(symbol == name for symbol, name in found.items())
    assert unknown == {"TP53": "the file has TP53, but the model does not know it"}


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("spi1", "SPI1"),
        ("PU.1", "SPI1"),
        ("pu.1", "SPI1"),
        ("c1ORF43", "C1orf43"),
        ("GATA1", "GATA1"),
        ("ENSG00000102145", "GATA1"),
        ("ensg00000102145.14", "GATA1"),
        ("SLC9A3R1", "SLC9A3R1"),
        ("slc9a3r1", "SLC9A3R1"),
        ("NHERF1", "SLC9A3R1"),
        ("Cad", "CAD"),  # in this very spelling an alias of B4GALNT2
    ],
)
def test_each_name_leads_to_the_gene_and_is_told(tiny: H5adDataset, name: str, symbol: str) -> None:
    assert parse_gene_list(name, tiny) == ({symbol: name}, {})


def test_names_of_one_gene_count_once_under_the_first(tiny: H5adDataset) -> None:
    assert parse_gene_list("PU.1 SPI1 spi1 ENSG00000066336", tiny) == ({"SPI1": "PU.1"}, {})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("foo", "no human gene is known by this name, or several are"),
        ("SPIB", "SPIB is not in this file"),
        ("oct4", "POU5F1 is not in this file"),
        ("p53", "the file has TP53, but the model does not know it"),
        ("FBs1", "could be FBRS or FBXO2"),
    ],
)
def test_what_cannot_be_found_says_why(tiny: H5adDataset, name: str, why: str) -> None:
    assert parse_gene_list(f"{name} SPI1 {name.swapcase()}", tiny)[1][name] == why


def test_an_unknown_name_is_told_once(tiny: H5adDataset) -> None:
    assert list(parse_gene_list("foo FOO Foo bar", tiny)[1]) == ["foo", "bar"]


def test_a_list_of_nothing_is_empty(tiny: H5adDataset) -> None:
    assert parse_gene_list(" ,;\n\t \"\" ''", tiny) == ({}, {})


@given(data=st.data())
@settings(deadline=None)
def test_symbols_come_back_in_their_order_however_they_are_written(tiny: H5adDataset, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(tiny.gene_symbols), max_size=12))
    written = [data.draw(st.sampled_from([name, name.lower(), name.upper(), name.title()])) for name in chosen]
    between = st.text(st.sampled_from(" ,;\n\t\r"), min_size=1, max_size=3)
    text = "".join(f"{data.draw(between)}{name}" for name in written) + data.draw(between)
    found, unknown = parse_gene_list(text, tiny)
    assert list(found) == list(dict.fromkeys(chosen))
    assert all(name == written[chosen.index(symbol)] for symbol, name in found.items())
    assert unknown == {}


@given(text=st.one_of(st.text(max_size=60), st.text("SPIspi1U.u, ;\n", max_size=60)))
@settings(deadline=None)
def test_any_text_is_sorted_into_found_and_unknown(tiny: H5adDataset, text: str) -> None:
    found, unknown = parse_gene_list(text, tiny)
    names = [*found.values(), *unknown]
    assert set(found) <= set(tiny.gene_symbols)
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name in text and not set(name) & set(" ,;\n\t") for name in names)
    assert all(unknown.values())
    assert parse_gene_list(" ".join(names), tiny) == (found, unknown)


# ----------------------------------------------------------------- screens


def often(dataset: H5adDataset, cells: np.ndarray) -> dict[str, int]:
    """Symbol -> number of the cells that express it, where they are enough for a screen."""
    values = sp.vstack([block for _, block in dataset.chunks()], format="csr")[cells]
    counts = values.getnnz(axis=0)
    return {name: n for name, n in zip(dataset.gene_symbols, counts, strict=True) if n >= FEWEST_CELLS}


def test_regulators_are_those_of_the_regulons_the_most_detected_first(dataset: H5adDataset) -> None:
    cells = np.arange(100)
    counts = often(dataset, cells)
    approved = {symbol: gene_names().resolve(symbol) for symbol in counts}
    expected = {symbol for symbol, gene in approved.items() if gene and gene[0] in regulons().regulators}
    found = screen_genes(dataset, "regulators", cells, most=None)
    assert set(found) == expected
    assert len(found) > 20
    assert list(found) == sorted(found, key=lambda symbol: (-counts[symbol], symbol))
    assert screen_genes(dataset, "regulators", cells, most=5) == found[:5]
    assert set(screen_genes(dataset, "regulators", cells[:20], most=None)) < set(found)


def test_a_regulator_under_an_older_symbol_counts(tmp_path: Path) -> None:
    assert "KAT5" in regulons().regulators
    cells = anndata.AnnData(sp.csr_matrix(np.full((FEWEST_CELLS, 2), 3, np.float32)))
    cells.obs_names, cells.var_names = [f"c{i}" for i in range(FEWEST_CELLS)], ["HTATIP", "ALB"]
    cells.write_h5ad(tmp_path / "old.h5ad")
    with open_h5ad(tmp_path / "old.h5ad", GeneVocabulary(["HTATIP", "ALB"]), values="counts") as dataset:
        assert screen_genes(dataset, "regulators") == ("HTATIP",)
        assert screen_genes(dataset, "regulators", range(FEWEST_CELLS - 1)) == ()


def test_variable_genes_are_scanpy_s(dataset: H5adDataset) -> None:
    cells = np.arange(0, 160, 2)
    values = sp.vstack([block for _, block in dataset.chunks()], format="csr")[cells]
    names = list(often(dataset, cells))
    adata = anndata.AnnData(values, var=pd.DataFrame(index=list(dataset.gene_symbols)))[:, names].copy()
    adata.uns["log1p"] = {}
    sc.pp.highly_variable_genes(adata, n_top_genes=50)
    found = screen_genes(dataset, "variable", cells, most=50)
    assert set(found) == set(adata.var_names[adata.var["highly_variable"]])
    ranked = adata.var["dispersions_norm"][list(found)]
    assert ranked.is_monotonic_decreasing
    assert set(screen_genes(dataset, "variable", cells, most=None)) == set(names)


def test_more_cells_than_are_looked_at_are_drawn_with_the_seed(
    dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiva_core.tasks.knockout_genes.MAX_CELLS", 40)
    first = screen_genes(dataset, "variable", most=50, seed=1)
    assert first == screen_genes(dataset, "variable", most=50, seed=1)
    assert first != screen_genes(dataset, "variable", most=50, seed=2)
    drawn = np.sort(np.random.default_rng(1).choice(160, 40, replace=False))
    assert first == screen_genes(dataset, "variable", drawn, most=50)


def test_without_genes_that_enough_cells_express_there_is_nothing_to_screen(tiny: H5adDataset) -> None:
    assert screen_genes(tiny, "regulators") == screen_genes(tiny, "variable") == ()


def test_another_kind_is_refused(tiny: H5adDataset) -> None:
    with pytest.raises(DataError, match=r"no list of 'kinases' genes. Choose 'regulators' or 'variable'"):
        screen_genes(tiny, "kinases")
