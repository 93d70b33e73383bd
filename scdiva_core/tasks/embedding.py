"""Cells to vectors: serialised rows in length-bucketed batches through the encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

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
    budget = TokenBudget(model)
    progress(finished, total, "Embedding cells")
    for start, block in chunks:
        todo = np.flatnonzero(~np.asarray(done[start : start + block.shape[0]]))
        if not len(todo):
            continue
        part = block if len(todo) == block.shape[0] else block[todo]
        rows = tokenizer.serialize(part.indptr, part.indices, part.data, gene_ids)
        for cells, vectors in encode_rows(model, rows, budget, cancelled=cancelled):
            write(start + todo[cells], vectors)
            finished += len(cells)
            progress(finished, total, "Embedding cells")


def encode_rows(
    model: ScDiVaModel,
    rows: TokenRows,
    budget: TokenBudget,
    *,
    hidden: NDArray[np.bool_] | None = None,
    exact: bool = False,
    cancelled: IsCancelled = never,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Encode token rows, those of like length together; a batch that does not fit is halved.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    rows
        Serialised cells.
    budget
        How much goes into a batch; shared by successive calls, so that a size that failed is not tried again.
    hidden
        bool, one for each of ``rows.gene_ids``: True where a token is masked, as `ScDiVaModel.encode` does it.
    exact
        Compute in float32 on CUDA too: bfloat16 rounds away what one gene of a cell changes.
    cancelled
        Asked before each batch.

    Yields
    ------
    tuple of ndarray
        Numbers of rows, int64 ``[batch]``, and their latents, float32 ``[batch, width]``.

    Raises
    ------
    Cancelled
        The user stopped.
    ScDiVaError
        A single row does not fit the device's memory.
    """
    for batch in _buckets(rows.lengths, budget):
        stop_if(cancelled)
        yield from _encode(_Latents(model, rows, hidden, exact), batch, budget)


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
    n_cells = min(TokenBudget(model).cells(len(gene_ids)), 16)
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


class TokenBudget:
    """Tokens of a batch; halved whenever the device runs out of memory, and kept so."""

    def __init__(self, model: ScDiVaModel) -> None:
        activations = _CUDA_ACTIVATIONS if model.device.type == "cuda" else _CPU_ACTIVATIONS
        self.tokens = max(activations // model.config.hidden_size, 1)

    def cells(self, length: int) -> int:
        """How many cells of this many tokens go into one batch."""
        return max(self.tokens // (length + 1), 1)


def _buckets(lengths: NDArray[np.int64], budget: TokenBudget) -> Iterator[NDArray[np.int64]]:
    """Rows of like length together, the longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = budget.cells(int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _encode(
    latents: _Latents, batch: NDArray[np.int64], budget: TokenBudget
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Vectors of a batch, in halves when it does not fit."""
    device = latents.model.device
    try:
        yield batch, latents.of(batch)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(batch) == 1:
            msg = f"A single cell of {int(latents.rows.lengths[batch[0]]):,} genes does not fit {device}'s memory."
            raise ScDiVaError(msg, "Close other programs that use it, or choose the CPU.") from error
        fits = False
    else:
        fits = True
    if not fits:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        budget.tokens = max(budget.tokens // 2, 1)
        half = (len(batch) + 1) // 2
        yield from _encode(latents, batch[:half], budget)
        yield from _encode(latents, batch[half:], budget)


@dataclass(frozen=True)
class _Latents:
    """Rows and how they are encoded."""

    model: ScDiVaModel
    rows: TokenRows
    hidden: NDArray[np.bool_] | None
    exact: bool

    @torch.inference_mode()
    def of(self, batch: NDArray[np.int64]) -> NDArray[np.float32]:
        pad_id, mask = self.model.config.pad_id, None
        tokens = self.rows.batch(batch, pad_id=pad_id)
        if self.hidden is not None:
            mask = replace(self.rows, values=self.hidden).batch(batch, pad_id=pad_id).values.bool()
        rounded = self.model.device.type == "cuda" and not self.exact
        with torch.autocast("cuda", torch.bfloat16, enabled=rounded):
            latent = self.model.encode(tokens, mask)["latent"]
        return latent.float().cpu().numpy()


def _is_out_of_memory(error: Exception) -> bool:
    """Tell memory from other failures: the CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
