"""Whether cells of one type lie together and apart from others, and whether its batches mix: the scIB measures.

Definitions follow Luecken 2022 (Nature Methods 19, 41-50) and its package scib; the two averages follow Cui 2024
(scGPT, Nature Methods 21, 1470-1480). They are short on top of scikit-learn and scanpy, so scib is no dependency.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import anndata
import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples, silhouette_score

from scdiva_core import compiled

RESOLUTIONS = tuple(round(0.1 * step, 1) for step in range(1, 21))
"""Leiden resolutions that are tried, 0.1 to 2.0 as in scib."""


@dataclass(frozen=True)
class Clustering:
    """Leiden clusters compared with labels, at the resolution that suits the labels best.

    Parameters
    ----------
    ari
        Adjusted Rand index (Hubert and Arabie 1985); 0 by chance, 1 at best.
    nmi
        Normalised mutual information, arithmetic mean (scikit-learn's default); 0 to 1.
    resolution
        Where the NMI was highest.
    """

    ari: float
    nmi: float
    resolution: float


def neighbor_graph(X: ArrayLike, n_neighbors: int = 15, seed: int = 0) -> sp.csr_matrix:
    """Weighted graph of nearest neighbours, float ``[n_cells, n_cells]``, as scanpy makes it for Leiden.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    n_neighbors
        Fewer where there are not so many cells.
    seed
        Of the approximate search, which begins at some thousands of cells.
    """
    import scanpy as sc  # seconds to import

    compiled.umap_learn()  # before scanpy imports it
    cells = anndata.AnnData(obsm={"X": np.ascontiguousarray(X, np.float32)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap warns of a seed and one thread, which is what is wanted
        sc.pp.neighbors(cells, min(n_neighbors, cells.n_obs - 1), use_rep="X", random_state=seed)
    return cells.obsp["connectivities"]


def best_clustering(
    graph: sp.csr_matrix, labels: ArrayLike, *, resolutions: Sequence[float] = RESOLUTIONS, seed: int = 0
) -> Clustering:
    """Cluster a graph at every resolution and keep the clustering whose NMI with the labels is highest.

    The number of clusters is thus chosen with the labels in sight, as scib does: a privilege that every
    representation gets alike. Leiden (Traag 2019) as in scanpy's igraph flavour.

    Parameters
    ----------
    graph
        See `neighbor_graph`.
    labels
        ``[n_cells]``.
    resolutions
        To try; the first of equals is kept.
    seed
        Of Leiden.
    """
    import scanpy as sc

    cells, found = anndata.AnnData(shape=(graph.shape[0], 0)), []
    for resolution in resolutions:
        sc.tl.leiden(
            cells,
            resolution,
            adjacency=graph,
            flavor="igraph",
            n_iterations=2,
            directed=False,
            random_state=seed,
        )
        clusters = cells.obs["leiden"].cat.codes.to_numpy()
        nmi = float(normalized_mutual_info_score(labels, clusters))
        found.append(Clustering(float(adjusted_rand_score(labels, clusters)), nmi, resolution))
    return max(found, key=lambda clustering: clustering.nmi)


def label_silhouette(X: ArrayLike, labels: ArrayLike) -> float:
    """Silhouette of the labels by Euclidean distance, -1 to 1 (Rousseeuw 1987).

    scib reports ``(s + 1) / 2``, the cell-type ASW.
    """
    return float(silhouette_score(np.asarray(X), np.asarray(labels)))


def batch_silhouette(X: ArrayLike, labels: ArrayLike, batches: ArrayLike) -> float:
    """Batch ASW of scIB: mean over labels of the mean ``1 - |s|``, s being the batches' silhouette within the label.

    1 where batches cannot be told apart, 0 where they are far apart. Labels of one batch, or whose cells are all of
    different batches, are left out.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    labels, batches
        ``[n_cells]`` each.

    Raises
    ------
    ValueError
        No label occurs in two batches.
    """
    X, labels, batches = np.asarray(X), np.asarray(labels), np.asarray(batches)
    scores = []
    for label in np.unique(labels):
        here = labels == label
        if 1 < len(np.unique(batches[here])) < here.sum():
            scores.append(1 - np.abs(silhouette_samples(X[here], batches[here])).mean())
    if not scores:
        message = "no label occurs in two batches, so that mixing cannot be measured"
        raise ValueError(message)
    return float(np.mean(scores))


def graph_connectivity(graph: sp.csr_matrix, labels: ArrayLike) -> float:
    """Graph connectivity of scIB: mean over labels of the share of its cells in one connected piece of the graph.

    Parameters
    ----------
    graph
        See `neighbor_graph`; only where it is not zero counts.
    labels
        ``[n_cells]``.
    """
    labels = np.asarray(labels)
    shares = []
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        _, piece = connected_components(graph[here][:, here], directed=False)
        shares.append(np.bincount(piece).max() / len(here))
    return float(np.mean(shares))


def average_bio(nmi: ArrayLike, ari: ArrayLike, silhouette: float) -> NDArray[np.float64]:
    """Avg-Bio: mean of NMI, ARI and cell-type ASW ``(s + 1) / 2`` (Cui 2024).

    Parameters
    ----------
    nmi, ari
        Numbers or arrays of one shape, which is the result's.
    silhouette
        Of the labels, -1 to 1.
    """
    return (np.asarray(nmi, np.float64) + np.asarray(ari, np.float64) + (silhouette + 1) / 2) / 3


def average_batch(batch_asw: float, connectivity: float) -> float:
    """Avg-Batch: mean of batch ASW and graph connectivity (Cui 2024)."""
    return (batch_asw + connectivity) / 2
