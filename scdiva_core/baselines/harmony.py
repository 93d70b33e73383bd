"""Harmony (Korsunsky 2019): principal components moved so that batches mix."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


def harmonise(vectors: ArrayLike, batches: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
    """Correct vectors for batches with harmonypy's defaults.

    Parameters
    ----------
    vectors
        Float ``[n_cells, d]``, usually principal components.
    batches
        ``[n_cells]``, two batches or more.
    seed
        Of its clustering.

    Returns
    -------
    ndarray
        float32 ``[n_cells, d]``.
    """
    from harmonypy import run_harmony

    vectors = np.asarray(vectors, np.float64)
    batches = pd.DataFrame({"batch": np.asarray(batches).astype(str)})
    # One cluster a thirty cells is its default, which is none at all for the smallest sets.
    n_clusters = int(np.clip(round(len(vectors) / 30), 2, 100))
    done = run_harmony(vectors, batches, "batch", nclust=n_clusters, verbose=False, random_state=seed, ncores=1)
    return np.asarray(done.Z_corr, np.float32)
