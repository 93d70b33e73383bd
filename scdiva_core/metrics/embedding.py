"""How well the neighbourhoods of a representation agree with labels that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors


@dataclass(frozen=True)
class NeighborAgreement:
    """Share of a cell's nearest neighbours that carry the cell's own label, averaged over cells.

    Parameters
    ----------
    agreement
        In the representation; 0 to 1.
    random
        The same with the labels shuffled: what a representation without any structure would reach.
    k
        Neighbours a cell.
    n_cells, n_labels
        Cells and distinct labels it was measured on.
    per_cell
        Float ``[n_cells]``, the share of each measured cell.
    """

    agreement: float
    random: float
    k: int
    n_cells: int
    n_labels: int
    per_cell: NDArray[np.float64]


@dataclass(frozen=True)
class AgreementComparison:
    """Two representations on the same cells and labels.

    Parameters
    ----------
    model, baseline
        Their agreements.
    difference, standard_error
        Mean of the cells' differences, model minus baseline, and its standard error over cells. Cells share
        neighbours, so the true uncertainty is somewhat larger.
    verdict
        ``"better"`` or ``"worse"`` when the difference exceeds two standard errors and 0.5 percentage points
        (our choice), else ``"equal"``.
    """

    model: NeighborAgreement
    baseline: NeighborAgreement
    difference: float
    standard_error: float
    verdict: Literal["better", "equal", "worse"]


def neighbor_agreement(
    X: ArrayLike, labels: ArrayLike, k: int = 15, seed: int = 0, max_cells: int = 5000
) -> NeighborAgreement:
    """Measure the share of same-label cells among each cell's `k` nearest by Euclidean distance.

    Parameters
    ----------
    X
        Float ``[n_cells, d]``.
    labels
        ``[n_cells]``; cells whose label is missing (None, NaN, empty) are left out.
    k
        Neighbours, the cell itself not counted.
    seed
        Of the subset and of the shuffled labels; the same seed takes the same cells for any `X`.
    max_cells
        Measured on a random subset of this size when there are more.

    Raises
    ------
    ValueError
        Fewer than ``k + 1`` labelled cells, or fewer than two labels.
    """
    generator = np.random.default_rng(seed)
    codes = _codes(labels)
    rows = np.flatnonzero(codes >= 0)
    if len(rows) > max_cells:
        rows = np.sort(generator.choice(rows, max_cells, replace=False))
    codes = codes[rows]
    n_labels = len(np.unique(codes))
    if len(rows) <= k or n_labels < 2:
        message = f"{len(rows)} labelled cells with {n_labels} labels cannot be compared over {k} neighbours"
        raise ValueError(message)
    neighbors = _neighbors(np.asarray(X)[rows], k)
    per_cell = (codes[neighbors] == codes[:, None]).mean(axis=1)
    shuffled = generator.permutation(codes)
    random = float((shuffled[neighbors] == shuffled[:, None]).mean())
    return NeighborAgreement(float(per_cell.mean()), random, k, len(rows), n_labels, per_cell)


def compare_agreement(
    X: ArrayLike,
    baseline: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 15,
    seed: int = 0,
    max_cells: int = 5000,
) -> AgreementComparison:
    """Measure two representations of the same cells, and say which one agrees better with the labels.

    Parameters
    ----------
    X, baseline
        Float ``[n_cells, d]`` each; the widths may differ.
    labels, k, seed, max_cells
        As for `neighbor_agreement`, whose errors are raised too.
    """
    model = neighbor_agreement(X, labels, k, seed, max_cells)
    other = neighbor_agreement(baseline, labels, k, seed, max_cells)
    differences = model.per_cell - other.per_cell
    difference = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    if abs(difference) <= max(2 * error, 0.005):
        verdict = "equal"
    else:
        verdict = "better" if difference > 0 else "worse"
    return AgreementComparison(model, other, difference, error, verdict)


def _codes(labels: ArrayLike) -> NDArray[np.integer]:
    """Integer code of each label, -1 where there is none."""
    text = pd.Series(np.asarray(labels, dtype=object))
    missing = text.isna() | (text.astype(str).str.strip() == "")
    codes, _ = pd.factorize(text.astype(str).mask(missing))
    return codes


def _neighbors(X: NDArray[np.floating], k: int) -> NDArray[np.integer]:
    index = NearestNeighbors(n_neighbors=k).fit(X)
    # Without an argument a cell is not its own neighbour, even where two cells coincide.
    return index.kneighbors(return_distance=False)
