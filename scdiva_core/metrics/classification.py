"""How well labels can be told from a representation, and how good, and how honest, predicted labels are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Classifier = Literal["knn", "linear", "majority"]


@dataclass(frozen=True)
class CrossValidated:
    """Scores of one classifier, one of each seed.

    Parameters
    ----------
    accuracy
        float64 ``[n_seeds]``, share of cells predicted correctly when held out.
    macro_f1
        float64 ``[n_seeds]``, mean over labels of the F1 of the same predictions.
    """

    accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]


@dataclass(frozen=True)
class PredictionScores:
    """Accuracy, macro-F1 and balanced accuracy, of the cells as they are or of their resamples.

    Parameters
    ----------
    accuracy
        Share of cells predicted correctly.
    macro_f1
        Mean F1 of the labels that occur among the truths.
    balanced_accuracy
        Mean recall of the same labels.
    """

    accuracy: NDArray[np.float64]
    macro_f1: NDArray[np.float64]
    balanced_accuracy: NDArray[np.float64]


def frequent(labels: ArrayLike, fewest: int) -> NDArray[np.bool_]:
    """Mark the cells, bool ``[n_cells]``, whose label is carried by at least ``fewest`` cells."""
    _, index, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return sizes[index] >= fewest


def cross_validate(
    X: ArrayLike, labels: ArrayLike, classifier: Classifier, *, folds: int = 3, seeds: int = 5, k: int = 15
) -> CrossValidated:
    """Predict each cell from the other folds, once a seed.

    Stratified folds (Kohavi 1995), shuffled with the seeds 0, 1, ...: every representation meets the same folds.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    labels
        ``[n_cells]``; each must be carried by at least ``folds`` cells (see `frequent`).
    classifier
        ``"knn"``: the majority of the ``k`` nearest cells by Euclidean distance (Cover and Hart 1967);
        ``"linear"``: a linear probe, multinomial logistic regression (C = 1) on standardised coordinates (Alain
        and Bengio 2016); ``"majority"``: the commonest label whatever the cell, which is what chance reaches.
    folds, seeds
        Number of folds, and of repetitions.
    k
        Neighbours.

    Raises
    ------
    ValueError
        A label with fewer cells than folds, or fewer than two labels.
    """
    X, labels = np.asarray(X), np.asarray(labels)
    if len(np.unique(labels)) < 2 or not frequent(labels, folds).all():
        message = f"cross-validation needs two labels or more, each carried by at least {folds} cells"
        raise ValueError(message)
    accuracy, macro_f1 = np.empty(seeds), np.empty(seeds)
    for seed in range(seeds):
        predicted = np.empty_like(labels)
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, labels):
            model = _classifier(classifier, min(k, len(train)))
            with warnings.catch_warnings():
                # A probe that is still improving after a thousand steps is scored as it is.
                warnings.simplefilter("ignore", ConvergenceWarning)
                predicted[test] = model.fit(X[train], labels[train]).predict(X[test])
        accuracy[seed] = accuracy_score(labels, predicted)
        macro_f1[seed] = f1_score(labels, predicted, average="macro", zero_division=0)
    return CrossValidated(accuracy, macro_f1)


def score_predictions(truth: ArrayLike, predicted: ArrayLike) -> PredictionScores:
    """Score predicted labels; each field of the result holds one number.

    Parameters
    ----------
    truth
        ``[n_cells]``, no cell without a label.
    predicted
        ``[n_cells]``; a label that no truth carries is wrong and no more (it has no F1 of its own).
    """
    return _scores(_table(truth, predicted)[None])


def bootstrap_predictions(
    truth: ArrayLike, predicted: ArrayLike, *, resamples: int = 1000, seed: int = 0
) -> PredictionScores:
    """Score predicted labels on resamples of the cells (Efron 1979); each field is ``[resamples]``.

    Drawing cells with replacement is drawing their (truth, prediction) pairs from a multinomial distribution, so all
    resamples are drawn at once. A label that a resample misses does not enter that resample's mean.

    Parameters
    ----------
    truth, predicted
        As for `score_predictions`.
    resamples
        How often the cells are drawn.
    seed
        Of the draws.
    """
    table = _table(truth, predicted)
    n_cells = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(n_cells, table.ravel() / n_cells, size=resamples)
    return _scores(drawn.reshape(resamples, *table.shape))


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean distance between stated confidence and accuracy, over equal-width bins (Guo 2017, equation 3).

    Parameters
    ----------
    confidence
        Float ``[n_cells]`` in [0, 1], the probability given to each prediction.
    correct
        bool ``[n_cells]``.
    bins
        Number of bins; each is weighted by its share of the cells.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, correct, minlength=bins) - np.bincount(place, confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _classifier(name: Classifier, k: int) -> ClassifierMixin:
    if name == "knn":
        return KNeighborsClassifier(k)
    if name == "linear":
        return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return DummyClassifier(strategy="most_frequent")


def _table(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.int64]:
    """Cells of each truth (rows) and prediction (columns); the last column holds labels that no truth carries."""
    terms, rows = np.unique(np.asarray(truth).astype(str), return_inverse=True)
    predicted = np.asarray(predicted).astype(str)
    columns = np.minimum(np.searchsorted(terms, predicted), len(terms) - 1)
    columns = np.where(terms[columns] == predicted, columns, len(terms))
    table = np.zeros((len(terms), len(terms) + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def _scores(tables: NDArray[np.integer]) -> PredictionScores:
    """Scores of tables ``[n, n_terms, n_terms + 1]``; labels without a cell are left out of the means."""
    right = np.diagonal(tables, axis1=1, axis2=2).astype(np.float64)
    cells = tables.sum(axis=2)
    named = tables[:, :, :-1].sum(axis=1)
    there = cells > 0
    f1 = np.divide(2 * right, cells + named, out=np.zeros_like(right), where=there)
    recall = np.divide(right, cells, out=np.zeros_like(right), where=there)
    n_labels = there.sum(axis=1)
    return PredictionScores(
        right.sum(axis=1) / cells.sum(axis=1), f1.sum(axis=1) / n_labels, recall.sum(axis=1) / n_labels
    )
