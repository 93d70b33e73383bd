"""Results on disk, named by what they were computed from, so that nothing is computed twice.

An entry is a folder ``<root>/<key>/`` (see `scdiva_core.store_entry`), written under a temporary name
and renamed, so a reader sees all of it or nothing. Work in progress lives in
``<root>/<key>.partial/`` (see `PartialArray`) and survives a killed process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

from scdiva_core.errors import StoreError
from scdiva_core.store_entry import StoredResult, disk_errors, map_array, read_entry, save_array, to_json, write_entry

_KEY = re.compile(r"[0-9a-f]{64}")
_STALE_SECONDS = 24 * 3600  # a temporary folder older than this belongs to a process that was killed


def home() -> Path:
    """Folder of everything this program stores: ``SCDIVA_HOME`` or ``~/.local/share/scdiva``.

    Created when it does not exist yet, readable by its owner alone.

    Raises
    ------
    StoreError
        If the folder cannot be created.
    """
    path = Path(os.environ.get("SCDIVA_HOME") or "~/.local/share/scdiva").expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {path} cannot be created ({error.strerror})."
        raise StoreError(message, "Set SCDIVA_HOME to a folder that you may write to.") from error
    return path


class ResultStore:
    """A folder of results; safe for several processes at once.

    Parameters
    ----------
    root
        The folder, created when it does not exist.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._remove_stale()

    def key(self, task: str, data_hash: str, checkpoint_hash: str, params: Mapping[str, Any]) -> str:
        """Name of a result: SHA-256 (64 hex digits) of what it depends on, as canonical JSON.

        Raises
        ------
        StoreError
            If a parameter is not JSON (numpy numbers and arrays are fine, NaN is not).
        """
        parts = {"task": task, "data": data_hash, "checkpoint": checkpoint_hash, "params": dict(params)}
        return hashlib.sha256(to_json(parts).encode()).hexdigest()

    def get(self, key: str) -> StoredResult | None:
        """Return the entry, or None when it is absent.

        An entry that is truncated or otherwise unreadable counts as absent and is removed. Bits that
        flipped inside an array are not noticed: a check would read every byte on each call.
        """
        folder = self._folder(key)
        with disk_errors(folder):
            for _ in range(2):  # a folder that appears between the two looks was published just now
                try:
                    return read_entry(key, folder)
                except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
                    if not folder.exists():
                        return None
            self._discard(folder)
        return None

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> StoredResult:
        """Write an entry; when two write the same key, the first stays (both computed the same).

        Raises
        ------
        StoreError
            If an array holds Python objects, a name is not a plain word, `meta` is not JSON, or the
            disk is full.
        """
        folder, temporary = self._folder(key), self._temporary()
        with disk_errors(folder):
            try:
                temporary.mkdir()
                for name, array in arrays.items():
                    save_array(temporary, name, np.asarray(array))
                write_entry(temporary, tuple(arrays), meta)
                return self._publish(key, temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def partial(self, key: str, n_rows: int, n_cols: int, dtype: DTypeLike = np.float32) -> PartialArray:
        """Open the unfinished array of this key, or begin one with no row done."""
        folder = self._folder(key).with_suffix(".partial")
        with disk_errors(folder):
            if not _is_partial(folder, (n_rows, n_cols), np.dtype(dtype)):
                self._discard(folder)
                temporary = self._temporary()
                try:
                    _create_partial(temporary, (n_rows, n_cols), np.dtype(dtype))
                    _rename(temporary, folder)  # a second process may have been first: use its folder
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
            return PartialArray(self, key, folder)

    def delete(self, key: str) -> None:
        """Remove an entry and what was begun for it; absent is fine."""
        folder = self._folder(key)
        with disk_errors(folder):
            self._discard(folder)
            self._discard(folder.with_suffix(".partial"))

    def entries(self) -> list[StoredResult]:
        """Return all finished entries, newest first."""
        keys = [path.name for path in self.root.iterdir() if _KEY.fullmatch(path.name)]
        found = [entry for key in keys if (entry := self.get(key)) is not None]
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    def size_bytes(self) -> int:
        """Bytes that the store takes on disk, unfinished work included."""
        total = 0
        for path in self.root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process may be tidying up
                total += path.stat().st_blocks * 512 if path.is_file() else 0
        return total

    def _folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            message = f"{key[:80]!r} is not a result key."
            raise StoreError(message, "Use ResultStore.key to build one: 64 hexadecimal digits.")
        return self.root / key

    def _temporary(self) -> Path:
        return self.root / f".tmp-{uuid.uuid4().hex}"

    def _publish(self, key: str, temporary: Path) -> StoredResult:
        """Rename a complete folder to its key, unless a sound entry is there already."""
        for _ in range(3):
            _rename(temporary, self._folder(key))
            if (entry := self.get(key)) is not None:
                return entry
        message = f"The result {key[:12]} was removed while it was being written."
        raise StoreError(message, "Run the step again.")

    def _discard(self, folder: Path) -> None:
        """Remove a folder so that nobody ever sees half of it."""
        temporary = self._temporary()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(temporary)
        shutil.rmtree(temporary, ignore_errors=True)

    def _remove_stale(self) -> None:
        for path in self.root.glob(".tmp-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


class PartialArray:
    """Rows that arrive batch by batch and survive ``kill -9``; made by `ResultStore.partial`.

    A row is marked done only after its values are on disk, so a killed process loses at most the
    batch in flight.

    Attributes
    ----------
    values
        ``[n_rows, n_cols]`` memory-mapped; a row that is not done holds zeros or half a batch.
    done
        bool ``[n_rows]``, memory-mapped.
    """

    def __init__(self, store: ResultStore, key: str, folder: Path) -> None:
        self._store, self._key, self._folder = store, key, folder
        self.values: np.memmap = map_array(folder / "values.npy", "r+")
        self.done: np.memmap = map_array(folder / "done.npy", "r+")

    def write(self, rows: NDArray[np.integer] | slice, values: NDArray[Any]) -> None:
        """Store ``values [len(rows), n_cols]`` and mark those rows done."""
        self.values[rows] = values
        self.values.flush()  # before the marks: a mark must never reach the disk ahead of its values
        self.done[rows] = True
        self.done.flush()

    def finish(self, meta: Mapping[str, Any]) -> StoredResult:
        """Turn the array into the entry of its key; its only array is named ``values``.

        Raises
        ------
        StoreError
            If a row is missing.
        """
        missing = int((~self.done).sum())
        if missing:
            message = f"{missing:,} of {len(self.done):,} rows have not been computed."
            raise StoreError(message, "Go on from where it stopped, then finish.")
        with disk_errors(self._folder):
            try:
                write_entry(self._folder, ("values",), meta)
            except FileNotFoundError as error:  # another process has just finished the same array
                if (entry := self._store.get(self._key)) is not None:
                    return entry
                message = f"The unfinished result {self._key[:12]} was deleted while it was computed."
                raise StoreError(message, "Run the step again.") from error
            entry = self._store._publish(self._key, self._folder)
            self._store._discard(self._folder)  # still there only if somebody else stored this key
            (entry.path / "done.npy").unlink(missing_ok=True)
        return entry


def _create_partial(folder: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    folder.mkdir()
    open_memmap(folder / "values.npy", mode="w+", dtype=dtype, shape=shape)
    open_memmap(folder / "done.npy", mode="w+", dtype=np.bool_, shape=shape[:1])
    for name in ("values.npy", "done.npy"):
        with (folder / name).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            # Writing to a mapped hole on a full disk kills the process (SIGBUS): reserve the blocks now.
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)


def _is_partial(folder: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
    try:
        values = map_array(folder / "values.npy")
        done = map_array(folder / "done.npy")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return (values.shape, values.dtype, done.shape) == (shape, dtype, shape[:1])


def _rename(source: Path, target: Path) -> None:
    """Rename a folder; a target that is there already (or a source already moved) is left alone."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
