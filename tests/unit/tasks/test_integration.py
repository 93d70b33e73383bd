"""Integration measured on cells whose answer is planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdiva_core.baselines.centred import centre_batches
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks.integration import MEASURES, apart_in_words, measure, verdict

RNG = np.random.default_rng(0)
# Types a and b in both batches, c in batch x alone; the batches lie 8 apart.
LABELS = np.repeat(["a", "b", "c"], [80, 80, 40])
BATCHES = np.concatenate([np.tile(["x", "y"], 80), np.repeat("x", 40)])
TYPES = np.array([{"a": (0, 0), "b": (20, 0), "c": (0, 20)}[label] for label in LABELS], float)
RIGHT = (TYPES + RNG.normal(size=(200, 2))).astype(np.float32)
SHIFTED = (RIGHT + np.where(BATCHES == "x", 0, 8)[:, None]).astype(np.float32)
# c moved onto a: what over-correction does.
MERGED = (RIGHT - np.where(LABELS == "c", 20, 0)[:, None] * np.array([0, 1])).astype(np.float32)


@pytest.fixture(scope="module")
def measured() -> tuple[pd.DataFrame, pd.DataFrame]:
    return measure({"pca": SHIFTED, "harmony": RIGHT, "scdiva": MERGED}, LABELS, BATCHES, seeds=2)


def test_what_is_mixed_and_held_together_scores_higher(measured: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    scores = measured[0].set_index("method")
    assert set(MEASURES) <= set(scores)
    assert scores.loc["harmony", "avg_batch"] > scores.loc["pca", "avg_batch"] + 0.1
    assert scores.loc["harmony", "avg_bio"] > scores.loc["scdiva", "avg_bio"] + 0.1
    assert scores.loc["harmony", ["nmi", "ari", "clisi"]].tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    for name in ("ilisi", "kbet", "batch_asw"):
        assert scores.loc["harmony", name] > scores.loc["pca", name]
    assert scores["n_cells"].eq(200).all()


def test_a_planted_type_of_one_batch_keeps_its_cluster_where_it_lies_apart(
    measured: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    apart = measured[1].set_index("method")
    assert apart["label"].eq("c").all()
    assert apart.loc["harmony", "purity"] >= 0.9
    assert apart.loc["harmony", "kept"]
    assert apart.loc["scdiva", "purity"] < 0.5
    assert not apart.loc["scdiva", "kept"]
    told = {name: apart_in_words(measured[1], name) for name in ("harmony", "scdiva")}
    assert told["harmony"] == "1 of 1 types that only one batch has keep their own cluster (purity 0.9)."
    assert told["scdiva"].startswith("0 of 1 types")
    assert "mixed into others: c (0." in told["scdiva"]
    assert "cannot be checked" in apart_in_words(measured[1].iloc[:0], "scdiva")


def test_centring_pulls_apart_what_batches_do_not_share() -> None:
    centred = centre_batches(SHIFTED, BATCHES)
    scores, _ = measure({"pca": SHIFTED, "pca_centred": centred}, LABELS, BATCHES, seeds=1)
    assert scores["batch_asw"].iloc[1] < 0.8, "the mean of batch x holds type c too"


def test_cells_without_type_or_batch_and_rare_types_are_left_out() -> None:
    labels, batches = LABELS.astype(object), BATCHES.astype(object)
    labels[:3], batches[3:5], labels[5:7] = None, None, "oddity"
    scores, _ = measure({"pca": RIGHT}, labels, batches, seeds=1)
    assert scores["n_cells"].tolist() == [193]


def test_the_verdict_says_both_sides_with_their_numbers() -> None:
    rows = {"avg_bio": [0.7, 0.8, 0.75], "avg_batch": [0.8, 0.9, 0.91]}
    table = pd.DataFrame({"method": ["pca", "harmony", "scdiva_finetuned"], **rows})
    told = verdict(table)
    assert "mixes batches at least as well as Harmony (Avg-Batch 0.910, Harmony 0.900) and" in told
    assert "holds types together at least as well as PCA (Avg-Bio 0.750, PCA 0.700, Harmony 0.800)" in told
    assert told.endswith("Best by the mean of both: Harmony (0.850).")
    table.loc[2, "avg_batch"] = 0.85
    assert "mixes batches less well than Harmony (Avg-Batch 0.850, Harmony 0.900) but holds" in verdict(table)


def test_types_of_one_batch_each_are_refused_and_work_can_be_stopped() -> None:
    with pytest.raises(DataError, match="none is in two batches"):
        measure({"pca": RIGHT}, LABELS, LABELS)
    with pytest.raises(Cancelled):
        measure({"pca": RIGHT}, LABELS, BATCHES, cancelled=lambda: True)
