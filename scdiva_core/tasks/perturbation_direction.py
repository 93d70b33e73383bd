"""Where perturbed cells go: towards which groups of cells, away from which, and whether random genes do the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import normalize

from scdiva_core.errors import DataError
from scdiva_core.tasks.perturbation_null import adjusted
from scdiva_core.tasks.relabelled import texts

FEWEST_CELLS = 5
"""Cells that a group needs for a centroid (our choice; fewer say little of where a group lies)."""

FEWEST_READING = 10
"""Reading cells that a group needs for a p-value (our choice)."""

SIGNIFICANT = 0.05
"""Adjusted p-value at or below which a direction is called one (convention)."""


def group_centroids(latents: NDArray[np.floating], groups: ArrayLike) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Find the middle of each group of cells on the unit sphere, where cosine similarity is measured.

    Parameters
    ----------
    latents
        Float ``[n, d]`` of the whole file, unperturbed.
    groups
        ``[n]`` name of each cell's group; cells without one, and groups of fewer than `FEWEST_CELLS`, are left out.

    Returns
    -------
    tuple of names and ndarray
        ``k`` names in sorted order, and float32 ``[k, d]``: the mean of each group's latents of unit length, itself
        brought to unit length, so that a cell counts the same whatever the length of its latent.

    Raises
    ------
    DataError
        There is not one group for each cell, or no group is large enough.
    """
    named = _for_cells(groups, len(latents))
    sizes = named.value_counts()
    names = tuple(sorted(sizes.index[sizes >= FEWEST_CELLS]))
    if not names:
        largest = sizes.max() if len(sizes) else 0
        msg = f"None of {len(sizes)} groups has {FEWEST_CELLS} cells or more; the largest has {largest}."
        raise DataError(msg, "Choose a column with larger groups.")
    codes = pd.Index(names).get_indexer(named)
    return names, _unit(_sums(codes, _unit(latents), len(names))).astype(np.float32)


def moved_cells(before: NDArray[np.floating], after: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Cells ``[n]`` whose latent ``[n, d]`` a perturbation changed at all."""
    return (np.asarray(before) != np.asarray(after)).any(axis=1)


def change_towards(
    before: NDArray[np.floating], after: NDArray[np.floating], centroids: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Change of each cell's cosine similarity to each centroid: above 0 the cell came closer.

    Parameters
    ----------
    before, after
        Float ``[n, d]`` latents of the same cells, without and with the perturbation.
    centroids
        Float ``[k, d]`` of `group_centroids`.

    Returns
    -------
    ndarray
        float32 ``[n, k]`` in [-2, 2]; exactly 0 for a cell whose latent did not change.
    """
    change = np.zeros((len(before), len(centroids)), np.float32)
    moved = moved_cells(before, after)
    # The difference first: the two cosines are alike in most of their digits.
    step = _unit(after[moved]) - _unit(before[moved])
    change[moved] = step @ np.asarray(centroids, float).T
    return change


def mean_changes(
    change: NDArray[np.floating], groups: ArrayLike, names: tuple[str, ...], fewest: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average the changes of each group's reading cells; one such table for each null gene makes the null.

    Parameters
    ----------
    change
        Float ``[n, k]`` of `change_towards`, of the cells in which the model reads a perturbed gene: the others cannot
        move and would only dilute.
    groups
        ``[n]`` name of each cell's own group; cells of no group in `names` are left out.
    names
        ``k`` names of `group_centroids`.
    fewest
        Reading cells that a group needs for a mean; `FEWEST_READING` for null genes, lest single cells widen the null.

    Returns
    -------
    tuple of ndarray
        float64 ``[k own groups, k targets]``, NaN where too few cells read, and the number of reading cells, int64
        ``[k]``.

    Raises
    ------
    DataError
        There is not one group for each cell.
    """
    own = pd.Index(names).get_indexer(_for_cells(groups, len(change)))
    sizes = np.bincount(own[own >= 0], minlength=len(names))
    sums = _sums(own, np.asarray(change, float), len(names))
    return np.where(sizes[:, None] >= fewest, sums / np.maximum(sizes, 1)[:, None], np.nan), sizes


def direction_table(
    means: NDArray[np.floating], sizes: NDArray[np.integer], names: tuple[str, ...], null: NDArray[np.floating]
) -> pd.DataFrame:
    """Say for each group of cells towards which groups it goes, beside what matched random genes do.

    A pair's p is ``(b + 1) / (m + 1)``, with b the null genes at least as far as the perturbed one from the mean of all
    m + 1 (two-sided; the perturbed gene counts in that mean, so that under the null each of the m + 1 is as likely as
    any other to lie furthest). q is Benjamini-Hochberg's over all pairs that were tested.

    Parameters
    ----------
    means, sizes
        Of `mean_changes`: float ``[k, k]`` and int ``[k]``.
    names
        ``k`` names of `group_centroids`.
    null
        Float ``[m, k, k]``: `mean_changes` of each of m matched random genes, NaN where too few of the group's cells
        read it. NaN is left out of the pair's null.

    Returns
    -------
    DataFrame
        One row for each own group that reads and each target, in the order of `names`: ``own``, ``target``, ``n``
        (reading cells), ``mean`` (change of cosine), ``null_mean``, ``p``, ``q`` and ``word``. The word is
        ``"towards"`` or ``"away"`` where q is at most `SIGNIFICANT` and the mean lies on that side both of 0 and of
        the null's mean (a cell that comes closer by less than with random genes goes nowhere in particular),
        ``"neither"`` otherwise, and ``"not tested"`` with neither p nor q where fewer than `FEWEST_READING` cells read
        or no null gene has a mean.
        ``attrs["words"]`` says what was tested and the least p that is possible.

    Raises
    ------
    ValueError
        The null has another shape.
    """
    k = len(names)
    if null.shape[1:] != (k, k):
        msg = f"The null has the shape {null.shape}, expected [m, {k}, {k}]."
        raise ValueError(msg)
    there = np.isfinite(null)
    drawn = there.sum(axis=0)
    total = np.where(there, null, 0).sum(axis=0)
    null_mean = np.where(drawn > 0, total / np.maximum(drawn, 1), np.nan)
    middle = (total + means) / (drawn + 1)
    beyond = (there & (np.abs(null - middle) >= np.abs(means - middle))).sum(axis=0)
    tested = (np.asarray(sizes)[:, None] >= FEWEST_READING) & (drawn > 0)
    p = np.where(tested, (beyond + 1) / (drawn + 1), np.nan)
    q = adjusted(p)
    own, target = np.nonzero(np.broadcast_to(np.asarray(sizes)[:, None] > 0, (k, k)))
    label = np.asarray(names, dtype=object)
    table = pd.DataFrame({"own": label[own], "target": label[target], "n": np.asarray(sizes)[own]})
    columns = {"mean": means, "null_mean": null_mean, "p": p, "q": q, "word": _words(means, null_mean, q)}
    table = table.assign(**{name: values[own, target] for name, values in columns.items()})
    table.attrs["words"] = _sentence(p[tested], drawn[tested])
    return table


def transitions(
    before: NDArray[np.floating], after: NDArray[np.floating], centroids: NDArray[np.floating], names: tuple[str, ...]
) -> pd.DataFrame:
    """Count cells by the centroid nearest to them before and after: how many come to lie nearer to another group.

    The nearest centroid is no annotation: a cell may lie nearer to another group's middle than to its own's already
    before, so compare only the two counts with each other.

    Parameters
    ----------
    before, after
        Float ``[n, d]`` latents of the reading cells; the others cannot move.
    centroids, names
        Of `group_centroids`.

    Returns
    -------
    DataFrame
        ``from``, ``to`` and ``n``, pairs with at least one cell, in the order of `names`.
    """
    start, end = (np.argmax(_unit(side) @ centroids.T, axis=1) for side in (before, after))
    counts = np.bincount(start * len(names) + end, minlength=len(names) ** 2)
    pairs = np.flatnonzero(counts)
    label = np.asarray(names, dtype=object)
    return pd.DataFrame({"from": label[pairs // len(names)], "to": label[pairs % len(names)], "n": counts[pairs]})


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    # scikit-learn refuses to do nothing.
    return normalize(np.asarray(vectors, float)) if len(vectors) else np.asarray(vectors, float)


def _sums(codes: NDArray[np.integer], values: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """Sum of the rows of each code, ``[k, ...]``; a row of -1 is in none."""
    rows = np.flatnonzero(codes >= 0)
    adder = sp.csr_matrix((np.ones(len(rows)), (codes[rows], rows)), (k, len(codes)))
    return adder @ values


def _for_cells(groups: ArrayLike, n_cells: int) -> pd.Series:
    named = texts(groups)
    if len(named) != n_cells:
        msg = f"There are groups of {len(named):,} cells, but latents of {n_cells:,}."
        raise DataError(msg, "Give one group for each cell.")
    return named


def _words(means: NDArray, null_mean: NDArray, q: NDArray) -> NDArray:
    excess = means - null_mean
    clear = q <= SIGNIFICANT
    return np.select(
        [np.isnan(q), clear & (means > 0) & (excess > 0), clear & (means < 0) & (excess < 0)],
        ["not tested", "towards", "away"],
        "neither",
    ).astype(object)


def _sentence(p: NDArray, drawn: NDArray) -> str:
    if not len(p):
        return f"No pair of groups has {FEWEST_READING} reading cells and a null gene: nothing was tested."
    pairs = "1 pair of groups was" if len(p) == 1 else f"{len(p):,} pairs of groups were"
    few, many = int(drawn.min()), int(drawn.max())
    against = f"{many:,}" if few == many else f"{few:,} to {many:,}"
    return (
        f"{pairs} tested against {against} matched random genes; no p can be below {1 / (many + 1):.2g}. "
        "q is Benjamini-Hochberg's over what was tested."
    )
