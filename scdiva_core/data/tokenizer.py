"""Entropy-normalised serialisation: expression rows in, ordered gene tokens out.

The paper names the idea (its section on serialisation) and prints no formula that we know of. Our
reading: ``score = x / max(H, EPSILON)`` with ``x`` log1p of counts per 10,000 and ``H`` the gene's
Shannon entropy over the training population, normalised to [0, 1]. Specific genes rise,
housekeeping genes sink. Genes are sorted by descending score, ties by token id; zeros are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

EPSILON = 0.1
"""Floor of the entropy, so that a gene seen in one cell alone cannot outrank all others (our choice)."""

_BLOCK_ROWS = 32  # keeps the keys of 2,000 genes a cell inside the L2 cache


@dataclass(frozen=True)
class TokenBatch:
    """What the model eats: right-padded token rows.

    Attributes
    ----------
    gene_ids
        int64 ``[B, L]`` token ids, padded with the padding id.
    values
        float32 ``[B, L]`` log1p expression, padded with 0.
    lengths
        int64 ``[B]`` number of real tokens of each row.
    """

    gene_ids: torch.Tensor
    values: torch.Tensor
    lengths: torch.Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> TokenBatch:
        """Copy to a device; the lengths stay where they are, for they steer the host."""
        return TokenBatch(
            self.gene_ids.to(device, non_blocking=non_blocking),
            self.values.to(device, non_blocking=non_blocking),
            self.lengths,
        )


@dataclass(frozen=True)
class TokenRows:
    """Token rows of unequal length, stored end to end.

    Attributes
    ----------
    indptr
        int64 ``[n + 1]``; row ``i`` is ``indptr[i]:indptr[i + 1]``.
    gene_ids
        int32 ``[indptr[-1]]`` token ids in serialised order.
    values
        float32 ``[indptr[-1]]`` log1p expression.
    """

    indptr: NDArray[np.int64]
    gene_ids: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row."""
        return np.diff(self.indptr)

    def take(self, rows: NDArray[np.integer]) -> TokenRows:
        """The chosen rows, in their order."""
        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        source = np.repeat(self.indptr[:-1][rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return TokenRows(indptr, self.gene_ids[source], self.values[source])

    def batch(self, rows: NDArray[np.integer] | slice, *, pad_id: int = 0) -> TokenBatch:
        """Pad the chosen rows to the longest of them (at least one column wide)."""
        lengths = self.lengths[rows]
        width = max(int(lengths.max(initial=0)), 1)
        inside = np.arange(width) < lengths[:, None]
        source = (self.indptr[:-1][rows][:, None] + np.arange(width))[inside]
        gene_ids = np.full(inside.shape, pad_id, np.int64)
        values = np.zeros(inside.shape, np.float32)
        gene_ids[inside] = self.gene_ids[source]
        values[inside] = self.values[source]
        return TokenBatch(torch.from_numpy(gene_ids), torch.from_numpy(values), torch.from_numpy(lengths))


class Tokenizer:
    """Serialises expression rows with one population's entropies.

    Parameters
    ----------
    entropy
        float ``[vocab_size]`` normalised entropy of each token id, in [0, 1].
    max_genes
        Longest row kept; lower-ranked genes are dropped.
    """

    def __init__(self, entropy: NDArray[np.floating], max_genes: int) -> None:
        self.entropy = np.asarray(entropy, np.float32)
        self.max_genes = max_genes
        self._weight = (1.0 / np.maximum(self.entropy, np.float32(EPSILON))).astype(np.float32)

    @classmethod
    def unweighted(cls, vocab_size: int, max_genes: int) -> Tokenizer:
        """Plain expression sorting: every gene has entropy 1."""
        return cls(np.ones(vocab_size, np.float32), max_genes)

    def serialize(
        self,
        indptr: NDArray[np.integer],
        columns: NDArray[np.integer],
        values: NDArray[np.float32],
        gene_ids: NDArray[np.integer],
    ) -> TokenRows:
        """Order the genes of CSR rows.

        Parameters
        ----------
        indptr, columns, values
            A CSR matrix of log1p expression; entries that are not positive are left out.
        gene_ids
            int ``[n_columns]`` token id of each column, ascending, so that ties fall by token id.

        Returns
        -------
        TokenRows
            As many rows as the matrix; at most `max_genes` tokens each.
        """
        indptr = np.asarray(indptr, np.int64)
        if values.size and values.min() <= 0:
            kept = values > 0
            indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
            columns, values = columns[kept], values[kept]
        weight = self._weight[gene_ids]
        ids = np.asarray(gene_ids, np.int32)
        kept_lengths = np.minimum(np.diff(indptr), self.max_genes)
        out_indptr = np.concatenate([[0], np.cumsum(kept_lengths)])
        out_ids = np.empty(out_indptr[-1], np.int32)
        out_values = np.empty(out_indptr[-1], np.float32)
        scratch = _Scratch(indptr)
        for start in range(0, len(indptr) - 1, _BLOCK_ROWS):
            rows = indptr[start : start + _BLOCK_ROWS + 1]
            source = slice(rows[0], rows[-1])
            target = slice(out_indptr[start], out_indptr[min(start + _BLOCK_ROWS, len(indptr) - 1)])
            ranked = scratch.rank(np.diff(rows), columns[source], values[source], weight, self.max_genes)
            out_ids[target] = ids[columns[source][ranked]]
            out_values[target] = values[source][ranked]
        return TokenRows(out_indptr, out_ids, out_values)

    def serialize_dense(self, matrix: NDArray[np.floating], reserved_ids: tuple[int, ...] = ()) -> TokenRows:
        """Order a dense ``[n, vocab_size]`` matrix of log1p expression; reserved columns are left out."""
        matrix = np.array(matrix, np.float32)
        matrix[:, list(reserved_ids)] = 0
        rows, columns = np.nonzero(matrix > 0)
        indptr = np.searchsorted(rows, np.arange(len(matrix) + 1))
        return self.serialize(indptr, columns, matrix[rows, columns], np.arange(matrix.shape[1]))


class _Scratch:
    """Buffers for ranking one block of rows; reused, because fresh pages cost more than the arithmetic."""

    def __init__(self, indptr: NDArray[np.int64]) -> None:
        starts = indptr[:-1:_BLOCK_ROWS]
        ends = np.append(indptr[_BLOCK_ROWS::_BLOCK_ROWS], indptr[-1])[: len(starts)]
        entries = int((ends - starts).max(initial=0))
        width = max(int(np.diff(indptr).max(initial=0)), 1)
        self._score = np.empty(entries, np.float32)
        self._key = np.empty(entries, np.uint64)
        self._place = np.arange(entries, dtype=np.uint64)
        self._padded = np.empty(_BLOCK_ROWS * width, np.uint64)

    def rank(
        self,
        lengths: NDArray[np.int64],
        columns: NDArray[np.integer],
        values: NDArray[np.float32],
        weight: NDArray[np.float32],
        max_genes: int,
    ) -> NDArray[np.int64]:
        """Positions of the block's kept entries, row after row, each row by descending score."""
        entries, width = len(values), max(int(lengths.max(initial=0)), 1)
        score, key = self._score[:entries], self._key[:entries]
        np.take(weight, columns, out=score, mode="clip")
        score *= values
        # A positive float's bits sort like the float: inverted score in the high half, place in the low half.
        bits = score.view(np.uint32)
        np.invert(bits, out=bits)
        np.left_shift(bits, np.uint64(32), out=key)
        key |= self._place[:entries]
        padded = self._padded[: len(lengths) * width].reshape(len(lengths), width)
        padded.fill(np.iinfo(np.uint64).max)
        padded[np.arange(width) < lengths[:, None]] = key
        padded.sort(axis=1)
        top = padded[:, :max_genes]
        kept = top[np.arange(top.shape[1]) < lengths[:, None]]
        return (kept & np.uint64(0xFFFFFFFF)).astype(np.int64)


class EntropyAccumulator:
    """Population entropy of each gene, one pass over chunks of expression.

    ``H_g = -(sum_c p_cg log p_cg) / log(n_cells)`` with ``p_cg = x_cg / sum_c x_cg`` (our reading of
    the paper's population-level Shannon entropy). Genes never seen get 1 and so never rise.
    """

    def __init__(self, vocab_size: int) -> None:
        self._sum = np.zeros(vocab_size)
        self._sum_log = np.zeros(vocab_size)
        self.n_cells = 0

    def add(self, n_cells: int, gene_ids: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """Add the entries (token id, log1p value > 0) of ``n_cells`` cells."""
        value = values.astype(np.float64)
        size = len(self._sum)
        self._sum += np.bincount(gene_ids, value, minlength=size)
        self._sum_log += np.bincount(gene_ids, value * np.log(value), minlength=size)
        self.n_cells += n_cells

    def entropy(self) -> NDArray[np.float32]:
        """Return float32 ``[vocab_size]`` in [0, 1]."""
        seen = self._sum > 0
        total = np.where(seen, self._sum, 1.0)
        raw = np.log(total) - self._sum_log / total
        return np.where(seen, np.clip(raw / np.log(max(self.n_cells, 2)), 0, 1), 1).astype(np.float32)
