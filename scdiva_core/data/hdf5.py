"""The one boundary to HDF5: every access to a file goes through here.

A data file comes from a stranger and may be damaged or made to do harm. Here links, external and virtual
storage are refused, declared sizes are held against what is stored, and whatever the HDF5 library raises
becomes a `DataError`. Nothing is unpickled anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from scdiva_core.data.heaps import check_heaps, check_references
from scdiva_core.data.paths import confirm
from scdiva_core.errors import DataError

# What h5py has been seen to raise on damaged files; a MemoryError is an absurd declared size.
_LIBRARY_ERRORS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
_DAMAGED = "The file looks damaged: copy it again, or open it in anndata and write it anew."
# Deflate cannot shrink data further than 1,032 times; a file that claims more makes numbers out of nothing.
_MOST_COMPRESSED = 1_100
_FREE_BYTES = 16 << 20
_LARGEST_CHUNK = 1 << 30
# A piece may be this much larger than what it holds: thousands of columns could each fill memory otherwise.
_FREE_CHUNK, _CHUNK_SHARE = 4 << 20, 4
# What may be read into memory at once, and values of text in all; both grow with the file. Our choice: real tables
# of cells take less than a tenth of it.
_FREE_MEMORY, _MEMORY_SHARE = 1 << 30, 2
_FREE_ROWS = 1_000_000
_TEXT_BYTES = 64  # of a short Python string and its place in an array
_SLICE_BYTES, _MOST_SLICE = 256 << 20, 1 << 16
_SLICED_CHUNK = 1 << 20
_MOST_ATTRIBUTE = 4 << 30
_MOST_NAMES = 100_000
_FILTERS = {32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32015: "Zstandard", 32026: "Blosc2"}


@contextmanager
def hdf5_errors(what: str) -> Iterator[None]:
    """Turn whatever the HDF5 library raises into a `DataError`.

    Parameters
    ----------
    what
        What is being read, as the message names it.

    Raises
    ------
    DataError
        In place of an error of the library.
    """
    try:
        yield
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = f"{what} cannot be read: {reason}."
        raise DataError(message, _DAMAGED) from error


def open_hdf5(path: str | Path) -> h5py.File:
    """Open a file for reading; it is never written to.

    Parameters
    ----------
    path
        File on this machine.

    Returns
    -------
    h5py.File
        Open file; the caller closes it.

    Raises
    ------
    DataError
        No such file, not HDF5, or damaged.
    """
    path = Path(path)
    with hdf5_errors(f"The file {path.name!r}"):
        if not path.is_file():
            message = f"There is no file {path.name!r}."
            raise DataError(message, "Check the path; a folder (zarr) cannot be opened.")
        if not h5py.is_hdf5(path):
            message = f"{path.name!r} ({path.stat().st_size:,} bytes) is not an HDF5 file."
            raise DataError(message, "Write it with anndata: adata.write_h5ad('name.h5ad').")
        file = h5py.File(path, "r", locking="best-effort")
        try:
            confirm(path, file.id.get_vfd_handle())
            check_heaps(file)
        except BaseException:
            file.close()
            raise
        return file


def file_bytes(node: h5py.Group | h5py.Dataset) -> int:
    """Return the size of the open file that holds something, whatever became of its name."""
    with hdf5_errors("The file"):
        return os.fstat(node.file.id.get_vfd_handle()).st_size


def most_rows(node: h5py.Group | h5py.Dataset) -> int:
    """Return how many rows a table can have: a million, and one more for each byte of the file."""
    return _FREE_ROWS + file_bytes(node)


def most_memory(node: h5py.Group | h5py.Dataset) -> int:
    """Return how many bytes may be read into memory at once: a gigabyte, and twice the file."""
    return _FREE_MEMORY + _MEMORY_SHARE * file_bytes(node)


def keys(group: h5py.Group) -> list[str]:
    """List the names in a group that can be shown and written elsewhere, in alphabetical order.

    Parameters
    ----------
    group
        Any group; names that are not UTF-8 or hold control characters or marks that turn the direction of text
        are left out, and what comes after the first 100,000.
    """
    names: list[bytes] = []

    def note(name: bytes) -> bool | None:
        names.append(name)
        return True if len(names) >= _MOST_NAMES else None

    with hdf5_errors(f"The list of {group.name}"):
        group.id.links.iterate(note)
    decoded = (name.decode("utf-8", "replace") for name in names)
    return sorted(name for name in decoded if name.isprintable() and "\ufffd" not in name)


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return what a group holds under a name.

    Parameters
    ----------
    group
        Where to look.
    name
        One name, not a path.

    Returns
    -------
    h5py.Group, h5py.Dataset or None
        None where there is nothing.

    Raises
    ------
    DataError
        The name is a link to somewhere else, or a path.
    """
    with hdf5_errors(f"{group.name} / {name!r}"):
        if not name or "/" in name or name == ".":
            return None
        # `name in group` would follow the link, and wait for ever on a named pipe.
        links, key = group.id.links, name.encode()
        if not links.exists(key):
            return None
        if links.get_info(key).type != h5py.h5l.TYPE_HARD:
            message = f"{_label(group, name)} is a link to another place."
            raise DataError(message, "Links are not followed: write the file anew with the data inside.")
        return group[name]


def subgroup(group: h5py.Group, name: str) -> h5py.Group | None:
    """Return a group within a group, or None where there is no group of that name.

    Parameters
    ----------
    group, name
        As for `member`.
    """
    found = member(group, name)
    return found if isinstance(found, h5py.Group) else None


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> object | None:
    """Return an attribute's value, text decoded, or None where it is absent.

    Parameters
    ----------
    node
        Group or data set.
    name
        Attribute name.

    Raises
    ------
    DataError
        It is damaged, or its texts could fill the memory.
    """
    with hdf5_errors(f"The attribute {name!r} of {node.name}"):
        if name in node.attrs:
            _check_attribute(node, name)
        value = node.attrs.get(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _check_attribute(node: h5py.Group | h5py.Dataset, name: str) -> None:
    """Refuse many references to a long text; attributes are read whole, and a reference tells no length here."""
    found = h5py.h5a.open(node.id, name.encode())
    entries = int(np.prod(found.shape, dtype=object)) if found.shape else 1
    varying = found.dtype.kind == "O"
    if varying and entries > 1 and entries * check_heaps(node.file) > _MOST_ATTRIBUTE:
        message = f"The attribute {name!r} of {node.name} may lead to {entries:,} long texts."
        raise DataError(message, _DAMAGED)


def text_attribute(node: h5py.Group | h5py.Dataset, name: str) -> str | None:
    """Return an attribute that must be a single text, or None where it is absent or something else.

    Parameters
    ----------
    node, name
        As for `attribute`.
    """
    value = attribute(node, name)
    return value if isinstance(value, str) else None


def _label(group: h5py.Group, name: str) -> str:
    return f"{group.name}/{name}".lstrip("/")


class Array:
    """A data set of numbers or text whose header has been checked; nothing is read before `read`.

    Parameters
    ----------
    group
        Group that holds it.
    name
        Its name there.
    ndim
        Number of dimensions it must have.
    found
        What `member` gave for it; looked up when None.

    Raises
    ------
    DataError
        It is missing, of another kind, stored elsewhere, or declares more than is stored.
    """

    def __init__(self, group: h5py.Group, name: str, ndim: int = 1, found: h5py.Dataset | None = None) -> None:
        self.label = _label(group, name)
        found = member(group, name) if found is None else found
        if not isinstance(found, h5py.Dataset):
            message = f"The file has no data set {self.label!r}."
            raise DataError(message, "It is not a complete .h5ad file: write it anew with anndata.")
        with hdf5_errors(self.label):
            self._dataset = found
            self._check_place()  # first: to ask a virtual data set for its shape opens the files it leads to
            self.shape: tuple[int, ...] = found.shape
            self.is_text = h5py.check_string_dtype(found.dtype) is not None
            self.dtype: np.dtype = found.dtype
            self.stored_bytes: int = found.id.get_storage_size()
            self.chunk_shape: tuple[int, ...] | None = found.chunks
            self._check(ndim)

    def _check_place(self) -> None:
        properties = self._dataset.id.get_create_plist()
        if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
            message = f"{self.label} keeps its values in another file."
            raise DataError(message, "Write the file anew with anndata, with all data inside.")

    def _check(self, ndim: int) -> None:
        hint = "Write the file anew with anndata, with all data inside."
        if self.shape is None or len(self.shape) != ndim:
            message = f"{self.label} has shape {self.shape}; {ndim} dimension(s) expected."
            raise DataError(message, hint)
        if not self.is_text and self.dtype.kind not in "fiub":
            message = f"{self.label} holds values of type {self.dtype}, which are neither numbers nor text."
            raise DataError(message, hint)
        declared = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if declared > _MOST_COMPRESSED * self.stored_bytes + _FREE_BYTES:
            message = f"{self.label} declares {declared:,} bytes but stores {self.stored_bytes:,}."
            raise DataError(message, hint)
        if self.chunk_bytes > _LARGEST_CHUNK:
            message = f"{self.label} is stored in pieces of {self.chunk_bytes:,} bytes; 1 GiB is the most."
            raise DataError(message, "Write the file anew with anndata's default chunks.")
        if self.chunk_bytes > _FREE_CHUNK + _CHUNK_SHARE * declared:
            message = f"{self.label} declares {declared:,} bytes in pieces of {self.chunk_bytes:,}."
            raise DataError(message, "Write the file anew with anndata's default chunks.")
        self._check_filters()

    def _check_filters(self) -> None:
        properties = self._dataset.id.get_create_plist()
        for i in range(properties.get_nfilters()):
            number = properties.get_filter(i)[0]
            if not h5py.h5z.filter_avail(number):
                message = f"{self.label} is compressed with {_FILTERS.get(number, f'HDF5 filter {number}')}."
                raise DataError(message, "Write the file anew with compression='gzip'.")

    @property
    def chunk_bytes(self) -> int:
        """Uncompressed bytes that are read at once; 0 where rows can be read alone."""
        if self.chunk_shape is None:
            return 0
        return int(np.prod(self.chunk_shape, dtype=object)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read numbers ``start:stop`` of the first axis, in the type of the file.

        Parameters
        ----------
        start, stop
            Range; everything by default.

        Raises
        ------
        DataError
            It holds text, or the file is damaged there.
        """
        if self.is_text:
            message = f"{self.label} holds text where numbers are expected."
            raise DataError(message, "Write the file anew with numbers there.")
        with hdf5_errors(self.label):
            rows = len(range(*slice(start, stop).indices(len(self))))
            self._check_memory(rows * (self.memory_bytes // max(len(self), 1)))
            return self._dataset[start:stop]

    @property
    def memory_bytes(self) -> int:
        """Bytes that all values take in memory, texts without their characters."""
        entries = int(np.prod(self.shape, dtype=object))
        if self.is_text:
            return entries * (_TEXT_BYTES + (0 if self.dtype.kind == "O" else self.dtype.itemsize))
        return entries * self.dtype.itemsize

    def _check_memory(self, wanted: int) -> None:
        most = most_memory(self._dataset)
        if wanted > most:
            message = f"{self.label} would take {wanted:,} bytes of memory; {most:,} are the most for such a file."
            raise DataError(message, _DAMAGED)

    def text(self) -> np.ndarray:
        """Read all values as strings, object array of str; bytes that are not UTF-8 become U+FFFD.

        Raises
        ------
        DataError
            The file is damaged there.
        """
        with hdf5_errors(self.label):
            self._check_memory(self.memory_bytes)
            if not self.is_text:
                return self._dataset[:].astype(str).astype(object)
            # Fixed-length text needs no references.
            if self.dtype.kind == "O" and not check_references(self._dataset):
                return self._sliced_text()
            return self._dataset.asstr("utf-8", errors="replace")[:]

    def _sliced_text(self) -> np.ndarray:
        """Read texts whose lengths cannot be known before, a few at a time, until they are longer than the file."""
        if self.chunk_bytes > _SLICED_CHUNK:  # each slice would unpack the whole piece again
            message = f"{self.label} is stored in pieces of {self.chunk_bytes:,} bytes, compressed."
            raise DataError(message, "Write the file anew with compression='gzip'.")
        rows = min(max(_SLICE_BYTES // max(check_heaps(self._dataset.file), 1), 1), _MOST_SLICE)
        most, total, pieces = file_bytes(self._dataset), 0, []
        for start in range(0, len(self), rows):
            pieces.append(self._dataset.asstr("utf-8", errors="replace")[start : start + rows])
            total += sum(map(len, pieces[-1]))
            if total > most:
                message = f"{self.label} has more than {total:,} characters in a file of {most:,} bytes."
                raise DataError(message, _DAMAGED)
        return np.concatenate([np.zeros(0, object), *pieces])
