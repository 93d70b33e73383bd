"""Expression by gene beside a file that stores it by cell, so that one gene of a million cells is read at once.

The side file holds blocks of consecutive cells, and in each block the values of one gene lie together: a gene is one
run of each block. It is written in one pass over the data file, with a block at a time in memory. Our choice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.errors import StoreError

if TYPE_CHECKING:
    from scdiva_core.data.h5ad import H5adDataset

_VERSION = 1
_BLOCK_ENTRIES = 8 << 20  # values of a block: 64 MB of them, some 300 MB while they change places
_BLOCK_CELLS = 1 << 16  # so that a cell's number within its block takes two bytes
_ENTRY_BYTES = 6
_LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)

Report = Callable[[int], None]
"""Called with the cells that are done; what it raises ends the work."""


def columns_path(dataset: H5adDataset, folder: str | Path) -> Path:
    """Name of the side file of a data set: a hash of the data, how they are read, and which genes are known.

    Parameters
    ----------
    dataset
        The open file.
    folder
        Where side files lie.
    """
    found = dataset.preflight
    parts = (_VERSION, dataset.sha256, found.recommended, found.gene_column, dataset.value_kind)
    digest = hashlib.sha256(repr(parts).encode() + dataset.gene_ids.tobytes()).hexdigest()
    return Path(folder) / f"{digest}.h5"


def write_gene_columns(dataset: H5adDataset, folder: str | Path, report: Report = lambda done: None) -> Path:
    """Write the side file of a data set, unless there is one.

    Two writers at once do no harm: each writes a file of its own, and both hold the same.

    Parameters
    ----------
    dataset
        The open file.
    folder
        Where side files lie; created when it does not exist.
    report
        Called after each chunk of cells.

    Returns
    -------
    Path
        The side file.

    Raises
    ------
    StoreError
        The disk is full or the folder cannot be written to; nothing is left behind.
    DataError
        As for `H5adDataset.chunks`.
    """
    path = columns_path(dataset, folder)
    if _is_sound(path, dataset.n_obs, len(dataset.gene_ids)):
        return path
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(dataset, path.parent)
        with _disk_errors(), h5py.File(partial, "w") as file:
            _write(file, dataset, report)
        with _disk_errors():
            _to_disk(partial)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def read_gene_column(path: str | Path, column: int, n_obs: int, n_genes: int) -> NDArray[np.float32] | None:
    """Read one gene of all cells.

    Parameters
    ----------
    path
        The side file.
    column
        Place of the gene in `H5adDataset.gene_ids`.
    n_obs, n_genes
        Cells and known genes of the data set.

    Returns
    -------
    ndarray or None
        log1p of counts per 10,000, float32 ``[n_obs]``, equal to what the data file says to the last bit. None where
        there is no side file, or none that can be read.
    """
    if not _is_sound(path, n_obs, n_genes):
        return None
    found = np.zeros(n_obs, np.float32)
    try:
        with h5py.File(path, "r") as file:
            starts = file["starts"][:]
            runs = file["pointers"][:, column : column + 2]
            for block, (start, (first, last)) in enumerate(zip(starts, runs, strict=True)):
                if last > first:
                    cells = file[f"cells/{block}"][first:last]
                    found[start + cells.astype(np.int64)] = file[f"values/{block}"][first:last]
    except (*_LIBRARY_ERRORS, IndexError):
        return None
    return found


def _write(file: h5py.File, dataset: H5adDataset, report: Report) -> None:
    starts: list[int] = []
    pointers: list[NDArray[np.int64]] = []
    waiting: list[sp.csr_matrix] = []
    begin = end = 0

    def put() -> None:
        block = (waiting[0] if len(waiting) == 1 else sp.vstack(waiting, format="csr")).tocsc()
        waiting.clear()
        file.create_dataset(f"cells/{len(starts)}", data=block.indices.astype(np.uint16))
        file.create_dataset(f"values/{len(starts)}", data=block.data)
        starts.append(begin)
        pointers.append(block.indptr.astype(np.int64))

    for _, chunk in dataset.chunks():
        more = sum(part.nnz for part in waiting) + chunk.nnz
        if waiting and (more > _BLOCK_ENTRIES or end + chunk.shape[0] - begin > _BLOCK_CELLS):
            put()
            begin = end
        waiting.append(chunk)
        end += chunk.shape[0]
        report(end)
    put()
    file["starts"] = np.array(starts, np.int64)
    file.create_dataset("pointers", data=np.stack(pointers), chunks=(len(pointers), 64))
    file.attrs.update({"n_obs": dataset.n_obs, "n_genes": len(dataset.gene_ids)})


def _is_sound(path: str | Path, n_obs: int, n_genes: int) -> bool:
    """Whether a side file is there and of this data set's size; a name is that of its contents, so there is no more."""
    try:
        with h5py.File(path, "r") as file:
            return (int(file.attrs["n_obs"]), int(file.attrs["n_genes"])) == (n_obs, n_genes)
    except _LIBRARY_ERRORS:
        return False


def _check_room(dataset: H5adDataset, folder: Path) -> None:
    """Say so at once where the disk is too full, instead of filling it to the last byte."""
    with _disk_errors():
        free = shutil.disk_usage(folder).free
    needed = int(dataset.n_obs * dataset.preflight.detected_genes * _ENTRY_BYTES)
    if free < 1.5 * needed:
        msg = f"Genes of all cells take {needed / 1e9:,.1f} GB beside the file, and {free / 1e9:,.1f} GB are free."
        raise StoreError(msg, "Free some disk space, or go without: colouring by a gene then takes longer.")


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except _LIBRARY_ERRORS as error:
        msg = f"The genes of this file cannot be kept beside it: {getattr(error, 'strerror', None) or error}."
        raise StoreError(msg, "Free some disk space, or go without: colouring by a gene then takes longer.") from error
