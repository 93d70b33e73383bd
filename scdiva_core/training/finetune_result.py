"""What fine-tuning made: the network, its curve, what it is worth beside the frozen latent, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import CellOntology, cell_ontology
from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_cells import LabelledSplit

Stop = Literal["rounds", "patience", "budget", "cancelled"]
"""Why it ended: all rounds done, no better for long, time spent, the user's wish."""

_RESAMPLES = 1000

_ENDED = {
    "rounds": "It ended after all its rounds",
    "patience": "It ended when it got no better",
    "budget": "It ended with its time",
    "cancelled": "It was stopped",
}


@dataclass(frozen=True)
class Comparison:
    """Macro-F1 of three ways to name the same validation cells: the mean F1 of the classes that they carry.

    Attributes
    ----------
    finetuned, frozen_latent, majority
        The fine-tuned network; logistic regression on the latent as it was before; the commonest label.
    difference
        2.5 % and 97.5 % quantile of fine-tuned less frozen over resamples of the cells (Efron 1979), both scored on
        the same resample.
    """

    finetuned: float
    frozen_latent: float
    majority: float
    difference: tuple[float, float]

    @property
    def verdict(self) -> Literal["above", "level", "below"]:
        """Where fine-tuning stands; level where the resamples do not agree."""
        if self.difference[0] > 0:
            return "above"
        return "below" if self.difference[1] < 0 else "level"


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned network with what is to be said of it.

    Attributes
    ----------
    model
        In evaluation mode, with the best weights that were seen; its labels and its card are set.
    curve
        One record a validation: ``round`` (0 is the new head alone on the frozen latent), ``seconds``, ``cells_seen``,
        ``loss`` (mean training cross-entropy of the round in nats; None for round 0 and where it is not finite),
        ``macro_f1``, ``accuracy``.
    best_round
        Whose weights were kept.
    comparison
        Of the best round with its baselines.
    left_out
        Labels that were not learned -> why.
    stopped
        Why it ended.
    words
        All that in a few sentences.
    """

    model: ScDiVaModel
    curve: tuple[dict[str, Any], ...]
    best_round: int
    comparison: Comparison
    left_out: dict[str, str]
    stopped: Stop
    words: str

    def save(self, folder: str | Path) -> Path:
        """Write a checkpoint folder that opens like any other.

        Reference, markers and profiles of the base checkpoint belong to its own weights and are not taken along.

        Parameters
        ----------
        folder
            See `new_folder`.

        Raises
        ------
        CheckpointError
            Something is there already.
        """
        target = new_folder(folder)
        save_pretrained(self.model, target)
        return target


def new_folder(folder: str | Path) -> Path:
    """Make sure that a checkpoint can be written without mixing with another's files.

    Parameters
    ----------
    folder
        Absent or empty.

    Raises
    ------
    CheckpointError
        It is a file, or holds files.
    """
    target = Path(folder)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        found = "is a file" if target.is_file() else "holds files already"
        msg = f"{target} {found}."
        raise CheckpointError(msg, "Choose a new folder: a checkpoint is never written among other files.")
    return target


def macro_f1(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], drawn: NDArray[np.number] | None = None
) -> NDArray[np.float64]:
    """Mean F1 of the classes that occur among the truths.

    Parameters
    ----------
    truth, predicted
        int ``[n]`` class numbers.
    drawn
        ``[m, n]`` how often each of m resamples holds each cell; once each when None.

    Returns
    -------
    ndarray
        float64 ``[m]``, or ``[1]`` without resamples.
    """
    times = np.ones((1, len(truth))) if drawn is None else np.asarray(drawn, np.float64)
    classes = np.unique(truth)
    is_true, is_named = truth[:, None] == classes, predicted[:, None] == classes
    right, cells, named = (times @ table.astype(np.float64) for table in (is_true & is_named, is_true, is_named))
    there = cells > 0
    return np.divide(2 * right, cells + named, out=np.zeros_like(right), where=there).sum(axis=1) / there.sum(axis=1)


def compare(
    truth: NDArray[np.integer],
    finetuned: NDArray[np.integer],
    frozen: NDArray[np.integer],
    majority: int,
    *,
    seed: int,
) -> Comparison:
    """Score predictions of the same cells.

    Parameters
    ----------
    truth, finetuned, frozen
        int ``[n]`` class numbers: right, and by the two ways that are compared.
    majority
        Commonest class of the training cells.
    seed
        Of the resamples.
    """
    # Cells with the same three classes are alike, so that drawing their groups is drawing the cells.
    kinds, sizes = np.unique(np.stack([truth, finetuned, frozen]), axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(truth), sizes / len(truth), size=_RESAMPLES)
    gains = macro_f1(kinds[0], kinds[1], drawn) - macro_f1(kinds[0], kinds[2], drawn)
    low, high = np.quantile(gains, [0.025, 0.975])
    scores = [float(macro_f1(truth, named)[0]) for named in (finetuned, frozen, np.full(len(truth), majority))]
    return Comparison(*scores, (float(low), float(high)))


def in_words(
    comparison: Comparison, *, n_validation: int, held_out: Sequence[str], best_round: int, stopped: Stop
) -> str:
    """Say what fine-tuning was worth.

    Parameters
    ----------
    comparison
        The figures.
    n_validation, held_out
        Cells that judged, and whose; none for a split within the file's classes.
    best_round, stopped
        Which weights were kept, and why it ended.
    """
    verdict = {
        "above": "Fine-tuning beat the frozen latent",
        "level": "Fine-tuning did not clearly beat the frozen latent",
        "below": "Fine-tuning fell short of the frozen latent",
    }[comparison.verdict]
    low, high = comparison.difference
    names = ", ".join(held_out)
    where = f"of donors or batches that it never saw ({names})" if held_out else "of the same file, drawn at random"
    kept = f"round {best_round} was the best" if best_round else "no round was better than the new head alone"
    caution = "It was chosen on these cells, which flatters it a little"
    if not held_out:
        caution += "; cells of another donor will be harder"
    return (
        f"{verdict}: macro-F1 {comparison.finetuned:.3f} on {n_validation:,} validation cells {where}; logistic "
        f"regression on the frozen latent {comparison.frozen_latent:.3f} (difference from {low:+.3f} to {high:+.3f} in "
        f"95 % of resamples), the commonest label {comparison.majority:.3f}. {_ENDED[stopped]}; {kept}. {caution}."
    )


def label_meanings(classes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and names of the classes, for `scdiva_core.model.network.CellLabels`.

    A label that is a Cell Ontology id, or a term's name or synonym in either case, gets that term's id and name. Any
    other, and labels of which several mean one term, keep their own text as id and as name.

    Parameters
    ----------
    classes
        Labels as the file spells them.
    """
    ontology = cell_ontology()
    terms = [_term(label, ontology) for label in classes]
    once = [term is not None and terms.count(term) == 1 for term in terms]
    ids = (term if sure else label for label, term, sure in zip(classes, terms, once, strict=True))
    names = (ontology.name(term) if sure else label for label, term, sure in zip(classes, terms, once, strict=True))
    return tuple(ids), tuple(names)


def card_of(
    tuned: FineTuned,
    base: ScDiVaModel,
    dataset: H5adDataset,
    chosen: LabelledSplit,
    *,
    settings: dict[str, Any],
    steps: int,
) -> dict[str, Any]:
    """Write down what a fine-tuned checkpoint was made from and what it is worth, for its ``card.json``.

    Parameters
    ----------
    tuned
        Labels of its model are set, its card is not yet.
    base
        The network that it was made from.
    dataset, chosen
        The file and its labelled cells.
    settings, steps
        Of the run.

    Returns
    -------
    dict
        A card like any checkpoint's, its ``training`` that of this run, and beside it ``finetuned`` with everything
        that is known of it.
    """
    file, labels, scores = dataset.path.name, tuned.model.labels, tuned.comparison
    n_validation = int(chosen.validation.sum())
    counts = (np.bincount(chosen.codes[side], minlength=len(chosen.classes)).tolist() for side in _sides(chosen))
    base_name = str(base.card.get("name") or "ScDiVa")
    cells = {
        "n_cells": dataset.n_obs,
        "labelled_cells": len(chosen.cells),
        "validation_cells": n_validation,
    }
    return {
        "name": f"{base_name}, fine-tuned on {dataset.path.stem}",
        "description": f"Names the {len(chosen.classes)} cell types that {file} has labels of. {tuned.words}",
        **{flag: base.card[flag] for flag in ("provisional", "random_weights") if flag in base.card},
        "training": {
            "steps": steps,
            "cells_seen": tuned.curve[-1]["cells_seen"],
            "seconds": tuned.curve[-1]["seconds"],
            "device": tuned.model.device.type,
            "seed": settings["seed"],
            "settings": settings,
            "datasets": [{"name": file, **cells}],
            "validation": _scores(scores),
        },
        "finetuned": {
            "base": {"name": base_name, "sha256": base.sha256},
            "data": {"name": file, "sha256": dataset.sha256, **cells, "held_out": list(chosen.held_out)},
            "classes": [
                {"label": label, "id": term, "name": name, "training_cells": taught, "validation_cells": judged}
                for label, term, name, taught, judged in zip(
                    chosen.classes, labels.ids, labels.names, *counts, strict=True
                )
            ],
            "left_out": tuned.left_out,
            "curve": list(tuned.curve),
            "best_round": tuned.best_round,
            "stopped": tuned.stopped,
            "validation": {**_scores(scores), "difference": list(scores.difference), "verdict": scores.verdict},
            "words": tuned.words,
        },
    }


def _sides(chosen: LabelledSplit) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return ~chosen.validation, chosen.validation


def _scores(comparison: Comparison) -> dict[str, float]:
    return {
        "macro_f1": comparison.finetuned,
        "macro_f1_frozen_latent": comparison.frozen_latent,
        "macro_f1_majority": comparison.majority,
    }


def _term(label: str, ontology: CellOntology) -> str | None:
    """Term that a label spells exactly, whichever of its names it is."""
    for term in ontology.search(label, limit=1):
        spellings = (term, ontology.name(term), *ontology.synonyms(term))
        if label.casefold() in (spelling.casefold() for spelling in spellings):
            return term
    return None
