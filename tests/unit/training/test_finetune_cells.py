"""Which labelled cells teach and which judge."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.errors import DataError
from scdiva_core.training.finetune_cells import split_cells


def test_a_split_within_the_classes_holds_a_fifth_of_each_out() -> None:
    labels = np.repeat(["a", "b", "c"], [50, 20, 5])
    split = split_cells(labels, None, most=1000, seed=3)
    assert np.bincount(split.codes[split.validation]).tolist() == [10, 4, 1]
    assert np.array_equal(split.cells, np.arange(75))
    assert split.held_out == ()
    other = split_cells(labels, None, most=1000, seed=4)
    assert not np.array_equal(split.validation, other.validation)


@pytest.mark.parametrize("seed", range(6))
def test_no_donor_is_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, donors = rng.choice(list("abc"), 200), rng.choice([f"d{i}" for i in range(7)], 200)
    donors = np.where(rng.random(200) < 0.1, None, donors)
    split = split_cells(labels, donors, most=1000, seed=seed)
    taught = set(donors[split.cells[~split.validation]])
    judged = set(donors[split.cells[split.validation]])
    assert not taught & judged
    assert judged == set(split.held_out)
    assert None not in taught | judged
    assert taught | judged == {f"d{i}" for i in range(7)}


def test_a_class_of_one_donor_is_learned_where_that_is_possible() -> None:
    labels = np.tile(["a", "b", "c"], 40)
    donors = np.where(labels == "c", "d0", np.repeat(["d0", "d1", "d2", "d3"], 30))
    for seed in range(5):
        split = split_cells(labels, donors, most=1000, seed=seed)
        assert split.classes == ("a", "b", "c")
        assert "d0" not in split.held_out


def test_a_class_that_only_the_held_out_donor_has_is_left_out() -> None:
    labels = np.array(["a", "b", "x"] * 10 + ["a", "b", "y"] * 10)
    split = split_cells(labels, np.repeat(["d1", "d2"], 30), most=1000, seed=0)
    (lost,) = split.left_out
    assert lost == {"d1": "x", "d2": "y"}[split.held_out[0]]
    assert split.left_out[lost] == "only held-out donors have it"
    assert set(split.classes) == {"a", "b", "x", "y"} - {lost}
    assert set(labels[split.cells]) == set(split.classes)
    assert [split.classes[code] for code in split.codes] == labels[split.cells].tolist()


def test_more_labelled_cells_than_are_used_keep_their_shares_but_rare_ones_stay() -> None:
    labels = np.repeat(["common", "less", "rare"], [8000, 2000, 30])
    split = split_cells(labels, None, most=1003, seed=0)
    assert np.bincount(split.codes).tolist() == [800, 200, 30]
    assert np.array_equal(split.cells, np.sort(split.cells))


@pytest.mark.parametrize(
    ("labels", "donors", "message"),
    [
        (["a"] * 20, None, "the labels name 1 with 5 cells or more"),
        (["a"] * 20 + ["b"] * 4, None, r"the labels name 1 with 5 cells or more \(left out: b\)"),
        ([None, "", " "] * 10, None, "the labels name 0"),
        (["a", "b"] * 10, ["d"] * 20, "are of 1 donor or batch, so that none can be held out"),
        (["a"] * 10 + ["b"] * 10, ["d"] * 10 + ["e"] * 10, "the donors that teach have 1"),
    ],
)
def test_labels_that_cannot_be_learned(labels: list[str | None], donors: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        split_cells(labels, donors, most=1000, seed=0)
    assert caught.value.hint
