"""The comparison of methods against a reference, as a table and in words."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.baselines.grn import random_scores
from scdiva_core.metrics.grn import ratios
from scdiva_core.tasks.grn_honesty import ATTENTION, CO_EXPRESSION, EXPOSURE, HONESTY_COLUMNS, honesty_table, verdict

SHAPE = (30, 80)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    truth = np.random.default_rng(0).random(SHAPE) < 0.05
    truth[4] = False
    return truth


def scored(truth: np.ndarray, strength: float, seed: int = 1) -> np.ndarray:
    return strength * truth + random_scores(SHAPE, seed)


def test_each_row_is_what_the_metrics_give(truth: np.ndarray) -> None:
    usable = np.random.default_rng(2).random(SHAPE) < 0.9
    methods = {ATTENTION: scored(truth, 0.5), CO_EXPRESSION: scored(truth, 0.2, 3)}
    table = honesty_table(methods, truth, usable)
    assert tuple(table.columns) == HONESTY_COLUMNS
    assert list(table["method"]) == list(methods)
    usable[4] = False  # a regulator of which the reference knows nothing
    expected = ratios(methods[ATTENTION], truth, usable)
    row = table.iloc[0]
    assert (row["auprc_ratio"], row["epr_ratio"]) == (expected.auprc.value, expected.epr.value)
    assert (row["auprc_low"], row["auprc_high"]) == expected.auprc.interval
    assert (row["n_pairs"], row["n_true"]) == (usable.sum(), truth[usable].sum())
    assert row["density"] == truth[usable].mean()
    assert row["auprc_gain"] == pytest.approx(row["auprc_ratio"] - table["auprc_ratio"][1])
    assert row["auprc_gain_low"] < row["auprc_gain"] < row["auprc_gain_high"]
    assert (table.loc[1, ["auprc_gain", "auprc_gain_low", "epr_gain_high"]] == 0).all()


def test_runs_of_a_method_that_draws_are_averaged_and_their_spread_is_that_of_single_ones(truth: np.ndarray) -> None:
    runs = np.stack([random_scores(SHAPE, seed) for seed in range(10)])
    table = honesty_table({"random": runs, "one": runs[0]}, truth, np.ones(SHAPE, bool))
    each = [honesty_table({"one": run}, truth, np.ones(SHAPE, bool))["auprc_ratio"][0] for run in runs]
    assert table["auprc_ratio"][0] == pytest.approx(np.mean(each))
    assert table["auprc_low"][0] <= min(each) * 1.05
    assert table["auprc_high"][0] >= max(each) * 0.95
    assert table["auprc_gain"].isna().all()


def test_the_verdict_names_what_wins(truth: np.ndarray) -> None:
    usable = np.ones(SHAPE, bool)
    strong, weak, none = scored(truth, 0.8), scored(truth, 0.2, 5), random_scores(SHAPE, 9)

    def words(attention: np.ndarray, rival: np.ndarray) -> str:
        return verdict(honesty_table({ATTENTION: attention, CO_EXPRESSION: rival}, truth, usable))

    assert words(strong, weak).startswith("Attention finds known pairs better than chance: ")
    assert "It beats plain co-expression, at 4." in words(strong, weak)
    assert "Plain co-expression is better, at " in words(weak, strong)
    assert words(none, weak).startswith("Attention cannot be told from chance: ")
    assert "It cannot be told from plain co-expression" in words(weak, weak)
    assert words(-strong, weak).startswith("Attention finds known pairs worse than chance: ")
    assert "AUPRC over 2,320 pairs, 5." in words(strong, weak)


def test_the_verdict_names_exposure_beside_co_expression(truth: np.ndarray) -> None:
    strong, weak = scored(truth, 0.8), scored(truth, 0.2, 5)
    table = honesty_table({ATTENTION: weak, CO_EXPRESSION: weak, EXPOSURE: strong}, truth, np.ones(SHAPE, bool))
    assert table["exposure_gain"][0] == pytest.approx(table["auprc_ratio"][0] - table["auprc_ratio"][2])
    assert table["exposure_gain"][2] == 0
    assert "A count of the cells that read both genes is better, at " in verdict(table)
    assert "It cannot be told from plain co-expression, at " in verdict(table)


def test_the_verdict_without_a_rival_or_a_known_pair(truth: np.ndarray) -> None:
    usable = np.ones(SHAPE, bool)
    alone = honesty_table({ATTENTION: scored(truth, 0.8)}, truth, usable)
    assert "co-expression" not in verdict(alone)
    nothing = honesty_table({ATTENTION: scored(truth, 0.8)}, np.zeros(SHAPE, bool), usable)
    assert nothing["auprc_ratio"].isna().all()
    assert verdict(nothing).startswith("The reference knows none of these pairs")
