"""Average precision and early precision of scored pairs, against numbers worked out by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from scdiva_core.metrics.grn import auprc, early_precision, gain, ratios


def test_a_ranking_without_ties_by_hand() -> None:
    # True pairs at places 1, 3 and 6: precisions 1, 2/3 and 3/6; two of the best three are true.
    scores, truth = [9, 8, 7, 6, 5, 4, 3], [True, False, True, False, False, True, False]
    assert auprc(scores, truth) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3, abs=1e-6)
    assert early_precision(scores, truth) == pytest.approx(2 / 3, abs=1e-6)


def test_a_planted_network_by_hand() -> None:
    # Two regulators by three targets; the score ranks the pairs 1, 4, 2 and 3, 6, 5.
    scores = np.array([[6.0, 3, 5], [4, 1, 2]])
    truth = np.array([[True, False, False], [True, False, True]])  # places 1, 3, 5
    found = ratios(scores, truth, np.ones((2, 3), bool))
    assert (found.n_pairs, found.n_true, found.density) == (6, 3, 0.5)
    assert found.auprc.value == pytest.approx((1 + 2 / 3 + 3 / 5) / 3 / 0.5, abs=1e-6)
    assert found.epr.value == pytest.approx(2 / 3 / 0.5, abs=1e-6)


def test_without_ties_it_is_scikit_learns_average_precision() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.permutation(500), rng.random(500) < 0.1
    assert auprc(scores, truth) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


def test_ties_by_hand() -> None:
    # Place 1 true; places 2 to 4 tied with one true pair: each counts as 1/3 of a true pair, and the precision expected
    # at place 1 + i is (1 + i/3) / (1 + i).
    scores, truth = [5, 3, 3, 3, 1], [True, True, False, False, False]
    expected = (1 + (4 / 3 / 2 + 5 / 3 / 3 + 6 / 3 / 4) / 3) / 2
    assert auprc(scores, truth) == pytest.approx(expected, abs=1e-6)
    # Two places are to fill: the first is true, the second one of the three that are tied.
    assert early_precision(scores, truth) == pytest.approx((1 + 1 / 3) / 2, abs=1e-6)


def test_early_precision_of_ties_is_the_mean_over_their_orders() -> None:
    scores, truth = np.array([4.0, 2, 2, 2, 2, 1]), np.array([False, True, False, True, False, True])
    tied = [1, 2, 3, 4]
    each = [early_precision([9, 8, 7, 6, 5, 4], truth[[0, *order, 5]]) for order in permutations(tied)]
    assert early_precision(scores, truth) == pytest.approx(np.mean(each), abs=1e-12)


def test_equal_scores_give_exactly_the_density() -> None:
    truth = np.random.default_rng(1).random((30, 40)) < 0.07
    for scores in (np.zeros(truth.size), np.full(truth.size, np.nan)):
        assert auprc(scores, truth.ravel()) == pytest.approx(truth.mean(), abs=1e-12)
        assert early_precision(scores, truth.ravel()) == pytest.approx(truth.mean(), abs=1e-12)
    found = ratios(np.zeros(truth.shape), truth, np.ones(truth.shape, bool))
    assert found.auprc.value == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.epr.draws, 1, atol=1e-12)


def test_a_missing_score_is_the_lowest() -> None:
    truth = [True, False, True]
    assert auprc([np.nan, 2, -7], truth) == auprc([-8, 2, -7], truth)


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_it_is_not_defined_where_nothing_can_be_told_apart(truth: list[bool]) -> None:
    scores = np.arange(len(truth))
    assert np.isnan(auprc(scores, truth))
    assert np.isnan(early_precision(scores, truth))


def test_only_usable_pairs_count() -> None:
    rng = np.random.default_rng(2)
    scores, truth, usable = rng.random((6, 9)), rng.random((6, 9)) < 0.3, rng.random((6, 9)) < 0.6
    found = ratios(scores, truth, usable)
    assert found.n_pairs == usable.sum()
    assert found.auprc.value == pytest.approx(auprc(scores[usable], truth[usable]) / truth[usable].mean())
    changed = np.where(usable, scores, 99)
    np.testing.assert_array_equal(ratios(changed, truth, usable).auprc.draws, found.auprc.draws)


def test_a_draw_is_what_its_regulators_give_when_they_are_written_out() -> None:
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 20, (5, 30)).astype(float), rng.random((5, 30)) < 0.2
    found = ratios(scores, truth, np.ones(truth.shape, bool), draws=10, seed=4)
    again = np.random.default_rng(4)
    for area, early in zip(found.auprc.draws, found.epr.draws, strict=True):
        rows = again.integers(0, 5, 5)
        drawn, true = scores[rows].ravel(), truth[rows].ravel()
        assert area == pytest.approx(auprc(drawn, true) / true.mean(), abs=1e-9)
        assert early == pytest.approx(early_precision(drawn, true) / true.mean(), abs=1e-9)


def test_the_interval_holds_the_middle_of_the_draws_and_1_for_random_scores() -> None:
    rng = np.random.default_rng(5)
    truth = rng.random((40, 100)) < 0.05
    found = ratios(rng.random(truth.shape), truth, np.ones(truth.shape, bool))
    low, high = found.auprc.interval
    assert low < 1 < high
    assert np.mean((found.auprc.draws >= low) & (found.auprc.draws <= high)) == pytest.approx(0.95, abs=0.01)


def test_a_gain_is_measured_draw_by_draw() -> None:
    rng = np.random.default_rng(6)
    truth, usable = rng.random((20, 50)) < 0.1, np.ones((20, 50), bool)
    good, poor = (ratios(truth * strength + rng.random(truth.shape), truth, usable) for strength in (1.5, 0.3))
    value, low, high = gain(good.auprc, poor.auprc)
    assert value == pytest.approx(good.auprc.value - poor.auprc.value)
    assert 0 < low < value < high
    assert gain(good.auprc, good.auprc) == (0, 0, 0)


def test_a_reference_without_a_usable_pair_says_nothing() -> None:
    found = ratios(np.zeros((2, 3)), np.ones((2, 3), bool), np.zeros((2, 3), bool))
    assert (found.n_pairs, found.n_true) == (0, 0)
    assert np.isnan([found.density, found.auprc.value, *found.auprc.interval]).all()
