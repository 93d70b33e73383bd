"""What fine-tuning on perturbations made: the network, its curve, and its card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_result import Stop, new_folder
from scdiva_core.training.perturbation_cells import PerturbationCells

_ENDED = {
    "rounds": "It ended after all its passes",
    "patience": "It ended when it got no better",
    "budget": "It ended with its time",
    "cancelled": "It was stopped",
}


@dataclass(frozen=True, eq=False)
class PerturbationTuned:
    """A network that predicts perturbations, with what is to be said of it.

    Attributes
    ----------
    model
        In evaluation mode, with the best weights that were seen and its card.
    curve
        One record a validation: ``epoch`` (0 is the new head alone), ``seconds``, ``cells_seen``, ``loss`` (mean of
        the pass; the squared error of no change is 1; None for epoch 0) and ``spearman``, the mean rank correlation of
        predicted and measured change over the perturbations that judge; None where none does.
    best_epoch
        Whose weights were kept.
    judged_by
        Perturbations that chose it.
    mean_spearman
        What the mean of the perturbations that teach reaches on them; NaN where none judges.
    stopped
        Why it ended.
    """

    model: ScDiVaModel
    curve: tuple[dict[str, Any], ...]
    best_epoch: int
    judged_by: tuple[str, ...]
    mean_spearman: float
    stopped: Stop

    @property
    def words(self) -> str:
        """What fine-tuning was worth, in a few sentences."""
        kept = f"pass {self.best_epoch} was kept" if self.best_epoch else "no pass was better than the new head alone"
        ended = f"{_ENDED[self.stopped]}; {kept}."
        if not self.judged_by:
            return f"There were too few perturbations to hold any out: nothing says how well it predicts. {ended}"
        score = self.curve[self.best_epoch]["spearman"]
        verdict = "It beat" if score > self.mean_spearman else "It did not beat"
        return (
            f"{verdict} the mean of the other perturbations on {len(self.judged_by)} that it never learned from "
            f"({', '.join(self.judged_by)}): rank correlation of predicted and measured change {score:.3f}, the mean "
            f"{self.mean_spearman:.3f}. {ended} It was chosen on these perturbations, which flatters it."
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


def perturbation_card(
    tuned: PerturbationTuned,
    base: ScDiVaModel,
    cells: PerturbationCells,
    *,
    value: float,
    source: dict[str, Any],
    settings: dict[str, Any],
    steps: int,
) -> dict[str, Any]:
    """Write down what a checkpoint was made from, for its ``card.json``.

    Parameters
    ----------
    tuned
        Its model has its vocabulary; its card is not set yet.
    base
        The network that it was made from.
    cells, value
        What it learned from, and the value of the perturbed genes.
    source
        ``name`` and ``sha256`` of the file, and what else is to be said of it.
    settings, steps
        Of the run.

    Returns
    -------
    dict
        A card like any checkpoint's, and beside it ``perturbation``: all that predicting needs and all that is known
        of the training.
    """
    base_name, name = str(base.card.get("name") or "ScDiVa"), str(source.get("name") or "perturbed cells")
    numbers = {"n_cells": len(cells.names), "control_cells": len(cells.control)}
    tokens = tuned.model.vocabulary.tokens
    teachers = [name for name in sorted(cells.targets) if name not in tuned.judged_by]
    mean = None if math.isnan(tuned.mean_spearman) else tuned.mean_spearman
    scores = {"spearman": tuned.curve[tuned.best_epoch]["spearman"], "spearman_mean": mean}
    what = {"knockout": "genes are knocked out", "activation": "genes are activated"}[cells.kind]
    return {
        "name": f"{base_name}, fine-tuned on {Path(name).stem}",
        "description": (
            f"Predicts what changes in {len(cells.gene_ids)} genes when {what}; trained on {len(teachers)} "
            f"perturbations of {name}. {tuned.words}"
        ),
        **{flag: base.card[flag] for flag in ("provisional", "random_weights") if flag in base.card},
        "training": {
            "steps": steps,
            "cells_seen": tuned.curve[-1]["cells_seen"],
            "seconds": tuned.curve[-1]["seconds"],
            "device": tuned.model.device.type,
            "seed": settings["seed"],
            "settings": settings,
            "datasets": [{"name": name, **numbers}],
            "validation": scores,
        },
        "perturbation": {
            "kind": cells.kind,
            "value": value,
            "genes": [tokens[token] for token in cells.gene_ids.tolist()],
            "base": {"name": base_name, "sha256": base.sha256},
            "data": {**source, **numbers},
            "trained_on": {name: len(cells.rows(name)) for name in teachers},
            "judged_by": {name: len(cells.rows(name)) for name in tuned.judged_by},
            "left_out": dict(cells.left_out),
            "curve": list(tuned.curve),
            "best_epoch": tuned.best_epoch,
            "stopped": tuned.stopped,
            "validation": scores,
            "words": tuned.words,
        },
    }
