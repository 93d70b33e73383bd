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
        if not 0 < self.minutes < math.inf:
            msg = f"The budget is {self.minutes:g} minutes."
            raise DataError(msg, "Give it some time; ten minutes are usual.")
        for name in ("rounds", "round_cells", "patience", "batch_size", "most_cells"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")
        for name in ("learning_rate", "head_learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose a number above 0.")
        if not 0 <= self.label_smoothing < 1:
            msg = f"label_smoothing is {self.label_smoothing}."
            raise DataError(msg, "Choose a share below 1.")
