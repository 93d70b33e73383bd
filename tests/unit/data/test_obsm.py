"""Embeddings that a file brings along."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scdiva_core.data.obsm import obsm_widths, read_obsm
from scdiva_core.errors import DataError

UMAP = np.arange(10, dtype=np.float64).reshape(5, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cells = anndata.AnnData(sp.csr_matrix(np.eye(5, 3, dtype=np.float32)))
    broken = UMAP.copy()
    broken[2] = np.nan
    cells.obsm = {"X_umap": UMAP, "X_scdiva": np.ones((5, 8), np.float32), "X_broken": broken}
    cells.obsm["X_sparse"] = sp.csr_matrix(np.eye(5))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def test_dense_arrays_are_listed_with_their_widths(path: Path) -> None:
    assert obsm_widths(path) == {"X_broken": 2, "X_scdiva": 8, "X_umap": 2}


def test_values_are_read_as_they_are(path: Path) -> None:
    found = read_obsm(path, "X_umap")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, UMAP)
    assert read_obsm(path, "X_scdiva", columns=3).shape == (5, 3)


def test_values_that_are_not_finite_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match="obsm/X_broken has 1 cells with values that are not finite"):
        read_obsm(path, "X_broken")


def test_an_absent_array_is_named(path: Path) -> None:
    with pytest.raises(DataError, match="X_tsne"):
        read_obsm(path, "X_tsne")


def test_a_file_without_obsm_says_what_to_do(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "none.h5ad", "w") as file:
        file["X"] = np.zeros((2, 2))
    with pytest.raises(DataError, match="holds no embeddings") as caught:
        read_obsm(tmp_path / "none.h5ad", "X_umap")
    assert "Embedding page" in caught.value.hint
