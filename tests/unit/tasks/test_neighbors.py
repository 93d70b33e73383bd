"""Maps that repeat, and PCA that is scanpy's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks import neighbors
from scdiva_core.tasks.neighbors import ProjectionSettings, compile_ahead, nearest_cells, principal_components, project

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
MAP = ProjectionSettings(n_neighbors=10)


@pytest.fixture(scope="module")
def clouds() -> np.ndarray:
    """Three groups of 40, 30 and 20 points in six dimensions."""
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(6)[:3]
    return np.concatenate(
        [rng.normal(centre, 1, (n, 6)) for centre, n in zip(centres, (40, 30, 20), strict=True)]
    ).astype(np.float32)


def test_one_seed_one_map(clouds: np.ndarray) -> None:
    one, two = (project(clouds, "X_scdiva", MAP) for _ in range(2))
    assert np.array_equal(one.coordinates, two.coordinates)
    assert np.array_equal(one.leiden, two.leiden)
    other = project(clouds, "X_scdiva", ProjectionSettings(n_neighbors=10, seed=1))
    assert not np.allclose(one.coordinates, other.coordinates)
    assert one.coordinates.shape == (90, 2)
    assert (one.coordinates.dtype, one.leiden.dtype) == (np.float32, np.int32)
    assert (one.representation, one.settings) == ("X_scdiva", MAP)


def test_clusters_are_the_clouds_the_largest_first(clouds: np.ndarray) -> None:
    made = project(clouds, "X_scdiva", ProjectionSettings(n_neighbors=10, resolution=0.1))
    assert np.array_equal(made.leiden, np.repeat([0, 1, 2], [40, 30, 20]))
    centres = np.array([made.coordinates[made.leiden == k].mean(axis=0) for k in range(3)])
    spread = max(made.coordinates[made.leiden == k].std(axis=0).max() for k in range(3))
    gaps = [np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 2 * spread


def test_vectors_are_left_alone(clouds: np.ndarray) -> None:
    stored = clouds.copy()
    stored.flags.writeable = False  # as a result from the store is
    project(stored, "X_scdiva", MAP)
    assert np.array_equal(stored, clouds)


@pytest.mark.parametrize("n", [5, 6, 9])
def test_few_cells_still_make_a_map(clouds: np.ndarray, n: int) -> None:
    made = project(clouds[::10][:n], "X_scdiva", ProjectionSettings())
    assert made.coordinates.shape == (n, 2)
    assert np.isfinite(made.coordinates).all()


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_cells_are_refused(clouds: np.ndarray, n: int) -> None:
    with pytest.raises(DataError, match=f"{n} cells are too few for a map") as caught:
        project(clouds[:n], "X_scdiva", MAP)
    assert "at least 5" in caught.value.hint


def test_cells_that_are_all_alike_still_make_a_map() -> None:
    made = project(np.ones((30, 4), np.float32), "X_scdiva", MAP)
    assert np.isfinite(made.coordinates).all()


def test_work_stops_between_the_steps(clouds: np.ndarray) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        project(clouds, "X", MAP, progress=lambda *state: seen.append(state[2]), cancelled=lambda: len(seen) > 1)
    assert seen == ["Finding neighbours", "Clustering (Leiden)"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_neighbors": 1}, "n_neighbors is 1"),
        ({"min_dist": 1.5}, r"min_dist is 1\.5"),
        ({"resolution": 0.0}, r"resolution is 0\.0"),
        ({"resolution": float("nan")}, "resolution is nan"),
        ({"n_pcs": 1000}, "n_pcs is 1000"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ProjectionSettings(**changes)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> anndata.AnnData:
    """300 cells by some 7,000 genes that are all known under a name of their own."""
    cells = anndata.read_h5ad(DEMO / "tenx_pbmc3k.h5ad")[:300]
    ids = human_genes().match(list(cells.var_names)).ids
    _, first, repeats = np.unique(ids, return_index=True, return_counts=True)
    kept = np.sort(first[(repeats == 1) & (ids[first] >= 0)])
    cells = cells[:, kept]
    cells = cells[:, np.asarray((cells.X > 0).sum(axis=0)).ravel() >= 5].copy()
    cells.X = cells.X.astype(np.float32)
    cells.write_h5ad(tmp_path_factory.mktemp("wide") / "wide.h5ad")
    cells.uns["path"] = next(tmp_path_factory.getbasetemp().glob("wide*/wide.h5ad"))
    return cells


@pytest.fixture
def opened(wide: anndata.AnnData) -> Iterator[H5adDataset]:
    with open_h5ad(wide.uns["path"], human_genes()) as dataset:
        yield dataset


def scanpy_loadings(cells: anndata.AnnData) -> anndata.AnnData:
    """The standard pipeline, step by step."""
    cells = anndata.AnnData(cells.X.copy(), obs=cells.obs, var=cells.var)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    sc.pp.highly_variable_genes(cells, n_top_genes=2000)
    sc.pp.pca(cells, n_comps=20)
    return cells


def test_components_are_scanpy_s_up_to_sign(wide: anndata.AnnData, opened: H5adDataset) -> None:
    assert wide.n_vars > 4000
    expected = scanpy_loadings(wide).obsm["X_pca"]
    found = principal_components(opened, ProjectionSettings(n_pcs=20))
    assert found.shape == (300, 20)
    assert found.dtype == np.float32
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-3 * expected.std())


def test_cells_beyond_the_fitted_ones_are_projected(
    wide: anndata.AnnData, opened: H5adDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "FIT_CELLS", 200)
    found = principal_components(opened, ProjectionSettings(n_pcs=5, seed=3))
    fitted = np.sort(np.random.default_rng(3).choice(300, 200, replace=False))
    detected = np.asarray((wide.X[fitted] > 0).sum(axis=0)).ravel() > 0
    expected = scanpy_loadings(wide[fitted][:, detected]).obsm["X_pca"][:, :5]
    signs = np.sign((found[fitted] * expected).sum(axis=0))
    np.testing.assert_allclose(found[fitted] * signs, expected, atol=2e-2 * expected.std())
    rest = np.delete(found, fitted, axis=0)
    assert np.isfinite(rest).all()
    assert 0.5 < rest[:, 0].std() / found[fitted, 0].std() < 2


def test_fewer_components_than_asked_for_where_there_are_fewer_cells(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    small_cells[:12].copy().write_h5ad(tmp_path / "few.h5ad")
    with open_h5ad(tmp_path / "few.h5ad", small_vocabulary) as dataset:
        assert principal_components(dataset, ProjectionSettings(n_pcs=50)).shape == (12, 11)


def test_too_few_cells_for_components(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    small_cells[:4].copy().write_h5ad(tmp_path / "few.h5ad")
    with (
        open_h5ad(tmp_path / "few.h5ad", small_vocabulary) as dataset,
        pytest.raises(DataError, match="4 cells with .* detected genes are too few for a PCA"),
    ):
        principal_components(dataset, ProjectionSettings())


def test_more_cells_than_are_searched_exactly_have_a_map_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """pynndescent searches neighbours then; vectors come read-only, as the store maps them from disk."""
    monkeypatch.setattr(neighbors, "EXACT_CELLS", 8_000)
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (5000, 8)), rng.normal(12, 1, (3500, 8))]).astype(np.float32)
    vectors.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = project(vectors, "X_scdiva", ProjectionSettings(resolution=0.05))
    assert made.coordinates.shape == (8500, 2)
    first, second = made.leiden[:5000], made.leiden[5000:]
    assert not set(first) & set(second), "two clouds far apart share no cluster"
    assert (nearest_cells(vectors, 3)[:5000] < 5000).all()


def test_compiling_ahead_ends_and_leaves_maps_as_they_are(clouds: np.ndarray) -> None:
    before = project(clouds, "X_scdiva", ProjectionSettings())
    thread = compile_ahead()
    thread.join(120)
    assert not thread.is_alive()
    after = project(clouds, "X_scdiva", ProjectionSettings())
    np.testing.assert_array_equal(before.coordinates, after.coordinates)
    np.testing.assert_array_equal(before.leiden, after.leiden)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**16))
def test_neighbours_are_others_and_the_nearest(n_cells: int, k: int, seed: int) -> None:
    # Whole numbers on a line: many cells are equal, which is where a cell may be taken for its own neighbour.
    vectors = np.random.default_rng(seed).integers(0, 5, (n_cells, 1)).astype(float)
    found = nearest_cells(vectors, k)
    assert found.shape == (n_cells, min(k, n_cells - 1))
    assert (found != np.arange(n_cells)[:, None]).all()
    distances = np.abs(vectors - vectors.T)
    np.fill_diagonal(distances, np.inf)
    expected = np.sort(distances, axis=1)[:, : found.shape[1]]
    np.testing.assert_allclose(np.take_along_axis(distances, found, axis=1), expected, atol=1e-6)


def test_the_approximate_search_finds_nearly_all(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(5000, 8))
    vectors[4000:4020] = vectors[4000]  # equal cells do not find themselves first
    exact = nearest_cells(vectors)
    monkeypatch.setattr(neighbors, "EXACT_CELLS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = nearest_cells(vectors)
    assert found.shape == exact.shape
    assert (found != np.arange(5000)[:, None]).all()
    others = np.r_[0:4000, 4020:5000]
    shared = np.mean([len(set(found[row]) & set(exact[row])) / 15 for row in others])
    assert shared > 0.9


def test_one_cell_has_no_neighbour() -> None:
    with pytest.raises(DataError, match="1 cells have no neighbours"):
        nearest_cells(np.zeros((1, 3)))
