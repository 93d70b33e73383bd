"""Training cells as another laboratory would have measured them: less deeply, with other biases, on fewer genes.

Depth-robust thinning is part of the recipe; biases and panels are our choice. A file of variable genes alone is common,
and every protocol favours genes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.corpus import CellRows
from scdiva_core.diffusion.corruption import thin_counts

SHALLOWEST = 0.25
"""Lowest thinning factor."""

LARGEST_BIAS = 1.0
"""Highest standard deviation of a gene's log capture factor, in nats."""

FEWEST_VARIABLE = 0.3
"""Smallest share of the variable genes on a panel."""

MOST_OTHERS = 0.1
"""Largest share of the other genes on a panel."""


@dataclass(frozen=True)
class Augmentation:
    """How many of the cells are changed, each change being drawn apart from the others.

    Parameters
    ----------
    thinned_share
        Share of the cells whose counts are thinned to a factor drawn from U(0.25, 1).
    biased_share
        Share whose genes are each multiplied with a factor of their own, exp of N(0, sd) with sd from U(0, 1).
    panel_share
        Share of which a panel of genes is left: of the variable ones a share from U(0.3, 1), of all others one from
        U(0, 0.1). As in a file cut to such genes, the cell's total is what is left.
    variable
        Token ids of the variable genes; needed for panels.
    """

    thinned_share: float = 0.0
    biased_share: float = 0.0
    panel_share: float = 0.0
    variable: NDArray[np.int64] | None = None

    def __call__(self, rows: CellRows, rng: np.random.Generator) -> CellRows:
        """Change a share of the cells; counts of genes without a token follow their cell's depth."""
        if self.thinned_share:
            rows = _thinned(rows, rng.random(len(rows)) < self.thinned_share, rng)
        if self.biased_share:
            rows = _biased(rows, rng.random(len(rows)) < self.biased_share, rng)
        if self.panel_share and self.variable is not None:
            rows = _on_panels(rows, rng.random(len(rows)) < self.panel_share, self.variable, rng)
        return rows


def _thinned(rows: CellRows, chosen: NDArray[np.bool_], rng: np.random.Generator) -> CellRows:
    factors = np.where(chosen, rng.uniform(SHALLOWEST, 1, len(rows)), 1.0)
    counts = thin_counts(rows.counts, factors[rows.rows], rng)
    return replace(rows, counts=counts, totals=_sums(rows, counts) + _unknown(rows) * factors)


def _biased(rows: CellRows, chosen: NDArray[np.bool_], rng: np.random.Generator) -> CellRows:
    deviation = np.where(chosen, rng.uniform(0, LARGEST_BIAS, len(rows)), 0.0)
    counts = rows.counts * np.exp(rng.standard_normal(len(rows.counts)) * deviation[rows.rows])
    return replace(rows, counts=counts, totals=_sums(rows, counts) + _unknown(rows))


def _on_panels(
    rows: CellRows, chosen: NDArray[np.bool_], variable: NDArray[np.int64], rng: np.random.Generator
) -> CellRows:
    of_entry = rows.rows
    known = np.where(chosen, rng.uniform(FEWEST_VARIABLE, 1, len(rows)), 1.0)
    others = np.where(chosen, rng.uniform(0, MOST_OTHERS, len(rows)), 1.0)
    share = np.where(np.isin(rows.gene_ids, variable), known[of_entry], others[of_entry])
    kept = rng.random(len(share)) < share
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    left = CellRows(indptr, rows.gene_ids[kept], rows.counts[kept], rows.totals)
    return replace(left, totals=np.where(chosen, _sums(left, left.counts), rows.totals))


def _sums(rows: CellRows, counts: NDArray[np.number]) -> NDArray[np.float64]:
    return np.bincount(rows.rows, counts, minlength=len(rows))


def _unknown(rows: CellRows) -> NDArray[np.float64]:
    """Counts of genes without a token."""
    return rows.totals - _sums(rows, rows.counts)
