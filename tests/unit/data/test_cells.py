"""Consecutive cells read alone are the same as in a pass over all of them, however the matrix is stored."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_cells_of_a_range(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path, storage: str
) -> None:
    cells = small_cells.copy()
    cells.X = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": lambda x: x.toarray()}[storage](small_cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with open_h5ad(tmp_path / "cells.h5ad", small_vocabulary) as dataset:
        whole = sp.vstack([block for _, block in dataset.chunks(64)]).toarray()
        for start, stop in ((0, 64), (64, 128), (128, 160), (0, 160), (7, 8)):
            part = dataset.cells(start, stop)
            assert part.shape == (stop - start, len(dataset.gene_ids))
            np.testing.assert_array_equal(part.toarray(), whole[start:stop])
