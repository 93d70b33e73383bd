"""Reading a Perturb-seq file, what was changed in it, and rows with the perturbed genes in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.perturbation_cells import PerturbationCells, marked_rows, parts, read_perturbations
from tests.small_perturbations import DOUBLES, N_CONTROL, N_EACH, N_GENES, SINGLES, write_perturbations

OPTIONS = {"control": "ctrl", "kind": "knockout", "max_genes": 64}


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perturbations(tmp_path_factory.mktemp("perturbed") / "p.h5ad", list(small_cells.var_names))


@pytest.fixture
def read(file: Path, small_vocabulary: GeneVocabulary) -> Callable[..., PerturbationCells]:
    def make(names: list[str] | None = None, **changes: object) -> PerturbationCells:
        with open_h5ad(file, small_vocabulary) as dataset:
            column = dataset.obs["perturbation"] if names is None else names
            return read_perturbations(dataset, small_vocabulary, column, **(OPTIONS | changes))

    return make


def hand_made(**changes: object) -> PerturbationCells:
    """Two genes; a batch 0 with control cells 1 and 3, a batch 1 with control cell 10, a batch 2 with none."""
    expression = np.array([[1, 0], [3, 0], [10, 0], [4, 1], [20, 1], [20, 4], [99, 9]], np.float32)
    made = PerturbationCells(
        expression=expression,
        names=np.array(["", "", "", "A", "A", "A", "B"]),
        batches=np.array([0, 0, 1, 0, 1, 1, 2]),
        gene_ids=np.array([7, 9]),
        symbols=("x", "y"),
        targets={"A": (7,), "B": (30,)},
        kind="knockout",
    )
    return replace(made, **changes)


def test_what_a_file_holds(read: Callable[..., PerturbationCells], small_vocabulary: GeneVocabulary) -> None:
    cells = read()
    assert cells.expression.shape == (N_CONTROL + N_EACH * 8, N_GENES)
    assert cells.expression.dtype == np.float32
    assert set(cells.targets) == {*SINGLES, *DOUBLES}
    assert len(cells.control) == N_CONTROL
    assert len(cells.rows("B2M+TMSB4X")) == N_EACH
    assert cells.left_out == {"RPL5": "3 cells; a perturbation needs 10"}
    assert [small_vocabulary.tokens[token] for token in cells.targets["ACTB+CD74"]] == ["ACTB", "CD74"]
    assert (np.diff(cells.gene_ids) > 0).all()
    assert not {"CD74", "FTH1"} & set(cells.symbols)
    np.testing.assert_allclose(np.expm1(cells.expression).sum(axis=1), 1e4, rtol=1e-4)
    column = cells.symbols.index("ACTB")
    assert not cells.expression[cells.rows("ACTB"), column].any()
    assert (cells.expression[cells.control, column] > 0).mean() > 0.8


def test_spellings_of_one_perturbation_and_of_the_control(read: Callable[..., PerturbationCells]) -> None:
    names = ["ctrl"] * 30 + ["ctrl+ctrl"] * 20 + ["ACTB+ctrl"] * 20 + [" ACTB"] * 10 + ["B2M+ACTB"] * 20
    names += ["ACTB+B2M"] * 20 + ["nonsense+B2M"] * 20 + ["ACTB+B2M+CD74+FTH1"] * 20
    cells = read(names + [None] * (223 - len(names)))
    assert {name: len(cells.rows(name)) for name in cells.targets} == {"ACTB": 30, "ACTB+B2M": 40}
    assert len(cells.control) == 50
    assert cells.left_out["B2M+nonsense"] == "the vocabulary lacks nonsense"
    assert cells.left_out["ACTB+B2M+CD74+FTH1"] == "4 genes at once; at most 3 are read"
    assert parts("B+ctrl+A+B", "non-targeting") == ("A", "B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "nothing"}, "0 cells are 'nothing'; at least 10 control cells"),
        ({"kind": "mutation"}, "the kind 'mutation'"),
        ({"names": ["ctrl"] * 223}, "0 perturbations can be used"),
        ({"names": ["ctrl"] * 5}, "There are 5 perturbations, but the file has 223 cells"),
        ({"batches": ["one"] * 5}, "There are 5 batches, but the file has 223 cells"),
    ],
)
def test_what_is_refused(read: Callable[..., PerturbationCells], changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(**changes)


def test_the_user_may_stop(read: Callable[..., PerturbationCells]) -> None:
    with pytest.raises(Cancelled):
        read(cancelled=lambda: True)


def test_large_files_are_read_over_what_varies_in_control_cells(read: Callable[..., PerturbationCells]) -> None:
    whole, panel = read(), read(max_genes=13)
    variance = whole.expression[whole.control].var(axis=0, dtype=np.float64)
    most = np.sort(np.argsort(-variance)[:10])
    np.testing.assert_array_equal(panel.gene_ids, whole.gene_ids[most])
    np.testing.assert_array_equal(panel.expression, whole.expression[:, most])


def test_no_more_cells_than_asked_for(read: Callable[..., PerturbationCells]) -> None:
    cells = read(most_cells=12)
    assert len(cells.control) == 12
    assert all(len(cells.rows(name)) == 12 for name in cells.targets)


def test_change_is_measured_within_batches() -> None:
    # A: batch 0 has 4 - 2 = 2 once, batch 1 has 20 - 10 = 10 twice; B's batch has no control: 99 - 14/3.
    np.testing.assert_allclose(hand_made().change("A"), [(2 + 10 + 10) / 3, (1 + 1 + 4) / 3], rtol=1e-6)
    np.testing.assert_allclose(hand_made().change("B"), [99 - 14 / 3, 9], rtol=1e-6)
    pooled = hand_made(batches=np.zeros(7, np.int64))
    np.testing.assert_allclose(pooled.change("A"), [44 / 3 - 14 / 3, 2], rtol=1e-6)


def test_controls_are_drawn_from_the_perturbed_cells_batches() -> None:
    drawn = hand_made().draw_controls("A", 300, np.random.default_rng(0))
    share = np.bincount(drawn, minlength=7) / 300
    assert share[2] == pytest.approx(2 / 3, abs=0.1)
    assert share[3:].sum() == 0
    assert set(hand_made().draw_controls("B", 50, np.random.default_rng(0))) == {0, 1, 2}


def test_keeping_some_perturbations_forgets_the_others() -> None:
    kept = hand_made().only(["B"])
    assert set(kept.targets) == {"B"}
    assert kept.names.tolist() == ["", "", "", "B"]
    np.testing.assert_array_equal(kept.expression[-1], [99, 9])


def test_perturbed_genes_stand_first_and_zeros_last(tiny_model: Callable[..., ScDiVaModel]) -> None:
    model = tiny_model()
    model.tokenizer.entropy[:] = 1.0
    model.tokenizer.entropy[8] = 0.25  # a fourfold score
    genes = np.array([6, 7, 8, 9])
    expression = np.array([[3, 0, 1, 0.5], [0, 0, 2, 5]], np.float32)
    rows = marked_rows(model, genes, expression, [(9,), (40, 8)], 0.0)
    assert rows.tokens.gene_ids.tolist() == [[9, 8, 6, 7, 0], [40, 8, 9, 6, 7]]
    assert rows.tokens.values.tolist() == [[0, 1, 3, 0, 0], [0, 0, 5, 0, 0]]
    assert rows.columns.tolist() == [[3, 2, 0, 1, -1], [-1, 2, 3, 0, 1]]
    assert rows.tokens.lengths.tolist() == [4, 5]
    assert rows.n_marked.tolist() == [1, 2]
    raised = marked_rows(model, genes, expression, [(9,), (40, 8)], 6.5)
    assert raised.tokens.values.tolist() == [[6.5, 1, 3, 0, 0], [6.5, 6.5, 5, 0, 0]]
