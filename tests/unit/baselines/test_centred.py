"""Batches centred at one place."""

from __future__ import annotations

import numpy as np

from scdiva_core.baselines.centred import centre_batches


def test_every_batch_gets_the_mean_of_all_cells() -> None:
    X = np.array([[0.0, 1], [2, 3], [10, 0], [14, 0], [18, 6]])
    found = centre_batches(X, ["a", "a", "b", "b", "b"])
    # Means: a (1, 2), b (14, 2), all (8.8, 2).
    expected = [[7.8, 1], [9.8, 3], [4.8, 0], [8.8, 0], [12.8, 6]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
