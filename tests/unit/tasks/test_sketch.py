"""A sketch keeps what is rare, and cells that are not in it find their places."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import scanpy as sc
from sklearn.neighbors import NearestNeighbors

from scdiva_core.errors import Cancelled
from scdiva_core.tasks import neighbors, sketch
from scdiva_core.tasks.neighbors import ProjectionSettings, nearest_cells, project
from scdiva_core.tasks.sketch import Strata, choose, place, stratify

SIZES = (6000, 2000, 60)


@pytest.fixture(scope="module")
def clouds() -> np.ndarray:
    """Three groups far apart, the last one rare, in no order."""
    rng = np.random.default_rng(0)
    kinds = rng.permutation(np.repeat([0, 1, 2], SIZES))
    return (20 * np.eye(6)[kinds] + rng.normal(size=(len(kinds), 6))).astype(np.float32)


@pytest.fixture(scope="module")
def kinds(clouds: np.ndarray) -> np.ndarray:
    return clouds[:, :3].argmax(axis=1)


@pytest.fixture
def small_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "SKETCH_ABOVE", 3000)
    monkeypatch.setattr(sketch, "SKETCH_CELLS", 600)
    monkeypatch.setattr(sketch, "_STRATUM", 200)


def test_strata_give_equally_many_and_small_ones_all() -> None:
    strata = Strata(np.repeat([0, 1, 2], [1600, 400, 4]).astype(np.int32), np.zeros((3, 2), np.float32))
    chosen = choose(strata, 64)
    assert list(np.bincount(strata.of[chosen])) == [30, 30, 4]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, choose(strata, 64))
    assert not np.array_equal(chosen, choose(strata, 64, seed=1))
    np.testing.assert_array_equal(choose(strata, 5000), np.arange(2004))


@pytest.mark.parametrize("size", [1, 7, 333, 2003])
def test_a_sketch_has_the_size_that_was_asked_for(size: int) -> None:
    of = np.random.default_rng(1).integers(0, 9, 2004).astype(np.int32)
    chosen = choose(Strata(of, np.zeros((12, 2), np.float32)), size)
    assert len(np.unique(chosen)) == size


@pytest.mark.usefixtures("small_sketch")
def test_rare_cells_are_kept(clouds: np.ndarray, kinds: np.ndarray) -> None:
    chosen = choose(stratify(clouds), 600)
    share = np.bincount(kinds[chosen]) / np.array(SIZES)
    assert share[2] > 2 * share[0]


def test_a_cell_takes_the_cluster_and_the_place_of_its_nearest() -> None:
    vectors = np.array([[0.0], [1.0], [2.0], [9.0], [10.0], [0.75]], np.float32)
    strata = Strata(np.zeros(6, np.int32), np.zeros((1, 1), np.float32))
    known = np.array([0, 1, 2, 3, 4])
    xy = np.array([[0, 0], [4, 0], [4, 4], [90, 90], [95, 90]], np.float32)
    places, clusters = place(vectors, strata, known, xy, np.array([7, 7, 7, 3, 3]))
    np.testing.assert_array_equal(places[:5], xy)
    assert list(clusters) == [7, 7, 7, 3, 3, 7]
    weights = 1 / np.array([0.75, 0.25, 1.25])  # the two far away are of another cluster and do not pull
    np.testing.assert_allclose(places[5], weights @ xy[:3] / weights.sum(), rtol=1e-5)


@pytest.mark.usefixtures("small_sketch")
def test_beyond_a_number_of_cells_a_sketch_is_drawn_and_the_map_says_so(clouds: np.ndarray, kinds: np.ndarray) -> None:
    said: list[tuple[int, int, str]] = []
    made = project(clouds, "X_scdiva", ProjectionSettings(), progress=lambda *state: said.append(state))
    assert made.sketched == 600
    assert made.coordinates.shape == (8060, 2)
    assert (made.coordinates.dtype, made.leiden.dtype) == (np.float32, np.int32)
    assert np.isfinite(made.coordinates).all()
    for cluster in range(made.leiden.max() + 1):
        assert len(set(kinds[made.leiden == cluster])) == 1, "no cluster holds two clouds"
    sizes = np.bincount(made.leiden)
    assert (np.diff(sizes) <= 0).all(), "0 is the largest among all cells"
    centres = np.array([made.coordinates[kinds == kind].mean(axis=0) for kind in range(3)])
    nearest = np.linalg.norm(made.coordinates[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == kinds).mean() > 0.99
    assert [message for _, _, message in said] == [
        "Choosing 600 cells for the map",
        "Finding neighbours",
        "Clustering (Leiden)",
        "Drawing the map (UMAP)",
        "Placing the other cells",
        "Placing the other cells",
    ]
    assert [done for done, total, _ in said] == [0, 1, 2, 3, 4, 5]


def test_up_to_that_number_all_cells_are_drawn(clouds: np.ndarray) -> None:
    assert project(clouds[:300], "X_scdiva", ProjectionSettings()).sketched is None


@pytest.mark.usefixtures("small_sketch")
def test_a_sketch_can_be_stopped(clouds: np.ndarray) -> None:
    with pytest.raises(Cancelled):
        project(clouds, "X", ProjectionSettings(), cancelled=lambda: True)


@pytest.mark.usefixtures("small_sketch")
def test_neighbours_that_are_searched_in_parts_are_nearly_all_the_nearest(clouds: np.ndarray) -> None:
    found = nearest_cells(clouds)
    assert (found != np.arange(len(clouds))[:, None]).all()
    exact = NearestNeighbors(n_neighbors=16, algorithm="brute").fit(clouds).kneighbors(return_distance=False)[:, :15]
    shared = np.mean([len(set(mine) & set(other)) / 15 for mine, other in zip(found, exact, strict=True)])
    assert shared > 0.9


@pytest.mark.usefixtures("small_sketch")
def test_cells_that_are_all_alike_have_neighbours_and_places() -> None:
    alike = np.ones((3100, 4), np.float32)
    found = nearest_cells(alike, 3)
    assert (found != np.arange(3100)[:, None]).all()
    strata, xy = stratify(alike), np.ones((600, 2), np.float32)
    rows = choose(strata, 600)
    np.testing.assert_array_equal(place(alike, strata, rows, xy, np.zeros(600, int))[0], np.ones((3100, 2)))


@pytest.mark.usefixtures("small_sketch")
def test_rapids_on_a_gpu_draws_all_cells(clouds: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    rapids = ModuleType("rapids_singlecell")
    rapids.__spec__ = sc.__spec__
    rapids.pp, rapids.tl = ModuleType("pp"), ModuleType("tl")
    called: list[str] = []

    def leiden(adata, resolution: float, *, random_state: int) -> None:
        called.append("leiden")
        adata.obs["leiden"] = np.where(np.arange(adata.n_obs) < 100, "0", "1")  # not by size, as cugraph's are not

    def umap(adata, *, min_dist: float, random_state: int) -> None:
        called.append("umap")
        adata.obsm["X_umap"] = np.zeros((adata.n_obs, 2))

    rapids.pp.neighbors = lambda adata, n_neighbors, *, use_rep, random_state: called.append("neighbors")
    rapids.tl.leiden, rapids.tl.umap = leiden, umap
    monkeypatch.setitem(sys.modules, "rapids_singlecell", rapids)
    monkeypatch.setattr(neighbors, "gpu_is_there", lambda: True)
    made = project(clouds, "X_scdiva", ProjectionSettings())
    assert called == ["neighbors", "leiden", "umap"]
    assert (made.sketched, made.leiden[0], made.leiden[-1]) == (None, 1, 0)
