"""A prepared corpus: raw counts of many data sets with their labels, memory-mapped, and batches drawn from them.

A corpus folder holds ``corpus.json`` (manifest), ``vocab.json``, ``statistics.safetensors`` (entropy, gene mean and
standard deviation) and one ``.safetensors`` shard per few thousand cells. Reading it needs only torch, numpy,
safetensors and the standard library, so that training also runs on a bare machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from scdiva_core.data.shards import Shard
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
    totals
        float64 ``[n]`` counts of each cell over all genes of its file, known to the vocabulary or not.
    """

    indptr: NDArray[np.int64]
    gene_ids: NDArray[np.int32]
    counts: NDArray[np.unsignedinteger]
    totals: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each entry, int64 ``[nnz]``."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def log1p(self) -> NDArray[np.float32]:
        """Log1p of counts per 10,000 of each cell, float32 ``[nnz]``."""
        factors = TARGET_SUM / np.maximum(self.totals, 1.0)
        return np.log1p(self.counts * factors[self.rows]).astype(np.float32)

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

    Attributes
    ----------
    label_ids, classes
        Cell Ontology ids: of every label that a cell carries, and of those that an annotation head may name.
    members
        bool ``[n_label_ids, n_classes]``: the classes that a cell of each label may belong to. A final label is
        one class, a coarse one those below it in the ontology.
    labels
        int16 ``[n]`` index into ``label_ids``, -1 where a cell has none.
    dataset_of, batch_of
        int16 ``[n]`` number of each cell's data set, and of its technical batch over all data sets.

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
        self.label_ids = tuple(self.manifest["labels"])
        self.classes = tuple(self.manifest["classes"])
        self.members = np.zeros((len(self.label_ids), len(self.classes)), bool)
        for row, columns in enumerate(self.manifest["labels"].values()):
            self.members[row, columns] = True
        self._shards = [Shard(self.folder / name) for name in self.manifest["shards"]]
        self._offsets = np.concatenate([[0], np.cumsum([len(shard) for shard in self._shards])])
        self._validation = self._column("validation").astype(bool)
        self.labels = self._column("label")
        self.dataset_of, self.batch_of = self._origins()

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def n_batches(self) -> int:
        """Technical batches of all data sets together."""
        return int(self.batch_of.max(initial=-1)) + 1

    def cells(self, part: Literal["training", "validation"]) -> NDArray[np.int64]:
        """Indices of the cells of one part."""
        return np.flatnonzero(self._validation if part == "validation" else ~self._validation)

    def take(self, cells: NDArray[np.integer]) -> CellRows:
        """Read cells by index, in the order given."""
        shard_of = np.searchsorted(self._offsets, cells, side="right") - 1
        lengths, totals = np.zeros(len(cells), np.int64), np.zeros(len(cells))
        pieces = []
        for number in np.unique(shard_of):
            places = np.flatnonzero(shard_of == number)
            rows, shard = cells[places] - self._offsets[number], self._shards[number]
            lengths[places], ids, counts = shard.take(rows)
            totals[places] = shard.cells["total"][rows]
            pieces.append((places, ids, counts))
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        gene_ids = np.empty(indptr[-1], np.int32)
        merged = np.empty(indptr[-1], np.uint32)
        for places, ids, counts in pieces:
            target = spans(indptr[places], lengths[places])
            gene_ids[target], merged[target] = ids, counts
        return CellRows(indptr, gene_ids, merged, totals)

    def _origins(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Data set and batch of each cell; a shard counts its batches from 0."""
        datasets, batches, place, before = [], self._column("batch"), 0, 0
        for number, dataset in enumerate(self.manifest["datasets"]):
            datasets.append(np.full(dataset["n_cells"], number, np.int16))
            batches[place : place + dataset["n_cells"]] += before
            place, before = place + dataset["n_cells"], before + len(dataset["batches"])
        return np.concatenate(datasets), batches

    def _column(self, name: str) -> NDArray[np.integer]:
        return np.concatenate([shard.cells[name] for shard in self._shards])


def spans(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Indices of several runs, end to end: ``start, start + 1, ...`` for each."""
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(int(np.sum(lengths)))


class CellDraws:
    """Draws batches of training cells, small data sets and rare types more often than their share.

    A data set is drawn with probability ``n ** balance`` of its cells, a label within it likewise; cells without a
    label count as one label. Our choice: the corpus' largest study would otherwise be most of every batch.

    Parameters
    ----------
    corpus
        Its training cells are drawn, with replacement.
    size
        Cells of a batch.
    seed
        Of all draws; a batch depends on it and on its number alone.
    balance
        1 draws every cell alike, 0 every data set and every label.
    """

    def __init__(self, corpus: Corpus, size: int, seed: int, balance: float) -> None:
        self._cells, self._size, self._seed = corpus.cells("training"), size, seed
        datasets = corpus.dataset_of[self._cells].astype(np.int64)
        groups = datasets * (len(corpus.label_ids) + 1) + corpus.labels[self._cells] + 1
        _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weight = sizes[group] ** (balance - 1.0)
        in_dataset = np.bincount(datasets)
        weight *= (np.maximum(in_dataset, 1) ** balance / np.maximum(np.bincount(datasets, weight), 1e-9))[datasets]
        self._upto = np.cumsum(weight) / weight.sum()

    def batch(self, step: int) -> NDArray[np.int64]:
        """Cells of batch ``step``, int64 ``[size]``."""
        places = np.searchsorted(self._upto, np.random.default_rng([self._seed, step]).random(self._size))
        return self._cells[np.minimum(places, len(self._cells) - 1)]


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
    if not manifest.get("finished") or "labels" not in manifest:
        msg = f"The corpus in {folder} is unfinished or of an older form."
        raise DataError(msg, "Run the same 'prepare' again: finished data sets are kept.")
    return manifest
