"""Many genes perturbed one at a time over the same cells, beside random genes expressed alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import CellSample, Mode, Perturbation, check_read
from scdiva_core.tasks.perturbation_direction import change_towards
from scdiva_core.tasks.perturbation_null import (
    MOST_CELLS,
    N_NULL,
    ShiftCache,
    adjusted,
    gene_statistics,
    matched_genes,
    null_of,
)
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

NULL_POOL = 400
"""Random genes that the nulls of a screen share at most (our choice: a few minutes on two cores)."""

NULL_CELLS = 50
"""Reading cells drawn for each of these (our choice: the mean of 50 cells is about 10 % off that of all; genes matched
to each other differ by a factor of 2)."""

_COLUMNS = [
    *("symbol", "effect", "null_mean", "z", "p", "q", "direction", "direction_change", "mean", "detection"),
    *("n_expressed", "n_read", "n_cells", "n_null", "reason"),
]
_BATCH_CELLS = 400  # perturbed cells computed before anything is kept: a few seconds on a CPU


@dataclass(frozen=True)
class ScreenSettings:
    """How a screen is done.

    Parameters
    ----------
    mode, factor
        As for `Perturbation`.
    most_cells, null_cells
        Reading cells drawn for each gene, and for each one of the null pool.
    n_null
        Matched genes that each gene is compared with.
    null_pool
        Genes that these are taken from at most; the nearest of them are then a little further off.
    seed
        Of the cells drawn, and of the pool.
    """

    mode: Mode = "knockout"
    factor: float = 0.0
    most_cells: int = MOST_CELLS
    null_cells: int = NULL_CELLS
    n_null: int = N_NULL
    null_pool: int = NULL_POOL
    seed: int = 0

    def of(self, gene: str) -> Perturbation:
        """Perturbation of one gene."""
        return Perturbation((gene,), self.mode, self.factor)


@dataclass(frozen=True)
class ScreenRow:
    """What was computed for one gene, screened or of the null pool; plain values, to be kept as they are.

    Parameters
    ----------
    gene
        Its symbol; as it was asked for where it was refused.
    n_read, n_cells
        Cells that read it, and those of them that were drawn.
    effect
        Mean cosine shift of the reading cells; NaN where the gene was refused.
    towards
        Mean change in their cosine to each group's centroid, in the order of the centroids.
    reason
        Why it was refused; empty where it was not.
    """

    gene: str
    n_read: int = 0
    n_cells: int = 0
    effect: float = float("nan")
    towards: tuple[float, ...] = ()
    reason: str = ""


def screen(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    genes: Sequence[str],
    *,
    done: Mapping[str, ScreenRow],
    write: Callable[[ScreenRow], None],
    settings: ScreenSettings = ScreenSettings(),  # noqa: B008 - frozen
    groups: ArrayLike | None = None,
    centroids: tuple[tuple[str, ...], NDArray[np.floating]] | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Perturb many genes, cells of several of them in the same batches.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    genes
        Any names; two names of one gene are one gene.
    done
        Rows of an earlier run with the same arguments, by their ``gene``; not computed again. Not changed here.
    write
        Called with each new row as soon as its batch is there; what was interrupted loses no more than that batch.
    settings
        How.
    groups
        ``[n]`` group of each cell of the sample, drawn from alike.
    centroids
        Of `scdiva_core.tasks.perturbation_direction.group_centroids`; no direction without them.
    progress, cancelled
        Called once a batch; units are perturbed cells, those of the null included.

    Returns
    -------
    DataFrame
        A row for each gene, the most beyond random genes first, refused ones last: ``symbol``; ``effect``, the mean
        cosine shift of the reading cells; ``null_mean``, that of the ``n_null`` matched genes (geometric mean); ``z``,
        ``p`` and ``q`` over the genes tested; ``direction``, the group whose centroid the reading cells come closer to
        most, and ``direction_change``, by how much their cosine rises; ``mean`` and ``detection`` of
        `gene_statistics`; ``n_expressed``, ``n_read``, ``n_cells`` (drawn) and ``n_null``; ``reason`` of a refusal.

    Raises
    ------
    DataError
        No gene.
    Cancelled
        The user stopped; what was written stays.
    """
    if not genes:
        msg = "No gene to screen."
        raise DataError(msg, "Choose at least one gene.")
    statistics = gene_statistics(sample)
    wanted, refused = _sorted_out(tokenizer, sample, genes, settings, cancelled)
    for row in refused:
        if row.gene not in done:
            write(row)
    nulls = _nulls(statistics, wanted, settings, cancelled)
    towards = None if centroids is None else partial(change_towards, centroids=centroids[1])
    new = partial(ShiftCache, model, tokenizer, sample, groups=groups, towards=towards, seed=settings.seed)
    own, random = new(most_cells=settings.most_cells), new(most_cells=settings.null_cells)
    caches = {gene: random for null in nulls.values() for gene in null} | dict.fromkeys(wanted, own)
    rows = _computed(caches, settings, done, write, progress, cancelled)
    names = () if centroids is None else centroids[0]
    return _table(statistics, wanted, refused, nulls, rows, names)


def _sorted_out(
    tokenizer: Tokenizer,
    sample: CellSample,
    genes: Sequence[str],
    settings: ScreenSettings,
    cancelled: IsCancelled,
) -> tuple[list[str], list[ScreenRow]]:
    """Symbols of the genes that can be perturbed, and rows of those that cannot."""
    wanted: dict[str, None] = {}
    refused: dict[str, ScreenRow] = {}
    for gene in genes:
        stop_if(cancelled)
        try:
            check_read(tokenizer, sample, settings.of(gene))
        except DataError as error:
            refused[gene] = ScreenRow(gene, reason=str(error))
        else:
            wanted[sample.symbols[sample.columns([gene])[0]]] = None
    return list(wanted), list(refused.values())


def _nulls(
    statistics: pd.DataFrame, wanted: Sequence[str], settings: ScreenSettings, cancelled: IsCancelled
) -> dict[str, list[str]]:
    """Matched genes of each wanted one, all from one pool."""

    def matched(among: Collection[str] | None) -> dict[str, list[str]]:
        found = {}
        for gene in wanted:
            stop_if(cancelled)
            found[gene] = matched_genes(statistics, gene, settings.n_null, settings.seed, among=among)
        return found

    near = matched(None)
    every = sorted({gene for genes in near.values() for gene in genes})
    if len(every) <= settings.null_pool:
        return near
    return matched(np.random.default_rng(settings.seed).choice(every, settings.null_pool, replace=False))


def _computed(
    caches: Mapping[str, ShiftCache],
    settings: ScreenSettings,
    done: Mapping[str, ScreenRow],
    write: Callable[[ScreenRow], None],
    progress: Progress,
    cancelled: IsCancelled,
) -> dict[str, ScreenRow]:
    """Rows of all genes, those of the earlier run among them."""
    rows = {gene: done[gene] for gene in caches if gene in done}
    cells = {gene: cache.n_drawn(settings.of(gene)) for gene, cache in caches.items()}
    total, finished = sum(cells.values()), sum(cells[gene] for gene in rows)
    message = f"Perturbing {len(caches):,} genes, random ones included"
    progress(finished, total, message)
    for cache, batch in _batches(caches, {gene: n for gene, n in cells.items() if gene not in rows}):

        def report(n: int, _: int, __: str, before: int = finished) -> None:
            progress(before + n, total, message)

        shifts = cache.of([settings.of(gene) for gene in batch], progress=report, cancelled=cancelled)
        for gene, shift in zip(batch, shifts, strict=True):
            towards = () if shift.towards is None else tuple(map(float, shift.weights @ shift.towards))
            rows[gene] = ScreenRow(gene, shift.n_read, len(shift.rows), shift.mean, towards)
            write(rows[gene])
            finished += cells[gene]
    return rows


def _batches(caches: Mapping[str, ShiftCache], cells: Mapping[str, int]) -> Iterator[tuple[ShiftCache, list[str]]]:
    """Genes of one cache, in their order, so many that their cells make up a batch."""
    for cache in dict.fromkeys(caches.values()):
        batch: list[str] = []
        size = 0
        for gene in (gene for gene in cells if caches[gene] is cache):
            batch.append(gene)
            size += cells[gene]
            if size >= _BATCH_CELLS:
                yield cache, batch
                batch, size = [], 0
        if batch:
            yield cache, batch


def _table(
    statistics: pd.DataFrame,
    wanted: Sequence[str],
    refused: Sequence[ScreenRow],
    nulls: Mapping[str, list[str]],
    rows: Mapping[str, ScreenRow],
    names: tuple[str, ...],
) -> pd.DataFrame:
    about = statistics.drop_duplicates("symbol").set_index("symbol")
    lines = []
    for row in (rows[gene] for gene in wanted):
        others = nulls[row.gene]
        pairs = [(gene,) for gene in others]
        null = null_of(statistics, [row.gene], row.effect, pairs, [rows[gene].effect for gene in others])
        best = int(np.argmax(row.towards)) if row.towards else -1
        closer = best >= 0 and row.towards[best] > 0
        known = about.loc[row.gene]
        lines.append(
            {
                "symbol": row.gene,
                "effect": row.effect,
                "null_mean": float(np.exp(np.log(null.shifts).mean())) if len(null.shifts) else np.nan,
                "z": null.z,
                "p": null.p,
                "direction": names[best] if closer else "",
                "direction_change": row.towards[best] if closer else np.nan,
                "mean": known["mean"],
                "detection": known["detection"],
                "n_expressed": known["expressed"],
                "n_read": row.n_read,
                "n_cells": row.n_cells,
                "n_null": len(others),
                "reason": "",
            }
        )
    lines += [{"symbol": row.gene, "reason": row.reason, "direction": ""} for row in refused]
    table = pd.DataFrame(lines, columns=_COLUMNS)
    counts = ["n_expressed", "n_read", "n_cells", "n_null"]
    table[counts] = table[counts].fillna(0).astype(np.int64)
    table["q"] = adjusted(table["p"])
    return table.sort_values("z", ascending=False, kind="stable", na_position="last", ignore_index=True)
