"""Scores of regulator-target pairs from attention: how strong, how stable, how different between two cell sets.

All of it is arithmetic on `AttentionSums`, without another pass over the cells, and our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, t

from scdiva_core.errors import DataError
from scdiva_core.tasks.grn_attention import AttentionSums, Direction

SHRINKAGE = 10.0
"""Cells of z = 0 added to each pair, so that a pair seen in few cells is not on top by chance (our choice).

More of them raise the agreement with CollecTRI, because it knows most of genes that many cells express; that is no
reason to rank pairs by how often they are seen.
"""

DRAWS = 200
"""Bootstrap draws of the folds."""

_SIDES = {"from": (0,), "to": (1,), "both": (0, 1)}
_LEAST_FOLDS = 5  # fewer say too little of the spread


@dataclass(frozen=True, eq=False)
class Contrast:
    """Attention scores of one cell set against those of another, each ``[R, T]``; NaN where they cannot be compared.

    Attributes
    ----------
    difference
        float32 score in the first set less that in the second; NaN for pairs that one of them never shows.
    z
        float32 difference over its standard error; NaN also for pairs that fewer than five folds of a set show.
    p, adjusted
        float64, two-sided, from Student's t; and after Benjamini-Hochberg over all pairs.
    """

    difference: NDArray[np.float32]
    z: NDArray[np.float32]
    p: NDArray[np.float64]
    adjusted: NDArray[np.float64]


def attention_scores(
    sums: AttentionSums,
    direction: Direction,
    channel: int = 0,
    *,
    weights: ArrayLike | None = None,
    centred: bool = False,
) -> NDArray[np.float32]:
    """Mean z of each pair over the cells that show it, drawn towards 0 by `SHRINKAGE` cells.

    Parameters
    ----------
    sums
        Of `scdiva_core.tasks.grn_attention.accumulate`.
    direction
        Whose attention.
    channel
        Which of the sums' channels.
    weights
        float ``[F]`` how often each fold of the cells counts; once by default.
    centred
        Take each gene's own mean off, that of regulators and of targets, as the average product correction of Dunn
        2008 does for products.

    Returns
    -------
    ndarray
        float32 ``[R, T]``; NaN where regulator and target are one gene, and where no cell counted shows both.
    """
    folds = len(sums.counts)
    weights = np.ones(folds) if weights is None else np.asarray(weights, float)
    if weights.shape != (folds,):
        msg = f"Weights of shape {list(weights.shape)} for {folds} folds."
        raise DataError(msg, "Give one weight for each fold of the cells.")
    return _scores(_by_fold(sums, direction, channel), sums.counts, weights, centred)


def top_targets(scores: NDArray[np.floating], top: int) -> NDArray[np.bool_]:
    """Mark the best targets of each regulator, bool ``[R, T]``; fewer than ``top`` where fewer have a score.

    Raises
    ------
    DataError
        ``top`` is below 1.
    """
    if top < 1:
        msg = f"The best {top} targets of each regulator."
        raise DataError(msg, "Ask for 1 or more.")
    scored = ~np.isnan(scores)
    if top >= scores.shape[1]:
        return scored
    best = np.argpartition(np.where(scored, -scores, np.inf), top - 1, axis=1)[:, :top]
    marked = np.zeros(scores.shape, bool)
    np.put_along_axis(marked, best, True, axis=1)
    return marked & scored


def stability(
    sums: AttentionSums,
    direction: Direction,
    top: int,
    channel: int = 0,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    centred: bool = False,
) -> NDArray[np.float32]:
    """How surely a pair is among its regulator's best when the cells are drawn anew (their folds, with replacement).

    Parameters
    ----------
    sums, direction, channel, centred
        As for `attention_scores`.
    top
        Best targets of a regulator.
    draws
        How often the folds are drawn.
    seed
        Of the draws.

    Returns
    -------
    ndarray
        float32 ``[R, T]`` share of the draws in which it is; NaN for pairs that have no score.
    """
    by_fold, folds = _by_fold(sums, direction, channel), len(sums.counts)
    counts = sums.counts.astype(np.float32)  # once, not in every draw
    drawn = np.random.default_rng(seed).multinomial(folds, np.full(folds, 1 / folds), size=draws)
    among = np.zeros(sums.block.shape, np.float32)
    for weights in drawn:
        among += top_targets(_scores(by_fold, counts, weights, centred), top)
    return np.where(sums.counts.any(axis=0), among / np.float32(draws), np.float32(np.nan))


def contrast(
    a: AttentionSums, b: AttentionSums, direction: Direction, channel: int = 0, *, centred: bool = False
) -> Contrast:
    """Compare the attention scores of two cell sets.

    The standard error is that of a bootstrap over the folds of each set, in closed form (the delta method for a ratio
    of sums); cells of one donor are taken for independent, so that p says nothing of other donors.

    Parameters
    ----------
    a, b
        Sums over the same block, heads and channels. Folds of the two may differ in number.
    direction, channel, centred
        As for `attention_scores`; the error that centring adds is left out, for it is a mean over many pairs.

    Raises
    ------
    DataError
        The blocks or the heads differ.
    """
    same = a.block.shape == b.block.shape and all(
        np.array_equal(getattr(a.block, name), getattr(b.block, name)) for name in ("regulators", "targets")
    )
    if not same or a.heads != b.heads or len(a.sums) != len(b.sums):
        msg = f"Networks of {a.block.shape} and {b.block.shape} genes, of {len(a.heads)} and {len(b.heads)} heads."
        raise DataError(msg, "Compare two cell sets over the same genes and heads.")
    difference = attention_scores(a, direction, channel, centred=centred)
    difference -= attention_scores(b, direction, channel, centred=centred)
    variance = _variance(a, direction, channel) + _variance(b, direction, channel)
    shown = np.minimum(*((each.counts > 0).sum(axis=0) for each in (a, b)))
    usable = ~np.isnan(difference) & (shown >= _LEAST_FOLDS) & (variance > 0)
    z = np.full(shown.shape, np.nan, np.float32)
    p, adjusted = np.full((2, *shown.shape), np.nan)
    z[usable] = difference[usable] / np.sqrt(variance[usable])
    p[usable] = 2 * t.sf(np.abs(z[usable]), shown[usable] - 1)
    if usable.any():
        adjusted[usable] = false_discovery_control(p[usable])
    return Contrast(difference, z, p, adjusted)


def _by_fold(sums: AttentionSums, direction: Direction, channel: int) -> NDArray[np.float32]:
    """Sums of one channel and direction, ``[F, R, T]``."""
    if direction not in _SIDES:
        msg = f"Unknown direction {direction!r}."
        raise DataError(msg, "Choose 'from', 'to' or 'both'.")
    if not 0 <= channel < len(sums.sums):
        msg = f"Channel {channel} of {len(sums.sums)}."
        raise DataError(msg, "Count from 0; there is one for each head only if they were kept apart.")
    sides = sums.sums[channel]
    return sides.mean(axis=0) if direction == "both" else sides[_SIDES[direction][0]]


def _scores(
    by_fold: NDArray[np.float32], counts: NDArray[np.number], weights: NDArray[np.number], centred: bool
) -> NDArray[np.float32]:
    weights = weights.astype(np.float32)
    n = np.tensordot(weights, counts, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.tensordot(weights, by_fold, 1) / np.where(n > 0, n + np.float32(SHRINKAGE), np.float32(np.nan))
    if not centred:
        return scores
    shown = n > 0
    overall = scores[shown].mean() if shown.any() else 0
    for axis in (0, 1):
        total = np.where(shown, scores, 0).sum(axis=axis, keepdims=True)
        scores = scores - (total / np.maximum(shown.sum(axis=axis, keepdims=True), 1) - overall)
    return (scores - overall).astype(np.float32)


def _variance(sums: AttentionSums, direction: Direction, channel: int) -> NDArray[np.float64]:
    """Squared standard error of the scores, ``[R, T]``."""
    folds = len(sums.counts)
    n = sums.counts.sum(axis=0) + SHRINKAGE
    by_fold = _by_fold(sums, direction, channel)
    score = by_fold.sum(axis=0) / n
    residual = by_fold - score * sums.counts
    return residual.var(axis=0) * folds**2 / max(folds - 1, 1) / np.square(n)
