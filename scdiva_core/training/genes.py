"""Genes that tell cells apart, and their vectors: what an untrained network and the objective start from.

All of it is our choice: with a small budget, gene vectors learned from nothing by the identity loss alone leave the
cell embedding far behind PCA, and a truncated SVD over every gene alike is mostly sampling noise of the rare ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiva_core.data.corpus import CellDraws, Corpus

N_VARIABLE = 2000
"""Genes that count as variable; few sets name more."""

LEAST_DEVIATION = 0.1
"""Standard deviations of log1p expression below it count as this much."""

SAMPLE_CELLS = 8000
"""Cells that statistics and SVD are computed on, drawn as a training batch is."""

_MEAN_BINS = 20


@dataclass(frozen=True)
class GeneVectors:
    """Principal components of the corpus' variable genes, technical batches centred.

    Attributes
    ----------
    loadings
        float32 ``[vocab_size, width]`` correlation of each gene with each component; 0 for genes never seen.
    projection
        float32 ``[vocab_size, width]`` multiplied with log1p expression it gives components of unit variance, up to a
        constant; 0 for genes that are not variable.
    """

    loadings: Tensor
    projection: Tensor


def variable_genes(corpus: Corpus, *, seed: int) -> NDArray[np.int64]:
    """Token ids of the genes most dispersed for their mean, ascending.

    Dispersion is judged within technical batches, as in Seurat (Satija 2015): the log variance, standardised among
    genes of like mean.

    Parameters
    ----------
    corpus
        Prepared corpus.
    seed
        Chooses the sampled cells.
    """
    return _Sample(corpus, seed).variable


def gene_vectors(corpus: Corpus, width: int, *, seed: int) -> GeneVectors:
    """Compute components on a sample of training cells.

    Parameters
    ----------
    corpus
        Prepared corpus.
    width
        Components; the last ones are 0 where the sample spans fewer.
    seed
        Chooses the cells and the range finder's start.
    """
    sample = _Sample(corpus, seed)
    n_genes, n_cells, variable = len(corpus.vocabulary), len(sample.rows), sample.variable
    scale = torch.from_numpy((1.0 / np.maximum(sample.deviation, LEAST_DEVIATION)).astype(np.float32))[:, None]
    means = torch.from_numpy(sample.means.astype(np.float32))
    batch = torch.from_numpy(sample.batch)
    expression = sample.rows.sparse(sample.values, n_genes)
    centred = (expression.to_dense()[:, variable] - means[:, variable][batch]) * scale[variable].T
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, singular, right = torch.svd_lowrank(centred, q=min(width + 10, *centred.shape), niter=4)
    rank = min(width, int((singular > 1e-3 * singular[0]).sum()))
    projection, loadings = torch.zeros(n_genes, width), torch.zeros(n_genes, width)
    projection[variable, :rank] = right[:, :rank] * scale[variable] / singular[:rank] * n_cells**0.5
    in_batch = torch.zeros(len(means), rank).index_add_(0, batch, left[:, :rank])
    covariance = expression.t() @ left[:, :rank] - means.T @ in_batch
    loadings[:, :rank] = covariance * scale / n_cells**0.5
    return GeneVectors(loadings, projection)


class _Sample:
    """Cells drawn as a training batch is, with the spread of each gene within technical batches."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        n_genes = len(corpus.vocabulary)
        cells = CellDraws(corpus, min(SAMPLE_CELLS, 4 * len(corpus.cells("training"))), seed, 0.5).batch(0)
        self.rows = corpus.take(cells)
        self.values = self.rows.log1p()
        _, self.batch, sizes = np.unique(corpus.batch_of[cells], return_inverse=True, return_counts=True)
        self.means = np.zeros((len(sizes), n_genes))
        np.add.at(self.means, (self.batch[self.rows.rows], self.rows.gene_ids), self.values)
        self.means /= sizes[:, None]
        squares = np.bincount(self.rows.gene_ids, self.values.astype(np.float64) ** 2, minlength=n_genes)
        shares = sizes[:, None] / len(cells)
        variance = (squares / len(cells) - (shares * self.means**2).sum(axis=0)).clip(min=0)
        self.deviation = np.sqrt(variance)
        self.variable = _variable((shares * self.means).sum(axis=0), variance)


def _variable(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Genes with the highest log variance for their mean."""
    log_variance = np.log(np.maximum(variance, 1e-8))
    edges = np.quantile(mean, np.linspace(0, 1, _MEAN_BINS + 1)[1:-1])
    bins, excess = np.digitize(mean, edges), np.full(len(mean), -np.inf)
    for number in np.unique(bins):
        inside = (bins == number) & (variance > 0)
        if inside.any():
            spread = np.std(log_variance[inside]) + 1e-6
            excess[inside] = (log_variance[inside] - np.median(log_variance[inside])) / spread
    best = np.argsort(-excess, kind="stable")[:N_VARIABLE]
    return np.sort(best[np.isfinite(excess[best])])
