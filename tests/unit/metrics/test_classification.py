"""Classification measures against tables worked out by hand, and against scikit-learn where it is the definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from scdiva_core.metrics.classification import (
    bootstrap_predictions,
    cross_validate,
    expected_calibration_error,
    frequent,
    score_predictions,
)

LABELS = np.repeat(["T", "B", "NK"], [60, 30, 10])
FAR_APART = np.repeat(np.eye(3) * 50, [60, 30, 10], axis=0) + np.random.default_rng(0).normal(size=(100, 3))
NOISE = np.random.default_rng(1).normal(size=(100, 3))


def test_frequent_marks_labels_with_enough_cells() -> None:
    assert frequent(["a", "b", "a", "c", "b", "a"], 2).tolist() == [True, True, True, False, True, True]
    assert frequent(["a", "b", "a", "c", "b", "a"], 3).tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("classifier", ["knn", "linear"])
def test_types_that_lie_apart_are_told_apart(classifier: str) -> None:
    # Of ten NK cells six or seven are left to learn from: fewer than half of fifteen neighbours.
    found = cross_validate(FAR_APART, LABELS, classifier, k=5)
    assert found.accuracy.tolist() == [1.0] * 5
    assert found.macro_f1.tolist() == [1.0] * 5


def test_noise_tells_nothing_apart() -> None:
    found = cross_validate(NOISE, LABELS, "knn")
    assert found.accuracy.mean() < 0.65
    assert found.macro_f1.mean() < 0.4


def test_seeds_change_the_folds_and_repeat() -> None:
    X = FAR_APART * 0.02 + NOISE
    first, second = (cross_validate(X, LABELS, "knn", seeds=4) for _ in range(2))
    assert first.accuracy.tolist() == second.accuracy.tolist()
    assert len(set(first.accuracy.tolist())) > 1
    assert cross_validate(X, LABELS, "knn", seeds=2).accuracy.tolist() == first.accuracy[:2].tolist()


def test_chance_is_the_commonest_label() -> None:
    found = cross_validate(NOISE, LABELS, "majority", seeds=2)
    assert found.accuracy.tolist() == [0.6, 0.6]
    # Recall 1 and precision 0.6 for T, nothing for the two others.
    assert found.macro_f1 == pytest.approx([2 * 0.6 / 1.6 / 3] * 2)


def test_the_linear_probe_does_not_mind_the_scale_of_a_coordinate() -> None:
    scaled = cross_validate(NOISE * [1e3, 1.0, 1e-3], LABELS, "linear")
    assert scaled.accuracy.tolist() == cross_validate(NOISE, LABELS, "linear").accuracy.tolist()


@pytest.mark.parametrize("labels", [["a"] * 6, ["a"] * 4 + ["b"] * 2])
def test_too_few_cells_or_labels_are_refused(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="each carried by at least 3 cells"):
        cross_validate(np.zeros((6, 2)), labels, "knn")


TRUTH = np.array(["a", "a", "a", "a", "b", "b", "c"])
PREDICTED = np.array(["a", "a", "b", "other", "b", "a", "other"])


def test_scores_worked_out_by_hand() -> None:
    found = score_predictions(TRUTH, PREDICTED)
    assert found.accuracy == pytest.approx([3 / 7])
    # a: 2 right of 4, named 3 times; b: 1 right of 2, named twice; c: never.
    assert found.macro_f1 == pytest.approx([(2 * 2 / (4 + 3) + 2 * 1 / (2 + 2) + 0) / 3])
    assert found.balanced_accuracy == pytest.approx([(2 / 4 + 1 / 2 + 0) / 3])


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = rng.integers(0, 6, 400).astype(str), rng.integers(0, 7, 400).astype(str)
    found = score_predictions(truth, predicted)
    labels = np.unique(truth)
    assert found.accuracy == pytest.approx([accuracy_score(truth, predicted)])
    assert found.macro_f1 == pytest.approx([f1_score(truth, predicted, labels=labels, average="macro")])
    known = np.where(np.isin(predicted, labels), predicted, "0")  # its recall needs labels that it knows
    same = score_predictions(truth, known).balanced_accuracy
    assert same == pytest.approx([balanced_accuracy_score(truth, known)])


def test_bootstrap_resamples_cells() -> None:
    truth, predicted = np.tile(TRUTH, 20), np.tile(PREDICTED, 20)
    drawn = bootstrap_predictions(truth, predicted, resamples=4000)
    p, n = 3 / 7, len(truth)
    assert drawn.accuracy.shape == (4000,)
    assert drawn.accuracy.mean() == pytest.approx(p, abs=0.005)
    assert drawn.accuracy.std() == pytest.approx(np.sqrt(p * (1 - p) / n), rel=0.05)
    assert drawn.macro_f1.mean() == pytest.approx(score_predictions(truth, predicted).macro_f1[0], abs=0.01)
    again = bootstrap_predictions(truth, predicted, resamples=4000)
    assert again.macro_f1.tolist() == drawn.macro_f1.tolist()


def test_a_resample_without_a_label_is_scored_on_the_others() -> None:
    # Both right, so whichever of the two labels a resample holds, it is perfect.
    drawn = bootstrap_predictions(["a", "b"], ["a", "b"], resamples=50)
    assert set(drawn.macro_f1.tolist()) == {1.0}
    assert set(drawn.balanced_accuracy.tolist()) == {1.0}


def test_calibration_error_worked_out_by_hand() -> None:
    # Two bins of two cells: stated 0.2 on average and never right, stated 0.8 and right every time.
    error = expected_calibration_error([0.1, 0.3, 0.7, 0.9], [False, False, True, True], bins=2)
    assert error == pytest.approx(0.5 * 0.2 + 0.5 * 0.2)
    # A confidence on the border belongs below it, and 1 to the last bin.
    assert expected_calibration_error([0.5, 1.0], [True, True], bins=2) == pytest.approx(0.25)
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0.0
