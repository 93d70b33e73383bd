"""A small evaluation with made-up numbers, in the very form that the evaluation writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scdiva_core.evaluation.scores import Measures, Score, Table, mean_over_sets, plain
from scdiva_core.evaluation.verdicts import verdicts

TITLES = {"blood": "Blood, <b>3k</b>", "lung": "Lung", "both": "Both together"}


def small_evaluation(sha256: str) -> dict[str, Any]:
    """Two sets and a pool; ScDiVa is above PCA on lung, below it on blood, and level in the mean.

    Parameters
    ----------
    sha256
        Of the weights that it claims to be of.
    """
    tables: dict[str, Table] = {
        "classification": {
            "blood": {
                "scdiva": _classified(0.90),
                "pca": _classified(0.92),
                "pca_corpus": _classified(0.86),
                "untrained_svd": _classified(0.80),
                "untrained_random": _classified(0.60),
                "chance": _classified(0.25),
            },
            "lung": {
                "scdiva": _classified(0.96),
                "pca": _classified(0.94),
                "pca_corpus": _classified(0.90),
                "untrained_svd": _classified(0.84),
                "untrained_random": _classified(0.64),
                "chance": _classified(0.35),
            },
        },
        "clusters": {},
        "integration": {},
        "annotation": {
            "blood": {
                "scdiva": {"accuracy": _resampled(0.8), "macro_f1": _resampled(0.7), "calibration_error": Score(0.08)},
                "hvg_lr": {"accuracy": _resampled(0.7), "macro_f1": _resampled(0.7)},
                "majority": {"macro_f1": _resampled(0.1)},
            }
        },
        "mixing": {"both": {"scdiva": _mixed(0.8), "pca": _mixed(0.7), "harmony": _mixed(0.9)}},
    }
    means = {group: mean_over_sets(table) for group, table in tables.items()}
    return {
        "checkpoint": {"name": "tiny test model", "sha256": sha256, "parameters": 1},
        "corpus": {"cells": 10, "training_cells": 8, "classes": 2, "vocabulary_sha256": "0"},
        "versions": {"python": "3.11"},
        "settings": {"seeds": 2, "folds": 3, "regression": None},
        "sets": {name: {"title": TITLES[name]} for name in ("blood", "lung")},
        "pools": {"both": {"title": TITLES["both"]}},
        **{group: plain(table) for group, table in tables.items()},
        "means": plain(means),
        "verdicts": verdicts(tables, means, TITLES),
    }


def _classified(value: float) -> Measures:
    # Two seeds whose standard deviation is 0.01.
    scores = Score.over_seeds(value + np.array([-1, 1]) * 0.01 / math.sqrt(2))
    return {"knn_accuracy": scores, "probe_accuracy": scores}


def _resampled(value: float) -> Score:
    return Score(value, np.full(10, value), "bootstrap")


def _mixed(value: float) -> Measures:
    return {"avg_bio": Score(value), "avg_batch": Score(value)}
