"""A sketch of very many cells, and what is known of it handed on to the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdiva_core.tasks.progress import IsCancelled, never, stop_if

SKETCH_CELLS = 100_000
"""Cells of a sketch."""

PLACED_BY = 5
"""Cells of the sketch that say where another cell lies (our choice)."""

_FITTED = 50_000  # cells that the strata are found on
_STRATUM = 1000  # cells of a stratum, on average
_MOST_STRATA = 1000
_PROBED = 10  # strata that are searched for neighbours, the cell's own and those around it
_BLOCK = 50_000


@dataclass(frozen=True)
class Strata:
    """Cells divided into groups of like ones.

    Attributes
    ----------
    of
        int32 ``[n]``: the group of each cell.
    centres
        float32 ``[n_strata, d]``.
    """

    of: NDArray[np.int32]
    centres: NDArray[np.float32]

    def rows(self, stratum: int | NDArray[np.integer]) -> NDArray[np.int64]:
        """Cells of one stratum or several, ascending."""
        return np.flatnonzero(np.isin(self.of, stratum))


def stratify(vectors: NDArray[np.floating], *, seed: int = 0, cancelled: IsCancelled = never) -> Strata:
    """Divide cells into groups of like ones by k-means.

    Parameters
    ----------
    vectors
        ``[n, d]``, perhaps mapped from disk: read in blocks.
    seed
        Of the cells that are clustered (50,000 at most) and of the start.
    cancelled
        Asked between blocks.
    """
    from sklearn.cluster import MiniBatchKMeans  # half a second, and a page needs none of it

    n_cells = len(vectors)
    rng = np.random.default_rng(seed)
    fitted = np.sort(rng.choice(n_cells, min(n_cells, _FITTED), replace=False))
    n_strata = int(np.clip(n_cells // _STRATUM, 1, _MOST_STRATA))
    means = MiniBatchKMeans(n_strata, random_state=seed, batch_size=8192, n_init=1, max_iter=10, reassignment_ratio=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different cells than strata: some then are empty, which does no harm
        means.fit(np.asarray(vectors[fitted], np.float32))
    of = np.empty(n_cells, np.int32)
    for start in range(0, n_cells, _BLOCK):
        stop_if(cancelled)
        of[start : start + _BLOCK] = means.predict(np.asarray(vectors[start : start + _BLOCK], np.float32))
    return Strata(of, means.cluster_centers_.astype(np.float32))


def choose(strata: Strata, size: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Choose cells so that rare kinds are kept and common ones thinned.

    Each stratum gives equally many cells at random, small ones all that they have, as geometric sketching takes equally
    many of each box of the space of expression (Hie et al. 2019, Cell Systems 8:483). Strata of k-means are smaller
    where cells are many, so that densities are levelled and not lost (our choice).

    Parameters
    ----------
    strata
        All cells.
    size
        How many are chosen; all where there are no more.
    seed
        Of the choice.

    Returns
    -------
    ndarray
        int64 ``[size]`` places, ascending.
    """
    n_cells = len(strata.of)
    if size >= n_cells:
        return np.arange(n_cells)
    quota = _quotas(np.bincount(strata.of, minlength=len(strata.centres)), size)
    shuffled = np.random.default_rng(seed).permutation(n_cells)
    order = shuffled[np.argsort(strata.of[shuffled], kind="stable")]
    starts = np.searchsorted(strata.of[order], np.arange(len(quota)))
    return np.sort(np.concatenate([order[start : start + n] for start, n in zip(starts, quota, strict=True)]))


def _quotas(sizes: NDArray[np.integer], total: int) -> NDArray[np.int64]:
    """Share `total` evenly among strata; what small ones cannot give, the larger ones do."""
    quota, left = np.zeros(len(sizes), np.int64), total
    for place, stratum in enumerate(np.argsort(sizes, kind="stable")):
        quota[stratum] = min(sizes[stratum], left // (len(sizes) - place))
        left -= quota[stratum]
    return quota


def nearest(
    vectors: NDArray[np.floating],
    strata: Strata,
    among: NDArray[np.int64],
    k: int,
    *,
    cancelled: IsCancelled = never,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Find the nearest of some cells to every cell, stratum by stratum: in its own and in those around it.

    An inverted file (Jegou et al. 2011, IEEE TPAMI 33:117): nearly all neighbours are found, in bounded memory.

    Parameters
    ----------
    vectors, strata
        All cells.
    among
        Places of the cells that are looked for, ascending.
    k
        How many; at most as many as `among` has.
    cancelled
        Asked between strata.

    Yields
    ------
    tuple of ndarray
        Cells ``[m]``, the places of their nearest ``[m, k]``, the nearest first, and distances, float32 ``[m, k]``.
    """
    from sklearn.neighbors import NearestNeighbors  # as in `stratify`

    kind = strata.of[among]
    of_kind = _grouped(kind, len(strata.centres))
    of_all = _grouped(strata.of, len(strata.centres))
    around = NearestNeighbors(algorithm="brute").fit(strata.centres)
    for stratum, rows in enumerate(of_all):
        if not len(rows):
            continue
        stop_if(cancelled)
        order = around.kneighbors(strata.centres[[stratum]], len(strata.centres), return_distance=False)[0]
        found = np.cumsum([len(of_kind[other]) for other in order])
        probed = max(_PROBED, int(np.searchsorted(found, k)) + 1)
        candidates = among[np.sort(np.concatenate([of_kind[other] for other in order[:probed]]))]
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(_values(vectors, candidates))
        distances, places = search.kneighbors(_values(vectors, rows))
        yield rows, candidates[places], distances.astype(np.float32)


def _grouped(kinds: NDArray[np.integer], n_kinds: int) -> list[NDArray[np.int64]]:
    """Places of each kind, ascending."""
    order = np.argsort(kinds, kind="stable")
    return np.split(order, np.searchsorted(kinds[order], np.arange(1, n_kinds)))


def _values(vectors: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(vectors[rows], np.float32)


def place(
    vectors: NDArray[np.floating],
    strata: Strata,
    sketch: NDArray[np.int64],
    coordinates: NDArray[np.float32],
    clusters: NDArray[np.integer],
    *,
    cancelled: IsCancelled = never,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Put all cells where their nearest of the sketch are.

    A cell belongs to the cluster that has most of its `PLACED_BY` nearest, weighted by the inverse of their distance,
    and lies at the weighted mean of those of them: never between two islands (our choice). Cells of the sketch stay.

    Parameters
    ----------
    vectors, strata
        All cells.
    sketch
        Places of the sketch's cells.
    coordinates, clusters
        float32 ``[len(sketch), 2]`` and int ``[len(sketch)]``: what is known of the sketch.
    cancelled
        Asked between strata.

    Returns
    -------
    tuple of ndarray
        float32 ``[n, 2]`` and int32 ``[n]``.
    """
    xy = np.empty((len(strata.of), 2), np.float32)
    codes = np.empty(len(strata.of), np.int32)
    xy[sketch], codes[sketch] = coordinates, clusters
    known = np.zeros(len(strata.of), bool)
    known[sketch] = True
    for rows, places, distances in nearest(vectors, strata, sketch, min(PLACED_BY, len(sketch)), cancelled=cancelled):
        others = ~known[rows]
        near, weights = places[others], 1 / np.maximum(distances[others], 1e-6)
        votes = np.einsum("nij,nj->ni", codes[near][:, :, None] == codes[near][:, None, :], weights)
        chosen = np.take_along_axis(codes[near], votes.argmax(axis=1)[:, None], axis=1)
        weights = weights * (codes[near] == chosen)
        codes[rows[others]] = chosen[:, 0]
        xy[rows[others]] = np.einsum("nk,nkd->nd", weights, xy[near]) / weights.sum(axis=1, keepdims=True)
    return xy, codes
