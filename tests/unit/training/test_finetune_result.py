"""Scores by hand, who is ahead, and what labels mean."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.training.finetune_result import compare, label_meanings, macro_f1


def test_labels_get_the_id_of_the_term_that_they_spell() -> None:
    ids, names = label_meanings(["b CELL", "CL:0000084", "my cells", "NK"])
    assert ids[:3] == ("CL:0000236", "CL:0000084", "my cells")
    assert names[:3] == ("B cell", "T cell", "my cells")


def test_labels_that_mean_one_term_stay_apart() -> None:
    ids, names = label_meanings(["T cell", "T-cell", "B cell"])
    assert ids == ("T cell", "T-cell", "CL:0000236")
    assert names == ("T cell", "T-cell", "B cell")


def test_macro_f1_by_hand() -> None:
    truth, named = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 3])
    # class 0: 2 right of 3 cells and 2 calls; class 1: 1 of 2 and 2; class 2: none; class 3 has no cell.
    assert macro_f1(truth, named) == pytest.approx([(4 / 5 + 2 / 4 + 0) / 3])
    doubled = macro_f1(truth, named, np.array([[2, 0, 0, 1, 1, 0]]))
    assert doubled == pytest.approx([(1 + 2 / 3) / 2])


def test_the_comparison_says_who_is_ahead_and_when_nobody_is() -> None:
    truth = np.tile([0, 1], 100)
    coin = np.repeat([0, 1], 100)
    ahead = compare(truth, truth, coin, 0, seed=0)
    assert (ahead.finetuned, ahead.frozen_latent, ahead.verdict) == (1.0, pytest.approx(0.5), "above")
    assert ahead.majority == pytest.approx((2 / 3) / 2)
    assert ahead.difference[0] > 0.3
    assert compare(truth, coin, truth, 0, seed=0).verdict == "below"
    level = compare(truth, coin, coin, 0, seed=0)
    assert (level.verdict, level.difference) == ("level", (0.0, 0.0))
