"""Measures of predicted perturbations, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import false_discovery_control, mannwhitneyu

from scdiva_core.metrics.perturbation import (
    centroid_pearson,
    changed_genes,
    de_auprc,
    de_mse,
    fold_change_spearman,
    hit_rate,
    paired_gain,
    pearson_delta,
    retrieval_rank,
    score_delta,
    sign_accuracy,
)

MEASURED = np.array([2.0, -1.0, 0.0, 1.0])
PREDICTED = np.array([1.0, -2.0, 0.5, -0.5])
CHANGED = np.array([True, True, False, True])


def test_pearson_delta_by_hand() -> None:
    # Means 0.5 and -0.25; cross products 1.875 + 2.625 - 0.375 - 0.125, squares 5 and 5.25.
    assert pearson_delta(PREDICTED, MEASURED) == pytest.approx(4.0 / math.sqrt(5 * 5.25))
    assert pearson_delta(3 * MEASURED + 1, MEASURED) == pytest.approx(1)


def test_fold_change_spearman_by_hand() -> None:
    # Ranks 4 1 2 3 and 4 1 3 2: squared differences add up to 2.
    assert fold_change_spearman(PREDICTED, MEASURED) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_the_centroid_takes_away_what_all_perturbations_share() -> None:
    centroid = np.array([10.0, 0.0, 0.0, 0.0])
    assert centroid_pearson(PREDICTED + centroid, MEASURED + centroid, centroid) == pytest.approx(
        pearson_delta(PREDICTED, MEASURED)
    )
    shared, own = np.array([5.0, 5, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 1.0, -1.0])
    assert pearson_delta(shared - own, shared + own) > 0.7
    assert centroid_pearson(shared - own, shared + own, shared) == pytest.approx(-1)
    assert math.isnan(centroid_pearson(shared.astype(np.float32), shared + own, shared)), "the mean says nothing"


def test_de_mse_counts_changed_genes_only() -> None:
    assert de_mse(PREDICTED, MEASURED, CHANGED) == pytest.approx((1 + 1 + 2.25) / 3)
    assert math.isnan(de_mse(PREDICTED, MEASURED, np.zeros(4, bool)))


def test_de_auprc_by_hand() -> None:
    # By size: gene 1 (changed), 0 (changed), then 2 and 3 tied, one of them changed: 1/3 + 1/3 + 1/3 * 3/4.
    assert de_auprc(PREDICTED, CHANGED) == pytest.approx(1 / 3 + 1 / 3 + 1 / 3 * 3 / 4)
    assert de_auprc(np.zeros(4), CHANGED) == pytest.approx(0.75), "chance is the share of changed genes"
    assert math.isnan(de_auprc(PREDICTED, np.ones(4, bool)))
    assert math.isnan(de_auprc(PREDICTED, np.zeros(4, bool)))


def test_hit_rate_by_hand() -> None:
    # The two most changed: measured 0 and 1 (the earlier of equals), predicted 1 and 0; of three: 0 1 3 against 1 0 2.
    assert hit_rate(PREDICTED, MEASURED, 2) == 1
    assert hit_rate(PREDICTED, MEASURED, 3) == pytest.approx(2 / 3)
    assert hit_rate(PREDICTED, MEASURED) == 1, "fewer genes than asked for are all hit"
    forty = np.arange(40.0)
    assert hit_rate(-forty, forty) == 1
    assert hit_rate(forty[::-1], forty) == 0
    assert math.isnan(hit_rate(np.zeros(40), forty))


def test_sign_accuracy_by_hand() -> None:
    assert sign_accuracy(PREDICTED, MEASURED, CHANGED) == pytest.approx(2 / 3)
    assert sign_accuracy(np.zeros(4), MEASURED, CHANGED) == 0.5, "no direction is a coin's guess"
    assert math.isnan(sign_accuracy(PREDICTED, MEASURED, np.zeros(4, bool)))


def test_retrieval_rank_by_hand() -> None:
    measured = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    prediction = np.array([0.8, 0.6, 0])
    # Cosines 0.8, 0.6, 0 and -0.8.
    assert [retrieval_rank(prediction, measured, row) for row in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert retrieval_rank(7 * prediction, measured, 1) == pytest.approx(1 / 3), "its size does not count"
    assert retrieval_rank(np.zeros(3), measured, 2) == 0.5
    assert retrieval_rank([0, 0.6, 0.8], measured, 0) == pytest.approx((1 + 1 + 0.5) / 3), "two nearer, one equal"
    assert math.isnan(retrieval_rank(prediction, measured[:1], 0))


@pytest.mark.parametrize("measure", [pearson_delta, fold_change_spearman])
def test_a_constant_correlates_with_nothing(measure: Callable[..., float]) -> None:
    assert math.isnan(measure(np.zeros(4), MEASURED))
    assert math.isnan(measure(PREDICTED, np.full(4, 0.3)))


def test_all_scores_together() -> None:
    scores = score_delta(PREDICTED, MEASURED, CHANGED, centroid=np.array([1.0, 0, 0, 0]))
    assert scores == pytest.approx(
        {
            "pearson_delta": pearson_delta(PREDICTED, MEASURED),
            "de_mse": de_mse(PREDICTED, MEASURED, CHANGED),
            "de_auprc": de_auprc(PREDICTED, CHANGED),
            "fold_change_spearman": 0.8,
            "hit_rate": 1.0,
            "sign_accuracy": 2 / 3,
            "centroid_pearson": centroid_pearson(PREDICTED, MEASURED, [1, 0, 0, 0]),
        }
    )
    assert "centroid_pearson" not in score_delta(PREDICTED, MEASURED, CHANGED)


def test_a_gain_is_certain_where_every_perturbation_shows_it() -> None:
    assert paired_gain([0.5, 0.7, math.nan], [0.4, 0.6, 0.1]) == pytest.approx((0.1, 0.1, 0.1, 2))
    theirs = np.zeros(40)
    mean, low, high, number = paired_gain(np.where(np.arange(40) < 20, 1.0, -0.8), theirs)
    assert (mean, number) == (pytest.approx(0.1), 40)
    # The standard error is 0.9 / sqrt(40).
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.142, 0.1 + 1.96 * 0.142), abs=0.03)
    assert paired_gain([math.nan], [1.0])[3] == 0


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_changed_genes_are_those_of_the_rank_sum_test(kind: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    control, perturbed = rng.poisson(2, (60, 12)).astype(np.float32), rng.poisson(2, (50, 12)).astype(np.float32)
    perturbed[:, 3] += 2
    perturbed[:, 7] = rng.poisson(0.3, 50)
    perturbed[:, 9] = control[:, 9:10].mean()
    control[:, 11] = perturbed[:, 11] = 0
    test = [mannwhitneyu(perturbed[:, g], control[:, g], use_continuity=False, method="asymptotic") for g in range(11)]
    p = [*(found.pvalue for found in test), 1.0]
    expected = false_discovery_control(p) < 0.05
    assert 2 <= expected.sum() <= 4
    assert changed_genes(kind(np.log1p(perturbed)), kind(np.log1p(control))).tolist() == expected.tolist()
    assert changed_genes(kind(np.log1p(perturbed)), kind(np.log1p(control)), fdr=0).sum() == 0
