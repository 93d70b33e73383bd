"""PCA beside the embedding, and neighbours, Leiden and UMAP of either: scanpy and umap-learn, seeded."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch.cuda import is_available as gpu_is_there

from scdiva_core import compiled
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError
from scdiva_core.tasks import sketch
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

FIT_CELLS = 50_000
"""Cells that PCA is fitted on at most; the rest are projected (our choice, to bound memory)."""

N_TOP_GENES = 2000
"""Highly variable genes that PCA sees (scanpy's usual number)."""

NEIGHBORS = 15
"""Nearest cells that are heard about each cell."""

EXACT_CELLS = 20_000
"""Cells up to which neighbours are searched exactly; beyond, pynndescent finds nearly all of them in far less time."""

SKETCH_ABOVE = 200_000
"""Cells up to which all are drawn; beyond, a sketch is, and the others take their places from it (our choice)."""

_FEWEST_CELLS = 5
_STEPS = ("Finding neighbours", "Clustering (Leiden)", "Drawing the map (UMAP)")


@dataclass(frozen=True)
class ProjectionSettings:
    """How to draw a map.

    Parameters
    ----------
    n_neighbors, min_dist
        Of the neighbour graph and of UMAP.
    resolution
        Of Leiden; higher gives more clusters.
    n_pcs
        Principal components of the PCA baseline.
    seed
        Of UMAP, Leiden and PCA.
    """

    n_neighbors: int = 15
    min_dist: float = 0.5
    resolution: float = 1.0
    n_pcs: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_neighbors", 2, 200),
            ("min_dist", 0.0, 1.0),
            ("resolution", 0.01, 10.0),
            ("n_pcs", 2, 200),
        ):
            if not low <= getattr(self, name) <= high:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, f"Choose a value from {low} to {high}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload or a result's key."""
        return asdict(self)


@dataclass(frozen=True)
class Projection:
    """A map of the cells.

    Attributes
    ----------
    coordinates
        float32 ``[n_obs, 2]`` UMAP.
    leiden
        int32 ``[n_obs]`` cluster numbers, 0 the largest.
    representation
        ``"X_scdiva"`` or ``"X_pca"``.
    settings
        How it was made.
    sketched
        How many cells were drawn and clustered, the others being placed by the nearest of them; None for all.
    """

    coordinates: NDArray[np.float32]
    leiden: NDArray[np.int32]
    representation: str
    settings: ProjectionSettings
    sketched: int | None = None


def project(
    vectors: NDArray[np.float32],
    representation: str,
    settings: ProjectionSettings,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Projection:
    """Draw cells by their vectors: all, or beyond `SKETCH_ABOVE` a sketch of them on which the others are placed.

    On a GPU with rapids-singlecell all cells are drawn, whatever their number.

    Parameters
    ----------
    vectors
        float32 ``[n_obs, d]``.
    representation
        Name to record.
    settings
        Of graph, clustering and map.
    progress, cancelled
        Called between the steps.

    Raises
    ------
    DataError
        Fewer than five cells.
    """
    if len(vectors) < _FEWEST_CELLS:
        msg = f"{len(vectors)} cells are too few for a map."
        raise DataError(msg, f"Choose at least {_FEWEST_CELLS} cells.")
    if len(vectors) <= SKETCH_ABOVE or _rapids() is not None:
        # A copy: what the store maps from disk cannot be written to, which the search for neighbours does not
        # compile for.
        coordinates, clusters = _drawn(np.array(vectors), settings, _shifted(progress, 0, 3), cancelled)
        progress(3, 3, _STEPS[-1])
        return Projection(coordinates, clusters, representation, settings)
    progress(0, 5, f"Choosing {sketch.SKETCH_CELLS:,} cells for the map")
    strata = sketch.stratify(vectors, seed=settings.seed, cancelled=cancelled)
    rows = sketch.choose(strata, sketch.SKETCH_CELLS, seed=settings.seed)
    coordinates, clusters = _drawn(np.array(vectors[rows]), settings, _shifted(progress, 1, 5), cancelled)
    stop_if(cancelled)
    progress(4, 5, "Placing the other cells")
    coordinates, clusters = sketch.place(vectors, strata, rows, coordinates, clusters, cancelled=cancelled)
    progress(5, 5, "Placing the other cells")
    return Projection(coordinates, _largest_first(clusters), representation, settings, len(rows))


def _shifted(progress: Progress, first: int, total: int) -> Callable[[int], None]:
    """Report the steps of a drawing as part of all steps."""
    return lambda step: progress(first + step, total, _STEPS[step])


def _drawn(
    vectors: NDArray[np.float32], settings: ProjectionSettings, begun: Callable[[int], None], cancelled: IsCancelled
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Neighbours, clusters and coordinates of cells."""
    adata = anndata.AnnData(obsm={"X_drawn": vectors})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy and umap warn of choices made here on purpose
        for number, step in enumerate(_tools(adata, settings)):
            stop_if(cancelled)
            begun(number)
            step()
    clusters = adata.obs["leiden"].astype(int).to_numpy()
    return np.asarray(adata.obsm["X_umap"], np.float32), _largest_first(clusters)


def _tools(adata: anndata.AnnData, settings: ProjectionSettings) -> list[Callable[[], object]]:
    """What each of `_STEPS` calls."""
    seed, graph = {"random_state": settings.seed}, {"use_rep": "X_drawn"}
    n_neighbors = min(settings.n_neighbors, adata.n_obs - 1)
    rapids = _rapids()
    if rapids is not None:
        return [
            lambda: rapids.pp.neighbors(adata, n_neighbors, **graph, **seed),
            lambda: rapids.tl.leiden(adata, settings.resolution, **seed),
            lambda: rapids.tl.umap(adata, min_dist=settings.min_dist, **seed),
        ]
    import scanpy as sc  # seconds to import, and only a job needs it

    quick: dict[str, Any] = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    return [
        lambda: add_neighbors(adata, n_neighbors, **graph, **seed),
        lambda: sc.tl.leiden(adata, settings.resolution, **quick, **seed),
        lambda: sc.tl.umap(adata, min_dist=settings.min_dist, **seed),
    ]


def add_neighbors(adata: anndata.AnnData, n_neighbors: int, *, use_rep: str, random_state: int) -> None:
    """Add scanpy's graph of nearest neighbours: exact up to `EXACT_CELLS`, approximate beyond.

    scanpy leaves exact search at 8,192 cells, and what it takes then compiles for over a minute in each process.

    Parameters
    ----------
    adata
        Gets what ``scanpy.pp.neighbors`` adds.
    n_neighbors, use_rep, random_state
        As there.
    """
    import scanpy as sc

    compiled.umap_learn()
    search = "sklearn" if adata.n_obs <= EXACT_CELLS else _approximate(adata.n_obs, n_neighbors, random_state)
    sc.pp.neighbors(adata, n_neighbors, use_rep=use_rep, random_state=random_state, transformer=search)


def _approximate(n_obs: int, n_neighbors: int, seed: int) -> Any:
    """Set pynndescent up as scanpy does, but stop it at the neighbours.

    Its own ``fit_transform`` goes on to an index for cells that are not there, which nobody asks for, and compiles for
    longer over that than over the search.
    """
    import scanpy as sc
    from pynndescent import PyNNDescentTransformer

    class NeighborsOnly(PyNNDescentTransformer):
        def fit_transform(self, X: Any, y: Any = None, **_: Any) -> sp.csr_matrix:
            return self.fit(X, compress_index=False).transform(None)

    trees, rounds = min(64, 5 + round(n_obs**0.5 / 20)), max(5, round(np.log2(n_obs)))
    return NeighborsOnly(
        n_neighbors=n_neighbors, random_state=seed, n_trees=trees, n_iters=rounds, n_jobs=sc.settings.n_jobs
    )


def _rapids() -> Any:
    """The same tools for a GPU, where there is one and somebody has installed them; else None."""
    if find_spec("rapids_singlecell") is None or not gpu_is_there():
        return None
    return importlib.import_module("rapids_singlecell")


def _largest_first(clusters: NDArray[np.integer]) -> NDArray[np.int32]:
    """Number clusters by their size: tools do that, if at all, among the cells that they see."""
    order = np.argsort(-np.bincount(clusters), kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[clusters]


def nearest_cells(vectors: NDArray[np.floating], k: int = NEIGHBORS, *, seed: int = 0) -> NDArray[np.int64]:
    """Find each cell's nearest others by Euclidean distance.

    Parameters
    ----------
    vectors
        ``[n, d]``.
    k
        Neighbours; all other cells where there are fewer.
    seed
        Of the approximate searches, see `EXACT_CELLS` and, in parts and in less memory, `SKETCH_ABOVE`.

    Returns
    -------
    ndarray
        int64 ``[n, k]`` places, the nearest first; never the cell itself.

    Raises
    ------
    DataError
        There are fewer than two cells.
    """
    n_cells = len(vectors)
    if n_cells < 2:
        msg = f"{n_cells} cells have no neighbours."
        raise DataError(msg, "Choose a larger data set.")
    k = min(k, n_cells - 1)
    if n_cells > SKETCH_ABOVE:
        return _nearest_in_parts(vectors, k, seed)
    vectors = np.array(vectors, np.float32)  # a copy, as in `project`
    if n_cells <= EXACT_CELLS:
        from sklearn.neighbors import NearestNeighbors  # half a second, and a page needs none of it

        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors)
        return search.kneighbors(return_distance=False).astype(np.int64)
    found = compiled.umap_learn().nearest_neighbors(
        vectors, k + 1, "euclidean", {}, False, np.random.RandomState(seed)
    )[0]
    return _others(found, np.arange(n_cells))


def _nearest_in_parts(vectors: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int64]:
    strata = sketch.stratify(vectors, seed=seed)
    made = np.empty((len(vectors), k), np.int64)
    for rows, places, _ in sketch.nearest(vectors, strata, np.arange(len(vectors)), k + 1):
        made[rows] = _others(places, rows)
    return made


def _others(found: NDArray[np.integer], rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """Leave the cell itself out: it is usually found first; among equal cells it may come later, or not at all."""
    own = found == rows[:, None]
    return np.take_along_axis(found, np.argsort(own, axis=1, kind="stable"), axis=1)[:, :-1].astype(np.int64)


def compile_ahead() -> threading.Thread:
    """Draw a map of a few made-up points in the background, for what numba compiles on the way.

    On a fresh installation the first map takes half a minute of compiling (`compiled` keeps the result on disk), which
    may as well pass while cells are embedded.

    Returns
    -------
    Thread
        Running; wait for it before anything else is drawn. It ends with the process at the latest.
    """

    def draw() -> None:
        import scanpy as sc

        points = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
        adata = anndata.AnnData(obsm={"X_points": points})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `project`
            add_neighbors(adata, 15, use_rep="X_points", random_state=0)
            sc.tl.umap(adata, random_state=0)

    thread = threading.Thread(target=draw, name="compile-ahead", daemon=True)
    thread.start()
    return thread


def principal_components(
    dataset: H5adDataset,
    settings: ProjectionSettings,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float32]:
    """PCA of log1p expression over highly variable genes: the baseline that every map stands beside.

    Returns
    -------
    ndarray
        float32 ``[n_obs, <= n_pcs]``.

    Raises
    ------
    DataError
        Fewer than five cells or ten variable genes.
    """
    import scanpy as sc

    rng = np.random.default_rng(settings.seed)
    fitted = np.zeros(dataset.n_obs, bool)
    fitted[rng.choice(dataset.n_obs, min(FIT_CELLS, dataset.n_obs), replace=False)] = True
    sample = []
    for start, block in dataset.chunks():
        stop_if(cancelled)
        progress(start, 2 * dataset.n_obs, "Computing PCA")
        sample.append(block[fitted[start : start + block.shape[0]]])
    adata = anndata.AnnData(sp.vstack(sample, format="csr"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy warns of missing raw counts, which this flavour does not need
        sc.pp.filter_genes(adata, min_cells=1)
        if adata.n_obs < _FEWEST_CELLS or adata.n_vars < 10:
            msg = f"{adata.n_obs} cells with {adata.n_vars} detected genes are too few for a PCA."
            raise DataError(msg, "Choose a larger data set.")
        sc.pp.highly_variable_genes(adata, n_top_genes=min(N_TOP_GENES, adata.n_vars))
        genes = adata.var_names[adata.var["highly_variable"]].astype(int)
        adata = adata[:, adata.var["highly_variable"]].copy()
        n_pcs = min(settings.n_pcs, min(adata.shape) - 1)
        sc.pp.pca(adata, n_comps=n_pcs, random_state=settings.seed)
    loadings = adata.varm["PCs"].astype(np.float32)
    mean = np.asarray(adata.X.mean(axis=0)).ravel() @ loadings
    vectors = np.empty((dataset.n_obs, n_pcs), np.float32)
    for start, block in dataset.chunks():
        stop_if(cancelled)
        progress(dataset.n_obs + start, 2 * dataset.n_obs, "Computing PCA")
        vectors[start : start + block.shape[0]] = block[:, genes] @ loadings - mean
    return vectors
