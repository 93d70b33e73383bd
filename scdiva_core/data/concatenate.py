"""Several files as one: their genes laid side by side first, then all cells over the union, streamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.hdf5 import Array, member, open_hdf5, subgroup
from scdiva_core.data.inspection import inspect_file
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import Cancelled, DataError

LEAST_SHARED = 0.2
"""Share of the smallest file's genes that all files must have (our choice: as much as a checkpoint must know)."""

RECORD = "concatenation"
"""Entry of ``uns`` that says what was put together, as one text of JSON; see `record_of`."""

_ENTRIES = 1 << 16  # of a storage chunk
_RESERVED = re.compile(r"|<.*>|\[.*\]", re.DOTALL)  # what a vocabulary takes for no gene
_MEASURED = "measured_in_all"
_FIELDS = {"batch_key", "values", "n_union", "n_shared", "files"}


@dataclass(frozen=True)
class FileGenes:
    """One of the files that are put together.

    Parameters
    ----------
    name
        What its cells are called in the batch column: the file's name, made unique.
    sha256
        Of the file.
    n_cells, n_genes
        Its cells, and its genes after names for one gene were brought together.
    n_known
        Genes of it that the model knows.
    value_kind
        ``"counts"``, ``"log1p"`` or ``"normalised"``.
    """

    name: str
    sha256: str
    n_cells: int
    n_genes: int
    n_known: int
    value_kind: str


@dataclass(frozen=True)
class Overlap:
    """What files have in common, before anything is written.

    Parameters
    ----------
    files
        In the order given.
    n_union, n_shared
        Genes that any file has, and that all have.
    n_known, n_shared_known
        Of both, those that the model knows.
    n_unnamed
        Columns of all files whose name is empty or in brackets, so that no gene is meant; they are left out.
    """

    files: tuple[FileGenes, ...]
    n_union: int
    n_shared: int
    n_known: int
    n_shared_known: int
    n_unnamed: int

    @property
    def share(self) -> float:
        """Share of the smallest file's genes that all files have."""
        return self.n_shared / max(min(file.n_genes for file in self.files), 1)

    @property
    def values(self) -> str:
        """What the joined file will hold: counts where all files do, else log1p of counts per 10,000."""
        return "counts" if all(file.value_kind == "counts" for file in self.files) else "log1p"

    @property
    def refusal(self) -> str:
        """Why the files cannot be put together; empty where they can."""
        if self.share >= LEAST_SHARED:
            return ""
        smallest = min(self.files, key=lambda file: file.n_genes)
        return (
            f"Only {self.n_shared:,} genes are in all {len(self.files)} files, {self.share:.0%} of the "
            f"{smallest.n_genes:,} of {smallest.name}; at least {LEAST_SHARED:.0%} are needed."
        )

    @property
    def words(self) -> str:
        """The overlap in a few sentences, the missing genes among them."""
        cells = sum(file.n_cells for file in self.files)
        told = (
            f"{len(self.files)} files with {cells:,} cells and {self.n_union:,} genes together; {self.n_shared:,} "
            f"genes are in all of them ({self.share:.0%} of the smallest file's), {self.n_shared_known:,} of these "
            "known to the model."
        )
        if missing := self.n_union - self.n_shared:
            told += f" {missing:,} genes are missing from some file: there a zero means not measured, not silent."
        if self.n_unnamed:
            told += f" {self.n_unnamed:,} columns without a gene's name are left out."
        if self.values == "log1p":
            others = ", ".join(file.name for file in self.files if file.value_kind != "counts")
            told += f" Not all files hold counts ({others} do not), so that log1p of counts per 10,000 is written."
        return told


def overlap(paths: Sequence[str | Path], vocabulary: GeneVocabulary, names: Sequence[str] | None = None) -> Overlap:
    """Compare the genes of files; names that mean one gene (symbols, Ensembl ids, aliases) count as one.

    Parameters
    ----------
    paths
        Two ``.h5ad`` files or more.
    vocabulary
        Genes of the checkpoint.
    names
        What the files are called; their file names without suffix when None.

    Raises
    ------
    DataError
        Fewer than two files, one twice, or one that cannot be read.
    """
    return _looked_at(paths, vocabulary, names)[0]


def concatenate(
    paths: Sequence[str | Path],
    folder: str | Path,
    batch_key: str,
    vocabulary: GeneVocabulary,
    *,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Write the cells of all files over the union of their genes into a new file; the files are not changed.

    The new file is named by its hash, ``<sha256>.h5ad``, as uploads are. Its ``X`` holds counts where all files do,
    else log1p of counts per 10,000 of each cell's own file. ``obs`` has all columns of all files, with nothing where a
    file has none, and the batch column. ``var`` says of each gene whether all files have it (``measured_in_all``), and
    ``uns["concatenation"]`` what was put together.

    Parameters
    ----------
    paths
        Two ``.h5ad`` files or more.
    folder
        Receives the file; made when absent.
    batch_key
        New column of ``obs`` with the file of each cell.
    vocabulary
        Genes of the checkpoint, for what is said of the overlap.
    names
        What the files are called in the batch column; their file names without suffix when None.
    progress
        Called with cells done, cells in all, and what is going on.
    cancelled
        Asked once a block.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    DataError
        As for `overlap`; too few genes in common; a file has the column already; or the disk is full.
    Cancelled
        The user stopped; nothing is left behind.
    """
    found, genes = _looked_at(paths, vocabulary, names)
    if found.refusal:
        raise DataError(found.refusal, "Leave out the file that does not fit, or check which column names its genes.")
    target = Path(folder)
    partial = target / f".upload-{uuid.uuid4().hex}.part"  # what a killed process leaves goes with stale uploads
    try:
        target.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            _write(file, paths, found, genes, batch_key, progress, cancelled)
        with partial.open("rb") as content:
            written = target / f"{hashlib.file_digest(content, 'sha256').hexdigest()}.h5ad"
        os.replace(partial, written)
    except (OSError, RuntimeError) as error:  # h5py raises either on a full disk
        msg = f"The joined file cannot be written to {target}: {getattr(error, 'strerror', None) or error}."
        raise DataError(msg, "Choose another folder, or free some disk space.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return written


def record_of(dataset: H5adDataset) -> dict[str, Any] | None:
    """What was put together, where a file is one of `concatenate`'s; else None.

    Returns
    -------
    dict
        ``batch_key``, ``values``, ``n_union``, ``n_shared`` and ``files``, each with the fields of `FileGenes`.
    """
    with closing(open_hdf5(dataset.path)) as file:
        notes = subgroup(file, "uns")
        if notes is None or not isinstance(member(notes, RECORD), h5py.Dataset):
            return None
        try:
            record = json.loads(Array(notes, RECORD).text()[0])
        except (DataError, ValueError, IndexError):  # somebody else's entry of this name
            return None
    return record if isinstance(record, dict) and _FIELDS <= set(record) else None


def measured_in_all(dataset: H5adDataset) -> NDArray[np.bool_]:
    """Which of ``dataset.gene_ids`` all joined files have; all True for a file that was not put together.

    Returns
    -------
    ndarray
        bool ``[n_genes]``.
    """
    if record_of(dataset) is None:
        return np.ones(len(dataset.gene_ids), bool)
    with closing(open_hdf5(dataset.path)) as file:
        everywhere = Array(file["var"], _MEASURED).read().astype(bool)
    known = dataset.genes.ids >= 0
    return np.isin(dataset.gene_ids, dataset.genes.ids[known & everywhere])


def _looked_at(
    paths: Sequence[str | Path], vocabulary: GeneVocabulary, names: Sequence[str] | None
) -> tuple[Overlap, list[NDArray[np.str_]]]:
    """The overlap, and for each file the name of each of its columns in one spelling; empty for no gene."""
    if len(paths) < 2:
        msg = f"{len(paths)} file is nothing to put together." if paths else "No files were given."
        raise DataError(msg, "Choose two files or more.")
    files, genes, own = [], [], []
    for path, label in zip(paths, _labels(paths, names), strict=True):
        with open_h5ad(path, human_genes()) as dataset:
            genes.append(_names(dataset, vocabulary))
            own.append(np.unique(genes[-1][genes[-1] != ""]))
            known = int((vocabulary.match(own[-1].tolist()).ids >= 0).sum())
            files.append(FileGenes(label, dataset.sha256, dataset.n_obs, len(own[-1]), known, dataset.value_kind))
    hashes = [file.sha256 for file in files]
    if len(set(hashes)) < len(hashes):
        twice = next(file.name for file in files if hashes.count(file.sha256) > 1)
        msg = f"The file {twice} is there twice."
        raise DataError(msg, "Choose each file once: its cells would mix with themselves.")
    union, sizes = np.unique(np.concatenate(own), return_counts=True)
    known = vocabulary.match(union.tolist()).ids >= 0
    everywhere = sizes == len(files)
    unnamed = sum((columns == "").sum() for columns in genes)
    counts = (len(union), everywhere.sum(), known.sum(), (known & everywhere).sum(), unnamed)
    return Overlap(tuple(files), *map(int, counts)), genes


def _names(dataset: H5adDataset, vocabulary: GeneVocabulary) -> NDArray[np.str_]:
    """Each gene of a file by its approved symbol; as the file spells it where only that is known, empty for none."""
    spelled = [str(name) for name in dataset.var_names]
    approved = [
        name if token < 0 else human_genes().tokens[token]
        for name, token in zip(spelled, dataset.genes.ids.tolist(), strict=True)
    ]
    known, unknown = vocabulary.match(spelled).ids >= 0, vocabulary.match(approved).ids < 0
    names = np.where(known & unknown, spelled, approved)
    return np.where([bool(_RESERVED.fullmatch(name)) for name in names.tolist()], "", names)


def _labels(paths: Sequence[str | Path], names: Sequence[str] | None) -> list[str]:
    """Names of the files; a number behind those that occur twice."""
    stems = [Path(path).stem for path in paths] if names is None else list(names)
    return [
        stem if stems.count(stem) == 1 else f"{stem} {stems[: place + 1].count(stem)}"
        for place, stem in enumerate(stems)
    ]


def _placed(path: str | Path, places: NDArray[np.int64], union: GeneVocabulary) -> H5adDataset:
    """Open a file with its genes at given places of the union: by their names once more, one might be lost."""
    file = open_hdf5(path)
    try:
        found = inspect_file(file, human_genes())  # as `open_h5ad` did when the genes were named
        match = replace(found.genes.match, ids=places)
        return H5adDataset(file, replace(found, genes=replace(found.genes, match=match)), union, found.chosen.kind)
    except BaseException:
        file.close()
        raise


def _write(
    file: h5py.File,
    paths: Sequence[str | Path],
    found: Overlap,
    names: list[NDArray[np.str_]],
    batch_key: str,
    progress: Callable[[int, int, str], None],
    cancelled: Callable[[], bool],
) -> None:
    genes, sizes = np.unique(np.concatenate([np.unique(own[own != ""]) for own in names]), return_counts=True)
    union = GeneVocabulary(genes.tolist())
    n_cells, tables, done = sum(each.n_cells for each in found.files), [], 0
    matrix = _Growing(file, len(genes))
    for path, part, own in zip(paths, found.files, names, strict=True):
        places = np.where(own == "", -1, np.searchsorted(genes, own))
        with _placed(path, places, union) as dataset:
            tables.append(_cells(dataset, part.name, batch_key))
            blocks = dataset.count_chunks() if found.values == "counts" else dataset.chunks()
            for _, block in blocks:
                if cancelled():
                    raise Cancelled
                matrix.add(block, dataset.gene_ids)
                done += block.shape[0]
                progress(done, n_cells, "Putting files together")
    matrix.finish()
    obs = pd.concat(tables)
    obs[batch_key] = pd.Categorical(obs[batch_key], [part.name for part in found.files])
    write_elem(file, "obs", _writable(obs))
    write_elem(file, "var", pd.DataFrame({_MEASURED: sizes == len(found.files)}, index=genes.astype(object)))
    record = {"batch_key": batch_key, "values": found.values, "n_union": found.n_union, "n_shared": found.n_shared}
    record["files"] = [asdict(part) for part in found.files]
    write_elem(file, "uns", {RECORD: np.array([json.dumps(record)], object)})
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def _cells(dataset: H5adDataset, name: str, batch_key: str) -> pd.DataFrame:
    obs = dataset.obs.copy()
    if batch_key in obs:
        msg = f"{dataset.path.name} has a column {batch_key!r} already."
        raise DataError(msg, "Choose another name for the column that says which file a cell is from.")
    obs.index = pd.Index([f"{cell}-{name}" for cell in dataset.obs_names], dtype=object)
    obs[batch_key] = name
    return obs


def _writable(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns that differ in kind from file to file as text; anndata writes no mixed ones."""
    mixed = [name for name in obs if obs[name].dtype == object]
    texts = {name: obs[name].map(str, na_action="ignore").astype("category") for name in mixed}
    return obs.assign(**texts)


class _Growing:
    """A CSR matrix on disk that cells are added to.

    Parameters
    ----------
    file
        Open for writing; its ``X`` is made.
    n_genes
        Columns.
    """

    def __init__(self, file: h5py.File, n_genes: int) -> None:
        self._group, self._n_genes = file.create_group("X"), n_genes
        self._pointers = [np.zeros(1, np.int64)]
        for name, kind in (("data", np.float32), ("indices", np.int32)):
            options = {"maxshape": (None,), "chunks": (_ENTRIES,), "compression": "lzf"}
            self._group.create_dataset(name, (0,), kind, **options)

    def add(self, block: sp.csr_matrix, columns: NDArray[np.int64]) -> None:
        """Append cells ``[n, len(columns)]`` whose columns lie at the given places, ascending."""
        before = self._pointers[-1][-1]
        for name, values in (("data", block.data), ("indices", columns[block.indices])):
            stored = self._group[name]
            stored.resize((int(before) + len(values),))
            stored[int(before) :] = values
        self._pointers.append(before + block.indptr[1:].astype(np.int64))

    def finish(self) -> None:
        """Write the pointers and say what it is."""
        pointers = np.concatenate(self._pointers)
        self._group["indptr"] = pointers
        shape = np.array([len(pointers) - 1, self._n_genes])
        self._group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
