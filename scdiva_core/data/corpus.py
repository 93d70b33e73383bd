"""Token shards on disk: raw counts of many data sets, memory-mapped, and batches drawn from them.

A corpus folder holds ``corpus.json`` (manifest), ``vocab.json``, ``statistics.safetensors`` (entropy, gene mean and
standard deviation) and one ``.safetensors`` shard per few thousand cells. Reading it needs only torch, numpy,
safetensors and the standard library, so that training also runs on a bare machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError

TARGET_SUM = 10_000.0
"""Counts per cell after normalisation, before log1p."""


@dataclass(frozen=True)
class CellRows:
    """Cells as CSR rows over token ids.

    Attributes
    ----------
    indptr
        int64 ``[n + 1]``.
    gene_ids
        int32 ``[nnz]`` token ids, ascending within a row.
    counts
        Unsigned integer ``[nnz]`` raw counts, all above 0.
    """

    indptr: NDArray[np.int64]
    gene_ids: NDArray[np.int32]
    counts: NDArray[np.unsignedinteger]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry, int64 ``[nnz]``."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def log1p(self, counts: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """Log1p of counts per 10,000 of each cell, of these counts or of others at the same entries."""
        values = (self.counts if counts is None else counts).astype(np.float64)
        rows = self.rows
        totals = np.bincount(rows, values, minlength=len(self))
        return np.log1p(values * (TARGET_SUM / np.maximum(totals, 1.0))[rows]).astype(np.float32)

    def sparse(self, values: NDArray[np.float32], width: int) -> torch.Tensor:
        """Values at these entries as a sparse tensor ``[n, width]``."""
        index = torch.from_numpy(np.stack([self.rows, self.gene_ids.astype(np.int64)]))
        shape = (len(self), width)
        return torch.sparse_coo_tensor(
            index, torch.from_numpy(values), shape, is_coalesced=True, check_invariants=False
        )


class Corpus:
    """A prepared corpus, memory-mapped.

    Parameters
    ----------
    folder
        Made by ``python -m scdiva_core prepare``.

    Raises
    ------
    DataError
        The folder is no corpus, is unfinished, or a shard is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self.vocabulary = GeneVocabulary.from_file(self.folder / "vocab.json")
        statistics = _read_statistics(self.folder / "statistics.safetensors")
        self.entropy: NDArray[np.float32] = statistics["entropy"]
        self.gene_mean: NDArray[np.float32] = statistics["gene_mean"]
        self.gene_std: NDArray[np.float32] = statistics["gene_std"]
        self._shards = [_Shard(self.folder / name) for name in self.manifest["shards"]]
        sizes = [len(shard) for shard in self._shards]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._validation = np.concatenate([shard.validation for shard in self._shards])

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def cells(self, part: Literal["training", "validation"]) -> NDArray[np.int64]:
        """Indices of the cells of one part."""
        return np.flatnonzero(self._validation if part == "validation" else ~self._validation)

    def take(self, cells: NDArray[np.integer]) -> CellRows:
        """Read cells by index, in the order given."""
        shard_of = np.searchsorted(self._offsets, cells, side="right") - 1
        lengths = np.zeros(len(cells), np.int64)
        pieces: list[tuple[NDArray[np.integer], CellRows]] = []
        for shard in np.unique(shard_of):
            places = np.flatnonzero(shard_of == shard)
            rows = self._shards[shard].take(cells[places] - self._offsets[shard])
            lengths[places] = np.diff(rows.indptr)
            pieces.append((places, rows))
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        gene_ids = np.empty(indptr[-1], np.int32)
        counts = np.empty(indptr[-1], np.uint32)
        for places, rows in pieces:
            target = spans(indptr[places], lengths[places])
            gene_ids[target], counts[target] = rows.gene_ids, rows.counts
        return CellRows(indptr, gene_ids, counts)


class _Shard:
    """One file of cells; only its row pointers are held in memory."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="numpy")
            self._indptr: NDArray[np.int64] = self._file.get_tensor("indptr")
            self.validation: NDArray[np.bool_] = self._file.get_tensor("validation").astype(bool)
        except (OSError, SafetensorError) as error:
            msg = f"Shard {path.name} of the corpus cannot be read."
            raise DataError(msg, "Run 'prepare' again; finished data sets are kept.") from error
        self._gene_ids = self._file.get_slice("gene_ids")
        self._counts = self._file.get_slice("counts")

    def __len__(self) -> int:
        return len(self._indptr) - 1

    def take(self, rows: NDArray[np.integer]) -> CellRows:
        starts, lengths = self._indptr[rows], self._indptr[rows + 1] - self._indptr[rows]
        ids = [self._gene_ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        counts = [self._counts[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        return CellRows(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate(ids).astype(np.int32),
            np.concatenate(counts),
        )


def spans(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Indices of several runs, end to end: ``start, start + 1, ...`` for each."""
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(int(np.sum(lengths)))


def batches(cells: NDArray[np.integer], size: int, seed: int, start: int = 0) -> Iterator[NDArray[np.integer]]:
    """Endless batches, a new order each epoch; batch ``start`` is the same however one got there."""
    per_epoch = max(len(cells) // size, 1)
    step = start
    while True:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(cells)
        while place < per_epoch:
            yield order[place * size : (place + 1) * size]
            place, step = place + 1, step + 1


def _read_statistics(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        msg = f"The file {path.name} of the corpus cannot be read."
        raise DataError(msg, "Run 'prepare' again; finished data sets are kept.") from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{folder} is not a prepared corpus."
        raise DataError(msg, "Make one with 'python -m scdiva_core prepare FILES -o FOLDER'.") from error
    if not manifest.get("finished"):
        msg = f"The corpus in {folder} is unfinished."
        raise DataError(msg, "Run the same 'prepare' again: finished data sets are kept.")
    return manifest
