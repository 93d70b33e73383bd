"""Every measure of one set's, or one pool's, representations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scdiva_core.baselines.harmony import harmonise
from scdiva_core.evaluation.representations import Vectors
from scdiva_core.evaluation.scores import Measures, Methods, Score
from scdiva_core.evaluation.sets import FOLDS, EvaluationSet
from scdiva_core.metrics.classification import Classifier, cross_validate
from scdiva_core.metrics.integration import (
    average_batch,
    average_bio,
    batch_silhouette,
    best_clustering,
    graph_connectivity,
    label_silhouette,
    neighbor_graph,
)

_CLUSTERS = ("ari", "nmi", "silhouette")


def measure_set(cells: EvaluationSet, vectors: Vectors, seeds: int) -> dict[str, Methods]:
    """Measure one set's representations on the cells of its frequent types.

    Parameters
    ----------
    cells
        The set.
    vectors
        Representations of all its cells; must hold ``"pca"``.
    seeds
        Repetitions of the cross-validation and of Leiden.

    Returns
    -------
    dict
        ``"classification"`` and ``"clusters"``, each with ``"chance"``: the commonest label, and clusters of the PCA
        against shuffled labels. With batches also ``"integration"``, with ``"harmony"`` of the PCA.
    """
    rows = cells.measured
    labels, measured = cells.labels[rows], {method: X[rows] for method, X in vectors.items()}
    pca = measured["pca"]
    classified = {
        method: _cross_validated(X, labels, {"knn": "knn", "probe": "linear"}, seeds) for method, X in measured.items()
    }
    classified["chance"] = _cross_validated(pca, labels, {"knn": "majority", "probe": "majority"}, seeds)
    structure = {method: _structure(X, labels, seeds) for method, X in measured.items()}
    by_chance = _structure(pca, np.random.default_rng(0).permutation(labels), seeds)
    groups = {
        "classification": classified,
        "clusters": {
            method: {name: scores[name] for name in _CLUSTERS}
            for method, scores in {**structure, "chance": by_chance}.items()
        },
    }
    if cells.batches is not None:
        batches = cells.batches[rows]
        measured["harmony"] = harmonise(pca, batches)
        structure["harmony"] = _structure(measured["harmony"], labels, seeds)
        groups["integration"] = {
            method: _integration(X, labels, batches, structure[method]) for method, X in measured.items()
        }
    return groups


def measure_pool(vectors: Vectors, terms: NDArray[np.str_], studies: NDArray[np.str_], seeds: int) -> Methods:
    """Measure how types hold together and studies mix, with ``"harmony"`` of the PCA among the methods.

    Parameters
    ----------
    vectors
        Representations of the pool's cells; must hold ``"pca"``.
    terms, studies
        Cell Ontology id and study of each cell, ``[n_cells]``.
    seeds
        Repetitions of Leiden.
    """
    vectors = {**vectors, "harmony": harmonise(vectors["pca"], studies)}
    return {method: _integration(X, terms, studies, _structure(X, terms, seeds)) for method, X in vectors.items()}


def _cross_validated(
    X: NDArray[np.float32], labels: NDArray[np.str_], classifiers: Mapping[str, Classifier], seeds: int
) -> Measures:
    measures = {}
    for name, classifier in classifiers.items():
        found = cross_validate(X, labels, classifier, folds=FOLDS, seeds=seeds)
        measures[f"{name}_accuracy"] = Score.over_seeds(found.accuracy)
        measures[f"{name}_macro_f1"] = Score.over_seeds(found.macro_f1)
    return measures


def _structure(X: NDArray[np.float32], labels: NDArray[np.str_], seeds: int) -> Measures:
    """Agreement of clusters and distances with the labels, and connectivity, on one neighbour graph."""
    graph = neighbor_graph(X)
    found = [best_clustering(graph, labels, seed=seed) for seed in range(seeds)]
    return {
        "ari": Score.over_seeds(np.array([clustering.ari for clustering in found])),
        "nmi": Score.over_seeds(np.array([clustering.nmi for clustering in found])),
        "silhouette": Score(label_silhouette(X, labels)),
        "graph_connectivity": Score(graph_connectivity(graph, labels)),
    }


def _integration(
    X: NDArray[np.float32], labels: NDArray[np.str_], batches: NDArray[np.str_], structure: Measures
) -> Measures:
    bio = average_bio(structure["nmi"].samples, structure["ari"].samples, structure["silhouette"].value)
    asw, connectivity = batch_silhouette(X, labels, batches), structure["graph_connectivity"]
    return {
        "avg_bio": Score.over_seeds(bio),
        "avg_batch": Score(average_batch(asw, connectivity.value)),
        "batch_asw": Score(asw),
        "graph_connectivity": connectivity,
    }
