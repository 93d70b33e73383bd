"""Embedding in buckets against one cell after the other; memory that runs out; entropies of the data."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.stats
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.errors import Cancelled, DataError, ScDiVaError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks import embedding
from scdiva_core.tasks.embedding import TokenBudget, embed_cells, embedding_width, encode_rows, population_entropy


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


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """torch's compiler with nothing kept from before; what it counts."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    counters.clear()
    yield counters["stats"]
    torch.compiler.reset()


def test_compiled_layers_give_what_single_cells_give(
    model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray, compiler: Counter[str]
) -> None:
    model.compile_layers()
    for rows in (160, 40, 24, 11):
        found = Collected(model, 160)
        embed(model, dataset, found, rows)
        np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert 1 <= compiler["unique_graphs"] <= 3, "once for all layers, whatever the number and length of rows"


@pytest.mark.usefixtures("compiler")
def test_without_a_compiler_it_says_what_to_do(model: ScDiVaModel, dataset: H5adDataset) -> None:
    model.compile_layers()
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(ScDiVaError) as raised:
        embed(model, dataset, Collected(model, 160))
    assert "torch cannot compile the network on this machine" in raised.value.message
    assert "leave out --compile" in raised.value.hint


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
    found = Collected(model, 160)  # first, so that it sees what fails too
    small_memory(model, cells, error, message)
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


@pytest.fixture
def one_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the CPU as a device of its own, so that chunks and batches are made in threads."""
    monkeypatch.setattr(embedding, "runs_beside_host", lambda device: True)


def threads_ahead() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("one-ahead")]


def noting_threads(dataset: H5adDataset, seen: list[str], rows: int = 50) -> Iterator[tuple]:
    for chunk in dataset.chunks(rows):
        seen.append(threading.current_thread().name)
        yield chunk


@pytest.mark.parametrize("hide", [False, True])
def test_making_batches_ahead_changes_no_bit(
    model: ScDiVaModel, dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch, hide: bool
) -> None:
    _, block = next(dataset.chunks(160))
    rows = model.tokenizer.serialize(block.indptr, block.indices, block.data, dataset.gene_ids)
    hidden = np.random.default_rng(0).random(len(rows.gene_ids)) < 0.3 if hide else None
    found = []
    for ahead in (False, True):
        monkeypatch.setattr(embedding, "runs_beside_host", lambda device, ahead=ahead: ahead)
        budget, latents = TokenBudget(model), np.full((160, 8), np.nan, np.float32)
        budget.tokens = 65 * 30
        for cells, vectors in encode_rows(model, rows, budget, hidden=hidden):
            assert bool(threads_ahead()) is ahead
            latents[cells] = vectors
        found.append(latents)
    np.testing.assert_array_equal(*found)
    assert found[0].std() > 0.01


@pytest.mark.usefixtures("one_ahead")
def test_the_next_chunk_is_read_in_a_thread_that_ends(model: ScDiVaModel, dataset: H5adDataset) -> None:
    found, seen = Collected(model, 160), []
    chunks = noting_threads(dataset, seen)
    embed_cells(model, model.tokenizer, chunks, dataset.gene_ids, found.done, found.write)
    assert len(seen) == 4
    assert all(name.startswith("one-ahead") for name in seen)
    assert found.done.all()
    assert threads_ahead() == []


@pytest.mark.usefixtures("one_ahead")
def test_an_error_in_a_chunk_made_ahead_passes_through(
    model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray
) -> None:
    def damaged() -> Iterator[tuple]:
        chunks = dataset.chunks(50)
        yield next(chunks)
        yield next(chunks)
        message = "damaged here"
        raise DataError(message)

    found = Collected(model, 160)
    with pytest.raises(DataError, match="damaged here"):
        embed_cells(model, model.tokenizer, damaged(), dataset.gene_ids, found.done, found.write)
    assert threads_ahead() == []
    np.testing.assert_array_equal(np.flatnonzero(found.done), np.arange(100))
    np.testing.assert_allclose(found.values[:100], expected[:100], atol=1e-4)


@pytest.mark.usefixtures("one_ahead")
def test_stopping_early_leaves_no_thread(model: ScDiVaModel, dataset: H5adDataset) -> None:
    found, asked = Collected(model, 160), iter([False, True])
    with pytest.raises(Cancelled) as stopped:
        embed(model, dataset, found, cancelled=lambda: next(asked))
    assert threads_ahead() == [], "though the traceback still holds every frame"
    assert found.done.sum() == 50
    del stopped

    def full(cells: np.ndarray, vectors: np.ndarray) -> None:
        message = "no space left"
        raise OSError(message)

    with pytest.raises(OSError, match="no space left") as failed:
        embed_cells(model, model.tokenizer, dataset.chunks(50), dataset.gene_ids, np.zeros(160, bool), full)
    assert threads_ahead() == []
    assert failed.value.__traceback__ is not None


@pytest.mark.usefixtures("one_ahead")
def test_a_batch_made_before_memory_ran_out_is_cut_without_trying(
    model: ScDiVaModel, dataset: H5adDataset, expected: np.ndarray
) -> None:
    _, block = next(dataset.chunks(160))
    rows = model.tokenizer.serialize(block.indptr, block.indices, block.data, dataset.gene_ids)
    found, budget = Collected(model, 160), TokenBudget(model)
    small_memory(model, 20, *OUT_OF_MEMORY[1])
    budget.tokens = 65 * 32
    for cells, vectors in encode_rows(model, rows, budget):
        found.write(cells, vectors)
    assert found.encoded.count(32) == 1, "the second batch of 32 was there when the first one failed"
    assert budget.tokens == 65 * 16
    np.testing.assert_allclose(found.values, expected, atol=1e-4)


def test_padded_batches_run_in_the_fused_attention_kernel(tiny_model: Callable) -> None:
    model = tiny_model(heads=())
    ids = torch.randint(2, 30, (3, 12), generator=torch.Generator().manual_seed(0))
    values = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1))
    ids[1, 7:] = model.config.pad_id
    with torch.inference_mode():
        usual = model(ids, values).hidden
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            torch.testing.assert_close(model(ids, values).hidden, usual, rtol=0, atol=0)
        with sdpa_kernel(SDPBackend.MATH):
            assert not torch.equal(model(ids, values).hidden, usual), "the two kernels round differently"


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
