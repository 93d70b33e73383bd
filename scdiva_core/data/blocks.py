"""Cutting cells into blocks that fit in memory, and joining blocks to chunks of the size asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse as sp


def row_ranges(pointers: np.ndarray, rows: int, entries: int) -> Iterator[tuple[int, int]]:
    """Cut cells into ranges of bounded size.

    Parameters
    ----------
    pointers
        Number of values before each cell, int64 [n_obs + 1].
    rows
        No range straddles a multiple of this.
    entries
        Most values of a range, unless a single cell has more.

    Yields
    ------
    tuple of int
        First cell and the one after the last.
    """
    start, n_obs = 0, len(pointers) - 1
    while start < n_obs:
        fitting = int(np.searchsorted(pointers, pointers[start] + entries, side="right")) - 1
        stop = min(max(fitting, start + 1), (start // rows + 1) * rows, n_obs)
        yield start, stop
        start = stop


def cut_rows(cells: sp.csr_matrix, start: int, rows: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Cut cells at the multiples of a number.

    Parameters
    ----------
    cells
        Values of consecutive cells, [cells, n_vars].
    start
        Number of the first one.
    rows
        Where to cut.

    Yields
    ------
    tuple of int and csr_matrix
        First cell of each piece, and its values.
    """
    first, stop = start, start + cells.shape[0]
    while first < stop:
        last = min(stop, (first // rows + 1) * rows)
        yield first, cells[first - start : last - start]
        first = last


def joined(blocks: Iterable[tuple[int, sp.csr_matrix]], rows: int, n_obs: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Join short blocks to chunks.

    Parameters
    ----------
    blocks
        First cell and values, in order; none straddles a multiple of `rows`.
    rows
        Cells of a chunk.
    n_obs
        Number of cells in all.

    Yields
    ------
    tuple of int and csr_matrix
        First cell of each chunk, and its values; the last one may be shorter.
    """
    start: int = 0
    pieces: list[sp.csr_matrix] = []
    for first, block in blocks:
        pieces.append(block)
        end = first + block.shape[0]
        if end == n_obs or end % rows == 0:
            yield start, pieces[0] if len(pieces) == 1 else sp.vstack(pieces, format="csr")
            start, pieces = end, []
