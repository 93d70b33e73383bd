"""The simplest correction there is: every batch's mean moved to the same place."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def centre_batches(vectors: ArrayLike, batches: ArrayLike) -> NDArray[np.float32]:
    """Subtract each batch's mean, and add the mean of all cells.

    Of principal components this is what centring every gene in each batch leaves along them. Batches of different types
    are pulled apart by it: a mean holds the types too.

    Parameters
    ----------
    vectors
        Float ``[n_cells, d]``.
    batches
        ``[n_cells]``.

    Returns
    -------
    ndarray
        float32 ``[n_cells, d]``.
    """
    table = pd.DataFrame(np.asarray(vectors, np.float64))
    means = table.groupby(np.asarray(batches).astype(str)).transform("mean")
    return (table - means + table.mean()).to_numpy(np.float32)
