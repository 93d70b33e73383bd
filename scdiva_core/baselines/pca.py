"""PCA that is fitted on some cells and applied to others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from scdiva_core.baselines.expression import variable_genes

N_COMPONENTS = 50
"""Components of every PCA here, as many as of the map's PCA."""


@dataclass(frozen=True)
class FittedPca:
    """Directions of greatest variance among highly variable genes.

    Attributes
    ----------
    genes
        int64 ``[n_top]`` columns that it reads.
    mean
        float32 ``[n_top]`` of the cells that it was fitted on.
    components
        float32 ``[n_components, n_top]``.
    """

    genes: NDArray[np.int64]
    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def transform(self, X: sp.csr_matrix) -> NDArray[np.float32]:
        """Coordinates of cells, float32 ``[n_cells, n_components]``.

        Parameters
        ----------
        X
            log1p expression ``[n_cells, n_genes]`` over the genes that the PCA was fitted over.
        """
        directions = self.components.T
        return np.asarray(X[:, self.genes] @ directions - self.mean @ directions, np.float32)


def fit_pca(X: sp.csr_matrix, n_components: int = N_COMPONENTS) -> FittedPca:
    """Fit on the 2,000 genes that vary most.

    Centred and not scaled, as the map's PCA. The covariance is decomposed whole, so nothing is drawn at random.

    Parameters
    ----------
    X
        log1p expression ``[n_cells, n_genes]``.
    n_components
        Fewer where cells or genes are fewer.
    """
    genes = variable_genes(X)
    cells = X[:, genes]
    pca = PCA(min(n_components, min(cells.shape) - 1), svd_solver="covariance_eigh").fit(cells)
    return FittedPca(genes, pca.mean_.astype(np.float32), pca.components_.astype(np.float32))
