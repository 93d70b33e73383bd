"""How one stored result looks on disk: a folder of ``<name>.npy`` files and ``entry.json``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scdiva_core.errors import StoreError

_ENTRY = "entry.json"
# numpy reads a header as Python, and before 3.11.8 two syntax trees built by two threads at once spoil each other.
_READING_HEADER = threading.Lock()
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class StoredArrays(Mapping[str, NDArray[Any]]):
    """The arrays of one entry by name, each mapped read-only from disk when it is asked for."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return map_array(self._folder / f"{name}.npy")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class StoredResult:
    """One finished entry of the store.

    Attributes
    ----------
    key
        What it is stored under.
    path
        Its folder.
    arrays
        Arrays by name, loaded lazily and read-only.
    meta
        What the writer noted beside them.
    created
        Seconds since the epoch.
    size_bytes
        Bytes of all arrays on disk.
    """

    key: str
    path: Path
    arrays: Mapping[str, NDArray[Any]]
    meta: dict[str, Any]
    created: float
    size_bytes: int


def read_entry(key: str, folder: Path) -> StoredResult:
    """Read ``entry.json`` and check each array file's length and header.

    Raises
    ------
    FileNotFoundError, ValueError, KeyError, TypeError, AttributeError
        If the entry is absent, incomplete or damaged.
    """
    entry = json.loads((folder / _ENTRY).read_text(encoding="utf-8"))
    sizes: dict[str, int] = entry["bytes"]
    arrays = StoredArrays(folder, tuple(sizes))
    for name, size in sizes.items():
        if (folder / f"{name}.npy").stat().st_size != size:
            message = f"{name} is truncated"
            raise ValueError(message)
        arrays[name]  # parses the header
    created, total = float(entry["created"]), sum(sizes.values())
    return StoredResult(key, folder, arrays, dict(entry["meta"]), created, total)


def write_entry(folder: Path, names: tuple[str, ...], meta: Mapping[str, Any]) -> None:
    """Write ``entry.json``: the length of each array file, the time, and what the caller noted."""
    sizes = {name: (folder / f"{name}.npy").stat().st_size for name in names}
    text = to_json({"bytes": sizes, "created": time.time(), "meta": dict(meta)})
    temporary = folder / f".{uuid.uuid4().hex}"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _ENTRY)


def map_array(path: Path, mode: Literal["r", "r+"] = "r") -> np.memmap:
    """Map a ``.npy`` file into memory, to read it (``"r"``) or to write into it too (``"r+"``).

    Raises
    ------
    FileNotFoundError, ValueError, EOFError
        It is absent, or no such file.
    """
    with _READING_HEADER:
        return np.load(path, mmap_mode=mode, allow_pickle=False)


def save_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """Write ``<name>.npy`` and force it to the disk.

    Raises
    ------
    StoreError
        If the array holds Python objects or the name is not a plain word.
    """
    if not _ARRAY_NAME.fullmatch(name):
        message = f"{name[:80]!r} cannot name a stored array."
        raise StoreError(message, "Use letters, digits, '_', '-' and '.'.")
    if array.dtype.hasobject:
        message = f"The array {name!r} holds Python objects."
        raise StoreError(message, "Store text as a fixed-width string array (numpy dtype 'U').")
    with (folder / f"{name}.npy").open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def to_json(value: Any) -> str:
    """Serialise with sorted keys and no spaces, so that equal values give equal text.

    Raises
    ------
    StoreError
        If the value holds NaN or something that is neither JSON nor numpy.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        message = f"A parameter or note cannot be stored as JSON ({error})."
        raise StoreError(message, "Use numbers, text, lists and dictionaries; leave NaN out.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    message = f"{type(value).__name__} is not JSON"
    raise TypeError(message)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what to do."""
    try:
        yield
    except OSError as error:
        message = f"The result store cannot use {path.name or path} ({error.strerror})."
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "Delete old results or free space on the disk." if full else "Check the folder's permissions."
        raise StoreError(message, hint) from error
