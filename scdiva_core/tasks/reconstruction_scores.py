"""Cells rebuilt by several methods, cell by cell, gene by gene and type by type, and who is better than whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.metrics.perturbation import paired_gain
from scdiva_core.metrics.reconstruction import bleu, identity_accuracy, l_dist, value_scores
from scdiva_core.tasks.reconstruction import cell_of

MEASURES = ("identity", "l_dist", "bleu", "spearman", "mse", "r2")
"""Columns of scores; see `scdiva_core.metrics.reconstruction`."""

LOWER_IS_BETTER = frozenset({"l_dist", "mse"})

FEWEST_TOKENS = 5
"""Hidden tokens of a gene below which nothing is said of it (our choice)."""

Told = Literal["place", "gene"]


@dataclass(frozen=True, eq=False)
class Filled:
    """What one method put in place of hidden tokens.

    Attributes
    ----------
    method
        Its name.
    told
        ``"place"``: it knew which ranks were hidden, not which genes. ``"gene"``: the other way round.
    leaks
        Whether hidden content reached it, so that it may not be compared with those that did without.
    rows, hidden
        Cells that it was asked for, and which of their tokens were hidden.
    cells
        int64 ``[n_rows]`` number of each cell, the same for all methods.
    genes
        Token ids at the hidden places, int ``[hidden.sum()]``; None where the method names none.
    values
        log1p values likewise, float.
    """

    method: str
    told: Told
    leaks: bool
    rows: TokenRows
    hidden: NDArray[np.bool_]
    cells: NDArray[np.int64]
    genes: NDArray[np.integer] | None
    values: NDArray[np.floating] | None


def taken(rows: TokenRows, hidden: NDArray[np.bool_], chosen: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which tokens of ``rows.take(chosen)`` are hidden."""
    return replace(rows, values=hidden).take(chosen).values


def cell_scores(filled: Filled, mask: float) -> pd.DataFrame:
    """Score one method cell by cell.

    Parameters
    ----------
    filled
        What it gave.
    mask
        Share of the tokens that was hidden.

    Returns
    -------
    DataFrame
        A row for each cell with a hidden token: ``mask``, ``method``, ``told``, ``leaks``, ``cell`` and `MEASURES`, NaN
        where one is not defined.
    """
    rows, hidden = filled.rows, filled.hidden
    owner = cell_of(rows)[hidden]
    asked = np.unique(owner)
    table = pd.DataFrame({"mask": mask, "method": filled.method, "told": filled.told, "leaks": filled.leaks}, asked)
    table["cell"] = filled.cells[asked]
    table[list(MEASURES)] = np.nan
    cuts = np.flatnonzero(np.diff(owner)) + 1
    if filled.genes is not None:
        ids = rows.gene_ids.astype(np.int64)
        ids[hidden] = filled.genes
        true, rebuilt = (np.split(each, rows.indptr[1:-1]) for each in (rows.gene_ids, ids))
        true, rebuilt = [true[row] for row in asked], [rebuilt[row] for row in asked]
        sides = [np.split(each, cuts) for each in (rows.gene_ids[hidden], filled.genes)]
        table["identity"] = [identity_accuracy(*pair) for pair in zip(*sides, strict=True)]
        table["l_dist"] = l_dist(true, rebuilt, [len(side) for side in sides[0]])
        table["bleu"] = [bleu(*pair) for pair in zip(true, rebuilt, strict=True)]
    if filled.values is not None:
        sides = [np.split(each, cuts) for each in (rows.values[hidden], filled.values)]
        found = pd.DataFrame([value_scores(*pair) for pair in zip(*sides, strict=True)], asked)
        table[list(found)] = found
    return table.reset_index(drop=True)


def summary_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of every measure over the cells, with a 95 % bootstrap interval (Efron 1979).

    Parameters
    ----------
    scores
        Of `cell_scores`, all masks and methods.

    Returns
    -------
    DataFrame
        A row for each mask and method, in their order: ``mask``, ``method``, ``told``, ``leaks``, ``n`` cells, and for
        each of `MEASURES` the mean and ``_low`` and ``_high``; cells where it is not defined do not count.
    """
    records = []
    for (mask, method), own in scores.groupby(["mask", "method"], sort=False):
        first = own.iloc[0]
        record = {"mask": mask, "method": method, "told": first["told"], "leaks": bool(first["leaks"]), "n": len(own)}
        for measure in MEASURES:
            mean, low, high, _ = paired_gain(own[measure], np.zeros(len(own)))
            record |= {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
        records.append(record)
    return pd.DataFrame(records)


def type_table(scores: pd.DataFrame, groups: ArrayLike) -> pd.DataFrame:
    """Mean of every measure over the cells of each group: ``group``, ``mask``, ``method``, ``n``, and `MEASURES`.

    Parameters
    ----------
    scores
        Of `cell_scores`.
    groups
        Group of each cell by its number; None for cells without one, which are left out.
    """
    named = scores.assign(group=np.asarray(groups, object)[scores["cell"]]).dropna(subset="group")
    grouped = named.groupby(["group", "mask", "method"], sort=False)
    table = grouped[list(MEASURES)].mean()
    table.insert(0, "n", grouped.size())
    return table.reset_index()


def gene_table(filled: Sequence[Filled], symbols: NDArray[np.object_]) -> pd.DataFrame:
    """Errors gene by gene, over the cells in which the gene was hidden.

    Parameters
    ----------
    filled
        Methods that were asked for the same tokens of the same cells.
    symbols
        Object ``[vocab_size]``: symbol of each token id.

    Returns
    -------
    DataFrame
        Genes with `FEWEST_TOKENS` hidden tokens, those with the most first: ``symbol``, ``n``, ``mean`` (true values),
        and, for each method under its name, ``mse: <method>``; ``identity: <method>``, the share of the gene's places
        where it is named, for methods that name genes; ``spearman: <method>``, over cells, for those that are told the
        gene (a place tells its rank, which is most of such a correlation), NaN where one side is constant.
    """
    rows, hidden = filled[0].rows, filled[0].hidden
    genes, truth = rows.gene_ids[hidden], rows.values[hidden]
    order = np.argsort(genes, kind="stable")
    ids, starts, counts = np.unique(genes[order], return_index=True, return_counts=True)
    kept = counts >= FEWEST_TOKENS
    ids, starts, counts = ids[kept], starts[kept], counts[kept]
    parts = [order[start : start + count] for start, count in zip(starts, counts, strict=True)]
    table = pd.DataFrame({"symbol": symbols[ids], "n": counts, "mean": [truth[part].mean() for part in parts]})
    for each in filled:
        if each.genes is not None:
            hits = each.genes == genes
            table[f"identity: {each.method}"] = [hits[part].mean() for part in parts]
        if each.values is not None:
            errors = np.square(each.values.astype(np.float64) - truth)
            table[f"mse: {each.method}"] = [errors[part].mean() for part in parts]
        if each.values is not None and each.told == "gene":
            table[f"spearman: {each.method}"] = [_ranked(truth[part], each.values[part]) for part in parts]
    return table.sort_values("n", ascending=False, kind="stable", ignore_index=True)


def _ranked(true: NDArray[np.floating], rebuilt: NDArray[np.floating]) -> float:
    if np.ptp(true) == 0 or np.ptp(rebuilt) == 0:
        return float("nan")
    return float(spearmanr(true, rebuilt).statistic)


def comparisons(scores: pd.DataFrame, pairs: Iterable[tuple[str, str, Sequence[str]]]) -> pd.DataFrame:
    """Compare methods on the same cells and masks: a cell counts with its mean over the masks that both have for it.

    Parameters
    ----------
    scores
        Of `cell_scores`.
    pairs
        Ours, theirs, and the measures in which they are compared.

    Returns
    -------
    DataFrame
        ``ours``, ``theirs``, ``measure``, ``ours_mean`` and ``theirs_mean`` over the cells that both have,
        ``difference`` (positive where ours is better, whichever way the measure runs) with its 95 % bootstrap interval
        ``low`` and ``high``, ``n`` cells, and ``word``: ``"better"``, ``"worse"`` or ``"no clear difference"``, where
        the interval holds 0.
    """
    records = []
    for ours, theirs, measures in pairs:
        for measure in measures:
            sides = [scores[scores["method"] == name].set_index(["cell", "mask"])[measure] for name in (ours, theirs)]
            both = pd.concat(sides, axis=1, join="inner").dropna().groupby(level="cell").mean()
            first, second = both.to_numpy(float).T
            sides = (second, first) if measure in LOWER_IS_BETTER else (first, second)
            difference, low, high, n = paired_gain(*sides)
            if n:
                word = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
                record = {"ours": ours, "theirs": theirs, "measure": measure, "ours_mean": first.mean()}
                record |= {"theirs_mean": second.mean(), "difference": difference, "low": low, "high": high}
                records.append({**record, "n": n, "word": word})
    columns = ["ours", "theirs", "measure", "ours_mean", "theirs_mean", "difference", "low", "high", "n", "word"]
    return pd.DataFrame(records, columns=columns)
