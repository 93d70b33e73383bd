"""What the numbers of a matrix are, and how they become log1p of counts per 10,000."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from scdiva_core.data.matrix import Sample

TARGET_SUM = 10_000.0
# exp(20) is 5e8: no logarithm of a normalised count comes near, while raw maxima lie far above 20.
_LARGEST_LOG = 20.0
# Above these nothing can be meant as such (also keeps sums and exp within float32).
_LIMITS = {"log1p": 40.0, "counts": 1e12, "normalised": 1e12}
_SAME_TOTAL = 0.02


def detect_kind(sample: Sample) -> tuple[str, str]:
    """Tell counts from logarithms by looking at values.

    All whole numbers: counts. Otherwise, below 20: log1p, unless every cell sums to the same; above:
    normalised without logarithm. Negative: scaled. Our rule; the user can override it.

    Parameters
    ----------
    sample
        Values of a few cells.

    Returns
    -------
    tuple of str
        ``"counts"``, ``"log1p"``, ``"normalised"``, ``"scaled"`` or ``"unknown"``, and the reason in words.
    """
    values = sample.values
    n_bad = int(np.count_nonzero(~np.isfinite(values)))
    if n_bad:
        return "unknown", f"{n_bad:,} of {values.size:,} sampled values are not finite"
    if not values.size:
        return "unknown", "no value other than zero was found"
    lowest, highest = float(values.min()), float(values.max())
    if lowest < 0:
        return "scaled", f"{np.count_nonzero(values < 0):,} of {values.size:,} sampled values are negative"
    fractions = np.count_nonzero(values != np.floor(values)) / values.size
    if not fractions:
        return "counts", f"all {values.size:,} sampled values are whole numbers, the largest {highest:,.0f}"
    found = f"{fractions:.0%} of {values.size:,} sampled values have decimals, the largest is {highest:,.4g}"
    if highest >= _LARGEST_LOG:
        return "normalised", found
    if _spread_of(sample.totals) < _SAME_TOTAL < _spread_of(sample.log_totals):
        return "normalised", f"{found}, and every sampled cell sums to {np.median(sample.totals):,.0f}"
    return "log1p", found


def undone_total(sample: Sample) -> float | None:
    """Return what log values were scaled to before the logarithm.

    Parameters
    ----------
    sample
        Values of a few cells, taken as log1p.

    Returns
    -------
    float or None
        Median over cells of the sum of exp(value) - 1; None when cells differ or were not sampled whole.
    """
    return float(np.median(sample.log_totals)) if _spread_of(sample.log_totals) < _SAME_TOTAL else None


def _spread_of(totals: np.ndarray) -> float:
    """Coefficient of variation over cells that are not empty; infinite for fewer than three."""
    totals = totals[totals > 0]
    if len(totals) < 3 or not np.isfinite(totals).all():
        return float("inf")
    return float(totals.std() / totals.mean())


@dataclass(frozen=True)
class BadValues:
    """Values that cannot be used.

    Parameters
    ----------
    nan, infinite, negative, too_large
        How many of each.
    first_cell
        Row of the first, -1 for none.
    """

    nan: int = 0
    infinite: int = 0
    negative: int = 0
    too_large: int = 0
    first_cell: int = -1

    def __str__(self) -> str:
        words = {
            "NaN": self.nan,
            "infinite": self.infinite,
            "negative": self.negative,
            "impossibly large": self.too_large,
        }
        return ", ".join(f"{number:,} {word}" for word, number in words.items() if number)


def has_bad(block: sp.csr_matrix, kind: str) -> bool:
    """Tell whether any value is NaN, infinite, negative or too large for its kind.

    Parameters
    ----------
    block
        Any block of cells.
    kind
        ``"counts"``, ``"log1p"`` or ``"normalised"``.
    """
    values = block.data  # a comparison with NaN is false
    return not bool(np.all((values >= 0) & (values <= _LIMITS[kind])))


def count_bad(blocks: Iterable[tuple[int, sp.csr_matrix]], kind: str) -> BadValues:
    """Count the values that cannot be used.

    Parameters
    ----------
    blocks
        First cell and values of each block, in order.
    kind
        As in `has_bad`.
    """
    counts, first_cell = np.zeros(4, dtype=np.int64), -1
    for start, block in blocks:
        values = block.data
        masks = np.stack(
            [
                np.isnan(values),
                np.isinf(values),
                (values < 0) & np.isfinite(values),
                (values > _LIMITS[kind]) & np.isfinite(values),
            ]
        )
        counts += masks.sum(axis=1)
        bad = np.flatnonzero(masks.any(axis=0))
        if first_cell < 0 and bad.size:
            first_cell = start + int(np.searchsorted(block.indptr, bad[0], side="right")) - 1
    return BadValues(*(int(number) for number in counts), first_cell=first_cell)


class GeneColumns:
    """Which column of a block goes to which gene.

    Parameters
    ----------
    ids
        Token id of each column, int64 [n_vars]; -1 for columns to leave out.
    """

    def __init__(self, ids: np.ndarray) -> None:
        known = ids >= 0
        self.gene_ids, positions = np.unique(ids[known], return_inverse=True)
        self._target = np.full(len(ids), -1, dtype=np.int32)
        self._target[known] = positions
        self.repeated = len(self.gene_ids) < len(positions)

    def pick(self, block: sp.csr_matrix) -> sp.csr_matrix:
        """Move columns to their genes, leave out the others, and sum those that share a gene.

        Parameters
        ----------
        block
            Values [cells, n_vars].

        Returns
        -------
        csr_matrix
            Values [cells, n_genes] in the order of `gene_ids`, indices sorted, no stored zeros.
        """
        target = self._target[block.indices]
        kept = (target >= 0) & (block.data != 0)
        pointers = np.concatenate([[0], np.cumsum(kept)])[block.indptr]
        picked = sp.csr_matrix((block.data[kept], target[kept], pointers), shape=(block.shape[0], len(self.gene_ids)))
        picked.sum_duplicates()
        return picked


def log_normalised(block: sp.csr_matrix, columns: GeneColumns, kind: str) -> sp.csr_matrix:
    """Turn a block of the file into log1p of counts per 10,000.

    Counts are divided by the cell's total over all genes of the matrix, known or not. Log values are taken as
    they are, except that genes named twice are summed as counts.

    Parameters
    ----------
    block
        Values float32 [cells, n_vars], free of bad ones.
    columns
        Gene of each column.
    kind
        ``"counts"``, ``"normalised"`` or ``"log1p"``.

    Returns
    -------
    csr_matrix
        float32 [cells, n_genes].
    """
    if kind == "log1p" and not columns.repeated:
        return columns.pick(block)
    if kind == "log1p":
        linear = sp.csr_matrix((np.expm1(block.data, dtype=np.float64), block.indices, block.indptr), block.shape)
        picked = columns.pick(linear)
    else:
        totals = block @ np.ones(block.shape[1])
        factors = TARGET_SUM / np.where(totals > 0, totals, 1.0)
        picked = columns.pick(block)
        picked = sp.csr_matrix(
            (picked.data * np.repeat(factors, np.diff(picked.indptr)), picked.indices, picked.indptr),
            picked.shape,
        )
    picked.data = np.log1p(picked.data).astype(np.float32)
    return picked
