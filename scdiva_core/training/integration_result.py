"""What fine-tuning for integration made: the network, its curve, and its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.concatenate import record_of
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_result import Stop, new_folder
from scdiva_core.training.integration_cells import TaughtBy

_ENDED = {
    "rounds": "It ended after all its rounds",
    "patience": "It ended when it got no better",
    "budget": "It ended with its time",
    "cancelled": "It was stopped",
}


@dataclass(frozen=True, eq=False)
class IntegrationTuned:
    """A network whose latent was taught to mix batches, with what is to be said of it.

    Attributes
    ----------
    model
        In evaluation mode, with the best weights that were seen and its card.
    curve
        One record a validation: ``round`` (0 is the latent as it was), ``seconds``, ``cells_seen``, the mean of each
        loss over the round (``reconstruction``, 1 for the mean cell; ``adversary`` and ``contrast`` in nats; None for
        round 0), and of the cells that judge ``type_asw`` and ``batch_asw``, 0 to 1, and ``score``, which chose.
    best_round
        Whose weights were kept.
    taught_by
        Whether labels or clusters were drawn together.
    n_groups
        How many of them.
    batches
        Names of the batches.
    n_cells
        Cells it was made with.
    judged
        int64 places in the file of those of them that only judged, ascending.
    stopped
        Why it ended.
    """

    model: ScDiVaModel
    curve: tuple[dict[str, Any], ...]
    best_round: int
    taught_by: TaughtBy
    n_groups: int
    batches: tuple[str, ...]
    n_cells: int
    judged: NDArray[np.int64]
    stopped: Stop

    @property
    def words(self) -> str:
        """What fine-tuning was worth, in a few sentences."""
        before, after = self.curve[0], self.curve[self.best_round]
        what = {
            "labels": f"{self.n_groups} labels",
            "clusters": f"{self.n_groups} clusters that stand in for labels, since none were given",
        }[self.taught_by]
        kept = (
            f"round {self.best_round} was kept" if self.best_round else "no round was better than the latent as it was"
        )
        return (
            f"It was taught to mix {len(self.batches)} batches and to draw together {what}. On {len(self.judged):,} "
            f"cells that only judged, batches mix {after['batch_asw']:.3f} (batch ASW; {before['batch_asw']:.3f} "
            f"before) and groups hold together {after['type_asw']:.3f} (ASW; {before['type_asw']:.3f} before). "
            f"{_ENDED[self.stopped]}; {kept}. It was chosen on these cells, which flatters it a little; cells of "
            f"another batch were not tried."
        )

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint folder that opens like any other.

        Parameters
        ----------
        folder
            See `scdiva_core.training.finetune_result.new_folder`.

        Raises
        ------
        CheckpointError
            Something is there already.
        """
        target = new_folder(folder)
        save_pretrained(self.model, target)
        return target


def _name(dataset: H5adDataset) -> str:
    """The file without suffix, or the files that it was put together from."""
    record = record_of(dataset)
    return dataset.path.stem if record is None else " and ".join(file["name"] for file in record["files"])


def integration_card(
    tuned: IntegrationTuned, base: ScDiVaModel, dataset: H5adDataset, *, settings: dict[str, Any], steps: int
) -> dict[str, Any]:
    """Write down what a checkpoint was made from, for its ``card.json``.

    Parameters
    ----------
    tuned
        Its model's card is not set yet.
    base
        The network that it was made from.
    dataset
        The file.
    settings, steps
        Of the run.

    Returns
    -------
    dict
        A card like any checkpoint's, and beside it ``integration`` with all that is known of it.
    """
    base_name, file = str(base.card.get("name") or "ScDiVa"), dataset.path.name
    numbers = {"n_cells": tuned.n_cells, "validation_cells": len(tuned.judged)}
    best = tuned.curve[tuned.best_round]
    scores = {name: best[name] for name in ("type_asw", "batch_asw", "score")}
    return {
        "name": f"{base_name}, integrated on {_name(dataset)}",
        "description": (
            f"Its embedding mixes the batches of {file}; it names no cell types. The denoiser is that of {base_name}, "
            f"untouched. {tuned.words}"
        ),
        **{flag: base.card[flag] for flag in ("provisional", "random_weights") if flag in base.card},
        "training": {
            "steps": steps,
            "cells_seen": tuned.curve[-1]["cells_seen"],
            "seconds": tuned.curve[-1]["seconds"],
            "device": tuned.model.device.type,
            "seed": settings["seed"],
            "settings": settings,
            "datasets": [{"name": file, **numbers}],
            "validation": scores,
        },
        "integration": {
            "base": {"name": base_name, "sha256": base.sha256},
            "data": {"name": file, "sha256": dataset.sha256, **numbers},
            "batches": list(tuned.batches),
            "taught_by": tuned.taught_by,
            "groups": tuned.n_groups,
            "curve": list(tuned.curve),
            "best_round": tuned.best_round,
            "stopped": tuned.stopped,
            "before": {name: tuned.curve[0][name] for name in ("type_asw", "batch_asw", "score")},
            "validation": scores,
            "words": tuned.words,
        },
    }
