"""Predicted expression against a slow reading, gene by gene, of the same small network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import CellSample, Perturbation, perturbed_rows, read_sample
from scdiva_core.tasks.predicted_expression import ExpressionChange, Reading, expression_change, null_changes

N_GENES, N_CELLS = 40, 16


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return load_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def sample(model: ScDiVaModel, small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> CellSample:
    """16 cells by 40 genes that some of them express; no cell expresses the last two."""
    detected = np.asarray((small_cells.X[:N_CELLS] > 0).sum(axis=0)).ravel()
    some = np.flatnonzero((detected >= 5) & (detected <= 14))[: N_GENES - 2]
    none = np.flatnonzero(detected == 0)[:2]
    path = tmp_path_factory.mktemp("forty") / "forty.h5ad"
    small_cells[:N_CELLS, np.concatenate([some, none])].copy().write_h5ad(path)
    with open_h5ad(path, model.vocabulary) as dataset:
        return read_sample(model, model.tokenizer, dataset, np.arange(N_CELLS))


@pytest.fixture(scope="module")
def gene(sample: CellSample) -> str:
    return sample.symbols[int(np.argmax(np.diff(sample.tokens.indptr)))]


def change(model: ScDiVaModel, sample: CellSample, perturbation: Perturbation, **settings: object) -> ExpressionChange:
    return expression_change(model, model.tokenizer, sample, perturbation, **settings)


@torch.inference_mode()
def slowly(
    model: ScDiVaModel, sample: CellSample, perturbation: Perturbation, rows: Iterator[int], reading: Reading
) -> np.ndarray:
    """Prediction ``[2, n_genes]`` before and after, each gene hidden alone, one cell at a time."""
    out = np.full((2, len(sample.gene_ids)), np.nan)
    own = sample.columns(perturbation.genes)
    after = perturbed_rows(model.tokenizer, sample, perturbation, np.arange(len(sample)))
    for column in np.setdiff1d(np.flatnonzero(np.diff(sample.expressed.indptr)), own):
        for side, tokens in enumerate((sample.rows, after)):
            values = []
            for row in rows:
                batch = tokens.batch(np.array([row]))
                hidden = batch.gene_ids == int(sample.gene_ids[column])
                masked = torch.zeros_like(hidden)
                if side and perturbation.mode == "mask":
                    masked = torch.isin(batch.gene_ids, torch.from_numpy(sample.gene_ids[own]))
                if reading == "latent":
                    left = TokenBatch(batch.gene_ids[:, ~hidden[0]], batch.values[:, ~hidden[0]], batch.lengths)
                    latent = model.encode(left, masked[:, ~hidden[0]])["latent"]
                    values.append(float(model.heads["batch_integration"](latent)[0, sample.gene_ids[column]]))
                else:
                    output = model(batch.gene_ids, batch.values, mask=hidden | masked, anchor_from="visible")
                    values.append(float(model.gene_values(output.tokens[hidden]).clamp(min=0).sum()))
            out[side, column] = np.mean(values)
    return out


@pytest.mark.parametrize("reading", ["latent", "tokens"])
@pytest.mark.parametrize("mode", ["knockout", "mask"])
def test_genes_hidden_one_by_one_are_predicted_as_by_hand(
    model: ScDiVaModel, sample: CellSample, gene: str, reading: Reading, mode: str
) -> None:
    perturbation = Perturbation((gene,), mode)
    found = change(model, sample, perturbation, folds=N_GENES, repeats=1, reading=reading)
    expected = slowly(model, sample, perturbation, found.rows, reading)
    np.testing.assert_allclose(found.change, expected[1] - expected[0], atol=1e-5)
    np.testing.assert_allclose(found.table["before"], expected[0, found.table.index], atol=1e-5)
    np.testing.assert_allclose(found.table["after"], expected[1, found.table.index], atol=1e-5)
    assert np.nanmax(np.abs(found.change)) > 1e-3, "or nothing was compared"


def test_no_gene_sees_its_own_value(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    read = np.diff(sample.tokens.indptr)
    read[sample.symbols.index(gene)] = 0
    other = int(read.argmax())
    more = sample.expression.copy()
    more.data[more.indices == other] *= 1.7
    rows = model.tokenizer.serialize(more.indptr, more.indices, more.data, sample.gene_ids)
    louder = replace(sample, expression=more, rows=rows)
    first, second = (change(model, each, Perturbation((gene,)), seed=3).table for each in (sample, louder))
    np.testing.assert_allclose(
        second.loc[other, ["before", "after"]].astype(float),
        first.loc[other, ["before", "after"]].astype(float),
        atol=1e-6,
    )
    same = np.isclose(second.loc[first.index, "before"], first["before"], atol=1e-6)
    assert 1 <= same.sum() <= 2 * N_GENES / 5, "the genes of its own fold do not see it, all others do"


def test_the_table_holds_the_other_genes(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    found = change(model, sample, Perturbation((gene,)), repeats=3)
    table = found.table
    assert gene not in set(table["symbol"])
    assert [sample.symbols[column] for column in table.index] == table["symbol"].tolist()
    np.testing.assert_allclose(table["after"] - table["before"], table["change"], atol=1e-9)
    assert np.abs(table["change"]).is_monotonic_decreasing
    assert (table["noise"] > 0).all()
    assert found.noise_floor == pytest.approx(np.sqrt((table["noise"] ** 2).mean()))
    shares = (sample.expression[found.rows].toarray() > 0).mean(axis=0)
    assert table["detection"].tolist() == shares[table.index].tolist()
    undetected = np.flatnonzero(np.diff(sample.expressed.indptr) == 0)
    assert len(undetected) == 2
    assert not set(undetected) & set(table.index)
    assert np.isnan(found.change[undetected]).all()
    assert np.isnan(found.change[sample.symbols.index(gene)])


def test_only_cells_that_read_the_gene_count(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    reading = np.flatnonzero(sample.tokens[:, [sample.symbols.index(gene)]].toarray()[:, 0])
    found = change(model, sample, Perturbation((gene,)), repeats=1)
    assert found.rows.tolist() == reading.tolist()
    assert found.n_read == len(reading) < N_CELLS
    assert (found.table["n"] == len(reading)).all()
    assert found.table["noise"].isna().all()
    assert found.words == (
        f"{gene} knocked out: mean change of predicted log1p expression over {len(reading)} cells that read the "
        "perturbed genes."
    )
    drawn = change(model, sample, Perturbation((gene,)), most_cells=5, seed=1)
    assert len(drawn.rows) == 5
    assert set(drawn.rows) < set(reading)
    assert f"over 5 cells, drawn from the {len(reading)} that read the perturbed genes. Noise floor 0." in drawn.words


def test_a_seed_repeats_and_another_cuts_elsewhere(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    first, again, other = (change(model, sample, Perturbation((gene,)), seed=seed).change for seed in (0, 0, 1))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.allclose(first, other, equal_nan=True)


def test_scaling_down_does_less_than_knocking_out(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    size = [
        np.nanmean(np.abs(change(model, sample, perturbation, repeats=1).change))
        for perturbation in (Perturbation((gene,), "scale", 0.98), Perturbation((gene,)))
    ]
    assert 0 < size[0] < size[1]


def test_p_values_worked_out_by_hand(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    found = change(model, sample, Perturbation((gene,)), repeats=1)
    null = np.zeros((4, N_GENES))
    first, second = found.table.index[:2]
    null[:3, first] = -2 * found.change[first]
    null[0, second], null[1, second] = found.change[second], np.nan
    table = found.against(null)
    assert table.loc[first, "p"] == pytest.approx(4 / 5), "three of four are larger, whatever their sign"
    assert table.loc[second, "p"] == pytest.approx(2 / 4), "equal counts, and one is none"
    rest = table.index.difference([first, second])
    assert (table.loc[rest, "p"] == 1 / 5).all()
    assert table["q"].tolist() == false_discovery_control(table["p"]).tolist()
    with pytest.raises(DataError, match=r"shape \[4, 39\], but there are 40 genes. Compute"):
        found.against(null[:, 1:])


def test_the_null_is_the_change_by_other_genes(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    others = [Perturbation((symbol,)) for symbol in sample.symbols[:3]]
    told: list[tuple[int, int]] = []
    null = null_changes(
        model, model.tokenizer, sample, others, most_cells=6, progress=lambda done, total, _: told.append((done, total))
    )
    assert null.shape == (3, N_GENES)
    expected = change(model, sample, others[1], repeats=1, most_cells=6).change
    np.testing.assert_array_equal(null[1], expected)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_checkpoint_without_a_decoder_reads_its_tokens(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    heads = model.heads
    try:
        model.heads = torch.nn.ModuleDict({"latent": heads["latent"]})
        found = change(model, sample, Perturbation((gene,)), repeats=1)
        with pytest.raises(CheckpointError, match=r"cannot decode its latent \(it has the heads: latent\). Read the"):
            change(model, sample, Perturbation((gene,)), reading="latent")
    finally:
        model.heads = heads
    assert found.reading == "tokens"
    expected = change(model, sample, Perturbation((gene,)), repeats=1, reading="tokens")
    np.testing.assert_array_equal(found.change, expected.change)
    assert change(model, sample, Perturbation((gene,)), repeats=1).reading == "latent"


def test_what_cannot_be_predicted_is_refused(model: ScDiVaModel, sample: CellSample, gene: str) -> None:
    with pytest.raises(DataError, match="2 repeats of 1 folds cannot be predicted. Choose at least 2 folds"):
        change(model, sample, Perturbation((gene,)), folds=1)
    silent_gene = sample.symbols[int(np.flatnonzero(np.diff(sample.expressed.indptr) == 0)[0])]
    with pytest.raises(DataError, match=f"None of the {N_CELLS} cells reads {silent_gene}"):
        change(model, sample, Perturbation((silent_gene,)))


@pytest.mark.parametrize("reading", ["latent", "tokens"])
def test_it_stops_when_asked(model: ScDiVaModel, sample: CellSample, gene: str, reading: Reading) -> None:
    folds: list[int] = []

    def progress(done: int, total: int, message: str) -> None:
        folds.append(done)

    with pytest.raises(Cancelled):
        change(
            model,
            sample,
            Perturbation((gene,)),
            reading=reading,
            progress=progress,
            cancelled=lambda: len(folds) == 3,
        )
    assert folds == [0, 1, 2]
