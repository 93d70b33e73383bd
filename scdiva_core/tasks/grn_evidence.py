"""What stands beside the attention of an edge: partial correlation and its sign, what is known, a predicted knockout.

None of them proves that a regulator acts on a target. Correlations, partial ones too, come from what genes share; the
reference is collected from many tissues and is far from complete; a knockout is the same model's own prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import inv
from sklearn.covariance import ledoit_wolf_shrinkage

from scdiva_core.data.regulons import regulons
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.perturbation import Perturbation, reading_rows
from scdiva_core.tasks.predicted_expression import FOLDS, expression_change
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

EDGE_COLUMNS = (
    *("regulator", "target", "attention", "cells", "stability"),
    *("spearman", "partial", "sign", "known", "knockout"),
)
"""Columns of a table of edges, see `evidence`."""

SIGNS = {1: "raises", -1: "lowers", 0: ""}
"""What a known regulator does to a target, in words."""

_BEYOND = 0.99  # quantile of the shuffled cells' partial correlations from which on a sign is told (our choice)
# At least: two genes may be copies of each other. At most: a few regulators that have nothing in common need none.
_SHRINKAGE = (1e-6, 0.5)
_KNOCKOUT_CELLS = 100


@dataclass(frozen=True, eq=False)
class PartialCorrelation:
    """Correlation of regulators and targets, given the other regulators.

    Attributes
    ----------
    values
        float32 ``[R, T]``; NaN for a gene with itself and for genes that are the same in all cells.
    threshold
        Size that one in a hundred pairs of shuffled genes goes beyond.
    """

    values: NDArray[np.float32]
    threshold: float

    @property
    def signs(self) -> NDArray[np.int8]:
        """int8 ``[R, T]``: 1 or -1 where the size is beyond the threshold, else 0."""
        values = np.nan_to_num(self.values)
        return np.where(np.abs(values) > self.threshold, np.sign(values), 0).astype(np.int8)


def partial_correlation(
    expression: sp.csr_matrix, regulators: NDArray[np.integer], targets: NDArray[np.integer], *, seed: int = 0
) -> PartialCorrelation:
    """Correlate each pair given all other regulators and how much of a cell was measured.

    From the inverse of the regulators' covariance, standardised and shrunk as Ledoit 2004 has it, by half at most, for
    they are many for the cells of a set. That makes sizes too small: compare them within one set only. Depth is the
    logarithm of the number of genes that a cell expresses: normalised values do not hold its counts. The threshold
    comes from the same cells, each gene's values shuffled among them, under the same shrinkage (that of shuffled genes
    would be stronger, and the threshold too low).

    The other targets are not given (our choice, on four studies of the corpus): co-regulated targets explain each
    other, so that no more pairs than by chance would be beyond the threshold. As it is 1.5 to 3 % are. Of those that
    the shipped regulons know 58 to 83 % have the known sign, where "raises" always would be right for 68 to 93 %: a
    sign is that of the correlation, no more.

    Parameters
    ----------
    expression
        log1p ``[n_cells, n_genes]``; all genes count for the depth.
    regulators, targets
        int ``[R]`` and ``[T]`` columns. About a second for 300 x 2,000.
    seed
        Of the shuffling.

    Raises
    ------
    DataError
        Fewer than 3 cells.
    """
    n = expression.shape[0]
    if n < 3:
        msg = f"{n} cells: nothing can be correlated given something else."
        raise DataError(msg, "Choose a larger cell set.")
    genes = np.union1d(regulators, targets)
    values = expression.tocsc()[:, genes].toarray().astype(np.float64)
    depth = np.log1p(np.diff(expression.tocsr().indptr))[:, None]
    own, other = (np.searchsorted(genes, each) for each in (regulators, targets))
    given = np.append(own, len(genes))  # depth is the last column
    X, varies = _standardised(np.hstack([values, depth]))
    shrinkage = np.clip(ledoit_wolf_shrinkage(X[:, given], assume_centered=True), *_SHRINKAGE)
    found = _given_the_others(X, given, shrinkage)[:-1, other]
    shuffled, _ = _standardised(np.hstack([np.random.default_rng(seed).permuted(values, axis=0), depth]))
    chance = _given_the_others(shuffled, given, shrinkage)[:-1, other]
    usable = (own[:, None] != other) & varies[own][:, None] & varies[other]
    threshold = float(np.quantile(np.abs(chance[usable]), _BEYOND)) if usable.any() else 1.0
    return PartialCorrelation(np.where(usable, found, np.nan).astype(np.float32), threshold)


def _standardised(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Columns of mean 0 and variance 1, and which of them vary; the others are 0."""
    X = X - X.mean(axis=0)
    spread = X.std(axis=0)
    varies = spread > 1e-9  # rounding of the mean leaves less
    return np.divide(X, spread, out=np.zeros_like(X), where=varies), varies


def _given_the_others(X: NDArray[np.float64], given: NDArray[np.int64], shrinkage: float) -> NDArray[np.float64]:
    """Partial correlations ``[len(given), all columns]``, each pair given the rest of the given columns."""
    covariance = (1 - shrinkage) * (X[:, given].T @ X / len(X))
    covariance[np.arange(len(given)), given] += shrinkage
    precision = inv(covariance[:, given])
    slopes = precision @ covariance
    left = 1 - np.einsum("ij,ij->j", covariance, slopes)  # variance of each column that the given ones do not explain
    scale = np.diag(precision)[:, None]
    # The joint precision of the given columns and one more, written out; that of a given column is there already.
    found = slopes / np.sqrt(np.maximum(left, _SHRINKAGE[0]) * scale + slopes**2)
    found[:, given] = -precision / np.sqrt(scale * scale.T)
    return found


def known_pairs(regulators: Sequence[str], targets: Sequence[str]) -> NDArray[np.int8]:
    """Look pairs up in the regulons that ship with the project.

    Parameters
    ----------
    regulators, targets
        ``[R]`` and ``[T]`` approved symbols; those of complexes' subunits count for themselves alone.

    Returns
    -------
    ndarray
        int8 ``[R, T]``: 1 raises, -1 lowers, 0 not known; 0 for a gene with itself.
    """
    table = regulons().table
    rows, columns = pd.Index(regulators), pd.Index(targets)
    place, other = rows.get_indexer(table["regulator"]), columns.get_indexer(table["target"])
    there = (place >= 0) & (other >= 0) & (table["regulator"] != table["target"]).to_numpy()
    known = np.zeros((len(rows), len(columns)), np.int8)
    known[place[there], other[there]] = table["sign"].to_numpy()[there]
    return known


def evidence(
    regulators: Sequence[str],
    targets: Sequence[str],
    measures: Mapping[str, NDArray[np.generic]],
    signs: NDArray[np.int8],
    top: int,
) -> pd.DataFrame:
    """List the best targets of each regulator by attention, the strongest edge first.

    Parameters
    ----------
    regulators, targets
        ``[R]`` and ``[T]`` symbols.
    measures
        ``attention``, ``cells``, ``stability``, ``spearman`` and ``partial``, each ``[R, T]``.
    signs
        int8 ``[R, T]``, of `PartialCorrelation.signs`.
    top
        Targets of a regulator at most; ties by the target's symbol.

    Returns
    -------
    DataFrame
        `EDGE_COLUMNS`: ``regulator`` and ``target`` (symbols); ``attention`` (z, shrunk); ``cells`` that have both
        among their tokens (int); ``stability``, 0 to 1; ``spearman`` and ``partial``; ``sign`` (int: 1, -1, or 0 where
        the partial correlation is none beyond chance); ``known`` (``"raises"``, ``"lowers"`` or empty); ``knockout``
        (NaN, to be filled with `knockout_effects`).
    """
    attention = measures["attention"]
    alphabetic = np.argsort(np.asarray(targets))
    order = np.argsort(-attention[:, alphabetic], axis=1, kind="stable")[:, :top]  # NaN comes last
    columns = alphabetic[order].ravel()
    rows = np.repeat(np.arange(len(regulators)), order.shape[1])
    kept = np.isfinite(attention[rows, columns])
    rows, columns = rows[kept], columns[kept]
    table = pd.DataFrame({"regulator": np.asarray(regulators, object)[rows]})
    table["target"] = np.asarray(targets, object)[columns]
    for name in ("attention", "cells", "stability", "spearman", "partial"):
        kind = np.int64 if name == "cells" else np.float64
        table[name] = measures[name][rows, columns].astype(kind)
    table["sign"] = signs[rows, columns].astype(np.int64)
    known = known_pairs(regulators, targets)[rows, columns]
    table["known"] = pd.Series(known).map(SIGNS).astype(object)
    table["knockout"] = np.nan
    return table.sort_values("attention", ascending=False, kind="stable", ignore_index=True)[list(EDGE_COLUMNS)]


def knockout_effects(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    edges: pd.DataFrame,
    regulators: Sequence[str],
    *,
    most_cells: int = _KNOCKOUT_CELLS,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float64]:
    """Predict how each edge's target changes when its regulator is knocked out.

    A regulator that raises a target should lower it when it goes. Much of a predicted change is the same whichever gene
    is removed (`scdiva_core.tasks.predicted_expression`): compare targets of one regulator with each other.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    edges
        With ``regulator`` and ``target``.
    regulators
        Whose edges are wanted. Each costs what embedding five times its cells costs: about four seconds for 100
        cells and the default checkpoint on two cores.
    most_cells
        Cells drawn, for each regulator, from those that read it.
    seed
        Of the draw and of the folds of genes.
    progress, cancelled
        Called once a regulator; asked once a batch.

    Returns
    -------
    ndarray
        float64 ``[n_edges]`` change of the target's predicted log1p expression, no gene seeing its own value; NaN for
        edges of other regulators, for regulators that no cell reads, and for targets that no cell expresses.
    """
    found, place = np.full(len(edges), np.nan), {symbol: column for column, symbol in enumerate(sample.symbols)}
    for done, regulator in enumerate(regulators):
        stop_if(cancelled)
        progress(done, len(regulators), "Predicting knockouts")
        rows = np.flatnonzero(edges["regulator"] == regulator)
        perturbation = Perturbation((regulator,))
        if not len(rows) or not len(reading_rows(tokenizer, sample, perturbation)):
            continue
        change = expression_change(
            model,
            tokenizer,
            sample,
            perturbation,
            folds=FOLDS,
            repeats=1,
            seed=seed,
            most_cells=most_cells,
            cancelled=cancelled,
        ).change
        found[rows] = change[[place[target] for target in edges["target"].iloc[rows]]]
    progress(len(regulators), len(regulators), "Predicting knockouts")
    return found
