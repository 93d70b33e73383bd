"""Which cells a figure draws when there are more than a browser can hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_DRAWN = 100_000
"""A lasso over more than about 190,000 points exceeds what a browser may send back."""


def drawn_rows(n_cells: int, limit: int = MAX_DRAWN, seed: int = 0) -> NDArray[np.int64]:
    """Rows to draw: all, or a fixed random subset.

    Parameters
    ----------
    n_cells
        How many there are.
    limit
        How many are drawn at most.
    seed
        The same seed gives the same cells, so that figures can be compared.

    Returns
    -------
    ndarray
        int64, ascending.
    """
    if n_cells <= limit:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, size=limit, replace=False))
