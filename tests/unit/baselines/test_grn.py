"""Regulators and targets scored by simple methods, on planted networks and small real cells."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from scdiva_core.baselines.grn import random_scores, spearman, tree_importance
from scdiva_core.errors import Cancelled
from scdiva_core.metrics.grn import ratios

REGULATORS, TARGETS = np.array([3, 0, 7]), np.arange(2, 9)


@pytest.fixture(scope="module")
def expression(small_cells: anndata.AnnData) -> sp.csr_matrix:
    return sp.csr_matrix(np.log1p(small_cells.X.toarray())[:, 100:110])


@pytest.fixture(scope="module")
def planted() -> tuple[sp.csr_matrix, np.ndarray]:
    """300 cells of 6 regulators and 24 targets, each target driven by one regulator, up or down."""
    rng = np.random.default_rng(0)
    activity = rng.gamma(2, 1, (300, 6))
    truth = np.arange(6)[:, None] == np.arange(24) % 6
    signs = np.where(np.arange(24) < 12, 1, -1)
    drive = activity @ truth * signs
    means = np.exp(0.7 * (drive - drive.mean(axis=0)))
    return sp.csr_matrix(np.log1p(np.hstack([rng.poisson(2 * activity), rng.poisson(means)]))), truth


def test_spearman_is_scipys_with_ties(expression: sp.csr_matrix) -> None:
    dense = expression.toarray()
    found = spearman(expression, REGULATORS, TARGETS)
    assert found.dtype == np.float32
    for row, regulator in enumerate(REGULATORS):
        for column, target in enumerate(TARGETS):
            if regulator == target:
                assert np.isnan(found[row, column])
            else:
                expected = spearmanr(dense[:, regulator], dense[:, target]).statistic
                assert found[row, column] == pytest.approx(expected, abs=1e-6)


def test_genes_beyond_a_block_are_ranked_alike(small_cells: anndata.AnnData) -> None:
    expression = sp.csr_matrix(small_cells.X)
    whole = spearman(expression, np.arange(3), np.arange(600))
    np.testing.assert_array_equal(whole[:, 400:], spearman(expression, np.arange(3), np.arange(400, 600)))


def test_a_gene_that_never_changes_correlates_with_nothing() -> None:
    found = spearman(sp.csr_matrix([[1.0, 0, 2], [1, 3, 1], [1, 4, 0]]), np.array([0, 1]), np.array([2]))
    np.testing.assert_array_equal(found, np.array([[np.nan], [-1]], np.float32))


def test_both_find_a_planted_network(planted: tuple[sp.csr_matrix, np.ndarray]) -> None:
    expression, truth = planted
    regulators, targets = np.arange(6), np.arange(6, 30)
    usable = np.ones(truth.shape, bool)
    correlation = spearman(expression, regulators, targets)
    assert ratios(np.abs(correlation), truth, usable).auprc.value > 5  # 6 is perfect
    assert (np.sign(correlation[truth]).reshape(6, 4) == [1, 1, -1, -1]).all()
    assert ratios(tree_importance(expression, regulators, targets), truth, usable).auprc.value > 5
    assert 0.5 < ratios(random_scores(truth.shape), truth, usable).auprc.value < 2


def test_a_target_that_nothing_predicts_gets_little(planted: tuple[sp.csr_matrix, np.ndarray]) -> None:
    expression, _ = planted
    noise = sp.csr_matrix(np.random.default_rng(1).poisson(1, (300, 1)).astype(float))
    found = tree_importance(sp.hstack([expression, noise], format="csr"), np.arange(6), np.array([6, 30]))
    assert found[:, 1].sum() < found[:, 0].sum() / 2


def test_trees_leave_a_gene_and_itself_out(planted: tuple[sp.csr_matrix, np.ndarray]) -> None:
    expression, _ = planted
    found = tree_importance(expression, np.array([0, 1]), np.array([1, 8]), trees=5)
    np.testing.assert_array_equal(np.isnan(found), [[False, False], [True, False]])
    np.testing.assert_array_equal(found, tree_importance(expression, np.array([0, 1]), np.array([1, 8]), trees=5))


def test_trees_say_how_far_they_are_and_stop(planted: tuple[sp.csr_matrix, np.ndarray]) -> None:
    expression, _ = planted
    told: list[tuple[int, int, str]] = []
    tree_importance(expression, np.arange(6), np.array([6, 7]), trees=2, progress=lambda *at: told.append(at))
    assert [at[:2] for at in told] == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(Cancelled):
        tree_importance(expression, np.arange(6), np.array([6, 7]), cancelled=lambda: True)


def test_random_scores_are_those_of_their_seed() -> None:
    assert random_scores((3, 4), 1).shape == (3, 4)
    np.testing.assert_array_equal(random_scores((3, 4), 1), random_scores((3, 4), 1))
    assert (random_scores((3, 4), 1) != random_scores((3, 4), 2)).all()
