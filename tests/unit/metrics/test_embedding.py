"""Neighbour agreement on data where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.metrics.embedding import compare_agreement, neighbor_agreement

GENERATOR = np.random.default_rng(1)
LABELS = np.repeat(["T", "B", "NK"], 100)
SEPARATED = np.repeat(np.eye(3) * 100, 100, axis=0) + GENERATOR.normal(size=(300, 3))
NOISE = GENERATOR.normal(size=(300, 3))


def brute_force(X: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The definition, cell by cell."""
    shares = []
    for cell in range(len(X)):
        distances = ((X - X[cell]) ** 2).sum(axis=1)
        distances[cell] = np.inf
        nearest = np.argsort(distances)[:k]
        shares.append(np.mean(labels[nearest] == labels[cell]))
    return float(np.mean(shares))


def test_it_is_the_mean_share_of_same_label_neighbours() -> None:
    X = SEPARATED * 0.02 + NOISE
    assert neighbor_agreement(X, LABELS).agreement == pytest.approx(brute_force(X, LABELS, 15))


def test_separated_labels_agree_and_shuffled_ones_reach_their_frequency() -> None:
    found = neighbor_agreement(SEPARATED, LABELS)
    assert found.agreement == 1.0
    assert found.random == pytest.approx(1 / 3, abs=0.05)
    assert (found.n_cells, found.n_labels, found.k) == (300, 3, 15)


def test_noise_agrees_no_more_than_shuffled_labels() -> None:
    found = neighbor_agreement(NOISE, LABELS)
    assert found.agreement == pytest.approx(found.random, abs=0.05)


def test_cells_without_a_label_are_left_out() -> None:
    labels = LABELS.astype(object)
    labels[:10], labels[10:20], labels[20:30] = None, np.nan, ""
    assert neighbor_agreement(SEPARATED, labels).n_cells == 270


def test_a_large_set_is_measured_on_a_fixed_subset() -> None:
    first, second = (neighbor_agreement(NOISE, LABELS, max_cells=120, seed=3) for _ in range(2))
    assert first.n_cells == 120
    assert first.agreement == second.agreement


@pytest.mark.parametrize(
    ("X", "baseline", "verdict"),
    [
        (SEPARATED, NOISE, "better"),
        (NOISE, SEPARATED, "worse"),
        (SEPARATED, SEPARATED[:, :2], "equal"),
    ],
)
def test_comparison_says_which_is_better(X: np.ndarray, baseline: np.ndarray, verdict: str) -> None:
    found = compare_agreement(X, baseline, LABELS)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(found.model.agreement - found.baseline.agreement)


@pytest.mark.parametrize("labels", [np.repeat("T", 300), np.where(np.arange(300) < 8, "T", None)])
def test_too_few_labels_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be compared over 15 neighbours"):
        neighbor_agreement(NOISE, labels)
