"""PCA beside the embedding, and neighbours, Leiden and UMAP of either: scanpy and umap-learn, seeded."""

from __future__ import annotations

import threading
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

FIT_CELLS = 50_000
"""Cells that PCA is fitted on at most; the rest are projected (our choice, to bound memory)."""

N_TOP_GENES = 2000
"""Highly variable genes that PCA sees (scanpy's usual number)."""

NEIGHBORS = 15
"""Nearest cells that are heard about each cell."""

EXACT_CELLS = 20_000
"""Cells up to which neighbours are searched exactly; beyond, pynndescent finds nearly all of them in far less time."""

_FEWEST_CELLS = 5


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
    """

    coordinates: NDArray[np.float32]
    leiden: NDArray[np.int32]
    representation: str
    settings: ProjectionSettings


def project(
    vectors: NDArray[np.float32],
    representation: str,
    settings: ProjectionSettings,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Projection:
    """Draw cells by their vectors.

    Parameters
    ----------
    vectors
        float32 ``[n_obs, d]``.
    representation
        Name to record.
    settings
        Of graph, clustering and map.
    progress, cancelled
        Called between the three steps.

    Raises
    ------
    DataError
        Fewer than five cells.
    """
    if len(vectors) < _FEWEST_CELLS:
        msg = f"{len(vectors)} cells are too few for a map."
        raise DataError(msg, f"Choose at least {_FEWEST_CELLS} cells.")
    import scanpy as sc  # seconds to import, and only a job needs it

    # A copy: what the store maps from disk cannot be written to, which the search for neighbours does not compile for.
    adata = anndata.AnnData(obsm={representation: np.array(vectors)})
    n_neighbors = min(settings.n_neighbors, len(vectors) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy and umap warn of choices made here on purpose
        progress(0, 3, "Finding neighbours")
        sc.pp.neighbors(adata, n_neighbors, use_rep=representation, random_state=settings.seed)
        stop_if(cancelled)
        progress(1, 3, "Clustering (Leiden)")
        sc.tl.leiden(
            adata,
            settings.resolution,
            flavor="igraph",
            n_iterations=2,
            directed=False,
            random_state=settings.seed,
        )
        stop_if(cancelled)
        progress(2, 3, "Drawing the map (UMAP)")
        sc.tl.umap(adata, min_dist=settings.min_dist, random_state=settings.seed)
    progress(3, 3, "Drawing the map (UMAP)")
    return Projection(
        np.asarray(adata.obsm["X_umap"], np.float32),
        adata.obs["leiden"].astype(int).to_numpy(np.int32),
        representation,
        settings,
    )


def nearest_cells(vectors: NDArray[np.floating], k: int = NEIGHBORS, *, seed: int = 0) -> NDArray[np.int64]:
    """Find each cell's nearest others by Euclidean distance.

    Parameters
    ----------
    vectors
        ``[n, d]``.
    k
        Neighbours; all other cells where there are fewer.
    seed
        Of the approximate search, see `EXACT_CELLS`.

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
    k, vectors = min(k, n_cells - 1), np.array(vectors, np.float32)  # a copy, as in `project`
    if n_cells <= EXACT_CELLS:
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(vectors)
        return search.kneighbors(return_distance=False).astype(np.int64)
    import umap.umap_ as umap  # seconds to import

    found = umap.nearest_neighbors(vectors, k + 1, "euclidean", {}, False, np.random.RandomState(seed))[0]
    # A cell usually finds itself first; among equal cells it may come later, or not at all.
    own = found == np.arange(n_cells)[:, None]
    return np.take_along_axis(found, np.argsort(own, axis=1, kind="stable"), axis=1)[:, :k].astype(np.int64)


def compile_ahead() -> threading.Thread:
    """Draw a map of a few made-up points in the background, for what numba compiles on the way.

    On a fresh installation the first map takes half a minute of compiling, which may as well pass while cells are
    embedded.

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
            sc.pp.neighbors(adata, 15, use_rep="X_points", random_state=0)
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
