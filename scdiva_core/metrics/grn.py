"""How well scores of regulator-target pairs find the pairs that a reference knows.

A reference is far from complete, so that a wrong pair may only be an unknown one: compare numbers with those of another
method on the same pairs, not with 1. Pairs of equal score have no order; each measure takes the counts that are
expected of a random order of them, so that scores which are all equal come to exactly what random ones do. A score of
NaN is below all others. Numbers that are not defined, where all or no pairs are true, are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

DRAWS = 200
"""Bootstrap draws of the regulators."""

_INTERVAL = [0.025, 0.975]
_ONCE = np.ones(1, np.int64)


def auprc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Area under the precision-recall curve, as average precision; by chance it is the share of true pairs.

    Without ties the same as scikit-learn's ``average_precision_score``. Within ties, the i-th of m equal pairs, t of
    them true, counts as t / m of a true pair with the precision expected at its place (after the interpolation of
    Davis 2006); scikit-learn takes the precision at the end of the tie for all of them.

    Parameters
    ----------
    scores
        float ``[n]``, any scale; the highest come first.
    truth
        bool ``[n]``.
    """
    return _Ranking(scores, truth).measures(_ONCE)[0]


def early_precision(scores: ArrayLike, truth: ArrayLike) -> float:
    """Share of true pairs among the best k, where k is the number of true pairs (BEELINE, Pratapa 2020).

    Parameters
    ----------
    scores, truth
        As for `auprc`. BEELINE takes in the whole tie at place k; we take so much of it as fills the k places.
    """
    return _Ranking(scores, truth).measures(_ONCE)[1]


@dataclass(frozen=True, eq=False)
class Ratio:
    """A measure over what chance gives: 1 is random.

    Attributes
    ----------
    value
        Of all regulators.
    draws
        float64 ``[n_draws]``, of regulators drawn with replacement; NaN where a draw has no true pair.
    """

    value: float
    draws: NDArray[np.float64]

    @property
    def interval(self) -> tuple[float, float]:
        """Middle 95 % of the draws."""
        return _middle(self.draws)


@dataclass(frozen=True, eq=False)
class Ratios:
    """Scores of pairs against a reference.

    Attributes
    ----------
    auprc, epr
        `auprc` and `early_precision`, over the density.
    n_pairs, n_true
        Pairs that count, and those of them that are true.
    """

    auprc: Ratio
    epr: Ratio
    n_pairs: int
    n_true: int

    @property
    def density(self) -> float:
        """Share of true pairs: what random scores reach in either measure."""
        return self.n_true / self.n_pairs if self.n_pairs else float("nan")


def ratios(scores: ArrayLike, truth: ArrayLike, usable: ArrayLike, *, draws: int = DRAWS, seed: int = 0) -> Ratios:
    """Both measures over the share of true pairs, with a bootstrap over regulators (Efron 1979).

    Regulators are drawn with all their targets, because a reference knows some far better than others: pairs are no
    independent cases. Each draw is compared with its own share of true pairs.

    Parameters
    ----------
    scores
        float ``[R, T]``, regulators by targets.
    truth
        bool ``[R, T]``.
    usable
        bool ``[R, T]``: pairs that count.
    draws, seed
        Of the regulators that have a usable pair. The same seed draws the same regulators, so that methods can be
        compared draw by draw (`gain`).
    """
    scores, truth, usable = np.asarray(scores, np.float64), np.asarray(truth, bool), np.asarray(usable, bool)
    rows, columns = np.nonzero(usable)
    kept, places = np.unique(rows, return_inverse=True)
    ranking = _Ranking(scores[rows, columns], truth[rows, columns], places)
    rng = np.random.default_rng(seed)
    found = np.full((draws + 1, 3), np.nan)
    for number in range(draws + 1 if len(kept) else 0):
        drawn = rng.integers(0, len(kept), len(kept)) if number else np.arange(len(kept))
        found[number] = ranking.measures(np.bincount(drawn, minlength=len(kept)))
    over = found[:, :2] / np.where(found[:, 2:] > 0, found[:, 2:], np.nan)
    n_true = int(truth[rows, columns].sum())
    return Ratios(Ratio(float(over[0, 0]), over[1:, 0]), Ratio(float(over[0, 1]), over[1:, 1]), len(rows), n_true)


def gain(ours: Ratio, theirs: Ratio) -> tuple[float, float, float]:
    """Difference of two ratios, and the middle 95 % of its draws: above 0 where ours is better.

    Parameters
    ----------
    ours, theirs
        From `ratios` with the same truth, usable pairs, draws and seed.
    """
    return (ours.value - theirs.value, *_middle(ours.draws - theirs.draws))


def _middle(draws: NDArray[np.float64]) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, _INTERVAL)
    return float(low), float(high)


class _Ranking:
    """Pairs sorted once, the best first, to be counted with any weights of their regulators."""

    def __init__(self, scores: ArrayLike, truth: ArrayLike, rows: NDArray[np.integer] | None = None) -> None:
        scores, truth = np.asarray(scores, np.float64), np.asarray(truth, bool)
        sinking = np.where(np.isnan(scores), np.inf, -scores)
        order = np.argsort(sinking, kind="stable")
        ordered, truth = sinking[order], truth[order]
        self._rows = np.zeros(len(order), np.int32) if rows is None else rows.astype(np.int32)[order]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        bounds = np.concatenate([[0], changes, [len(ordered)]])
        # Ties without a true pair add nothing to either measure.
        true = np.flatnonzero(truth)
        self._true_rows = self._rows[true]
        ties, self._firsts = np.unique(np.searchsorted(bounds, true, side="right") - 1, return_index=True)
        self._starts, self._ends = bounds[ties], bounds[ties + 1]

    def measures(self, times: NDArray[np.int64]) -> tuple[float, float, float]:
        """AUPRC, early precision and density, each pair counted as often as its regulator (int ``[n_regulators]``)."""
        counted = np.concatenate([[0], np.cumsum(times[self._rows])])
        total, n_true = int(counted[-1]), int(times[self._true_rows].sum())
        if n_true in (0, total):
            return float("nan"), float("nan"), n_true / total if total else float("nan")
        hits = np.add.reduceat(times[self._true_rows], self._firsts)
        before, ends, found = counted[self._starts], counted[self._ends], np.cumsum(hits)
        some = hits > 0
        before, ends, found, hits = before[some], ends[some], found[some], hits[some]
        size, already = ends - before, found - hits
        rate = hits / size
        # The sum over i of (already + rate i) / (before + i), in closed form; digamma gives the harmonic numbers.
        precision = rate * size + (already - rate * before) * (digamma(ends + 1) - digamma(before + 1))
        early = np.clip((n_true - before) / size, 0, 1) @ hits
        return float(rate @ precision / n_true), float(early / n_true), n_true / total
