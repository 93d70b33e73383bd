"""PCA and Harmony on cells whose structure is known, and on real ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scdiva_core.baselines.expression import corpus_expression, variable_genes
from scdiva_core.baselines.harmony import harmonise
from scdiva_core.baselines.pca import fit_pca
from scdiva_core.data.corpus import Corpus
from scdiva_core.metrics.integration import batch_silhouette


def test_corpus_cells_come_in_the_order_asked_for(corpus: Corpus) -> None:
    found = corpus_expression(corpus, np.array([7, 3]))
    assert found.shape == (2, len(corpus.vocabulary))
    rows = corpus.take(np.array([3]))
    assert found[1].indices.tolist() == rows.gene_ids.tolist()
    expected = np.log1p(rows.counts / rows.totals[0] * 10_000)
    np.testing.assert_allclose(found[1].data, expected, rtol=1e-5)
    assert corpus_expression(corpus, np.array([], int)).shape == (0, len(corpus.vocabulary))


def test_variable_genes_are_those_that_differ_between_cells() -> None:
    rng = np.random.default_rng(0)
    # Genes of many levels with a little noise; three change between the halves at the level they have.
    X = rng.uniform(1, 3, 400) + rng.normal(0, 0.05, (200, 400))
    X[:100, [5, 20, 41]] += 0.7
    X[100:, [5, 20, 41]] -= 0.7
    X[:, [0, 399]] = 0
    assert variable_genes(sp.csr_matrix(X), 3).tolist() == [5, 20, 41]
    assert variable_genes(sp.csr_matrix(X), 500).tolist() == list(range(1, 399)), "genes nobody detects never count"


def test_pca_is_the_textbooks(corpus: Corpus) -> None:
    X = corpus_expression(corpus, np.arange(120))
    pca = fit_pca(X, 10)
    dense = X[:, pca.genes].toarray()
    expected = PCA(10, svd_solver="full").fit_transform(dense)
    found = pca.transform(X)
    assert found.shape == (120, 10)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_pca_of_other_cells_uses_the_mean_of_those_it_was_fitted_on(corpus: Corpus) -> None:
    X = corpus_expression(corpus, np.arange(200))
    pca = fit_pca(X[:150], 5)
    assert np.abs(pca.transform(X[:150]).mean(axis=0)).max() < 1e-4
    expected = (X[150:][:, pca.genes].toarray() - pca.mean) @ pca.components.T
    np.testing.assert_allclose(pca.transform(X[150:]), expected, atol=1e-3)


def test_pca_of_few_cells_has_fewer_components(corpus: Corpus) -> None:
    X = corpus_expression(corpus, np.arange(8))
    assert fit_pca(X).transform(X).shape == (8, 7)


def test_harmony_mixes_batches_and_keeps_types() -> None:
    rng = np.random.default_rng(0)
    types, batches = np.repeat(np.arange(3), 80), np.tile([0, 1], 120)
    X = np.eye(3)[types] @ rng.normal(size=(3, 10)) * 8 + rng.normal(size=(240, 10))
    X[batches == 1] += 3
    found = harmonise(X, batches)
    assert found.shape == X.shape
    assert found.dtype == np.float32
    assert batch_silhouette(found, types, batches) > batch_silhouette(X, types, batches) + 0.2
    centres = np.stack([found[types == number].mean(axis=0) for number in range(3)])
    nearest = ((found[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == types).mean() > 0.95
    assert np.array_equal(found, harmonise(X, batches)), "one seed, one result"


@pytest.mark.parametrize("n_cells", [12, 40])
def test_harmony_takes_the_smallest_sets(n_cells: int) -> None:
    X = np.random.default_rng(0).normal(size=(n_cells, 4))
    assert np.isfinite(harmonise(X, np.arange(n_cells) % 2)).all()
