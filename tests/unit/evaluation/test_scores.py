"""Numbers with their spread, and their means over sets."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.evaluation.scores import Score, mean_over_sets, plain


def test_a_score_over_seeds() -> None:
    score = Score.over_seeds(np.array([0.5, 0.7, 0.9]))
    assert score.value == pytest.approx(0.7)
    assert score.std == pytest.approx(0.2)
    assert score.to_dict() == {"value": score.value, "std": score.std, "seeds": [0.5, 0.7, 0.9]}
    assert Score.over_seeds(np.array([0.5])).std == 0.0


def test_a_score_with_an_interval() -> None:
    score = Score(0.42, np.arange(1001) / 1000, "bootstrap")
    assert score.interval == pytest.approx((0.025, 0.975))
    assert score.to_dict() == {"value": 0.42, "low": pytest.approx(0.025), "high": pytest.approx(0.975)}
    assert Score(0.42).to_dict() == {"value": 0.42}


def test_means_are_over_the_sets_seed_by_seed() -> None:
    table = {
        "one": {"a": {"m": Score.over_seeds(np.array([0.2, 0.4]))}, "b": {"m": Score(0.1), "n": Score(1.0)}},
        "two": {"a": {"m": Score.over_seeds(np.array([0.8, 0.6]))}, "b": {"m": Score(0.3)}, "c": {"m": Score(1.0)}},
    }
    means = mean_over_sets(table)
    assert set(means) == {"a", "b"}, "c is missing in one set"
    assert set(means["b"]) == {"m"}, "n is missing in one set"
    assert means["a"]["m"].samples == pytest.approx([0.5, 0.5])
    assert (means["a"]["m"].value, means["a"]["m"].std) == pytest.approx((0.5, 0.0))
    assert plain(means)["b"]["m"] == {"value": pytest.approx(0.2)}
    assert mean_over_sets({}) == {}
