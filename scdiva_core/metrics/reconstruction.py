"""How like the true cell a rebuilt one is: its order of genes, and the values of those that were hidden.

The paper names L-Dist, BLEU and Spearman and defines none of them that we know of: mask, n-grams, normalisation and
what is correlated are our choice, written at each function. Numbers that are not defined are NaN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

N_GRAMS = 4
"""Longest run of genes that BLEU compares (Papineni 2002)."""


def edit_distances(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> NDArray[np.int64]:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein 1966).

    Parameters
    ----------
    first, second
        Sequences of integers from 0, as many on either side; all pairs go through the table at once.

    Returns
    -------
    ndarray
        int64 ``[n]``.
    """
    ours, theirs = _padded(first, -1), _padded(second, -2)
    n, width = len(ours), theirs.shape[1]
    lengths = np.array([len(sequence) for sequence in first], np.int64)
    ends = np.array([len(sequence) for sequence in second], np.int64)
    places = np.arange(width + 1, dtype=np.int32)
    table = np.tile(places, (n, 1))
    found = np.where(lengths == 0, ends, 0)
    for row in range(ours.shape[1]):
        step = np.empty_like(table)
        step[:, 0] = row + 1
        np.minimum(table[:, 1:] + 1, table[:, :-1] + (theirs != ours[:, [row]]), out=step[:, 1:])
        # Insertions run along the row: the least of what lies to the left, and one for each place between.
        table = np.minimum.accumulate(step - places, axis=1) + places
        done = lengths == row + 1
        found[done] = table[done, ends[done]]
    return found


def l_dist(true: Sequence[ArrayLike], rebuilt: Sequence[ArrayLike], hidden: ArrayLike) -> NDArray[np.float64]:
    """Edit distance of the whole gene sequence over the number of hidden places, float64 ``[n]``.

    0 is a perfect order. As many substitutions as places were hidden always do, so 1 is the worst, whatever was masked.
    The paper prints distances of 4 to 13 and neither normalisation nor mask; dividing is our choice.

    Parameters
    ----------
    true, rebuilt
        Token ids of each cell in serialised order, visible genes included.
    hidden
        Places of each cell that were hidden, ``[n]``; NaN where there are none.
    """
    hidden = np.asarray(hidden, np.float64)
    return edit_distances(true, rebuilt) / np.where(hidden > 0, hidden, np.nan)


def bleu(true: ArrayLike, rebuilt: ArrayLike) -> float:
    """Share of the rebuilt sequence's runs of genes that the true one has (BLEU; Papineni 2002).

    Geometric mean of the precisions of runs of one to four genes, with brevity penalty; counts of runs longer than one
    gene are raised by 1 above and below (Lin and Och 2004), so that one lacking run does not make it 0. The whole
    sequence counts, visible genes too, so a small mask alone makes it high: read it beside a random rebuilding. The
    paper does not say which variant it uses.

    Parameters
    ----------
    true, rebuilt
        Token ids in serialised order; NaN where either is empty.
    """
    reference, candidate = np.asarray(true).tolist(), np.asarray(rebuilt).tolist()
    if not reference or not candidate:
        return float("nan")
    logs = []
    for n in range(1, min(N_GRAMS, len(reference), len(candidate)) + 1):
        counts = [Counter(zip(*(side[start:] for start in range(n)), strict=False)) for side in (reference, candidate)]
        raised = int(n > 1)
        matched = (counts[0] & counts[1]).total() + raised
        if not matched:
            return 0.0
        logs.append(np.log(matched / (counts[1].total() + raised)))
    brevity = min(0.0, 1 - len(reference) / len(candidate))
    return float(np.exp(np.mean(logs) + brevity))


def identity_accuracy(true: ArrayLike, rebuilt: ArrayLike) -> float:
    """Share of the hidden places of a cell where the gene is the true one; NaN where none was hidden."""
    hits = np.asarray(true) == np.asarray(rebuilt)
    return float(hits.mean()) if hits.size else float("nan")


def value_scores(true: ArrayLike, rebuilt: ArrayLike) -> dict[str, float]:
    """Compare the rebuilt values of a cell's hidden tokens with the true ones.

    Parameters
    ----------
    true, rebuilt
        log1p values ``[n_hidden]``.

    Returns
    -------
    dict
        ``spearman``, the rank correlation over the cell's hidden tokens, NaN where one side is constant; ``mse``, mean
        squared error in log1p units squared; ``r2``, 1 less the squared error over that of the cell's own mean of
        these tokens, NaN where they are all the same. Fewer than three tokens give neither correlation nor R2.
    """
    true, rebuilt = np.asarray(true, np.float64), np.asarray(rebuilt, np.float64)
    if not true.size:
        return {"spearman": float("nan"), "mse": float("nan"), "r2": float("nan")}
    mse, spread = float(np.square(true - rebuilt).mean()), float(true.var())
    few = len(true) < 3
    ranked = not few and spread > 0 and np.ptp(rebuilt) > 0
    return {
        "spearman": float(spearmanr(true, rebuilt).statistic) if ranked else float("nan"),
        "mse": mse,
        "r2": 1 - mse / spread if not few and spread > 0 else float("nan"),
    }


def _padded(sequences: Sequence[ArrayLike], filler: int) -> NDArray[np.int32]:
    arrays = [np.asarray(sequence, np.int32) for sequence in sequences]
    table = np.full((len(arrays), max((len(array) for array in arrays), default=0)), filler, np.int32)
    for row, array in enumerate(arrays):
        table[row, : len(array)] = array
    return table
