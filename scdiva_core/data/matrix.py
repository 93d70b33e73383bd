"""Expression matrices of an ``.h5ad`` file, read in blocks of cells and never whole.

Three storages, one way to read them: `CsrMatrix`, `CscMatrix` and `DenseMatrix` have ``blocks`` and
``sample``. A block is a scipy CSR matrix of float32 over all genes of the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scdiva_core.data.blocks import cut_rows, row_ranges
from scdiva_core.data.hdf5 import Array
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

# Entries of a sparse block: 32 MB of values and indices, several times that while they are normalised.
_BLOCK_ENTRIES = 4 << 20
# Cells stored by gene are gathered this many values at a time, from pieces of that many.
_GATHERED_ENTRIES, _PIECE_ENTRIES = 8 << 20, 2 << 20
# Dense rows that share a storage chunk are read together, up to this many bytes.
_DENSE_BYTES = 64 << 20
_SAMPLE_ENTRIES = 20_000
_SAMPLE_BLOCKS = 16
_SAMPLE_BYTES = 192 << 20


@dataclass(frozen=True)
class MatrixInfo:
    """Header of one matrix.

    Parameters
    ----------
    name
        ``"X"``, ``"raw/X"`` or ``"layers/<name>"``.
    format
        ``"csr"``, ``"csc"`` or ``"dense"``.
    dtype
        numpy name of the stored type.
    shape
        Cells, genes.
    nnz
        Stored values; None when dense.
    bytes_on_disk
        Size in the file, compressed.
    """

    name: str
    format: str
    dtype: str
    shape: tuple[int, int]
    nnz: int | None
    bytes_on_disk: int


@dataclass(frozen=True)
class Sample:
    """Values of a few cells from all over a matrix.

    Parameters
    ----------
    values
        Values other than zero, float32 [n].
    totals, log_totals
        Sum of each sampled cell's values, and of exp(value) - 1, float64 [cells]; empty when stored by gene.
    detected
        Mean number of values other than zero in a cell.
    """

    values: np.ndarray
    totals: np.ndarray
    log_totals: np.ndarray
    detected: float


class Matrix(ABC):
    """One matrix of an open file, whatever its storage; made by `open_matrix`.

    Parameters
    ----------
    info
        Its header.
    """

    def __init__(self, info: MatrixInfo) -> None:
        self.info = info
        self.shape = info.shape

    @abstractmethod
    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read cells in order.

        Parameters
        ----------
        rows
            Most cells of a block. Blocks may be shorter, but none straddles a multiple of `rows`.
        start, stop
            First cell, a multiple of `rows`, and the one after the last; all cells when left out.

        Yields
        ------
        tuple of int and csr_matrix
            First cell, and values float32 [cells, n_vars].

        Raises
        ------
        DataError
            Gene indices out of range, or a damaged file.
        """

    @abstractmethod
    def sample(self) -> Sample:
        """Read a few cells from all over the matrix."""

    def peak_bytes(self, rows: int, detected: float) -> int:
        """Estimate the memory that streaming and normalising take; factors measured on real files (+-25 %).

        Parameters
        ----------
        rows
            Cells of a chunk.
        detected
            Values other than zero in a mean cell.
        """
        entries = min(rows, self.shape[0]) * detected
        several = entries > _BLOCK_ENTRIES or self.shape[0] > rows
        chunk = 34 * min(entries, _BLOCK_ENTRIES) + (13 * entries if several else 0)
        return int((4 << 20) + 650 * self.shape[1] + 24 * self.shape[0] + chunk)


class _Compressed(Matrix):
    """Data, indices and pointers of either orientation; the pointers are held in memory."""

    def __init__(self, info: MatrixInfo, data: Array, indices: Array, indptr: np.ndarray) -> None:
        super().__init__(info)
        self._data, self._indices, self._indptr = data, indices, indptr

    def _minor(self, start: int, stop: int) -> np.ndarray:
        """Read gene (or, stored by gene, cell) indices of entries ``start:stop``, int32."""
        indices = self._indices.read(start, stop)
        width = self.shape[1] if self.info.format == "csr" else self.shape[0]
        if indices.size and (indices.min() < 0 or indices.max() >= width):
            wrong = int(np.count_nonzero((indices < 0) | (indices >= width)))
            message = f"{self.info.name} has {wrong:,} indices outside 0 to {width - 1:,}."
            raise DataError(message, "Open the file in anndata and write it anew.")
        return indices.astype(np.int32, copy=False)


class CsrMatrix(_Compressed):
    """Stored by cell."""

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, sp.csr_matrix]]:
        """See `Matrix.blocks`."""
        stop = self.shape[0] if stop is None else stop
        for first, last in row_ranges(self._indptr[start : stop + 1], rows, _BLOCK_ENTRIES):
            yield start + first, self._rows(start + first, start + last)

    def _rows(self, start: int, stop: int) -> sp.csr_matrix:
        pointers = self._indptr[start : stop + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        values = _as_float32(self._data.read(first, last))
        return sp.csr_matrix(
            (values, self._minor(first, last), pointers - first), shape=(len(pointers) - 1, self.shape[1])
        )

    def sample(self) -> Sample:
        """See `Matrix.sample`."""
        mean = len(self._data) / self.shape[0]
        rows = int(np.clip(_SAMPLE_ENTRIES / max(mean, 1), 1, 64))
        count = _sample_blocks(max(self._data.chunk_bytes, self._indices.chunk_bytes))
        starts = _spread(self.shape[0], rows, count)
        return _summary([self._rows(start, min(start + rows, self.shape[0])) for start in starts], mean)


class CscMatrix(_Compressed):
    """Stored by gene.

    Cells are gathered in as many passes over the file as their values need memory (eight million at once): no
    scratch file, bounded memory, and a file of up to some 3,000 cells is passed over once. Our choice.
    """

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, sp.csr_matrix]]:
        """See `Matrix.blocks`."""
        stop = self.shape[0] if stop is None else stop
        pointers = self._row_pointers[start : stop + 1]
        for first, last in row_ranges(pointers, self.shape[0], _GATHERED_ENTRIES):
            gathered = self._gather(start + first, start + last, int(pointers[last] - pointers[first]))
            yield from cut_rows(gathered, start + first, rows)

    def peak_bytes(self, rows: int, detected: float) -> int:
        """See `Matrix.peak_bytes`."""
        return super().peak_bytes(rows, detected) + 22 * min(len(self._data), _GATHERED_ENTRIES)

    @cached_property
    def _row_pointers(self) -> np.ndarray:
        """Count the values of each cell; cumulated, int64 [n_obs + 1]."""
        counts = np.zeros(self.shape[0], dtype=np.int64)
        for start in range(0, len(self._data), _PIECE_ENTRIES):
            counts += np.bincount(self._minor(start, start + _PIECE_ENTRIES), minlength=self.shape[0])
        return np.concatenate([[0], np.cumsum(counts)])

    def _gather(self, start: int, stop: int, entries: int) -> sp.csr_matrix:
        """Collect the `entries` values of cells ``start:stop`` in one pass over the file."""
        values = np.empty(entries, dtype=np.float32)
        rows, genes = np.empty(entries, dtype=np.int32), np.empty(entries, dtype=np.int32)
        every_gene = np.arange(self.shape[1], dtype=np.int32)
        filled = 0
        for first in range(0, len(self._data), _PIECE_ENTRIES):
            cells = self._minor(first, first + _PIECE_ENTRIES)
            kept = (cells >= start) & (cells < stop)
            piece = slice(filled, filled + np.count_nonzero(kept))
            bounds = np.clip(self._indptr, first, first + len(cells))
            values[piece] = _as_float32(self._data.read(first, first + _PIECE_ENTRIES))[kept]
            rows[piece] = cells[kept] - start
            genes[piece] = np.repeat(every_gene, np.diff(bounds))[kept]
            filled = piece.stop
        return sp.csr_matrix((values, (rows, genes)), shape=(stop - start, self.shape[1]))

    def sample(self) -> Sample:
        """See `Matrix.sample`; totals are empty, since a cell's values lie scattered over the file."""
        starts = _spread(len(self._data), _SAMPLE_ENTRIES, _sample_blocks(self._data.chunk_bytes))
        pieces = [_as_float32(self._data.read(start, start + _SAMPLE_ENTRIES)) for start in starts]
        values = np.concatenate([np.zeros(0, np.float32), *pieces])
        none = np.zeros(0)
        return Sample(values[values != 0], none, none, len(self._data) / self.shape[0])


class DenseMatrix(Matrix):
    """Stored as a rectangle, zeros included.

    Parameters
    ----------
    info
        Its header.
    values
        The rectangle.
    """

    def __init__(self, info: MatrixInfo, values: Array) -> None:
        super().__init__(info)
        self._values = values
        self._chunk_rows = values.chunk_shape[0] if values.chunk_shape else 1
        self._most_rows = max(1, _DENSE_BYTES // (info.shape[1] * values.dtype.itemsize))
        if self._chunk_rows <= self._most_rows:  # so that no storage chunk is decompressed twice
            self._most_rows -= self._most_rows % self._chunk_rows

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, sp.csr_matrix]]:
        """See `Matrix.blocks`."""
        step = max(1, _PIECE_ENTRIES // self.shape[1])
        stop = self.shape[0] if stop is None else stop
        for begin in range(start, stop, self._most_rows):
            read = self._values.read(begin, min(begin + self._most_rows, stop))
            first = 0
            while first < len(read):
                last = min(first + step, ((begin + first) // rows + 1) * rows - begin, len(read))
                yield begin + first, sp.csr_matrix(_as_float32(read[first:last]))
                first = last

    def sample(self) -> Sample:
        """See `Matrix.sample`."""
        rows = min(32, self._most_rows)
        row_bytes = self.shape[1] * self._values.dtype.itemsize
        starts = _spread(self.shape[0], rows, _sample_blocks(max(self._chunk_rows, rows) * row_bytes))
        return _summary([sp.csr_matrix(_as_float32(self._values.read(start, start + rows))) for start in starts])

    def peak_bytes(self, rows: int, detected: float) -> int:
        """See `Matrix.peak_bytes`."""
        row_bytes = self.shape[1] * self._values.dtype.itemsize
        return super().peak_bytes(rows, detected) + min(self._most_rows, self.shape[0]) * row_bytes * 3 // 2


def _as_float32(values: np.ndarray) -> np.ndarray:
    """Convert any number type; what float32 cannot hold becomes infinite and is refused later."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)


def _spread(total: int, size: int, count: int) -> list[int]:
    """Place at most `count` ranges of `size` evenly in `total`, or cover it all where that takes no more."""
    if total <= size * count:
        return list(range(0, total, size))
    return np.linspace(0, total - size, count).astype(int).tolist()


def _sample_blocks(chunk_bytes: int) -> int:
    """How many places to look at when each costs the decompression of a chunk."""
    return int(np.clip(_SAMPLE_BYTES // max(chunk_bytes, 1), 2, _SAMPLE_BLOCKS))


def _summary(blocks: list[sp.csr_matrix], detected: float | None = None) -> Sample:
    """Describe sampled cells; `detected` is counted in them unless the file's pointers tell it."""
    cells = sp.vstack(blocks, format="csr")
    values = cells.data
    ones = np.ones(cells.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        linear = np.expm1(values.astype(np.float64))
        undone = sp.csr_matrix((linear, cells.indices, cells.indptr), cells.shape)
        totals, log_totals = cells @ ones, undone @ ones
    mean = int(np.count_nonzero(values)) / cells.shape[0] if detected is None else detected
    return Sample(values[values != 0], totals, log_totals, mean)
