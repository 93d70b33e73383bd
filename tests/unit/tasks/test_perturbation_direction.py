"""Towards and away are what the cosines say, beside a null that is one, and cells that do not read go nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from scdiva_core.errors import DataError
from scdiva_core.tasks.perturbation_direction import (
    FEWEST_CELLS,
    change_towards,
    direction_table,
    group_centroids,
    mean_changes,
    moved_cells,
    transitions,
)

NAMES = ("B", "T")
AXES = np.eye(2, dtype=np.float32)  # the centroid of B lies along x, that of T along y
HALF = np.sqrt(0.5)


def table_of(means: list[list[float]], null: np.ndarray, sizes: tuple[int, int] = (20, 20)) -> dict[tuple, dict]:
    table = direction_table(np.array(means), np.array(sizes), NAMES, null)
    return {(row["own"], row["target"]): row for row in table.to_dict("records")}


# ----------------------------------------------------------------- centroids and changes


def test_a_centroid_is_the_mean_direction_whatever_the_lengths() -> None:
    latents = np.zeros((14, 2), np.float32)
    latents[:5] = [3, 0]
    latents[5:10] = [[0, 1], [0, 100], [0, 2], [0, 5], [0, 7]]
    latents[:2] = [[0, 1], [1, 0]]
    groups = ["T"] * 5 + ["B"] * 5 + ["few"] * 2 + [None, " "]
    names, centroids = group_centroids(latents, groups)
    assert names == ("B", "T")
    assert centroids.dtype == np.float32
    np.testing.assert_allclose(centroids, [[0, 1], np.array([4, 1]) / np.sqrt(17)], rtol=1e-6)


def test_groups_that_cannot_be_used_are_told_with_their_numbers() -> None:
    with pytest.raises(DataError, match="None of 2 groups has 5 cells or more; the largest has 4"):
        group_centroids(np.ones((7, 2)), ["a"] * 4 + ["b"] * 3)
    with pytest.raises(DataError, match="None of 0 groups has 5 cells or more; the largest has 0"):
        group_centroids(np.ones((2, 2)), [None, ""])
    with pytest.raises(DataError, match="groups of 1 cells, but latents of 3"):
        group_centroids(np.ones((3, 2)), ["a"])


def test_change_is_the_difference_of_the_cosines() -> None:
    before = np.array([[2, 0], [1, 1], [1, 1]], np.float32)
    after = np.array([[0, 5], [3, 0], [1, 1]], np.float32)
    change = change_towards(before, after, AXES)
    assert change.dtype == np.float32
    np.testing.assert_allclose(change[:2], [[-1, 1], [1 - HALF, -HALF]], rtol=1e-6)
    assert (change[2] == 0).all(), "exactly 0 where nothing changed"
    np.testing.assert_array_equal(moved_cells(before, after), [True, True, False])


def test_the_smallest_changes_are_not_lost_to_rounding() -> None:
    before = np.array([[1, 1]], np.float32)
    after = np.array([[1 + 2**-23, 1]], np.float32)  # the next float32
    (towards, away) = change_towards(before, after, AXES)[0]
    # d/dx of x / sqrt(x^2 + 1) at 1 is 2^-1.5, that of 1 / sqrt(x^2 + 1) is -2^-1.5.
    np.testing.assert_allclose([towards, away], np.array([1, -1]) * 2**-24.5, rtol=1e-4)


def test_no_cells_change_nothing() -> None:
    none = np.zeros((0, 2), np.float32)
    assert change_towards(none, none, AXES).shape == (0, 2)
    still = change_towards(AXES, AXES, AXES)
    assert (still == 0).all()
    assert transitions(none, none, AXES, NAMES).empty


def test_the_cells_of_a_group_are_averaged_and_those_of_no_group_are_not() -> None:
    change = np.array([[0.2, 0.0], [0.4, -0.1], [9, 9], [9, 9]], np.float32)
    means, sizes = mean_changes(change, ["T", " T ", "few", None], NAMES)
    np.testing.assert_array_equal(sizes, [0, 2])
    assert np.isnan(means[0]).all(), "no B cell reads"
    np.testing.assert_allclose(means[1], [0.3, -0.05], rtol=1e-6)
    assert np.isfinite(mean_changes(change, ["T"] * 4, NAMES, fewest=4)[0][1]).all()
    assert np.isnan(mean_changes(change, ["T"] * 3 + ["B"], NAMES, fewest=4)[0]).all()


# ----------------------------------------------------------------- the table


def test_words_p_and_q_of_a_pair() -> None:
    null = np.zeros((99, 2, 2))
    null[:, 0, 0] = np.linspace(-0.01, 0.01, 99)
    null[:, 0, 1] = np.linspace(-0.01, 0.01, 99)
    null[:, 1, 0] = np.linspace(0.02, 0.04, 99)
    null[:, 1, 1] = np.linspace(-0.01, 0.01, 99)
    rows = table_of([[0.05, -0.05], [0.01, 0.0]], null)
    assert {pair: row["word"] for pair, row in rows.items()} == {
        ("B", "B"): "towards",
        ("B", "T"): "away",
        ("T", "B"): "neither",
        ("T", "T"): "neither",
    }
    # No null gene goes as far for the first three, all 99 go at least as far for the last.
    assert [row["p"] for row in rows.values()] == [0.01, 0.01, 0.01, 1.0]
    np.testing.assert_allclose([row["q"] for row in rows.values()], [0.04 / 3] * 3 + [1.0])
    np.testing.assert_allclose(rows["T", "B"]["null_mean"], 0.03)
    assert rows["T", "B"]["q"] < 0.05, "closer to B, but by less than with random genes: no direction of its own"
    assert {row["n"] for row in rows.values()} == {20}


def test_p_counts_the_null_genes_that_go_as_far_in_either_direction() -> None:
    null = np.array([-3.0, -1, 0, 1, 2, np.nan])[:, None, None] * np.ones((2, 2))
    # With 2 the mean of the six is 1/6: -3 and 2 lie as far from it as 2 does, and the perturbed gene counts itself.
    rows = table_of([[2.0, 0], [0, 0]], null)
    assert rows["B", "B"]["p"] == 3 / 6
    np.testing.assert_allclose(rows["B", "B"]["null_mean"], -0.2)


def test_few_reading_cells_and_unread_null_genes_are_not_tested() -> None:
    null = np.full((100, 2, 2), np.nan)
    null[:, :, 0] = np.linspace(-1, 1, 100)[:, None]
    rows = table_of([[5.0, 5.0], [5.0, 5.0]], null, sizes=(10, 9))
    assert rows["B", "B"]["word"] == "towards"
    for pair in (("B", "T"), ("T", "B"), ("T", "T")):
        assert rows[pair]["word"] == "not tested"
        assert np.isnan(rows[pair]["p"])
        assert np.isnan(rows[pair]["q"])
    assert rows["B", "B"]["q"] == rows["B", "B"]["p"], "only what was tested is corrected for"
    table = direction_table(np.full((2, 2), 5.0), np.array([10, 9]), NAMES, null)
    assert table.attrs["words"].startswith("1 pair of groups was tested against 100 matched random genes")
    assert "no p can be below 0.0099" in table.attrs["words"]
    null[0, 0, 0], null[:, 1, 0] = np.nan, 0
    words = direction_table(np.full((2, 2), 5.0), np.array([10, 10]), NAMES, null).attrs["words"]
    assert words.startswith("2 pairs of groups were tested against 99 to 100 matched random genes")


def test_a_group_that_does_not_read_has_no_row() -> None:
    means = np.array([[np.nan, np.nan], [0.1, 0.2]])
    table = direction_table(means, np.array([0, 3]), NAMES, np.zeros((100, 2, 2)))
    assert list(zip(table["own"], table["target"], table["mean"], strict=True)) == [("T", "B", 0.1), ("T", "T", 0.2)]
    assert "nothing was tested" in table.attrs["words"]


def test_a_null_of_other_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(100, 3, 3\), expected \[m, 2, 2\]"):
        direction_table(np.zeros((2, 2)), np.array([20, 20]), NAMES, np.zeros((100, 3, 3)))


def test_under_the_null_p_is_uniform_even_when_random_genes_drift_and_are_skewed() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.gamma(2, 1, size=(101, 20, 20)) - 1  # the mean is not 0
    names = tuple(f"g{i:02}" for i in range(20))
    table = direction_table(drawn[0], np.full(20, 50), names, drawn[1:])
    assert kstest(table["p"] - rng.uniform(0, 1 / 101, len(table)), "uniform").pvalue > 0.05
    assert (table["word"] == "neither").mean() > 0.95


# ----------------------------------------------------------------- transitions


def test_cells_are_counted_by_their_nearest_centroid_before_and_after() -> None:
    before = np.array([[2, 1], [2, 1], [1, 2], [5, 1]], np.float32)
    after = np.array([[1, 2], [9, 1], [1, 3], [1, 9]], np.float32)
    table = transitions(before, after, AXES, NAMES)
    assert list(table.itertuples(index=False, name=None)) == [("B", "B", 1), ("B", "T", 2), ("T", "T", 1)]
    assert list(table.columns) == ["from", "to", "n"]


def test_the_groups_of_a_real_file_are_found(small_cells: object) -> None:
    latents = np.asarray(small_cells.X[:, :50].todense()) + 0.1
    names, centroids = group_centroids(latents, small_cells.obs["cell_type"])
    sizes = small_cells.obs["cell_type"].astype(str).value_counts()
    assert set(names) == set(sizes.index[sizes >= FEWEST_CELLS])
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-6)
