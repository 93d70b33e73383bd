"""Cell types named without any label of the set, resolved to the terms that the set's authors used."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.baselines.annotation import HvgRegression
from scdiva_core.data.ontology import CellOntology
from scdiva_core.engine import Engine
from scdiva_core.evaluation.scores import Measures, Methods, Score
from scdiva_core.evaluation.sets import EvaluationSet
from scdiva_core.metrics.classification import (
    PredictionScores,
    bootstrap_predictions,
    expected_calibration_error,
    score_predictions,
)
from scdiva_core.tasks.label_sources import head_logits
from scdiva_core.tasks.profile_sources import joint_probabilities, profile_probabilities

OTHER = "other"
"""What a prediction counts as that is none of a set's terms nor below one: wrong."""


def resolve(predicted: Sequence[str], truths: Collection[str], ontology: CellOntology) -> NDArray[np.str_]:
    """Bring predicted terms to the level at which a set is labelled.

    A prediction becomes the most specific of the set's terms that it is or lies below; else `OTHER`. A naive T cell
    thus counts as right where the authors wrote T cell, and a T cell as wrong where they wrote naive T cell.

    Parameters
    ----------
    predicted
        Cell Ontology ids ``[n]``.
    truths
        Cell Ontology ids that the set's labels mean.
    ontology
        Says what lies below what.
    """
    meaning = {term: ontology.nearest(term, truths) or OTHER for term in set(predicted)}
    return np.array([meaning[term] for term in predicted], str)


def named_by_model(
    engine: Engine, cells: EvaluationSet, rows: NDArray[np.int64], embedding: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Calibrated probabilities ``[n, n_classes]`` by what a checkpoint has to name cells with.

    Parameters
    ----------
    engine
        Its model has an annotation head, and labels that say what the outputs mean.
    cells
        The set.
    rows
        int64 ``[n]`` cells of it to name.
    embedding
        float32 ``[n_cells, d]`` of all its cells.

    Returns
    -------
    dict
        ``"scdiva"``: head and profiles together, or the head where there are no profiles; and where there are,
        ``"head"`` and ``"profiles"`` alone.
    """
    model, profiles = engine.model, engine.profiles
    head = torch.softmax(head_logits(model, embedding[rows]), dim=1).numpy()
    if profiles is None:
        return {"scdiva": head}
    scores = profiles.over(cells.gene_ids).scores(cells.expression[rows][:, cells.gene_ids])
    return {
        "scdiva": joint_probabilities(model, profiles, embedding[rows], scores),
        "head": head,
        "profiles": profile_probabilities(profiles, scores),
    }


def annotate(
    engine: Engine,
    cells: EvaluationSet,
    embedding: NDArray[np.float32],
    regression: HvgRegression | None,
    ontology: CellOntology,
) -> Methods:
    """Score every way to name the cells of a set.

    Parameters
    ----------
    engine
        The checkpoint; left out where it cannot name cell types.
    cells
        All cells whose label means a type are scored, however few of a type there are.
    embedding
        Of all cells of the set.
    regression
        Fitted on the corpus; left out where None.
    ontology
        Resolves predictions.

    Returns
    -------
    dict
        Method to measures: ``accuracy``, ``macro_f1`` and ``balanced_accuracy`` with bootstrap samples, and for
        what the checkpoint says ``calibration_error``; see `named_by_model`.
    """
    rows = cells.typed
    truth = cells.terms[rows]
    terms, sizes = np.unique(truth, return_counts=True)
    methods: Methods = {}
    if engine.model.labels is not None:
        meaning = resolve(engine.model.labels.ids, terms, ontology)
        for method, probabilities in named_by_model(engine, cells, rows, embedding).items():
            predicted = meaning[probabilities.argmax(axis=1)]
            # Stated confidence in the resolved term: that of all classes that come to it.
            confidence = np.where(meaning[None] == predicted[:, None], probabilities, 0).sum(axis=1)
            error = expected_calibration_error(np.minimum(confidence, 1), predicted == truth)
            methods[method] = _measures(truth, predicted) | {"calibration_error": Score(error)}
    if regression is not None:
        named = regression.predict(cells.expression[rows])
        methods["hvg_lr"] = _measures(truth, resolve(named, terms, ontology))
    methods["majority"] = _measures(truth, np.full(len(truth), terms[sizes.argmax()]))
    return methods


def reachable(cells: EvaluationSet, classes: Sequence[str], ontology: CellOntology) -> dict[str, object]:
    """Which of a set's terms some class resolves to, and the share of cells that carry them: the best accuracy.

    Parameters
    ----------
    cells
        The set.
    classes
        Cell Ontology ids that can be predicted.
    ontology
        Resolves them.
    """
    truth = cells.terms[cells.typed]
    terms = np.unique(truth)
    there = set(resolve(classes, terms, ontology)) - {OTHER}
    return {
        "terms": len(terms),
        "out_of_reach": {term: ontology.name(term) for term in terms.tolist() if term not in there},
        "best_accuracy": float(np.isin(truth, sorted(there)).mean()),
    }


def _measures(truth: NDArray[np.str_], predicted: NDArray[np.str_]) -> Measures:
    whole, resampled = score_predictions(truth, predicted), bootstrap_predictions(truth, predicted)
    return {name: _score(whole, resampled, name) for name in ("accuracy", "macro_f1", "balanced_accuracy")}


def _score(whole: PredictionScores, resampled: PredictionScores, name: str) -> Score:
    return Score(float(getattr(whole, name)[0]), getattr(resampled, name), "bootstrap")
