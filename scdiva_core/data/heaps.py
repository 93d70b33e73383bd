"""Checking the texts of an HDF5 file before the HDF5 library reads them.

HDF5 keeps texts of varying length in "global heap collections". In a damaged collection an object may have
size 0; the library (seen in HDF5 2.0.0, `H5HG__cache_heap_deserialize`) then loops for ever, which no
exception can end. So the collections are found by their signature and walked here first. Likewise a damaged
reference to a text may claim 4 GB, which the library allocates and fills before it notices, and a small file may
refer to one long text a million times. Layout: HDF5 File Format Specification 3.0, sections III.E and IV.A.2.d.

Everything is read through the descriptor of the open file and never mapped: a file may be replaced or cut short
meanwhile, and a mapping of a file that shrinks kills the process.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator

import h5py
import numpy as np

from scdiva_core.errors import DataError

_SIGNATURE = b"GCOL\x01"
_HEADER = 16
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_SMALLEST_HEAP, _LARGEST_HEAP = 4096, 256 << 20
_BLOCK = 16 << 20
_ALL_IS_SEARCHED = 64 << 20  # in larger files the stored pieces of matrices are passed over
_MATRIX_GROUPS = ("X", "raw", "layers", "obsm", "obsp")
_MOST_DATASETS = 200
_MOST_REMEMBERED = 256
_DAMAGED = "The file looks damaged: copy it again, or write it anew with anndata."

_longest_texts: dict[tuple[int, int, int, int], int] = {}


def check_heaps(file: h5py.File) -> int:
    """Refuse a file in which reading text would never end; a file that passed is not looked at twice.

    Parameters
    ----------
    file
        Open HDF5 file.

    Returns
    -------
    int
        Bytes of the longest text in it.

    Raises
    ------
    DataError
        A damaged collection, or addresses of a size or place that no common program writes.
    """
    descriptor = file.id.get_vfd_handle()
    found = os.fstat(descriptor)
    stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if stamp not in _longest_texts:
        longest = _searched(file, descriptor, found.st_size)
        if len(_longest_texts) >= _MOST_REMEMBERED:
            _longest_texts.clear()
        _longest_texts[stamp] = longest
    return _longest_texts[stamp]


def _searched(file: h5py.File, descriptor: int, size: int) -> int:
    """Walk every collection of a file and return the longest text."""
    sizes = file.id.get_create_plist().get_sizes()
    if sizes != (8, 8):
        message = f"The file has addresses of {sizes[0]} and lengths of {sizes[1]} bytes, not of 8 and 8."
        raise DataError(message, "Open it in anndata and write it anew.")
    if file.userblock_size:  # the library then counts addresses from another place
        message = f"The file begins with {file.userblock_size:,} bytes that are not HDF5."
        raise DataError(message, "Open it in anndata and write it anew.")
    pieces = sorted(_matrix_pieces(file)) if size > _ALL_IS_SEARCHED else []
    gaps = _gaps(pieces, size)
    return max((_check_range(descriptor, start, stop, size) for start, stop in gaps), default=0)


def check_references(dataset: h5py.Dataset) -> bool:
    """Refuse references to texts that are longer than the file, one by one or together.

    Each text that a program writes has its own place in the file, so all texts of a data set together are
    shorter than the file.

    Parameters
    ----------
    dataset
        Texts of varying length.

    Returns
    -------
    bool
        False where the references are compressed in a way that is not undone here.

    Raises
    ------
    DataError
        A damaged reference, or a piece that is shorter than it must be.
    """
    filters = _filters(dataset)
    if not set(filters) <= {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}:
        return False
    descriptor = dataset.file.id.get_vfd_handle()
    size, total = os.fstat(descriptor).st_size, 0
    entries = math.prod(dataset.chunks or dataset.shape)
    for start, stop, mask in _stored(dataset):
        stored = os.pread(descriptor, min(stop, size) - start, start) if start < size else b""
        used = [number for place, number in enumerate(filters) if not mask >> place & 1]
        plain = _unfiltered(stored, used, entries * _REFERENCE.itemsize)
        lengths = np.frombuffer(plain or b"", _REFERENCE)["length"]
        if plain is None or np.any(lengths > size):
            message = f"References to text at byte {start:,} of the file are damaged."
            raise DataError(message, _DAMAGED)
        total += int(lengths.sum(dtype=np.int64))
        if total > size:
            message = f"The texts of {dataset.name} have more than {total:,} bytes, the whole file {size:,}."
            raise DataError(message, _DAMAGED)
    return True


def _filters(dataset: h5py.Dataset) -> list[int]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def _unfiltered(stored: bytes, filters: list[int], size: int) -> bytes | None:
    """Undo the filters of one piece, the last one first; None where it has not the size that it must have."""
    for number in reversed(filters):
        if number == h5py.h5z.FILTER_FLETCHER32:
            stored = stored[:-4]
        elif number == h5py.h5z.FILTER_DEFLATE:
            try:
                stored = zlib.decompressobj().decompress(stored, size + 5)
            except zlib.error:
                return None
        elif len(stored) == size:
            stored = np.frombuffer(stored, np.uint8).reshape(_REFERENCE.itemsize, -1).T.tobytes()
    return stored if len(stored) == size else None


def _check_range(descriptor: int, start: int, stop: int, size: int) -> int:
    """Walk every collection whose signature lies in ``start:stop``; return the longest text."""
    longest, overlap = 0, len(_SIGNATURE) - 1
    for first in range(start, stop, _BLOCK):
        block = os.pread(descriptor, min(_BLOCK + overlap, stop - first), first)
        found = block.find(_SIGNATURE)
        while found >= 0:
            longest = max(longest, _walked(descriptor, first + found, size))
            found = block.find(_SIGNATURE, found + 1)
    return longest


def _walked(descriptor: int, start: int, size: int) -> int:
    """Follow the objects of the collection that begins at a byte; return the longest."""
    length = int.from_bytes(os.pread(descriptor, 8, start + 8), "little")
    # The library refuses by itself what is too small or reaches past the end.
    if not _SMALLEST_HEAP <= length <= size - start:
        return 0
    longest = _longest(os.pread(descriptor, length, start)) if length <= _LARGEST_HEAP else None
    if longest is None:
        message = f"The text at byte {start:,} of the file is damaged."
        raise DataError(message, _DAMAGED)
    return longest


def _longest(heap: bytes) -> int | None:
    """Follow the objects of a collection from its header to its end; None where that leads nowhere."""
    position, size, longest = _HEADER, len(heap), 0
    while position + _HEADER <= size:
        length = int.from_bytes(heap[position + 8 : position + 16], "little")
        # Object 0 is the free space, whose length counts its own header.
        is_object = heap[position] or heap[position + 1]
        step = _HEADER + (length + 7) // 8 * 8 if is_object else length
        if step < _HEADER or position + step > size:
            return None
        position += step
        longest = max(longest, length if is_object else 0)
    return longest


def _gaps(pieces: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of bytes between the pieces, which are sorted and may overlap."""
    position = 0
    for start, stop in pieces:
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < size:
        yield position, size


def _matrix_pieces(file: h5py.File) -> Iterator[tuple[int, int]]:
    """Ranges of bytes in which numbers of matrices are stored."""
    waiting: list[h5py.Group | h5py.Dataset] = [_hard(file, name) for name in _MATRIX_GROUPS]
    for _ in range(_MOST_DATASETS):  # groups may hold each other
        if not waiting:
            return
        node = waiting.pop()
        if isinstance(node, h5py.Group):
            waiting += [_hard(node, name) for name in list(node)[:_MOST_DATASETS]]
        elif isinstance(node, h5py.Dataset) and h5py.check_string_dtype(node.dtype) is None:
            yield from ((start, stop) for start, stop, _ in _stored(node))


def _hard(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return a member that is no link; None otherwise."""
    links, key = group.id.links, name.encode("utf-8", "surrogateescape")
    return group[name] if links.exists(key) and links.get_info(key).type == h5py.h5l.TYPE_HARD else None


def _stored(dataset: h5py.Dataset) -> list[tuple[int, int, int]]:
    """Ranges of bytes of one data set, in one piece or in chunks, and the mask of the filters left out."""
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return [] if offset is None else [(offset, offset + dataset.id.get_storage_size(), 0)]
    ranges: list[tuple[int, int, int]] = []
    dataset.id.chunk_iter(
        lambda chunk: ranges.append((chunk.byte_offset, chunk.byte_offset + chunk.size, chunk.filter_mask))
    )
    return ranges
