"""Measures of rebuilt cells, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.metrics.reconstruction import bleu, edit_distances, identity_accuracy, l_dist, value_scores


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 0),
        ([1, 2, 3, 4], [1, 9, 3, 4], 1),  # one gene replaced
        ([1, 2, 3, 4], [2, 3, 4], 1),  # one lost
        ([1, 2, 3, 4], [5, 1, 2, 3, 4], 1),  # one put in front
        ([1, 2, 3, 4], [2, 3, 4, 1], 2),  # moved to the end: lost and put in
        ([1, 2], [2, 1], 2),
        ([], [7, 8, 9], 3),
        ([7, 8], [], 2),
        ([11, 9, 20, 20, 5, 14], [19, 9, 20, 20, 9, 14, 7], 3),  # kitten, sitting
    ],
)
def test_edit_distance_counts_the_fewest_changes(first: list[int], second: list[int], expected: int) -> None:
    assert edit_distances([first], [second]).tolist() == [expected]


def test_pairs_of_unequal_length_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    firsts = [rng.integers(0, 4, n) for n in (0, 3, 9, 14)]
    seconds = [rng.integers(0, 4, n) for n in (5, 0, 12, 7)]
    alone = [edit_distances([a], [b])[0] for a, b in zip(firsts, seconds, strict=True)]
    assert edit_distances(firsts, seconds).tolist() == alone
    assert edit_distances(seconds, firsts).tolist() == alone, "the distance is symmetric"
    assert edit_distances([], []).tolist() == []


def test_l_dist_is_a_share_of_the_hidden_places() -> None:
    true = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2]]
    rebuilt = [[1, 2, 3, 4], [1, 8, 9, 4], [1, 8, 3, 4], [1, 2]]
    np.testing.assert_array_equal(l_dist(true, rebuilt, [2, 2, 2, 0]), [0, 1, 0.5, np.nan])


def test_bleu_by_hand() -> None:
    assert bleu([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == pytest.approx(1)
    # 4 of 5 genes; pairs 12, 23 of 4, raised 3 / 5; triples 123 of 3, raised 2 / 4; fours 0 of 2, raised 1 / 3.
    assert bleu([1, 2, 3, 4, 5], [1, 2, 3, 9, 5]) == pytest.approx((4 / 5 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    # A gene that comes twice counts as often as in the true cell: 1 of 2; pairs 0 of 1, raised 1 / 2.
    assert bleu([1, 2], [1, 1]) == pytest.approx((1 / 2 * 1 / 2) ** 0.5)
    assert bleu([1, 2], [3, 4]) == 0
    # All of a sequence of two that is half as long: brevity penalty exp(1 - 4 / 2).
    assert bleu([1, 2, 3, 4], [1, 2]) == pytest.approx(np.exp(-1))
    assert np.isnan(bleu([], [1]))


def test_identity_is_the_share_of_places() -> None:
    assert identity_accuracy([1, 2, 3, 4], [1, 3, 2, 4]) == 0.5
    assert np.isnan(identity_accuracy([], []))


def test_values_by_hand() -> None:
    found = value_scores([1, 2, 3, 4], [1, 3, 2, 4])
    # Ranks differ by 1 twice: 1 - 6 * 2 / (4 * 15). Squared errors 0, 1, 1, 0; the truth's variance is 1.25.
    assert found == pytest.approx({"spearman": 0.8, "mse": 0.5, "r2": 1 - 0.5 / 1.25})
    assert value_scores([1, 2, 3], [2, 2, 2]) == pytest.approx(
        {"spearman": np.nan, "mse": 2 / 3, "r2": 0.0}, nan_ok=True
    )


@pytest.mark.parametrize("true", [[5, 5, 5], [1, 2], []])
def test_what_cannot_be_told_is_nan(true: list[float]) -> None:
    found = value_scores(true, np.arange(len(true)) + 1.0)
    assert np.isnan(found["spearman"])
    assert np.isnan(found["r2"])
    assert np.isnan(found["mse"]) == (not true)
