"""Choices of one fine-tuning for integration, small and checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scdiva_core.errors import DataError


@dataclass(frozen=True)
class IntegrationSettings:
    """How to teach the latent to mix batches; the published value where it is known, else our choice.

    Parameters
    ----------
    minutes
        Budget for all of it, reading included; the best weights within it are kept.
    rounds, round_steps, patience
        Most rounds (published: 50 passes), steps between two validations, and rounds without a better score after
        which it ends.
    batch_size
        Cells a step (published: 256, which takes twice as long).
    learning_rate, weight_decay, clip
        AdamW (published: 1e-4 for a whole network; here a linear map learns, which needs more), and clipping by norm.
    reconstruction, adversary, contrast
        Weights of the three losses; the adversary's is reached gradually (Ganin 2016).
    temperature
        Of the contrastive loss (Khosla 2020).
    most_cells
        Cells to learn from and to judge on.
    seed
        Of the split, the new weights and the order of the cells.
    """

    minutes: float = 5.0
    rounds: int = 30
    round_steps: int = 10
    patience: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    reconstruction: float = 1.0
    adversary: float = 1.0
    contrast: float = 1.0
    temperature: float = 0.1
    most_cells: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "round_steps", "patience", "batch_size", "most_cells"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")
        for name in ("minutes", "learning_rate", "clip", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose a number above 0.")
        for name in ("reconstruction", "adversary", "contrast", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose 0 or a number above it.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a card, a job's payload or a result's key."""
        return asdict(self)
