"""Cells to vectors: serialised rows in length-bucketed batches through the encoder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

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
T = TypeVar("T")


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

    Where the device is not the CPU, the next chunk is read and serialised in a thread while the device computes; the
    thread has ended when this returns or raises.

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
        A single cell does not fit the device's memory, or the network is to be compiled and cannot be.
    """
    total, finished = len(done), int(done.sum())
    budget = TokenBudget(model)
    progress(finished, total, "Embedding cells")
    with closing(_ahead(model.device, _serialized(tokenizer, chunks, gene_ids, done))) as parts:
        for todo, rows in parts:
            with closing(encode_rows(model, rows, budget, cancelled=cancelled)) as batches:
                for cells, vectors in batches:
                    write(todo[cells], vectors)
                    finished += len(cells)
                    progress(finished, total, "Embedding cells")


def _serialized(
    tokenizer: Tokenizer,
    chunks: Iterable[tuple[int, sp.csr_matrix]],
    gene_ids: NDArray[np.int64],
    done: NDArray[np.bool_],
) -> Generator[tuple[NDArray[np.int64], TokenRows], None, None]:
    """Cells of each chunk that are not done yet, and their token rows."""
    for start, block in chunks:
        todo = np.flatnonzero(~np.asarray(done[start : start + block.shape[0]]))
        if not len(todo):
            continue
        part = block if len(todo) == block.shape[0] else block[todo]
        yield start + todo, tokenizer.serialize(part.indptr, part.indices, part.data, gene_ids)


def encode_rows(
    model: ScDiVaModel,
    rows: TokenRows,
    budget: TokenBudget,
    *,
    hidden: NDArray[np.bool_] | None = None,
    exact: bool = False,
    cancelled: IsCancelled = never,
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
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
    latents, lengths = _Latents(model, rows, hidden, exact), rows.lengths
    made = ((batch, latents.tokens(batch)) for batch in _buckets(lengths, budget))
    with closing(_ahead(model.device, made)) as batches:
        for batch, tokens in batches:
            stop_if(cancelled)
            if len(batch) <= budget.cells(int(lengths[batch[0]])):
                yield from _encode(latents, batch, tokens, budget)
                continue
            # Made ahead, before memory ran out: its size is known to fail.
            for part in _buckets(lengths[batch], budget):
                yield from _encode(latents, batch[part], latents.tokens(batch[part]), budget)


def runs_beside_host(device: torch.device) -> bool:
    """Whether the device computes while the host does something else; a thread takes from a CPU what it gives."""
    return device.type != "cpu"


def _ahead(device: torch.device, items: Generator[T, None, None]) -> Generator[T, None, None]:
    """The same items, each made while the one before is in use where that saves time; close it when done."""
    return _one_ahead(items) if runs_beside_host(device) else items


def _one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Make the next item in a thread while one is in use; the thread has ended when this has, however it ends."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="one-ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


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
    latents: _Latents, batch: NDArray[np.int64], tokens: _Tokens, budget: TokenBudget
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Vectors of a batch, in halves when it does not fit."""
    device = latents.model.device
    try:
        yield batch, latents.of(tokens)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if _is_of_compiler(error):
            msg = f"torch cannot compile the network on this machine: {str(error).splitlines()[0]}"
            hint = "Install a C++ compiler (for a GPU Triton too), or do without compiling: leave out --compile."
            raise ScDiVaError(msg, hint) from error
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
        lengths, half = latents.rows.lengths, (len(batch) + 1) // 2
        while len(batch):
            # The budget shrinks meanwhile: a size that has failed is not tried again.
            part = batch[: min(half, budget.cells(int(lengths[batch[0]])))]
            yield from _encode(latents, part, latents.tokens(part), budget)
            batch = batch[len(part) :]


@dataclass(frozen=True)
class _Tokens:
    """A batch on the host, in page-locked memory where CUDA is to fetch it, and where its tokens are hidden."""

    batch: TokenBatch
    mask: torch.Tensor | None


@dataclass(frozen=True)
class _Latents:
    """Rows and how they are encoded."""

    model: ScDiVaModel
    rows: TokenRows
    hidden: NDArray[np.bool_] | None
    exact: bool

    def tokens(self, batch: NDArray[np.int64]) -> _Tokens:
        """Pad the rows of a batch."""
        pad_id, mask = self.model.config.pad_id, None
        tokens = self.rows.batch(batch, pad_id=pad_id)
        if self.hidden is not None:
            mask = replace(self.rows, values=self.hidden).batch(batch, pad_id=pad_id).values.bool()
        if self.model.device.type == "cuda":
            tokens = replace(tokens, gene_ids=tokens.gene_ids.pin_memory(), values=tokens.values.pin_memory())
            mask = None if mask is None else mask.pin_memory()
        return _Tokens(tokens, mask)

    @torch.inference_mode()
    def of(self, tokens: _Tokens) -> NDArray[np.float32]:
        """Latents of a batch; waits for the device."""
        device, mask = self.model.device, tokens.mask
        on_cuda = device.type == "cuda"
        if mask is not None:
            mask = mask.to(device, non_blocking=on_cuda)
        with torch.autocast("cuda", torch.bfloat16, enabled=on_cuda and not self.exact):
            latent = self.model.encode(tokens.batch.to(device, non_blocking=on_cuda), mask)["latent"]
        return latent.float().cpu().numpy()


def _is_out_of_memory(error: Exception) -> bool:
    """Tell memory from other failures: the CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _is_of_compiler(error: Exception) -> bool:
    """Tell failures of torch's compiler, by the name of their module: to import it takes a second."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
