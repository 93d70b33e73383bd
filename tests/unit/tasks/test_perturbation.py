"""Perturbed cells against cells whose expression was changed by hand; what is refused, and what stays exactly 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import (
    CellSample,
    Effect,
    Perturbation,
    cosine_shift,
    effect,
    perturbed_latents,
    perturbed_rows,
    read_sample,
    reading_rows,
)

CELLS = np.arange(3, 160, 4)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture
def sample(model: ScDiVaModel, dataset: H5adDataset) -> CellSample:
    return read_sample(model, model.tokenizer, dataset, CELLS)


@pytest.fixture
def perturb(model: ScDiVaModel, sample: CellSample) -> Callable[..., Effect]:
    def run(*genes: str, **how: object) -> Effect:
        return effect(model, model.tokenizer, sample, Perturbation(genes, **how))

    return run


def by_hand(model: ScDiVaModel, sample: CellSample, row: int, change: dict[str, float]) -> np.ndarray:
    """Latent of one cell whose genes' expression is multiplied, without any of the code under test but the network."""
    cell = sample.expression[[row]].toarray()[0].astype(np.float64)
    for gene, factor in change.items():
        column = sample.symbols.index(gene)
        cell[column] = np.log1p(factor * np.expm1(cell[column]))
    cell = cell.astype(np.float32)
    score = cell / np.maximum(model.tokenizer.entropy[sample.gene_ids], 0.1)
    order = [i for i in np.lexsort((sample.gene_ids, -score)) if cell[i] > 0][:64]
    ids, values = torch.from_numpy(sample.gene_ids[order])[None], torch.from_numpy(cell[order])[None]
    with torch.no_grad():
        return model.encode(TokenBatch(ids, values, torch.tensor([len(order)])))["latent"][0].numpy()


def tokens_of(sample: CellSample, row: int) -> list[str]:
    symbol = dict(zip(sample.gene_ids, sample.symbols, strict=True))
    return [symbol[i] for i in sample.rows.gene_ids[sample.rows.indptr[row] : sample.rows.indptr[row + 1]]]


def read_by_some(sample: CellSample) -> str:
    """A gene that some cells read, some express too low, and some do not express."""
    read, expressed = (np.diff(matrix.indptr) for matrix in (sample.tokens, sample.expressed))
    return sample.symbols[int(np.flatnonzero((read >= 5) & (expressed > read) & (expressed < len(sample)))[0])]


def test_a_sample_is_cells_of_the_file(model: ScDiVaModel, dataset: H5adDataset, sample: CellSample) -> None:
    whole = np.vstack([block.toarray() for _, block in dataset.chunks()])
    np.testing.assert_array_equal(sample.expression.toarray(), whole[CELLS])
    np.testing.assert_array_equal(sample.cells, CELLS)
    np.testing.assert_allclose(sample.latents[7], by_hand(model, sample, 7, {}), atol=1e-5)
    again = read_sample(model, model.tokenizer, dataset, CELLS[::-1], latents=np.arange(1280.0).reshape(160, 8))
    np.testing.assert_array_equal(again.latents[:, 0], 8 * CELLS)


@pytest.mark.parametrize(
    ("how", "factor"), [({}, 0.0), ({"mode": "scale", "factor": 0.3}, 0.3), ({"mode": "scale", "factor": 4.0}, 4.0)]
)
def test_perturbed_cells_are_cells_with_other_expression(
    model: ScDiVaModel, sample: CellSample, perturb: Callable, how: dict, factor: float
) -> None:
    gene = read_by_some(sample)
    found = perturb(gene, **how)
    assert 5 <= found.read.sum() < len(sample)
    for row in range(len(sample)):
        after = by_hand(model, sample, row, {gene: factor})
        np.testing.assert_allclose(found.after[row], after, atol=1e-4)
        one, other = sample.latents[row].astype(float), after.astype(float)
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert found.cosine[row] == pytest.approx(1 - cosine, abs=1e-5)
        assert found.l2[row] == pytest.approx(np.linalg.norm(one - other), abs=1e-3)
    assert found.mean_shift == pytest.approx(found.cosine[found.read].mean())


def test_two_genes_at_once_are_both_gone(model: ScDiVaModel, sample: CellSample, perturb: Callable) -> None:
    first, second = tokens_of(sample, 0)[0], tokens_of(sample, 0)[5]
    found = perturb(first, second)
    np.testing.assert_allclose(found.after[0], by_hand(model, sample, 0, {first: 0, second: 0}), atol=1e-4)
    either = [bool({first, second} & set(tokens_of(sample, row))) for row in range(len(sample))]
    np.testing.assert_array_equal(found.read, either)


def test_a_removed_gene_s_place_is_taken_by_those_below(model: ScDiVaModel, sample: CellSample) -> None:
    before = tokens_of(sample, 2)
    assert len(before) == 64
    rows = perturbed_rows(model.tokenizer, sample, Perturbation((before[3],)), np.array([2]))
    symbol = dict(zip(sample.gene_ids, sample.symbols, strict=True))
    after = [symbol[i] for i in rows.gene_ids]
    assert after[:63] == before[:3] + before[4:]
    assert len(after) == 64
    assert after[63] not in before


def test_cells_that_read_none_of_the_genes_do_not_move_at_all(sample: CellSample, perturb: Callable) -> None:
    gene = read_by_some(sample)
    found = perturb(gene)
    held = [gene in tokens_of(sample, row) for row in range(len(sample))]
    np.testing.assert_array_equal(found.read, held)
    np.testing.assert_array_equal(found.expressed, sample.expression[:, sample.symbols.index(gene)].toarray()[:, 0] > 0)
    assert (found.expressed & ~found.read).any(), "expressed, but below the genes that the model reads"
    assert (found.cosine[~found.read] == 0.0).all()
    assert (found.l2[~found.read] == 0.0).all()
    np.testing.assert_array_equal(found.after[~found.read], sample.latents[~found.read])
    assert (found.cosine[found.read] > 0).all()


def test_only_reading_cells_are_run(model: ScDiVaModel, sample: CellSample, perturb: Callable) -> None:
    run = []
    handle = model.register_forward_pre_hook(lambda _, arguments: run.append(len(arguments[0])))
    found = perturb(read_by_some(sample))
    handle.remove()
    assert sum(run) == found.read.sum()


def test_over_expression_brings_a_low_gene_into_the_row(
    model: ScDiVaModel, sample: CellSample, perturb: Callable
) -> None:
    gene = read_by_some(sample)
    removed, raised = perturb(gene), perturb(gene, mode="scale", factor=50.0)
    risen = raised.read & ~removed.read
    assert risen.any()
    assert not (raised.read & ~raised.expressed).any()
    assert (raised.cosine[risen] > 0).all()
    rows = reading_rows(model.tokenizer, sample, Perturbation((gene,), "scale", 50.0))
    np.testing.assert_array_equal(rows, np.flatnonzero(raised.read))


def test_a_mask_hides_the_gene_and_moves_no_other(model: ScDiVaModel, sample: CellSample, perturb: Callable) -> None:
    gene = tokens_of(sample, 0)[4]
    found = perturb(gene, mode="mask")
    batch = sample.rows.batch(np.array([0]))
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[0, 4] = True
    with torch.no_grad():
        expected = model.encode(batch, mask)["latent"][0]
    np.testing.assert_allclose(found.after[0], expected, atol=1e-5)
    np.testing.assert_array_equal(found.read, perturb(gene).read)
    assert not np.allclose(found.after[0], perturb(gene).after[0], atol=1e-3)


def test_many_perturbations_in_one_go_are_what_each_is_alone(
    model: ScDiVaModel, sample: CellSample, perturb: Callable
) -> None:
    genes, rows = tokens_of(sample, 0), np.arange(len(sample))
    work = [(Perturbation((gene,)), rows[i % 3 :: 2]) for i, gene in enumerate(genes * 3)]
    work += [(Perturbation((genes[4],), "mask"), rows), (Perturbation((genes[1],)), rows[:0])]
    assert sum(len(rows) for _, rows in work) > 2048, "more than one block"
    found = perturbed_latents(model, model.tokenizer, sample, work)
    assert [len(each) for each in found] == [len(rows) for _, rows in work]
    for place in (0, 63, 130, 191, 192):
        (perturbation, rows), how = work[place], {"mode": work[place][0].mode}
        np.testing.assert_allclose(found[place], perturb(*perturbation.genes, **how).after[rows], atol=1e-5)


def test_small_shifts_are_not_rounded_away() -> None:
    one = np.array([[3.0, 4.0]], np.float32)
    other = np.array([[3.0 - 4e-4, 4.0 + 3e-4]], np.float32)  # turned by 1e-4: 1 - cos = 5e-9
    assert cosine_shift(one, other)[0] == pytest.approx(5e-9, rel=1e-2)
    assert cosine_shift(one, -one)[0] == pytest.approx(2.0)
    assert cosine_shift(one, 2 * one)[0] == pytest.approx(0, abs=1e-15)


def test_a_gene_that_no_cell_reads_is_refused_with_the_numbers(
    sample: CellSample, perturb: Callable, small_cells: anndata.AnnData
) -> None:
    read, expressed = (np.diff(matrix.indptr) for matrix in (sample.tokens, sample.expressed))
    low = int(np.flatnonzero((read == 0) & (expressed > 1))[0])
    with pytest.raises(DataError, match=f"None of the 40 cells reads {sample.symbols[low]}") as caught:
        perturb(tokens_of(sample, 0)[0], sample.symbols[low])
    assert f"{expressed[low]} of 40 express it, all below the 64 genes that the model reads" in caught.value.message
    absent = int(np.flatnonzero(expressed == 0)[0])
    with pytest.raises(DataError, match=r"0 of 40 express it\.") as caught:
        perturb(sample.symbols[absent])
    assert "cells that express this gene" in caught.value.hint


def test_an_unknown_gene_is_refused_with_what_is_spelt_alike(
    model: ScDiVaModel, sample: CellSample, perturb: Callable
) -> None:
    with pytest.raises(DataError, match="'MALAT11' is not in the model's vocabulary") as caught:
        perturb("MALAT11")
    assert "MALAT1" in caught.value.hint
    elsewhere = next(
        model.vocabulary.tokens[i] for i in model.vocabulary.gene_ids if i not in set(sample.gene_ids.tolist())
    )
    with pytest.raises(DataError, match=f"'{elsewhere}' is not in this file"):
        perturb(elsewhere)


def test_a_gene_under_two_names_is_one_gene(sample: CellSample, perturb: Callable) -> None:
    with pytest.raises(DataError, match=r"name one gene twice \(MALAT1, MALAT1\)"):
        perturb("MALAT1", "ENSG00000251562")
    np.testing.assert_array_equal(perturb("ENSG00000251562").cosine, perturb("MALAT1").cosine)


@pytest.mark.parametrize(
    ("genes", "how", "words"),
    [
        ((), {}, "0 genes to perturb"),
        (("A", "B", "C", "D"), {}, "4 genes to perturb"),
        (("A", "A"), {}, r"2 genes to perturb \(A, A\)"),
        (("A",), {"mode": "delete"}, "Unknown perturbation 'delete'"),
        (("A",), {"mode": "scale"}, "cannot be scaled by 0"),
        (("A",), {"mode": "scale", "factor": -1}, "cannot be scaled by -1"),
        (("A",), {"mode": "scale", "factor": float("nan")}, "cannot be scaled by nan"),
        (("A",), {"factor": 2.0}, "The factor 2 means nothing to 'knockout'"),
    ],
)
def test_what_makes_no_sense_is_refused(genes: tuple, how: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Perturbation(genes, **how)


def test_titles_are_for_people() -> None:
    assert Perturbation(("SPI1", "CEBPA")).title == "SPI1 and CEBPA knocked out"
    assert Perturbation(("GATA1",), "scale", 2).title == "GATA1 x 2"
    assert Perturbation(("A", "B", "C"), "mask").title == "A, B and C masked"


@pytest.mark.parametrize(
    ("cells", "words"), [([], "no cells were chosen"), ([5, 160], "cells 5 to 160 were"), ([-1, 2], "cells -1 to 2")]
)
def test_cells_that_are_not_in_the_file_are_refused(
    model: ScDiVaModel, dataset: H5adDataset, cells: list[int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_sample(model, model.tokenizer, dataset, cells)


def test_progress_counts_cells_and_cancelling_stops(model: ScDiVaModel, sample: CellSample) -> None:
    seen, perturbation = [], Perturbation((read_by_some(sample),))
    found = effect(model, model.tokenizer, sample, perturbation, progress=lambda *state: seen.append(state))
    assert seen[-1] == (found.read.sum(), found.read.sum(), "Perturbing cells")
    with pytest.raises(Cancelled):
        effect(model, model.tokenizer, sample, perturbation, cancelled=lambda: True)
