"""Cells to vectors: serialised rows in length-bucketed batches through the encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import EntropyAccumulator, TokenBatch, Tokenizer, TokenRows
from scdiva_core.errors import ScDiVaError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

CHUNK_CELLS = 4096
_CPU_ACTIVATIONS = 1_250_000  # tokens x width of a batch: more falls out of the cache and is slower
_CUDA_ACTIVATIONS = 64 * _CPU_ACTIVATIONS

Write = Callable[[NDArray[np.int64], NDArray[np.float32]], None]


def embedding_width(model: ScDiVaModel) -> int:
    """Columns of the embedding: the latent's, or the anchor state's where there is no latent head."""
    return model.config.latent_dim if "latent" in model.heads else model.config.hidden_size


def population_entropy(dataset: H5adDataset, vocab_size: int) -> NDArray[np.float32]:
    """Entropy of each gene over this data set, for a checkpoint that brings none."""
    entropy = EntropyAccumulator(vocab_size)
    for _, block in dataset.chunks(CHUNK_CELLS):
        present = block.data > 0
        entropy.add(block.shape[0], dataset.gene_ids[block.indices[present]], block.data[present])
    return entropy.entropy()


def embed_cells(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    chunks: Iterable[tuple[int, sp.csr_matrix]],
    gene_ids: NDArray[np.int64],
    done: NDArray[np.bool_],
    write: Write,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> None:
    """Embed all cells that are not done yet, batch by batch.

    Parameters
    ----------
    model
        In evaluation mode, on its device. CUDA runs in bfloat16 autocast, everything else in float32.
    tokenizer
        Serialises the cells.
    chunks
        First cell and log1p expression ``[cells, n_genes]`` of successive blocks.
    gene_ids
        Token id of each column, ascending.
    done
        bool ``[n_obs]``; cells marked True are left out. Not changed here.
    write
        Called with cell numbers and their vectors, float32 ``[batch, width]``, as soon as each batch is there.
    progress, cancelled
        Called once a batch.

    Raises
    ------
    Cancelled
        The user stopped; what was written stays.
    ScDiVaError
        A single cell does not fit the device's memory.
    """
    total, finished = len(done), int(done.sum())
    budget = _Budget(model)
    for start, block in chunks:
        todo = np.flatnonzero(~np.asarray(done[start : start + block.shape[0]]))
        if not len(todo):
            continue
        part = block if len(todo) == block.shape[0] else block[todo]
        rows = tokenizer.serialize(part.indptr, part.indices, part.data, gene_ids)
        for batch in _buckets(rows.lengths, budget):
            stop_if(cancelled)
            progress(finished, total, "Embedding cells")
            for cells, vectors in _encode(model, rows, batch, budget):
                write(start + todo[cells], vectors)
            finished += len(batch)
    progress(total, total, "Embedding cells")


@torch.inference_mode()
def cells_per_second(model: ScDiVaModel, gene_ids: NDArray[np.int64]) -> float:
    """Measure the speed on cells of these genes.

    Batches are timed for half a second, and the best one counts: a busy moment says nothing of the machine.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    gene_ids
        Token ids of a typical cell.
    """
    n_cells = min(_Budget(model).cells(len(gene_ids)), 16)
    ids = torch.from_numpy(np.tile(gene_ids, (n_cells, 1)))
    batch = TokenBatch(ids, torch.ones(ids.shape), torch.full((n_cells,), len(gene_ids)))
    model.encode(batch)
    best, deadline = float("inf"), time.perf_counter() + 0.5
    while True:
        began = time.perf_counter()
        model.encode(batch)["latent"].cpu()  # waits for the device
        ended = time.perf_counter()
        best = min(best, ended - began)
        if ended > deadline:
            return n_cells / best


class _Budget:
    """Tokens of a batch; halved whenever the device runs out of memory, and kept so."""

    def __init__(self, model: ScDiVaModel) -> None:
        activations = _CUDA_ACTIVATIONS if model.device.type == "cuda" else _CPU_ACTIVATIONS
        self.tokens = max(activations // model.config.hidden_size, 1)

    def cells(self, length: int) -> int:
        """How many cells of this many tokens go into one batch."""
        return max(self.tokens // (length + 1), 1)


def _buckets(lengths: NDArray[np.int64], budget: _Budget) -> Iterator[NDArray[np.int64]]:
    """Rows of like length together, the longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = budget.cells(int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _encode(
    model: ScDiVaModel, rows: TokenRows, batch: NDArray[np.int64], budget: _Budget
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Vectors of a batch, in halves when it does not fit."""
    try:
        yield batch, _latent(model, rows, batch)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            msg = f"A single cell of {int(rows.lengths[batch[0]]):,} genes does not fit {model.device}'s memory."
            raise ScDiVaError(msg, "Close other programs that use it, or choose the CPU.") from error
        fits = False
    else:
        fits = True
    if not fits:
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
        budget.tokens = max(budget.tokens // 2, 1)
        half = (len(batch) + 1) // 2
        yield from _encode(model, rows, batch[:half], budget)
        yield from _encode(model, rows, batch[half:], budget)


@torch.inference_mode()
def _latent(model: ScDiVaModel, rows: TokenRows, batch: NDArray[np.int64]) -> NDArray[np.float32]:
    tokens = rows.batch(batch, pad_id=model.config.pad_id)
    with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
        latent = model.encode(tokens)["latent"]
    return latent.float().cpu().numpy()


def _is_out_of_memory(error: Exception) -> bool:
    """Tell memory from other failures: the CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
