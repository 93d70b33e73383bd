"""Choices of one fine-tuning, small and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scdiva_core.errors import DataError


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune; the published value where it is known and fits small sets of labels, else our choice.

    Parameters
    ----------
    minutes
        Budget for all of it, reading included; the best weights within it are kept.
    rounds, round_cells, patience
        Most rounds; training cells between two validations, one pass where there are fewer; and rounds without a
        better macro-F1 after which it ends (published: 30 passes).
    batch_size
        Cells a step (published: 256, with which a few hundred labels would give a step or two a pass).
    learning_rate, head_learning_rate, weight_decay, clip
        AdamW for the network (the published rate) and for the new head (our choice), and
        clipping by norm.
    label_smoothing
        Share of probability kept from the true class.
    most_cells
        Labelled cells to use.
    seed
        Of the split, the new head and the order of the cells.
    """

    minutes: float = 10.0
    rounds: int = 60
    round_cells: int = 2048
    patience: int = 6
    batch_size: int = 32
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.05
    most_cells: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_minutes(self.minutes)
        _check_counts(self, "rounds", "round_cells", "patience", "batch_size", "most_cells")
        _check_positive(self, "learning_rate", "head_learning_rate", "clip")
        if not 0 <= self.label_smoothing < 1:
            msg = f"label_smoothing is {self.label_smoothing}."
            raise DataError(msg, "Choose a share below 1.")


@dataclass(frozen=True)
class PerturbationSettings:
    """How to fine-tune on measured perturbations; the published value where it is known, else our choice.

    Parameters
    ----------
    minutes
        Budget for the training; the best weights within it are kept.
    epochs, patience
        Most passes over the training perturbations (published: 40), and passes without a better score after which it
        ends.
    cells
        Control cells that each perturbation is shown on in one pass, drawn anew each time (ours: the target is the
        perturbation's mean, of which more cells say no more).
    batch_size
        Cells a step (published: 128, which would leave a pass over a few perturbations one step).
    learning_rate, head_learning_rate, weight_decay, clip
        AdamW for the network (the published rate, 1e-4) and for the [PERT] vector and its regressor (our choice), and
        clipping by norm.
    changed_weight
        Weight of the squared error of genes that changed, against 1 for all others.
    ranking_weight
        Weight of the ranking loss beside the squared error.
    validation_share
        Share of the training perturbations that judge, at least one; none where fewer than five are there.
    validation_cells
        Control cells over which a prediction is averaged when it is judged.
    seed
        Of the split, the new head and the draws.
    """

    minutes: float = 30.0
    epochs: int = 40
    patience: int = 8
    cells: int = 16
    batch_size: int = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    changed_weight: float = 5.0
    ranking_weight: float = 0.1
    validation_share: float = 0.2
    validation_cells: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        _check_minutes(self.minutes)
        _check_counts(self, "epochs", "patience", "cells", "batch_size", "validation_cells")
        _check_positive(self, "learning_rate", "head_learning_rate", "clip", "changed_weight")
        if not 0 <= self.ranking_weight < math.inf:
            msg = f"ranking_weight is {self.ranking_weight}."
            raise DataError(msg, "Choose 0 or a number above it.")
        if not 0 <= self.validation_share < 1:
            msg = f"validation_share is {self.validation_share}."
            raise DataError(msg, "Choose a share below 1.")


def _check_minutes(minutes: float) -> None:
    if not 0 < minutes < math.inf:
        msg = f"The budget is {minutes:g} minutes."
        raise DataError(msg, "Give it some time; ten minutes are usual.")


def _check_counts(settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            msg = f"{name} is {getattr(settings, name)}."
            raise DataError(msg, "Choose at least 1.")


def _check_positive(settings: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            msg = f"{name} is {getattr(settings, name)}."
            raise DataError(msg, "Choose a number above 0.")
