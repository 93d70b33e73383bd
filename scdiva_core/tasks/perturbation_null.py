"""What random genes do: each gene's shift computed once, and the genes that a perturbed one is compared with.

How far a gene moves a cell depends much on how high it is expressed there, so "far" means nothing by itself. The null
of a perturbation is what the same does to genes that are expressed alike in the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, rankdata

from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import (
    CellSample,
    Perturbation,
    cosine_shift,
    perturbed_latents,
    reading_rows,
)
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.relabelled import texts

N_NULL = 100
"""Matched genes of a null: no p-value below 1 / 101."""

MOST_CELLS = 200
"""Reading cells drawn for each gene of a null or a screen (our choice: the mean of 200 cells differs less from that of
all of them than one matched gene does from the next)."""

_MATCHED_BY = ("value", "detection")  # which fix the mean: it is about their product
_LEAST = 1e-12  # a shift in the logarithm; float32 resolves no less

Towards = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""Latents before and after, each ``[n, d]``, to ``[n, k]``: how much closer each cell came to each of k groups."""


def gene_statistics(sample: CellSample) -> pd.DataFrame:
    """Describe how each gene is expressed in a sample, for matching.

    Returns
    -------
    DataFrame
        A row for each column of the sample: ``symbol``; ``mean`` log1p expression over all cells; ``detection``, the
        share of cells in which the gene is among the tokens; ``value``, the mean log1p expression there (0 where there
        are none); ``expressed`` and ``read``, the numbers of cells that express it and that have it among the tokens.
    """
    n, tokens = len(sample), sample.tokens
    read = np.diff(tokens.indptr)
    sums = np.asarray(tokens.sum(axis=0, dtype=np.float64)).ravel()
    return pd.DataFrame(
        {
            "symbol": sample.symbols,
            "mean": np.asarray(sample.expressed.sum(axis=0, dtype=np.float64)).ravel() / n,
            "detection": read / n,
            "value": sums / np.maximum(read, 1),
            "expressed": np.diff(sample.expressed.indptr),
            "read": read,
        }
    )


def matched_genes(
    statistics: pd.DataFrame, symbol: str, n: int = N_NULL, seed: int = 0, *, among: Collection[str] | None = None
) -> list[str]:
    """Find the genes expressed most like one: the nearest in rank of value and rank of detection (our choice).

    The value is the mean expression where the gene is read; with the detection it fixes the mean over all cells as
    well. On two demo sets a gene's shift follows the value (rank correlation 0.40 and 0.22) more than that mean (0.11
    and 0.04). With genes matched on mean and detection, 12 and 15 % of the tenth of genes with the highest values had
    p < 0.05; on value and detection, and with the regression of `null_of`, 8 and 7 %.

    Parameters
    ----------
    statistics
        Of `gene_statistics`.
    symbol
        The gene, as ``statistics`` spells it.
    n
        How many; fewer where the cells read fewer genes.
    seed
        Breaks ties.
    among
        Symbols to choose from; all genes that the cells read when None.

    Returns
    -------
    list of str
        The nearest first, without the gene itself.
    """
    return [genes[0] for genes in matched_tuples(statistics, [symbol], n, seed, among=among)]


def matched_tuples(
    statistics: pd.DataFrame,
    symbols: Sequence[str],
    n: int = N_NULL,
    seed: int = 0,
    *,
    among: Collection[str] | None = None,
) -> list[tuple[str, ...]]:
    """Match each of several genes as `matched_genes` does, and put the matches together at random.

    Returns
    -------
    list of tuple
        At most `n`, each as long as `symbols` and none with a gene twice or a perturbed one.
    """
    rng = np.random.default_rng(seed)
    candidates, ranks = _candidates(statistics), _ranks(statistics)
    names = statistics["symbol"].to_numpy()
    allowed = ~statistics["symbol"].isin(symbols)
    if among is not None:
        allowed &= statistics["symbol"].isin(among)
    candidates = candidates[allowed.to_numpy()[candidates]]
    spare = n if len(symbols) == 1 else n + 10 * len(symbols)  # tuples with a gene twice fall away
    columns = []
    for place in _places(statistics, symbols):
        distance = np.linalg.norm(ranks[candidates] - ranks[place], axis=1)
        nearest = candidates[np.lexsort((rng.random(len(distance)), distance))[:spare]]
        columns.append(nearest if len(symbols) == 1 else rng.permutation(nearest))
    return [tuple(names[list(genes)]) for genes in zip(*columns, strict=True) if len(set(genes)) == len(genes)][:n]


@dataclass(frozen=True, eq=False)
class Null:
    """A mean shift among those of matched genes.

    Attributes
    ----------
    observed
        Mean cosine shift of the perturbed genes' reading cells.
    genes
        The matched genes.
    shifts
        float64 ``[m]`` their mean shifts, brought to the expression of the perturbed genes (`null_of`).
    p
        Share at least as large as `observed`, ``(b + 1) / (m + 1)``; NaN without a null.
    z
        Distance of the logarithm of `observed` from the mean of theirs, in standard deviations: shifts are skewed.
    """

    observed: float
    genes: tuple[tuple[str, ...], ...]
    shifts: NDArray[np.float64]
    p: float
    z: float


def null_of(
    statistics: pd.DataFrame,
    symbols: Sequence[str],
    observed: float,
    genes: Sequence[tuple[str, ...]],
    shifts: ArrayLike,
) -> Null:
    """Compare a mean shift with those of matched genes.

    Matched genes differ from the perturbed one still, the more so at the ends, where all of them lie on one side. So
    the logarithm of their shifts is regressed on the ranks that they were matched by, and the trend taken out (our
    choice, after local linear regression).

    Parameters
    ----------
    statistics
        Of `gene_statistics`.
    symbols, observed
        The perturbed genes and their mean shift.
    genes, shifts
        The matched genes and their mean shifts, ``[m]``.
    """
    shifts = np.maximum(np.asarray(shifts, float), _LEAST)
    if len(shifts):
        ranks = _ranks(statistics)
        own = ranks[_places(statistics, symbols)].mean(axis=0)
        places = _places(statistics, [gene for each in genes for gene in each]).reshape(len(genes), -1)
        apart = ranks[places].mean(axis=1) - own
        logs = np.log(shifts)
        design = np.column_stack([np.ones(len(apart)), apart])
        logs -= apart @ np.linalg.lstsq(design, logs, rcond=None)[0][1:]
        shifts = np.exp(logs)
    spread = np.log(shifts).std(ddof=1) if len(shifts) > 1 else 0.0
    z = float((np.log(max(observed, _LEAST)) - np.log(shifts).mean()) / spread) if spread > 0 else float("nan")
    return Null(observed, tuple(genes), shifts, empirical_p(observed, shifts), z)


@dataclass(frozen=True, eq=False)
class Shift:
    """How far a perturbation moves reading cells that were drawn for it.

    Attributes
    ----------
    perturbation
        What was done.
    n_read
        Cells of the sample that read it.
    rows
        int64 ``[m]`` the rows drawn from these.
    weights
        float64 ``[m]``, sum 1: how many reading cells each stands for.
    cosine
        float32 ``[m]`` cosine shift.
    towards
        float32 ``[m, k]`` change in cosine to each group's centroid; None where no centroids were given.
    """

    perturbation: Perturbation
    n_read: int
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    cosine: NDArray[np.float32]
    towards: NDArray[np.float32] | None

    @property
    def mean(self) -> float:
        """Mean cosine shift of the reading cells.

        Not of all cells: those that do not read the gene shift by 0, so that mean would say how many cells express the
        gene rather than what it does there.
        """
        return float(self.weights @ self.cosine)


class ShiftCache:
    """Shifts of genes over one sample, each computed once: what several perturbations share as their null.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    groups
        ``[n]`` group of each cell of the sample. Cells are drawn from each group alike and weighted by its share, so
        that small groups have a null as well.
    towards
        Turns latents before and after into the change in cosine to each of k centroids; latents are not kept.
    most_cells
        Reading cells drawn for each perturbation at most.
    seed
        Of the draw; a gene's draw depends on nothing else, not even on which genes came before.
    """

    def __init__(
        self,
        model: ScDiVaModel,
        tokenizer: Tokenizer,
        sample: CellSample,
        *,
        groups: ArrayLike | None = None,
        towards: Towards | None = None,
        most_cells: int = MOST_CELLS,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.sample = model, tokenizer, sample
        self._towards, self._most_cells, self._seed = towards, most_cells, seed
        named = texts([""] * len(sample) if groups is None else groups)
        if len(named) != len(sample):
            msg = f"There are groups of {len(named):,} cells, but {len(sample):,} cells."
            raise DataError(msg, "Give one group for each cell of the sample.")
        self._strata = pd.factorize(named, use_na_sentinel=False)[0]
        self._kept: dict[tuple[object, ...], Shift] = {}

    def of(
        self, perturbations: Sequence[Perturbation], *, progress: Progress = silent, cancelled: IsCancelled = never
    ) -> list[Shift]:
        """Shifts of these perturbations, those not known yet in the same batches.

        Raises
        ------
        DataError
            No cell reads one of them, or as for `CellSample.columns`.
        Cancelled
            The user stopped; nothing of this call is kept.
        """
        keys = [self._key(each) for each in perturbations]
        new = {key: each for key, each in zip(keys, perturbations, strict=True) if key not in self._kept}
        drawn = {key: self._drawn(each) for key, each in new.items()}
        work = [(each, drawn[key][1]) for key, each in new.items()]
        found = perturbed_latents(self.model, self.tokenizer, self.sample, work, progress=progress, cancelled=cancelled)
        for (key, each), after in zip(new.items(), found, strict=True):
            n_read, rows, weights = drawn[key]
            before = self.sample.latents[rows]
            towards = None if self._towards is None else self._towards(before, after)
            self._kept[key] = Shift(each, n_read, rows, weights, cosine_shift(before, after), towards)
        return [self._kept[key] for key in keys]

    def n_drawn(self, perturbation: Perturbation) -> int:
        """Cells that `of` perturbs for this, before it does."""
        return min(len(reading_rows(self.tokenizer, self.sample, perturbation)), self._most_cells)

    def _key(self, perturbation: Perturbation) -> tuple[object, ...]:
        columns = sorted(map(int, self.sample.columns(perturbation.genes)))
        return (*columns, perturbation.mode, perturbation.factor)

    def _drawn(self, perturbation: Perturbation) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
        """How many cells read, which of them are drawn, and what each weighs."""
        reading = reading_rows(self.tokenizer, self.sample, perturbation)
        if not len(reading):
            msg = f"None of the {len(self.sample):,} cells reads {' or '.join(perturbation.genes)}."
            raise DataError(msg, "Choose a gene that these cells express, or cells that express this gene.")
        columns = sorted(map(int, self.sample.columns(perturbation.genes)))
        order = np.random.default_rng([self._seed, *columns]).permutation(reading)
        strata, sizes = np.unique(self._strata[order], return_counts=True)
        taken = _shared(sizes, self._most_cells)
        rows = [order[self._strata[order] == each][:count] for each, count in zip(strata, taken, strict=True)]
        weights = np.repeat(sizes / np.maximum(taken, 1) / sizes[taken > 0].sum(), taken)
        places = np.concatenate(rows)
        back = np.argsort(places)
        return len(reading), places[back], weights[back]


def empirical_p(observed: float, null: ArrayLike) -> float:
    """Share of a null at least as large, ``(b + 1) / (m + 1)``: never 0, and NaN without a null."""
    null = np.asarray(null, float)
    return float((np.count_nonzero(null >= observed) + 1) / (len(null) + 1)) if len(null) else float("nan")


def adjusted(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini-Hochberg's q of the p-values that are there; NaN stays NaN."""
    p = np.asarray(p, float)
    q, tested = np.full(p.shape, np.nan), ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def _candidates(statistics: pd.DataFrame) -> NDArray[np.int64]:
    """Genes that may stand in a null: read somewhere, and the only ones of their symbol."""
    return np.flatnonzero((statistics["read"] > 0) & ~statistics["symbol"].duplicated(keep=False))


def _places(statistics: pd.DataFrame, symbols: Sequence[str]) -> NDArray[np.int64]:
    """Row of each symbol, the first where there are two."""
    first = statistics["symbol"].drop_duplicates()
    return first.index.to_numpy()[pd.Index(first).get_indexer(list(symbols))]


def _ranks(statistics: pd.DataFrame) -> NDArray[np.float64]:
    """Ranks in (0, 1] among the genes that are read, of what genes are matched by, ``[n_genes, 2]``."""
    ranks = np.zeros((len(statistics), len(_MATCHED_BY)))
    read = statistics["read"].to_numpy() > 0
    for column, name in enumerate(_MATCHED_BY):
        ranks[read, column] = rankdata(statistics[name].to_numpy()[read]) / read.sum()
    return ranks


def _shared(sizes: NDArray[np.integer], most: int) -> NDArray[np.int64]:
    """Share `most` draws among groups of these sizes: alike, but none more than it has."""
    taken = np.zeros(len(sizes), np.int64)
    left = most
    order = np.argsort(sizes, kind="stable")
    for place, group in enumerate(order):
        taken[group] = min(int(sizes[group]), -(-left // (len(order) - place)))
        left -= taken[group]
    return taken
