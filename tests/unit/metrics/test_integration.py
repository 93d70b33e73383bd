"""Integration measures on cells whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import silhouette_score

from scdiva_core.metrics.integration import (
    RESOLUTIONS,
    average_batch,
    average_bio,
    batch_silhouette,
    best_clustering,
    graph_connectivity,
    label_silhouette,
    neighbor_graph,
)

RNG = np.random.default_rng(0)
LABELS = np.repeat(["T", "B", "NK"], 40)
BATCHES = np.tile(["x", "y"], 60)
TYPES_APART = np.repeat(np.eye(3) * 30, 40, axis=0) + RNG.normal(size=(120, 3))
BATCHES_APART = TYPES_APART + np.where(BATCHES == "x", 0, 15)[:, None]


def test_clusters_of_types_that_lie_apart_are_the_types() -> None:
    found = best_clustering(neighbor_graph(TYPES_APART), LABELS)
    assert (found.ari, found.nmi) == (1.0, pytest.approx(1.0))
    assert found.resolution in RESOLUTIONS


def test_the_resolution_is_the_one_with_the_highest_nmi() -> None:
    X = TYPES_APART * 0.1 + RNG.normal(size=(120, 3))
    graph = neighbor_graph(X)
    each = [best_clustering(graph, LABELS, resolutions=[resolution]) for resolution in RESOLUTIONS]
    best = best_clustering(graph, LABELS)
    assert best.nmi == max(clustering.nmi for clustering in each)
    assert len({clustering.nmi for clustering in each}) > 1
    assert best in each


def test_shuffled_labels_agree_with_no_clustering() -> None:
    found = best_clustering(neighbor_graph(TYPES_APART), RNG.permutation(LABELS))
    assert abs(found.ari) < 0.1


def test_the_graph_repeats_and_has_no_more_neighbours_than_cells() -> None:
    first, second = neighbor_graph(TYPES_APART), neighbor_graph(TYPES_APART)
    assert (first != second).nnz == 0
    assert neighbor_graph(TYPES_APART[:8]).shape == (8, 8)


def test_label_silhouette_is_scikit_learns() -> None:
    assert label_silhouette(TYPES_APART, LABELS) == silhouette_score(TYPES_APART, LABELS)


def test_batch_silhouette_worked_out_by_hand() -> None:
    # Label a: on a line, batch x at 0 and 1, batch y at 10 and 11. Each cell: own distance 1, the other batch's
    # mean 10.5 (outer cells) or 9.5 (inner ones).
    X = np.array([[0.0], [1.0], [10.0], [11.0], [5.0], [5.0]])
    s = np.mean([1 - 1 / 10.5, 1 - 1 / 9.5] * 2)
    labels, batches = list("aaaabb"), list("xxyyxx")
    # Label b is all of one batch and does not count.
    assert batch_silhouette(X, labels, batches) == pytest.approx(1 - s)


def test_batch_silhouette_falls_as_batches_part() -> None:
    mixed = batch_silhouette(TYPES_APART, LABELS, BATCHES)
    assert mixed > 0.8
    assert batch_silhouette(BATCHES_APART, LABELS, BATCHES) < 0.2
    # Every type counts the same: halves that are mixed and halves that are not meet in the middle.
    half = np.where((LABELS == "T")[:, None], BATCHES_APART, TYPES_APART)
    here = LABELS == "T"
    apart = batch_silhouette(BATCHES_APART[here], LABELS[here], BATCHES[here])
    together = batch_silhouette(TYPES_APART[~here], LABELS[~here], BATCHES[~here])
    assert batch_silhouette(half, LABELS, BATCHES) == pytest.approx((apart + 2 * together) / 3)


def test_labels_of_one_batch_each_cannot_show_mixing() -> None:
    with pytest.raises(ValueError, match="no label occurs in two batches"):
        batch_silhouette(TYPES_APART, LABELS, LABELS)


def test_graph_connectivity_worked_out_by_hand() -> None:
    # a: 0-1-2 joined, 3 alone: 3 of 4. b: 4 and 5 are joined only through 3, an a: 1 of 2.
    edges = [(0, 1), (1, 2), (3, 4), (3, 5)]
    graph = sp.coo_matrix((np.ones(4), tuple(zip(*edges, strict=True))), shape=(6, 6)).tocsr()
    graph = graph + graph.T
    assert graph_connectivity(graph, list("aaaabb")) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_averages() -> None:
    assert average_bio(0.6, 0.3, 0.2) == pytest.approx((0.6 + 0.3 + 0.6) / 3)
    assert average_bio([0.6, 0.9], [0.3, 0.6], 0.2) == pytest.approx([0.5, 0.7])
    assert average_batch(0.8, 0.4) == pytest.approx(0.6)
