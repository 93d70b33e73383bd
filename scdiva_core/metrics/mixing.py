"""Who a cell's neighbours are: LISI of batches and types, kBET, and types that only one batch has.

LISI follows Korsunsky 2019 (Nature Methods 16, 1289-1296), kBET Buettner 2019 (Nature Methods 16, 43-49), and the
scaling of both to 0 .. 1 Luecken 2022 (Nature Methods 19, 41-50). scib-metrics is no dependency: it brings JAX.
"""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2
from sklearn.neighbors import NearestNeighbors

NEIGHBORS = 90
"""Neighbours of a cell that LISI sees; the perplexity is a third of it (Korsunsky 2019)."""

SIGNIFICANCE = 0.05
"""Below it kBET takes a neighbourhood for one that is not mixed (Buettner 2019)."""

OWN_CELLS = 10
"""Cells that a type of one batch needs to be checked (our choice: fewer form no cluster)."""

_FEWEST, _MOST = 10, 70  # neighbours of kBET's test, as in scib
_STEPS = 50  # of the bisection for the perplexity


@dataclass(frozen=True)
class BatchOnly:
    """A type that only one batch has, and whether it kept its own cluster.

    Parameters
    ----------
    label, batch
        The type and its batch.
    n_cells
        Its cells.
    purity
        Mean over its cells of the share of the type in the cell's cluster, 0 to 1.
    """

    label: str
    batch: str
    n_cells: int
    purity: float


def lisi(X: ArrayLike, groups: ArrayLike, n_neighbors: int = NEIGHBORS) -> NDArray[np.float64]:
    """Local inverse Simpson's index: how many groups a cell's neighbourhood effectively holds.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    groups
        ``[n_cells]`` batches or types.
    n_neighbors
        The cell itself not counted; all other cells where there are fewer. They are weighted by distance with a
        perplexity of a third of their number.

    Returns
    -------
    ndarray
        float64 ``[n_cells]``, 1 to the number of groups.
    """
    X, (codes, found) = np.asarray(X), pd.factorize(np.asarray(groups))
    k = min(n_neighbors, len(X) - 1)
    distances, neighbors = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X).kneighbors()
    weights = _weights(distances, max(k / 3, 1.0))
    shares = np.zeros((len(X), len(found)))
    np.add.at(shares, (np.arange(len(X))[:, None], codes[neighbors]), weights)
    return 1 / (shares**2).sum(axis=1)


def ilisi(X: ArrayLike, batches: ArrayLike) -> float:
    """Median LISI of the batches, scaled: 0 where neighbours are of one batch, 1 where of all batches alike.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    batches
        ``[n_cells]``, two different ones or more.
    """
    return float((np.median(lisi(X, batches)) - 1) / (len(np.unique(batches)) - 1))


def clisi(X: ArrayLike, labels: ArrayLike) -> float:
    """Median LISI of the types, scaled and turned: 1 where neighbours are of one type, 0 where of all types alike.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    labels
        ``[n_cells]``, two different ones or more.
    """
    n_labels = len(np.unique(labels))
    return float((n_labels - np.median(lisi(X, labels))) / (n_labels - 1))


def kbet(X: ArrayLike, labels: ArrayLike, batches: ArrayLike) -> float:
    """KBET acceptance: mean over types of the share of cells around which batches are mixed as in the whole type.

    Each cell's neighbours within its type are compared with the type's batches by Pearson's chi-squared test. A quarter
    of the mean batch's cells of the type are neighbours, 10 to 70 as in scib. Types of one batch, or with fewer cells
    than a test takes, are left out.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    labels, batches
        ``[n_cells]`` each.

    Returns
    -------
    float
        0 to 1; NaN where no type can be tested.
    """
    X, labels, batches = np.asarray(X), np.asarray(labels), np.asarray(batches)
    accepted = []
    for label in np.unique(labels):
        here = labels == label
        codes, found = pd.factorize(batches[here])
        k = int(np.clip(len(codes) / max(len(found), 1) / 4, _FEWEST, _MOST))
        if len(found) < 2 or len(codes) <= k:
            continue
        neighbors = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X[here]).kneighbors(return_distance=False)
        seen = np.stack([(codes[neighbors] == code).sum(axis=1) for code in range(len(found))], axis=1)
        expected = k * np.bincount(codes) / len(codes)
        statistic = ((seen - expected) ** 2 / expected).sum(axis=1)
        accepted.append((chi2.sf(statistic, len(found) - 1) >= SIGNIFICANCE).mean())
    return float(np.mean(accepted)) if accepted else float("nan")


def clusters_of(graph: sp.csr_matrix, resolution: float, seed: int = 0) -> NDArray[np.int64]:
    """Leiden clusters of a neighbour graph, int64 ``[n_cells]``, as `best_clustering` makes them.

    Parameters
    ----------
    graph
        See `scdiva_core.metrics.integration.neighbor_graph`.
    resolution
        Higher gives more clusters.
    seed
        Of Leiden.
    """
    import scanpy as sc  # seconds to import

    cells = anndata.AnnData(shape=(graph.shape[0], 0))
    options = {"flavor": "igraph", "n_iterations": 2, "directed": False, "random_state": seed}
    sc.tl.leiden(cells, resolution, adjacency=graph, **options)
    return cells.obs["leiden"].cat.codes.to_numpy(np.int64)


def batch_only(clusters: ArrayLike, labels: ArrayLike, batches: ArrayLike) -> list[BatchOnly]:
    """Check for over-correction: types of one batch alone must not be mixed into others.

    Parameters
    ----------
    clusters, labels, batches
        ``[n_cells]`` each.

    Returns
    -------
    list of BatchOnly
        Types with `OWN_CELLS` cells or more, all of one batch, by name; empty where every type is in several batches.
    """
    table = pd.DataFrame({"cluster": clusters, "label": np.asarray(labels).astype(str), "batch": batches})
    sizes, found = table["cluster"].value_counts(), []
    for label, cells in table.groupby("label", sort=True):
        if len(cells) >= OWN_CELLS and cells["batch"].nunique() == 1:
            own = cells["cluster"].value_counts()
            purity = float((own**2 / sizes[own.index]).sum() / len(cells))
            found.append(BatchOnly(str(label), str(cells["batch"].iloc[0]), len(cells), purity))
    return found


def _weights(distances: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Gaussian weights of each row's neighbours, of which the perplexity is the given one; rows sum to 1."""
    squared = distances**2
    squared = squared - squared.min(axis=1, keepdims=True)
    scale = squared.mean(axis=1, keepdims=True)
    squared = np.divide(squared, scale, out=np.zeros_like(squared), where=scale > 0)
    low, high = np.full((len(squared), 1), -20.0), np.full((len(squared), 1), 20.0)  # log of the precision
    for _ in range(_STEPS):
        middle = (low + high) / 2
        weights = np.exp(-squared * np.exp(middle))
        weights /= weights.sum(axis=1, keepdims=True)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return weights
