"""Networks against references: what is read, what is measured, what is written."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import hypergeom

from scdiva_core import cli_evaluate
from scdiva_core.data.regulons import regulons
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.evaluation import grn
from scdiva_core.evaluation.grn_report import to_markdown
from scdiva_core.evaluation.grn_sets import SETS, GrnSet, chosen_sets, counts_of, references, truth_of
from scdiva_core.store import ResultStore
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import accumulate, choose_block
from scdiva_core.tasks.grn_evidence import EDGE_COLUMNS
from scdiva_core.tasks.grn_honesty import HONESTY_COLUMNS
from scdiva_core.tasks.grn_scores import attention_scores

SMALL = GrnSet("small", "Small blood", "small.h5ad")
REGULATOR = "JUN"


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two references in the columns of DoRothEA and TRRUST."""
    folder = tmp_path_factory.mktemp("tables")
    known = regulons().table
    for name, columns in (("dorothea_ABC", ("tf", "target")), ("trrust_human", ("TF", "Target"))):
        part = known[["regulator", "target"]].iloc[:: 2 if name == "trrust_human" else 1].set_axis(columns, axis=1)
        part.to_csv(folder / f"{name}.csv.gz", index=False)
    return folder


@pytest.fixture(scope="module")
def sample(engine: Engine, small_h5ad: Path) -> CellSample:
    with engine.open(small_h5ad) as dataset:
        return read_cells(engine.model.tokenizer, dataset, np.arange(160), engine.vocabulary)


@pytest.fixture(scope="module")
def result(engine: Engine, small_h5ad: Path, tables: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("REGULATOR", REGULATOR), ("TOPS", (5, 8)), ("MOST_TARGETS", 60), ("_RANDOM_RUNS", 2)):
            patch.setattr(grn, name, value)
        return grn.evaluate_grn(engine, small_h5ad.parent, tables=tables, sets=[SMALL], draws=20, removals=2)


def test_every_method_is_measured_on_the_same_pairs(result: dict[str, Any]) -> None:
    found = result["sets"]["small"]
    assert found["cells"] == 160
    assert set(found["references"]) == {"CollecTRI", "DoRothEA A to C", "TRRUST"}
    assert found["references"]["CollecTRI"]["methods"] == found["references"]["DoRothEA A to C"]["methods"]
    for reference in found["references"].values():
        methods = pd.DataFrame(reference["methods"])
        assert tuple(methods.columns) == HONESTY_COLUMNS
        assert list(methods["method"]) == [
            *("attention", "attention, all heads", "co-expression", "partial correlation", "read together"),
            *("tree ensemble", "random"),
        ]
        assert methods[["n_pairs", "n_true"]].nunique().eq(1).all()
        heads = [row["method"] for row in reference["heads"]]
        assert heads[:3] == ["layer 0", "layer 1", "layer 0, head 0"]
        assert len(heads) == 2 + 8
        assert reference["verdict"].startswith("Attention ")
    truth = {name: reference["methods"][0]["n_true"] for name, reference in found["references"].items()}
    assert 0 < truth["TRRUST"] < truth["CollecTRI"]


def test_without_a_choice_all_heads_are_read(result: dict[str, Any]) -> None:
    assert result["settings"]["choice"] == {"heads": None, "direction": "both", "centred": False, "chosen_on": ""}
    default, every = result["sets"]["small"]["references"]["CollecTRI"]["methods"][:2]
    assert {**default, "method": ""} == {**every, "method": ""}


def test_removing_a_cell_is_measured_in_edges(
    result: dict[str, Any], engine: Engine, sample: CellSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = result["sets"]["small"]["removal"]
    assert removal["cells"] == 1
    assert removal["edges"] == 10 * result["sets"]["small"]["regulators"]
    assert len(removal["changed"]) == 2
    assert removal["mean"] == pytest.approx(np.mean(removal["changed"]))
    # By hand, for the first draw: the ten best targets of each regulator, with and without the cell.
    gone = np.random.default_rng(0).choice(160, 1, replace=False)
    edges = []
    for cells in (sample, sample.take(np.delete(np.arange(160), gone))):
        block = choose_block(cells, regulons().regulators, most_targets=60)
        scores = attention_scores(accumulate(engine.model, cells, block, folds=1), "both")
        best = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=1)[:, :10]
        edges.append({(block.regulators[r], block.targets[t]) for r, row in enumerate(best) for t in row})
    assert removal["changed"][0] == pytest.approx(len(edges[0] - edges[1]) / len(edges[0]))


def test_the_regulon_is_listed_and_its_hits_are_tested(result: dict[str, Any]) -> None:
    regulon = result["regulon"]
    edges = pd.DataFrame(regulon["edges"])
    assert tuple(edges.columns) == EDGE_COLUMNS
    assert len(edges) == 8
    assert set(edges["regulator"]) == {REGULATOR}
    assert edges["attention"].is_monotonic_decreasing
    assert edges["stability"].between(0, 1).all()
    assert edges["knockout"].notna().any()
    of = dict(regulons().targets(REGULATOR).itertuples(index=False))
    assert [bool(known) for known in edges["known"]] == [target in of for target in edges["target"]]
    first = regulon["hits"][0]
    assert first["top"] == 5
    assert first["hits"] == edges["known"][:5].ne("").sum()
    assert first["expected"] == pytest.approx(5 * first["known"] / first["targets"])
    assert first["p"] == pytest.approx(hypergeom.sf(first["hits"] - 1, first["targets"], first["known"], 5))


def test_the_page_holds_words_tables_and_the_regulon(result: dict[str, Any]) -> None:
    page = to_markdown(json.loads(json.dumps(result, allow_nan=False)))
    assert "all heads (layer.head, from 0), both directions; nothing was chosen." in page
    assert "- Small blood, CollecTRI: Attention " in page
    assert "- Small blood: without one cell, " in page
    assert "### DoRothEA A to C" in page
    row = next(line for line in page.splitlines() if line.startswith("| tree ensemble | "))
    best = result["sets"]["small"]["references"]["CollecTRI"]["methods"][5]
    assert f"| {best['auprc_ratio']:.2f} ({best['auprc_low']:.2f} to {best['auprc_high']:.2f}) |" in row
    assert f"## {REGULATOR} in small" in page
    assert "Of its best 5 targets " in page


def test_two_logarithms_are_undone() -> None:
    counts = sp.csr_matrix(np.array([[0, 1, 2, 96], [5, 0, 0, 1000]], np.float32))
    logged = counts.copy()
    logged.data = np.log2(1 + np.log2(1 + counts.data)).astype(np.float32)
    np.testing.assert_array_equal(counts_of(logged).toarray(), counts.toarray())
    once = counts.copy()
    once.data = np.log2(1 + counts.data)
    with pytest.raises(DataError, match="2 of 5 values are no counts that were logged twice"):
        counts_of(once)


def test_a_file_that_was_logged_twice_is_read_as_counts(
    engine: Engine, small_cells: anndata.AnnData, small_h5ad: Path, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    cells.X.data = np.log2(1 + np.log2(1 + cells.X.data)).astype(np.float32)
    cells.write_h5ad(tmp_path / "small.h5ad")
    logged = GrnSet("small", "Small blood", "small.h5ad", "B", twice_logged=True)
    with logged.open(engine, tmp_path) as (dataset, places), engine.open(small_h5ad) as plain:
        assert dataset.value_kind == "counts"
        np.testing.assert_array_equal(places, np.flatnonzero(small_cells.obs["cell_type"] == "B"))
        ours, theirs = (next(each.chunks(160))[1] for each in (dataset, plain))
        np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=1e-6)


def test_truth_is_what_the_reference_names_by_any_name(sample: CellSample) -> None:
    block = choose_block(sample, ["JUN", "FOS"], most_targets=100)
    targets = [sample.symbols[column] for column in block.targets]
    other = next(name for name in targets if name not in ("JUN", "FOS"))
    table = pd.DataFrame({"regulator": ["JUN", "JUN", "NOSUCH", "FOS"], "target": [other, "JUN", other, "NOSUCH"]})
    truth = truth_of(table, sample, block)
    row = [sample.symbols[column] for column in block.regulators].index("JUN")
    assert np.argwhere(truth).tolist() == [[row, targets.index(other)]]


def test_references_without_tables_and_with_gold_standards(tmp_path: Path, tables: Path) -> None:
    assert list(references(SMALL, tmp_path, None)) == ["CollecTRI"]
    own = next(cells for cells in SETS if cells.own_standards)
    with pytest.raises(DataError, match=r"hesc_chip_and_knockdown.tsv.gz is not in"):
        references(own, tmp_path, tables)
    (tmp_path / "grn").mkdir()
    for name in ("chip_and_knockdown", "knockdown_union", "literature"):
        with gzip.open(tmp_path / "grn" / f"hesc_{name}.tsv.gz", "wt") as file:
            file.write("source\ttarget\nPOU5F1\tNANOG\n")
    found = references(own, tmp_path, tables)
    assert list(found) == ["ChIP and knockdown", "knockdown", "literature"]
    assert found["literature"].to_numpy().tolist() == [["POU5F1", "NANOG"]]


def test_sets_are_chosen_by_name_and_must_be_there(engine: Engine, tmp_path: Path) -> None:
    assert chosen_sets(None) == SETS
    assert [cells.name for cells in chosen_sets(["lung", "blood"])] == ["blood", "lung"]
    with pytest.raises(DataError, match="There is no set brain"):
        chosen_sets(["brain"])
    with pytest.raises(DataError, match=r"tenx_pbmc3k.h5ad is not in"), SETS[0].open(engine, tmp_path):
        pass


def test_the_gold_standards_cells_are_counts_and_hold_their_regulators(data_root: Path) -> None:
    cells = next(each for each in SETS if each.own_standards)
    values = anndata.read_h5ad(data_root / "eval" / cells.file)
    counts = counts_of(sp.csr_matrix(values.X))
    assert counts.data.min() == 1
    for table in references(cells, data_root / "eval", None).values():
        assert table["regulator"].isin(values.var_names).any()


def test_the_command_writes_both_files(
    engine: Engine, small_h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("scdiva_core.evaluation.grn_sets.SETS", (SMALL,))
    monkeypatch.setattr(grn, "MOST_TARGETS", 20)
    parser = argparse.ArgumentParser()
    cli_evaluate.add(parser.add_subparsers(required=True))
    out = tmp_path / "new" / "out"
    arguments = ["evaluate", "grn", "--data", small_h5ad.parent, "-o", out, "--device", "cpu"]
    options = parser.parse_args([str(each) for each in [*arguments, "--checkpoint", engine.checkpoint]])
    options.run(options)
    printed = capsys.readouterr()
    assert printed.out == f"{out / 'grn.md'}\n"
    assert "small: growing trees\n" in printed.err
    result = json.loads((out / "grn.json").read_text(encoding="utf-8"))
    assert list(result["sets"]["small"]["references"]) == ["CollecTRI"]
    assert (out / "grn.md").read_text(encoding="utf-8").startswith("# Gene regulatory networks, evaluated\n")
