"""The review queue: doubts and sets worked out by hand, and wrong labels planted in real data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from sklearn.neighbors import NearestNeighbors

from scdiva_core.errors import DataError
from scdiva_core.tasks.review import doubt, neighbor_support, neighbor_votes, review_queue

ROOT = Path(__file__).resolve().parents[3]

LABELS = np.array([0, 0, 0, 1, 1, 1])
NEIGHBORS = np.array([[1, 2], [0, 3], [3, 4], [4, 5], [3, 2], [0, 1]])


def test_neighbors_with_another_label_are_doubt() -> None:
    found = doubt(LABELS, NEIGHBORS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 0.5, 1, 0, 0.5, 1])


def test_sources_weigh_as_much_as_neighbors_and_unknown_is_another_label() -> None:
    found = doubt(LABELS, NEIGHBORS, sources=[np.array([0, 0, 1, 1, -1, 1])])
    np.testing.assert_allclose(found, [0, 0.25, 1, 0, 0.75, 0.5])
    two = doubt(LABELS, NEIGHBORS, sources=[np.array([0, 0, 1, 1, -1, 1]), LABELS])
    np.testing.assert_allclose(two, [0, 0.25, 0.75, 0, 0.5, 0.5])


def test_everything_that_is_known_of_a_cell_counts_by_its_weight() -> None:
    known = {
        "probability": np.array([1, 0.8, 0.6, 1, 0.5, 0]),
        "margin": np.array([1, 0.6, 0.3, 1, 0.2, 0]),
        "entropy": np.array([0, 0.5, 0.7, 0, 0.9, 1]),
        "novelty": np.array([0, 0, 0, 1, 0, 1.7]),
    }
    found = doubt(LABELS, NEIGHBORS, sources=[LABELS], **known)
    # ten parts: 3 neighbours, 3 sources (which agree), 1 of each of the four
    expected = [0, (1.5 + 0.2 + 0.4 + 0.5) / 10, (3 + 0.4 + 0.7 + 0.7) / 10, 0.1, (1.5 + 0.5 + 0.8 + 0.9) / 10, 0.7]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rare_types_are_not_doubted_for_being_few() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, -1])
    neighbors = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [4, 0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]])
    # two cells of type 1: of three neighbours one at most can be the other; type 2 is alone; the last is unknown
    np.testing.assert_allclose(neighbor_support(labels, neighbors), [1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(doubt(labels, neighbors, sources=[labels])[-2:], [0.5, 1])


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"probability": np.full(6, 1.2)}, "The probability goes from 1.2 to 1.2.*values from 0 to 1"),
        ({"entropy": np.array([0, 0, 0, 0, 0, 2.3])}, "The entropy goes from 0 to 2.3"),
        ({"margin": np.array([0, 0, 0, 0, 0, np.nan])}, "The margin goes"),
        ({"novelty": np.full(6, -0.1)}, "The novelty goes from -0.1"),
        ({"novelty": np.zeros(5)}, "There are novelty of 5 cells, but labels of 6"),
        ({"sources": [np.zeros(7, int)]}, "There are sources of 7 cells, but labels of 6"),
        ({"neighbors": NEIGHBORS[:5]}, "There are neighbors of 5 cells, but labels of 6"),
        ({"neighbors": NEIGHBORS + 1}, "name cells that are none of the 6"),
        ({"neighbors": NEIGHBORS[:, :0]}, "at least one neighbour"),
        ({"neighbors": np.array([[0, 1]] * 6)}, "2 cells are their own neighbours"),
    ],
)
def test_values_that_mean_something_else_are_refused(known: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        doubt(LABELS, **({"neighbors": NEIGHBORS} | known))


def test_neighbors_propose_labels_by_their_number() -> None:
    labels = np.array([0, 0, 1, 2, -1])
    neighbors = np.array([[1, 2, 3], [2, 3, 4], [0, 1, 3], [2, 0, 1], [0, 1, 2]])
    candidates, shares = neighbor_votes(labels, neighbors)
    assert candidates.tolist() == [[0, 1, 2], [1, 2, -1], [0, 2, -1], [0, 1, -1], [0, 1, -1]]
    np.testing.assert_allclose(shares * 3, [[1, 1, 1], [1, 1, 0], [2, 1, 0], [2, 1, 0], [2, 1, 0]])
    assert (candidates.dtype, shares.dtype) == (np.int32, np.float32)
    assert neighbor_votes(labels, neighbors, most=1)[0].tolist() == [[0], [1], [0], [0], [0]]


QUEUE = {
    "labels": np.array([0, 0, 0, 0, 1, 1, 1, -1]),
    "clusters": np.array([5, 5, 5, 5, 5, 7, 7, 7]),
    "doubts": np.array([0.1, 0.2, 0.6, 0.9, 0.9, 0.1, 0.3, 1.0]),
    "candidates": np.array([[0, -1], [0, 1], [1, 0], [1, -1], [0, 1], [1, -1], [1, 0], [1, 0]]),
    "probabilities": np.array(
        [[1.0, 0], [0.8, 0.2], [0.6, 0.4], [1.0, 0], [0.9, 0.1], [1.0, 0], [0.8, 0.2], [0.7, 0.2]]
    ),
}


def test_the_queue_shows_what_does_not_belong_and_then_the_rest() -> None:
    items = review_queue(**QUEUE)
    assert [(item.kind, item.cluster, item.label, item.cells.tolist()) for item in items] == [
        ("minority", 7, -1, [7]),  # 1.0 x 1: unknown, one candidate and nothing for itself
        ("doubtful", 5, 0, [3]),  # 0.9 x 1
        ("minority", 5, 1, [4]),  # 0.9 x 0.9
        ("doubtful", 5, 0, [2]),  # 0.6 x 0.6
        ("cluster", 7, 1, [6, 5]),  # 0.2 x 0.1
        ("cluster", 5, 0, [1, 0]),  # 0.15 x 0.1
    ]
    np.testing.assert_allclose([item.doubt for item in items], [1, 0.9, 0.9, 0.6, 0.2, 0.15])
    np.testing.assert_allclose([item.wrong for item in items], [1, 1, 0.9, 0.6, 0.1, 0.1])
    np.testing.assert_allclose([item.urgency for item in items], [1, 0.9, 0.81, 0.36, 0.02, 0.015])
    assert [item.size for item in items] == [1, 1, 1, 1, 2, 2]
    assert [[code for code, _ in item.candidates] for item in items] == [[1, 0], [1], [0, 1], [1, 0], [1, 0], [0, 1]]
    np.testing.assert_allclose([share for _, share in items[-1].candidates], [0.9, 0.1])


def test_at_most_three_candidates_are_shown_and_none_where_there_is_none() -> None:
    one = np.zeros(2, int)
    items = review_queue(
        np.array([3, 4]), one, np.full(2, 0.9), np.array([[3, 2, 1, 0], [-1] * 4]), np.array([[0.1, 0.3, 0.2, 0.4]] * 2)
    )
    assert [item.candidates for item in items] == [((0, 0.4), (2, 0.3), (1, 0.2)), ()]
    np.testing.assert_allclose([item.wrong for item in items], [0.4 / 0.5, 0.5])


def test_unknown_is_a_vote_like_the_others_but_loses_a_draw() -> None:
    none = np.full((5, 1), -1)
    items = review_queue(np.array([-1, -1, 3, -1, 3]), np.array([0, 0, 0, 1, 1]), np.zeros(5), none, np.zeros((5, 1)))
    kinds = {(item.cluster, item.label): item.kind for item in items}
    assert kinds == {(0, -1): "cluster", (0, 3): "minority", (1, -1): "minority", (1, 3): "cluster"}


@pytest.mark.parametrize("name", ["clusters", "doubts", "candidates"])
def test_a_queue_of_different_cells_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"There are {name} of 7 cells, but labels of 8"):
        review_queue(**(QUEUE | {name: QUEUE[name][:7]}))
    with pytest.raises(DataError, match=r"candidates \(8, 2\), but probabilities \(8, 1\)"):
        review_queue(**(QUEUE | {"probabilities": QUEUE["probabilities"][:, :1]}))


def plant(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give 5 % of the cells another type; returns the labels, and which cells they are."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(np.flatnonzero(labels >= 0), round(0.05 * len(labels)), replace=False)
    wrong = np.zeros(len(labels), bool)
    wrong[cells] = True
    shift = rng.integers(1, labels.max() + 1, len(labels))
    return np.where(wrong, (labels + shift) % (labels.max() + 1), labels), wrong


@pytest.fixture(scope="module", params=["tenx_pbmc3k", "kang2018_pbmc_ifnb_3k", "baron2016_pancreas_donors2to4"])
def real_cells(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Published labels, Leiden clusters and 15 neighbours in 50 principal components."""
    if request.param.startswith("baron"):
        folder = request.getfixturevalue("data_root") / "eval"
    else:
        folder = ROOT / "assets" / "demo"
    adata = anndata.read_h5ad(folder / f"{request.param}.h5ad")
    labels = pd.Categorical(adata.obs["cell_type"]).codes.astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        sc.pp.pca(adata, n_comps=50, random_state=0)
        sc.pp.neighbors(adata, 15, random_state=0)
        sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    neighbors = NearestNeighbors(n_neighbors=15).fit(adata.obsm["X_pca"]).kneighbors(return_distance=False)
    return labels, adata.obs["leiden"].astype(int).to_numpy(), neighbors


def test_the_first_tenth_of_the_queue_holds_nine_in_ten_planted_mistakes(
    real_cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    published, clusters, neighbors = real_cells
    for seed in range(3):
        labels, wrong = plant(published, seed)
        assert (labels != published).sum() == wrong.sum() == round(0.05 * len(labels))
        items = review_queue(labels, clusters, doubt(labels, neighbors), *neighbor_votes(labels, neighbors))
        order = np.concatenate([item.cells for item in items])
        assert np.array_equal(np.sort(order), np.arange(len(labels))), "every cell once"
        assert wrong[order[: len(order) // 10]].sum() >= 0.9 * wrong.sum()


def test_the_same_input_gives_the_same_queue(real_cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, clusters, neighbors = real_cells
    given = labels, clusters, doubt(labels, neighbors), *neighbor_votes(labels, neighbors)
    one, two = review_queue(*given), review_queue(*given)
    assert [item.cells.tolist() for item in one] == [item.cells.tolist() for item in two]
    assert [item.urgency for item in one] == sorted((item.urgency for item in one), reverse=True)
