"""Small real files for the tests of the data intake."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest


@pytest.fixture(scope="session")
def pbmc(data_root: Path) -> anndata.AnnData:
    """Sixty cells of three types by 700 genes, raw counts, with gene ids; do not alter."""
    cells = anndata.read_h5ad(data_root / "demo" / "tenx_pbmc3k.h5ad")[:60]
    expressed = np.flatnonzero(np.asarray((cells.X > 0).sum(axis=0)).ravel() >= 10)[:700]
    return cells[:, expressed].copy()
