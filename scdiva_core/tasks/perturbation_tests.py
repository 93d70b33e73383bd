"""What stands beside every perturbation: matched random genes, masking for removal, and donors as replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ttest_1samp

from scdiva_core.errors import DataError
from scdiva_core.tasks.perturbation import CellSample, Effect
from scdiva_core.tasks.perturbation_direction import FEWEST_READING, mean_changes
from scdiva_core.tasks.perturbation_null import (
    N_NULL,
    Null,
    Shift,
    ShiftCache,
    adjusted,
    empirical_p,
    gene_statistics,
    matched_tuples,
    null_of,
)
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.relabelled import texts

FEWEST_DONORS = 3
"""Donors that the test over donors needs (our choice: two can hardly differ from chance)."""

_BAND = (0.05, 0.95)  # quantiles of the null that are shown


@dataclass(frozen=True)
class RankCheck:
    """Removal against masking in the same cells: removal also moves every gene below one rank up, masking does not.

    Attributes
    ----------
    removed, masked
        Mean cosine shift of the reading cells.
    """

    removed: float
    masked: float

    @property
    def share(self) -> float:
        """Masking's shift as a share of removal's; well below 1, removal's is mostly that of the ranks."""
        return self.masked / self.removed if self.removed else float("nan")


@dataclass(frozen=True, eq=False)
class DonorTest:
    """Whether the shift exceeds that of random genes in donor after donor.

    Attributes
    ----------
    table
        A row for each donor with enough reading cells: ``donor``, ``n`` (reading cells), ``mean``, ``null_mean`` and
        ``excess``, the difference of the two.
    p
        Of a two-sided one-sample t-test of ``excess`` over donors; NaN when there are too few.
    words
        What was tested, or why not.
    """

    table: pd.DataFrame
    p: float
    words: str


@dataclass(frozen=True, eq=False)
class Controls:
    """What is shown beside an effect.

    Attributes
    ----------
    null
        The effect among its matched genes, over all reading cells.
    null_shifts
        Of the matched genes, in the null's order.
    groups
        A row for each group with a reading cell: ``group``, ``n`` (reading cells), ``mean`` shift, ``null_mean``,
        ``null_low``, ``null_high`` (5th and 95th percentile), ``n_null`` (matched genes that enough cells of the group
        read), ``p`` and ``q`` over the groups; NaN where fewer than 10 cells read. None without groups.
    ranks
        Removal against masking; None for a perturbation that removes nothing.
    donors
        None without donors.
    words
        What the p-value rests on.
    """

    null: Null
    null_shifts: tuple[Shift, ...]
    groups: pd.DataFrame | None
    ranks: RankCheck | None
    donors: DonorTest | None
    words: str


def controls(
    cache: ShiftCache,
    effect: Effect,
    *,
    groups: ArrayLike | None = None,
    donors: ArrayLike | None = None,
    n_null: int = N_NULL,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Controls:
    """Compare an effect with the same done to matched genes.

    Parameters
    ----------
    cache
        Over the effect's sample. Give it the same `groups`, so that small ones are drawn from as well.
    effect
        Of `scdiva_core.tasks.perturbation.effect`.
    groups, donors
        ``[n]`` of each cell of the sample; cells without one are left out there.
    n_null
        Matched genes.
    seed
        Of the matching.
    progress, cancelled
        As for `ShiftCache.of`.

    Raises
    ------
    DataError
        There is not one group or donor for each cell of the sample.
    Cancelled
        The user stopped.
    """
    sample, done = cache.sample, effect.perturbation
    own_groups, own_donors = (_for_sample(values, sample) for values in (groups, donors))
    statistics = gene_statistics(sample)
    symbols = [sample.symbols[column] for column in sample.columns(done.genes)]
    matched = matched_tuples(statistics, symbols, n_null, seed)
    other = {"knockout": "mask", "mask": "knockout"}.get(done.mode)
    work = [replace(done, genes=genes) for genes in matched]
    work += [] if other is None else [replace(done, mode=other)]
    shifts = cache.of(work, progress=progress, cancelled=cancelled)
    ranks = None if other is None else _rank_check(effect, shifts.pop())
    null = null_of(statistics, symbols, effect.mean_shift, matched, [shift.mean for shift in shifts])
    return Controls(
        null,
        tuple(shifts),
        None if own_groups is None else _by_group(effect, shifts, own_groups),
        ranks,
        None if own_donors is None else _over_donors(effect, shifts, own_donors),
        _words(effect, null, n_null),
    )


def null_changes(shifts: Sequence[Shift], groups: ArrayLike, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Average where each null gene moves the cells of each group: the null of `direction_table`.

    Parameters
    ----------
    shifts
        Of a `ShiftCache` with `towards`, such as ``Controls.null_shifts``.
    groups
        ``[n]`` group of each cell of the sample.
    names
        ``k`` names of the centroids.

    Returns
    -------
    ndarray
        float64 ``[m, k own groups, k targets]``, NaN where fewer than `FEWEST_READING` cells were drawn.
    """
    own = texts(groups).to_numpy()
    means = [mean_changes(each.towards, own[each.rows], names, FEWEST_READING)[0] for each in shifts]
    return np.array(means).reshape(len(shifts), len(names), len(names))


def _for_sample(values: ArrayLike | None, sample: CellSample) -> pd.Series | None:
    if values is None:
        return None
    named = texts(values)
    if len(named) != len(sample):
        msg = f"There are labels of {len(named):,} cells, but {len(sample):,} cells."
        raise DataError(msg, "Give one label for each cell of the sample.")
    return named


def _rank_check(effect: Effect, other: Shift) -> RankCheck:
    own = float(other.weights @ effect.cosine[other.rows])
    return RankCheck(own, other.mean) if other.perturbation.mode == "mask" else RankCheck(other.mean, own)


def _means(shifts: Sequence[Shift], member: NDArray[np.bool_], fewest: int) -> NDArray[np.float64]:
    """Mean shift of each null gene over its drawn cells that are members; genes with fewer of them are left out."""
    inside = [shift.cosine[member[shift.rows]] for shift in shifts]
    return np.array([part.mean(dtype=np.float64) for part in inside if len(part) >= fewest])


def _by_group(effect: Effect, shifts: Sequence[Shift], groups: pd.Series) -> pd.DataFrame:
    rows = []
    for group in sorted(groups[effect.read].dropna().unique()):
        member = (groups == group).to_numpy()
        reading = member & effect.read
        row = {"group": group, "n": int(reading.sum()), "mean": effect.cosine[reading].mean(dtype=np.float64)}
        null = _means(shifts, member, FEWEST_READING)
        low, high = np.quantile(null, _BAND) if len(null) else (np.nan, np.nan)
        row |= {"null_mean": null.mean() if len(null) else np.nan, "null_low": low, "null_high": high}
        enough = row["n"] >= FEWEST_READING
        rows.append({**row, "n_null": len(null), "p": empirical_p(row["mean"], null) if enough else np.nan})
    columns = ["group", "n", "mean", "null_mean", "null_low", "null_high", "n_null", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(q=adjusted(table["p"]))


def _over_donors(effect: Effect, shifts: Sequence[Shift], donors: pd.Series) -> DonorTest:
    rows, few = [], 0
    for donor in sorted(donors.dropna().unique()):
        member = (donors == donor).to_numpy()
        reading = member & effect.read
        null = _means(shifts, member, 1)
        if reading.sum() < FEWEST_READING or not len(null):
            few += 1
            continue
        mean, beside = effect.cosine[reading].mean(dtype=np.float64), null.mean()
        row = {"donor": donor, "n": int(reading.sum()), "mean": mean, "null_mean": beside, "excess": mean - beside}
        rows.append(row)
    table = pd.DataFrame(rows, columns=["donor", "n", "mean", "null_mean", "excess"])
    left = f" {few:,} with fewer than {FEWEST_READING} reading cells left out." if few else ""
    if len(table) < FEWEST_DONORS:
        words = f"{len(table)} donors with {FEWEST_READING} reading cells or more; a test over donors needs "
        return DonorTest(table, float("nan"), f"{words}{FEWEST_DONORS}.{left}")
    p = float(ttest_1samp(table["excess"], 0).pvalue)
    words = f"Shift beyond random genes in {len(table)} donors, each counted once: cells of one donor are alike and no "
    return DonorTest(table, p, f"{words}replicates. One-sample t-test over donors, p {p:.2g}.{left}")


def _words(effect: Effect, null: Null, n_null: int) -> str:
    n, m = int(effect.read.sum()), len(null.shifts)
    words = f"{effect.perturbation.title}: mean shift of the {n:,} cells that read it, beside {m:,} random "
    words += "genes" if len(effect.perturbation.genes) == 1 else f"sets of {len(effect.perturbation.genes)} genes"
    words += f" expressed alike in these cells; no p can be below {1 / (m + 1):.2g}."
    return words if m >= n_null else f"{words} There were only {m:,} to match, not {n_null:,}."
