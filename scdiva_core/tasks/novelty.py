"""How unlike the reference cells are: what decides which of them no source may name."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.reference import Reference

RADIUS_QUANTILE = 0.75
"""Share of a type's reference cells that lie within its radius."""

NARROWEST = 0.25
"""Radius at least, in radii of the median type: a type of few cells alike would call everything else strange."""

BEYOND = 0.9
"""Strangeness beyond which cells count as unknown, unless `SHIFT` sets the bound higher. Each labelled study of the
corpus in turn was compared with a reference of the others: 5 % of the cells whose type the others have lie beyond, and
87 % of those of a type taken out; cut to panels of 1,333 genes, 10 % and 67 %. ``python -m benchmarks`` measures the
like on other data."""

SHIFT = 2.5
"""The bound is at least so many times what the lower quartile of a batch has: a protocol that the reference lacks moves
all cells away from it, and is no new type."""

_BLOCK = 16_384


def strangeness(
    reference: Reference, latents: NDArray[np.float32], neighbors: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Say how strange cells and their neighbours are to the reference.

    A cell is strange if it lies far from the nearest type's centre, in radii of that type, and if the next type is
    hardly further: the product of that distance and of the two distances' ratio. Distances are of cosine, seen from the
    middle of all centres. The mean over the cell and its neighbours is taken, for a type that the reference lacks comes
    with its like, and a cell that was measured badly does not. All of it is our choice; the paper is silent.

    Parameters
    ----------
    reference
        Of the same weights as the latents.
    latents
        float32 ``[n, d]``.
    neighbors
        int ``[n, k]`` nearest cells of the same data set, `scdiva_core.tasks.neighbors.nearest_cells`.

    Returns
    -------
    ndarray
        float32 ``[n]``, 0 or more.

    Raises
    ------
    CheckpointError
        Latents and reference have different numbers of coordinates.
    """
    check_width(reference, latents)
    kinds, member = np.unique(reference.labels, return_inverse=True)
    middle = _centers(reference.latents, member, len(kinds)).mean(axis=0)
    own = _directions(reference.latents, middle)
    centers = _directions(_centers(own, member, len(kinds)), 0)
    distance = 1 - (own * centers[member]).sum(axis=1)
    radius = np.array([np.quantile(distance[member == kind], RADIUS_QUANTILE) for kind in range(len(kinds))])
    radius = np.maximum(radius, max(NARROWEST * float(np.median(radius)), np.finfo(np.float32).eps))
    alone = np.empty(len(latents), np.float32)
    for start in range(0, len(latents), _BLOCK):
        apart = 1 - _directions(latents[start : start + _BLOCK], middle) @ centers.T
        nearest = apart.argmin(axis=1)
        first, second = np.sort(apart, axis=1)[:, :2].T if len(kinds) > 1 else (apart[:, 0], np.ones(len(apart)))
        alone[start : start + _BLOCK] = first / radius[nearest] * first / np.maximum(second, np.finfo(np.float32).eps)
    return (alone + alone[neighbors].sum(axis=1)) / np.float32(1 + neighbors.shape[1])


def novelty(strange: NDArray[np.float32], batches: ArrayLike | None = None) -> NDArray[np.float32]:
    """Strangeness over its bound, see `BEYOND` and `SHIFT`: above 1 a cell is unlike the reference.

    Parameters
    ----------
    strange
        float32 ``[n]`` of `strangeness`.
    batches
        Batch of each cell, such as its protocol; cells without one are a batch of their own. None for a single batch.

    Returns
    -------
    ndarray
        float32 ``[n]``.

    Raises
    ------
    DataError
        There are more or fewer batches than cells.
    """
    codes = np.zeros(len(strange), int) if batches is None else pd.factorize(np.asarray(batches))[0]
    if len(codes) != len(strange):
        msg = f"{len(codes):,} cells have a batch, but {len(strange):,} are compared with the reference."
        raise DataError(msg, "Give the batches of the same cells.")
    found = np.empty(len(strange), np.float32)
    for code in np.unique(codes):
        batch = codes == code
        found[batch] = strange[batch] / max(BEYOND, SHIFT * float(np.quantile(strange[batch], 0.25)))
    return found


def check_width(reference: Reference, latents: NDArray[np.float32]) -> None:
    """Refuse latents that have another number of coordinates than the reference's; see `strangeness`."""
    if latents.shape[1] != reference.latents.shape[1]:
        sizes = f"{reference.latents.shape[1]} coordinates, these cells {latents.shape[1]}"
        msg = f"The reference has {sizes}."
        raise CheckpointError(msg, "Embed the cells with the checkpoint that the reference belongs to.")


def _centers(vectors: NDArray[np.float32], member: NDArray[np.intp], n_kinds: int) -> NDArray[np.float32]:
    return np.stack([vectors[member == kind].mean(axis=0) for kind in range(n_kinds)])


def _directions(vectors: NDArray[np.float32], middle: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Vectors of length 1; one that lies in the middle has none and stays 0, at distance 1 from everything."""
    vectors = vectors - middle
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
