"""Checking the text heaps of an HDF5 file before the HDF5 library reads them.

HDF5 keeps texts of varying length in "global heap collections". In a damaged collection an object may have
size 0; the library (seen in HDF5 2.0.0, `H5HG__cache_heap_deserialize`) then loops for ever, which no
exception can end. So the collections are found by their signature and walked here first. Likewise a damaged
reference to a text may claim 4 GB, which the library allocates and fills before it notices. Layout: HDF5 File
Format Specification 3.0, sections III.E and IV.A.2.d.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from functools import lru_cache

import h5py
import numpy as np

from scdiva_core.errors import DataError

_SIGNATURE = b"GCOL\x01"
_HEADER = 16
_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_SMALLEST_HEAP, _LARGEST_HEAP = 4096, 256 << 20
_ALL_IS_SEARCHED = 64 << 20  # in larger files the stored pieces of matrices are passed over
_MATRIX_GROUPS = ("X", "raw", "layers", "obsm", "obsp")
_MOST_DATASETS = 200
_DAMAGED = "The file looks damaged: copy it again, or write it anew with anndata."


@lru_cache(maxsize=256)
def check_heaps(path: str, size: int, mtime_ns: int) -> None:
    """Refuse a file in which reading text would never end; a file that passed is not looked at twice.

    Parameters
    ----------
    path
        HDF5 file.
    size, mtime_ns
        Its size and time of change, so that a file written anew is checked anew.

    Raises
    ------
    DataError
        A damaged collection, or addresses of a size that no common program writes.
    """
    del mtime_ns
    with h5py.File(path, "r", locking="best-effort") as file:
        sizes = file.id.get_create_plist().get_sizes()
        pieces = sorted(_matrix_pieces(file)) if size > _ALL_IS_SEARCHED else []
    if sizes != (8, 8):
        message = f"The file has addresses of {sizes[0]} and lengths of {sizes[1]} bytes, not of 8 and 8."
        raise DataError(message, "Open it in anndata and write it anew.")
    with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start, stop in _gaps(pieces, len(content)):
            _check_range(content, start, stop)


def check_references(dataset: h5py.Dataset) -> None:
    """Refuse references to texts that are longer than the file.

    Parameters
    ----------
    dataset
        Texts of varying length. Compressed references carry a checksum and are left to the library.

    Raises
    ------
    DataError
        A damaged reference, or a compressed piece marked as not compressed.
    """
    if dataset.file.userblock_size:  # the library then counts addresses from another place
        return
    path, ranges = dataset.file.filename, _stored(dataset)
    is_plain = dataset.id.get_create_plist().get_nfilters() == 0
    size = os.path.getsize(path)
    with open(path, "rb") as opened:
        for start, stop, mask in ranges:
            if not is_plain and not mask:
                continue
            opened.seek(start)
            stored = opened.read(min(stop, size) - start) if start < size else b""
            whole = dataset.chunks is None or stop - start == _REFERENCE.itemsize * math.prod(dataset.chunks)
            lengths = np.frombuffer(stored, _REFERENCE, len(stored) // _REFERENCE.itemsize)["length"]
            if not whole or np.any(lengths > size):
                message = f"References to text at byte {start:,} of the file are damaged."
                raise DataError(message, _DAMAGED)


def _check_range(content: mmap.mmap, start: int, stop: int) -> None:
    """Walk every collection whose signature lies in ``start:stop``."""
    found = content.find(_SIGNATURE, start, stop)
    while found >= 0:
        size = int.from_bytes(content[found + 8 : found + _HEADER], "little")
        # The library refuses by itself what is too small or reaches past the end.
        if _SMALLEST_HEAP <= size <= len(content) - found and not _is_sound(content, found, size):
            message = f"The text at byte {found:,} of the file is damaged."
            raise DataError(message, _DAMAGED)
        found = content.find(_SIGNATURE, found + 1, stop)


def _is_sound(content: mmap.mmap, start: int, size: int) -> bool:
    """Follow the objects of a collection from its header to its end."""
    if size > _LARGEST_HEAP:
        return False
    heap = content[start : start + size]
    position = _HEADER
    while position + _HEADER <= size:
        length = int.from_bytes(heap[position + 8 : position + 16], "little")
        # Object 0 is the free space, whose length counts its own header.
        is_object = heap[position] or heap[position + 1]
        step = _HEADER + (length + 7) // 8 * 8 if is_object else length
        if step < _HEADER or position + step > size:
            return False
        position += step
    return True


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
