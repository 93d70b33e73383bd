"""An embedding on disk that many processes write at once: one zarr chunk for each chunk of cells.

While work lasts there is a folder ``<target>.partial/``: ``made_of.json`` (what it is computed from), ``result.zarr``
(the array, in an AnnData store that lacks the rest yet) and an empty file ``done/<number>`` for each chunk that is
whole. zarr writes a chunk under a temporary name and renames it, and its mark comes after it, so that a killed process
leaves nothing half-done and two that compute the same chunk do no harm.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Zstd
from numpy.typing import NDArray

from scdiva_core.errors import StoreError
from scdiva_core.lazy import cached_property
from scdiva_core.store_entry import disk_errors

_MADE_OF = "made_of.json"
_KEY = "X_scdiva"
_ATTRIBUTE = "scdiva_made_of"


class VectorFolder:
    """The unfinished embedding of a target file; made by `begin_vectors`, opened by each process.

    Parameters
    ----------
    folder
        ``<target>.partial``.

    Attributes
    ----------
    made_of
        What the vectors depend on, as it was given when they were begun.
    n_obs, chunk_cells
        Cells, and cells of a chunk.

    Raises
    ------
    StoreError
        There is no such folder here.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.made_of: dict[str, Any] = json.loads((self.folder / _MADE_OF).read_text(encoding="utf-8"))
            self._array = zarr.open_array(self.result, path=f"obsm/{_KEY}", mode="r+")
        except (OSError, ValueError) as error:
            msg = f"There is no unfinished embedding {self.folder}."
            raise StoreError(msg, "The output must lie in a folder that every machine sees under this path.") from error
        self.n_obs = self._array.shape[0]
        self.chunk_cells = self._array.chunks[0]

    @property
    def result(self) -> Path:
        """The AnnData store that the array is part of."""
        return self.folder / "result.zarr"

    @property
    def n_chunks(self) -> int:
        """Chunks in all."""
        return -(-self.n_obs // self.chunk_cells)

    @property
    def width(self) -> int:
        """Columns of the embedding."""
        return self._array.shape[1]

    @cached_property
    def entropy(self) -> NDArray[np.float32] | None:
        """Entropy of each token over this data set, for a checkpoint that brings none; else None."""
        path = self.folder / "entropy.npy"
        return np.load(path, allow_pickle=False) if path.exists() else None

    def cells(self, number: int) -> tuple[int, int]:
        """First cell of a chunk and the one after its last."""
        return number * self.chunk_cells, min((number + 1) * self.chunk_cells, self.n_obs)

    def is_marked(self, number: int) -> bool:
        """Whether a chunk was written."""
        return self._mark(number).exists()

    def write(self, number: int, values: NDArray[np.float32]) -> None:
        """Store the vectors of a chunk, float32 ``[cells, width]``, and mark it."""
        start, stop = self.cells(number)
        with disk_errors(self.folder):
            self._array[start:stop] = values
            self._mark(number).touch()

    def read(self, number: int) -> NDArray[np.float32]:
        """Vectors of a chunk; NaN where nothing was written.

        Raises
        ------
        StoreError
            The chunk is damaged.
        """
        start, stop = self.cells(number)
        try:
            return self._array[start:stop]
        except (OSError, ValueError, RuntimeError) as error:
            msg = f"Chunk {number:,} of {self.result} is damaged."
            raise StoreError(msg, "Run the same command again.") from error

    def values(self) -> NDArray[np.float32]:
        """All vectors in memory, float32 ``[n_obs, width]``."""
        return self._array[:]

    def missing(self) -> list[int]:
        """Numbers of the chunks to compute; marked ones are read once, as a power cut may leave a mark alone."""
        return [number for number in range(self.n_chunks) if not (self.is_marked(number) and self._is_sound(number))]

    def finish(self, target: Path, chosen: Mapping[str, Any]) -> None:
        """Give the finished store its name and remove what served the work.

        Parameters
        ----------
        target
            The new store.
        chosen
            What was chosen beside the vectors, kept with `made_of` for `is_finished`.
        """
        with disk_errors(target):
            zarr.open_group(self.result, mode="r+").attrs[_ATTRIBUTE] = {**self.made_of, **chosen}
            os.replace(self.result, target)
        self.remove()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_sound(self, number: int) -> bool:
        try:
            sound = bool(np.isfinite(self.read(number)).all())
        except StoreError:
            sound = False
        if not sound:
            self._mark(number).unlink(missing_ok=True)
        return sound

    def _mark(self, number: int) -> Path:
        return self.folder / "done" / str(number)


def begun_vectors(target: Path, made_of: Mapping[str, Any]) -> VectorFolder | None:
    """What was begun for a target; None when nothing was.

    Parameters
    ----------
    target
        Where the result will be.
    made_of
        What the vectors must depend on, as far as it is known.

    Raises
    ------
    StoreError
        Something else was begun there.
    """
    folder = work_folder(target)
    if not (folder / _MADE_OF).is_file():
        return None
    begun = VectorFolder(folder)
    if unlike := _difference(begun.made_of, made_of):
        msg = f"{folder} holds an unfinished embedding made from {unlike}."
        raise StoreError(msg, "Repeat the first command to go on with it, delete it, or choose another name.")
    return begun


def begin_vectors(
    target: Path,
    made_of: Mapping[str, Any],
    *,
    n_obs: int,
    width: int,
    chunk_cells: int,
    entropy: NDArray[np.float32] | None = None,
) -> VectorFolder:
    """Begin an embedding of which no chunk is done.

    Parameters
    ----------
    target
        Where the result will be.
    made_of
        What the vectors depend on: plain values.
    n_obs, width, chunk_cells
        Cells, columns, and cells of a chunk.
    entropy
        Handed to every process; see `VectorFolder.entropy`.

    Raises
    ------
    StoreError
        The disk is full, or the folder cannot be written to.
    """
    folder = work_folder(target)
    with disk_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)  # killed before it said what it was
        (folder / "done").mkdir(parents=True)
        if entropy is not None:
            np.save(folder / "entropy.npy", entropy)
        # Format 2, as anndata writes by default: its strings are part of that format, and not yet of 3.
        group = zarr.create_group(folder / "result.zarr", zarr_format=2)
        obsm = group.create_group("obsm", attributes={"encoding-type": "dict", "encoding-version": "0.1.0"})
        obsm.create_array(
            _KEY,
            shape=(n_obs, width),
            chunks=(chunk_cells, width),
            compressors=Zstd(level=1, checksum=True),  # a damaged chunk is noticed when it is read
            dtype="float32",
            fill_value=float("nan"),
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
        )
        partial = folder / "made_of.partial"
        partial.write_text(json.dumps(dict(made_of), indent=1), encoding="utf-8")
        os.replace(partial, folder / _MADE_OF)
    return VectorFolder(folder)


def work_folder(target: Path) -> Path:
    """Where the work for a target lies."""
    return target.with_name(f"{target.name}.partial")


def is_finished(target: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether a target is there already, made of the same.

    Raises
    ------
    StoreError
        Something else is there under its name.
    """
    if not target.exists():
        return False
    try:
        found = zarr.open_group(target, mode="r").attrs.get(_ATTRIBUTE)
    except (OSError, ValueError):  # no zarr store
        found = None
    unlike = "something else" if not isinstance(found, Mapping) else _difference(found, made_of)
    if unlike:
        msg = f"{target} is there already, made from {unlike}."
        raise StoreError(msg, "Choose another name, or delete it.")
    return True


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name what differs from the recipe that is wanted; empty when nothing does."""
    unlike = [name.replace("_", " ") for name, value in wanted.items() if found.get(name) != value]
    return f"another {' and '.join(unlike)}" if unlike else ""
