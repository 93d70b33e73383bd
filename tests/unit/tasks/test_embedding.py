"""Embedding in buckets against one cell after the other; memory that runs out; entropies of the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.stats
import torch

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.errors import Cancelled, ScDiVaError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import embed_cells, embedding_width, population_entropy


@pytest.fixture
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Path, small_cells: anndata.AnnData) -> np.ndarray:
    """Each cell alone, from the counts on, without any of the code under test but the network."""
    model = ScDiVaModel.from_pretrained(tiny_checkpoint)
    counts = small_cells.X.toarray().astype(np.float64)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    tokens = np.array([model.vocabulary.tokens.index(name) for name in small_cells.var_names])
    latents = []
    for cell in logged:
        score = cell / np.maximum(model.tokenizer.entropy[tokens], 0.1)
        order = [i for i in np.lexsort((tokens, -score)) if cell[i] > 0][:64]
        batch = TokenBatch(
            torch.from_numpy(tokens[order])[None], torch.from_numpy(cell[order])[None], torch.tensor([64])
        )
        with torch.no_grad():
            latents.append(model.encode(batch)["latent"][0].numpy())
    return np.stack(latents)


class Collected:
    """What `embed_cells` wrote, and what went through the network."""

    def __init__(self, model: ScDiVaModel, n_obs: int) -> None:
        self.values = np.full((n_obs, embedding_width(model)), np.nan, np.float32)
        self.done = np.zeros(n_obs, bool)
        self.encoded: list[int] = []
        model.register_forward_pre_hook(lambda _, arguments: self.encoded.append(len(arguments[0])))

    def write(self, cells: np.ndarray, vectors: np.ndarray) -> None:
        assert not self.done[cells].any(), "no cell twice"
        self.values[cells], self.done[cells] = vectors, True


def embed(model: ScDiVaModel, dataset: H5adDataset, into: Collected, rows: int = 50, **options: Callable) -> None:
    chunks = dataset.chunks(rows)
    embed_cells(model, model.tokenizer, chunks, dataset.gene_ids, into.done, into.write, **options)


@pytest.mark.parametrize("rows", [7, 160, 4096])
def test_buckets_give_what_single_cells_give(
    model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray, rows: int
) -> None:
    found = Collected(model, 160)
    embed(model, dataset, found, rows)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert found.values.dtype == np.float32
    assert sum(found.encoded) == 160


def test_cells_that_are_done_are_left_out(model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray) -> None:
    found = Collected(model, 160)
    found.done[:50] = found.done[60::3] = True
    left = ~found.done.copy()
    embed(model, dataset, found)
    np.testing.assert_allclose(found.values[left], expected[left], atol=1e-4)
    assert np.isnan(found.values[~left]).all()
    assert sum(found.encoded) == left.sum()


def test_progress_counts_the_cells_and_ends_at_all(model: ScDiVaModel, dataset: H5adDataset) -> None:
    found, seen = Collected(model, 160), []
    found.done[:30] = True
    embed(model, dataset, found, progress=lambda *state: seen.append(state))
    assert [state[0] for state in seen] == [30, 50, 100, 150, 160]
    assert {state[1:] for state in seen} == {(160, "Embedding cells")}


def test_cancelling_keeps_what_is_finished(model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray) -> None:
    found, asked = Collected(model, 160), iter([False, False, True])
    with pytest.raises(Cancelled):
        embed(model, dataset, found, cancelled=lambda: next(asked))
    assert found.done.sum() == 100
    embed(model, dataset, found)
    assert sum(found.encoded) == 160
    np.testing.assert_allclose(found.values, expected, atol=1e-4)


def small_memory(model: ScDiVaModel, cells: int, error: type[Exception], message: str) -> None:
    def run_out(_: object, arguments: tuple) -> None:
        if len(arguments[0]) > cells:
            raise error(message)

    model.register_forward_pre_hook(run_out)


OUT_OF_MEMORY = [
    (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
    (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
]


@pytest.mark.parametrize(("error", "message"), OUT_OF_MEMORY, ids=["cuda", "cpu"])
@pytest.mark.parametrize("cells", [1, 9])
def test_out_of_memory_halves_the_batch_and_goes_on(
    model: ScDiVaModel,
    dataset: H5adDataset,
    expected: np.ndarray,
    error: type[Exception],
    message: str,
    cells: int,
) -> None:
    small_memory(model, cells, error, message)
    found = Collected(model, 160)
    embed(model, dataset, found)
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    fitting = [size for size in found.encoded if size <= cells]
    assert sum(fitting) == 160
    assert len(found.encoded) - len(fitting) <= 12, "a batch size that failed is not tried again and again"


@pytest.mark.parametrize(("error", "message"), OUT_OF_MEMORY, ids=["cuda", "cpu"])
def test_a_single_cell_that_does_not_fit_is_an_error_to_act_on(
    model: ScDiVaModel, dataset: H5adDataset, error: type[Exception], message: str
) -> None:
    small_memory(model, 0, error, message)
    with pytest.raises(ScDiVaError, match=r"A single cell of 64 genes does not fit cpu's memory") as caught:
        embed(model, dataset, Collected(model, 160))
    assert "CPU" in caught.value.hint


def test_other_failures_are_not_taken_for_memory(model: ScDiVaModel, dataset: H5adDataset) -> None:
    small_memory(model, 3, RuntimeError, "shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed(model, dataset, Collected(model, 160))


def test_width_is_the_latent_s_or_the_anchor_s(model: ScDiVaModel, tiny_model: Callable) -> None:
    assert embedding_width(model) == 8
    assert embedding_width(tiny_model(heads=())) == 32


def test_population_entropy_is_that_of_the_data_set(
    dataset: H5adDataset, small_cells: anndata.AnnData, model: ScDiVaModel
) -> None:
    found = population_entropy(dataset, len(model.vocabulary))
    counts = small_cells.X.toarray().astype(np.float64)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    tokens = [model.vocabulary.tokens.index(name) for name in small_cells.var_names]
    np.testing.assert_allclose(found[tokens], scipy.stats.entropy(logged, axis=0) / np.log(160), atol=1e-5)
    assert (np.delete(found, tokens) == 1).all()
