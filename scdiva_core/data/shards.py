"""One file of corpus cells: packed small enough to carry, unpacked beside it to be memory-mapped.

Gene ids ascend within a cell, so that their differences are small; these and the counts are stored as single bytes,
larger ones apart, and deflated. About one byte for each detected gene is left.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from scdiva_core.errors import DataError

Arrays = dict[str, NDArray[np.generic]]
_LARGE = 255


def write_shard(path: Path, indptr: NDArray[np.integer], arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write cells in packed form, in one step.

    Parameters
    ----------
    path
        Ends in ``.safetensors``.
    indptr
        int ``[n + 1]`` row pointers.
    arrays
        ``gene_ids`` and ``counts`` (unsigned, ``[nnz]``, ids ascending within a row), and any array ``[n]``.
    """
    ids = arrays["gene_ids"].astype(np.int64)
    steps = np.diff(ids, prepend=0)
    starts = indptr[:-1][np.diff(indptr) > 0]
    steps[starts] = ids[starts]
    packed: Arrays = {"lengths": np.diff(indptr).astype(np.uint32)}
    for name, values in (("steps", steps), ("counts", arrays["counts"])):
        large = values >= _LARGE
        packed[f"{name}_bytes"] = _deflated(np.where(large, _LARGE, values).astype(np.uint8))
        packed[f"{name}_large"] = values[large].astype(np.uint32)
    packed |= {name: values for name, values in arrays.items() if name not in ("gene_ids", "counts")}
    _save(packed, path)


class Shard:
    """Cells of one file, memory-mapped; only row pointers and per-cell arrays are held in memory.

    Parameters
    ----------
    path
        Written by `write_shard`. Its unpacked form is kept in the folder ``unpacked`` beside it.

    Attributes
    ----------
    cells
        Every per-cell array of the shard, by name.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        unpacked = path.parent / "unpacked" / path.name
        try:
            if not unpacked.is_file() or unpacked.stat().st_mtime_ns < path.stat().st_mtime_ns:
                unpacked.parent.mkdir(exist_ok=True)
                _save(_unpack(load_file(path)), unpacked)
            self._file = safe_open(unpacked, framework="numpy")
            names = set(self._file.keys()) - {"indptr", "gene_ids", "counts"}
            self._indptr: NDArray[np.int64] = self._file.get_tensor("indptr")
            self.cells: Arrays = {name: self._file.get_tensor(name) for name in sorted(names)}
            self._gene_ids = self._file.get_slice("gene_ids")
            self._counts = self._file.get_slice("counts")
        except (OSError, SafetensorError, KeyError, ValueError, zlib.error) as error:
            msg = f"Shard {path.name} of the corpus cannot be read."
            hint = "Delete it and the folder 'unpacked' beside it, then run 'prepare' again; other data sets are kept."
            raise DataError(msg, hint) from error

    def __len__(self) -> int:
        return len(self._indptr) - 1

    def take(
        self, rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
        """Read rows in the order given: their lengths, gene ids and counts, end to end."""
        starts, lengths = self._indptr[rows], self._indptr[rows + 1] - self._indptr[rows]
        spans = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True) if length]
        nothing = np.empty(0, np.uint16)  # for when every row is empty
        ids = np.concatenate([nothing, *(self._gene_ids[span] for span in spans)])
        return lengths, ids, np.concatenate([nothing, *(self._counts[span] for span in spans)])


def _unpack(packed: Arrays) -> Arrays:
    lengths = packed.pop("lengths").astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    whole = {}
    for name in ("steps", "counts"):
        values = np.frombuffer(zlib.decompress(packed.pop(f"{name}_bytes").tobytes()), np.uint8).astype(np.uint32)
        values[values == _LARGE] = packed.pop(f"{name}_large")
        whole[name] = values
    if not len(whole["steps"]) == len(whole["counts"]) == indptr[-1]:
        msg = "Lengths and entries disagree."
        raise ValueError(msg)
    # Running sums over all cells, less what had gathered before each cell.
    gathered = np.concatenate([[0], np.cumsum(whole["steps"], dtype=np.int64)])
    ids = gathered[1:] - np.repeat(gathered[indptr[:-1]], lengths)
    return {"indptr": indptr, "gene_ids": _smallest(ids), "counts": _smallest(whole["counts"]), **packed}


def _smallest(values: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    return values.astype(np.uint16 if values.max(initial=0) < 1 << 16 else np.uint32)


def _deflated(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.frombuffer(zlib.compress(values.tobytes(), 6), np.uint8)


def _save(arrays: Arrays, path: Path) -> None:
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    os.close(descriptor)
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, partial)
    os.replace(partial, path)
