"""Regulators and targets scored without any network: by rank correlation, by tree ensembles, at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesRegressor

from scdiva_core.errors import Cancelled

TREES = 50
"""Trees a target (GENIE3 grows 1,000: Huynh-Thu 2010; our choice, for time)."""

LEAF = 5
"""Cells of a leaf at least (our choice: a tree to the last cell takes four times as long)."""

_GENES_AT_ONCE = 256


def spearman(
    expression: sp.csr_matrix, regulators: NDArray[np.integer], targets: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Rank correlation over cells, ties at their mean rank: float32 ``[R, T]``, signed.

    NaN for a gene with itself and for genes that are the same in all cells. Its size is the co-expression that a
    network of regulators must beat.

    Parameters
    ----------
    expression
        ``[n_cells, n_genes]``, any scale.
    regulators, targets
        int ``[R]`` and ``[T]`` columns. Genes are ranked a few hundred at a time, so that memory stays small.
    """
    by_gene, n = expression.tocsc(), expression.shape[0]
    own = np.concatenate([_ranked(by_gene, part) for part in _parts(regulators)] or [np.empty((0, n))])
    blocks = [own @ _ranked(by_gene, part).T for part in _parts(targets)]
    found = np.concatenate(blocks or [np.empty((len(regulators), 0))], axis=1)
    return _without_self(np.clip(found, -1, 1), regulators, targets)


def _ranked(by_gene: sp.csc_matrix, columns: NDArray[np.integer]) -> NDArray[np.float64]:
    """Ranks of genes over cells ``[n_genes, n_cells]``, each of mean 0 and length 1; NaN where all are equal."""
    ranks = rankdata(by_gene[:, columns].toarray().T, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)


def _parts(columns: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    return [columns[start : start + _GENES_AT_ONCE] for start in range(0, len(columns), _GENES_AT_ONCE)]


def tree_importance(
    expression: sp.csr_matrix,
    regulators: NDArray[np.integer],
    targets: NDArray[np.integer],
    *,
    trees: int = TREES,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Share of a target's variance that splits on each regulator take away: float32 ``[R, T]``, never below 0.

    GENIE3 (Huynh-Thu 2010) with extremely randomised trees: each target is predicted from all regulators but itself,
    the square root of their number tried at a split. 1,000 cells, 100 regulators and 500 targets take about half a
    minute. NaN for a gene with itself and for targets that are the same in all cells.

    Parameters
    ----------
    expression
        ``[n_cells, n_genes]``, any scale.
    regulators, targets
        int ``[R]`` and ``[T]`` columns.
    trees, seed
        Of each target.
    progress, cancelled
        Called and asked once a target.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    by_gene = expression.tocsc()
    causes = by_gene[:, regulators].toarray().astype(np.float32)
    found = np.full((len(regulators), len(targets)), np.nan, np.float32)
    # One target after the other: scikit-learn sets the process's warning filters in each thread that grows trees.
    for place, column in enumerate(targets):
        if cancelled is not None and cancelled():
            raise Cancelled
        if progress is not None:
            progress(place, len(targets), "Growing trees")
        values = by_gene[:, [column]].toarray().ravel().astype(np.float64)
        others = np.flatnonzero(regulators != column)
        if values.std() > 0 and len(others):
            found[others, place] = _importance(causes[:, others], values / values.std(), trees, seed)
    if progress is not None:
        progress(len(targets), len(targets), "Growing trees")
    return found


def _importance(
    causes: NDArray[np.float32], values: NDArray[np.float64], trees: int, seed: int
) -> NDArray[np.floating]:
    forest = ExtraTreesRegressor(trees, max_features="sqrt", min_samples_leaf=LEAF, random_state=seed)
    forest.fit(causes, values)
    # Not scaled to 1 a target, as `feature_importances_` is: what no regulator predicts must not rise.
    return np.mean([each.tree_.compute_feature_importances(normalize=False) for each in forest.estimators_], axis=0)


def random_scores(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """Scores drawn between 0 and 1, float32 of any shape: what says nothing about any pair."""
    return np.random.default_rng(seed).random(tuple(shape), np.float32)


def _without_self(
    scores: NDArray[np.floating], regulators: NDArray[np.integer], targets: NDArray[np.integer]
) -> NDArray[np.float32]:
    scores = scores.astype(np.float32)
    scores[np.asarray(regulators)[:, None] == np.asarray(targets)] = np.nan
    return scores
