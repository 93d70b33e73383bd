"""Hidden tokens filled in without any network: from other cells of the same file, from the row itself, and at random.

`frequent_genes`, `random_genes` and `rank_values` are told the places that are hidden, as the model is; `mean_values`
and `neighbour_values` are told the names of the genes instead. No method sees a hidden value, and no cell that is
rebuilt may be among the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

NEIGHBOURS = 30
"""Other cells that a value is taken from; of 15, 30 and 50 none was clearly better on corpus cells (lung, blood)."""

PRIOR = 3.0
"""Tokens of the gene's mean that a mean over neighbours starts with; of 1, 3 and 10 the best R2 there."""

RANKS = 16
"""Ranks that share a list of frequent genes (our choice)."""


@dataclass(frozen=True, eq=False)
class Population:
    """Other cells of the file.

    Parameters
    ----------
    rows
        Their tokens.
    vocab_size
        Tokens of the vocabulary.

    Raises
    ------
    DataError
        They have no token.
    """

    rows: TokenRows
    vocab_size: int

    def __post_init__(self) -> None:
        if not len(self.rows.gene_ids):
            msg = f"The {len(self.rows):,} other cells have no gene that the model knows."
            raise DataError(msg, "Choose fewer cells to be rebuilt, or another file.")

    @cached_property
    def tokens(self) -> sp.csr_matrix:
        """float32 ``[n, vocab_size]`` log1p values of the genes that are among a cell's tokens."""
        shape = (len(self.rows), self.vocab_size)
        return sp.csr_matrix((self.rows.values, self.rows.gene_ids, self.rows.indptr), shape)

    @cached_property
    def means(self) -> NDArray[np.float32]:
        """float32 ``[vocab_size]`` mean value of each gene over the cells that have it as a token.

        One token of the overall mean is added to each, so that a gene of one cell is not taken at its word, and one of
        none gets the overall mean (our choice).
        """
        sums = np.asarray(self.tokens.sum(axis=0), np.float64).ravel()
        return ((sums + self.rows.values.mean()) / (self.tokens.getnnz(axis=0) + 1)).astype(np.float32)

    @cached_property
    def frequent(self) -> list[NDArray[np.int64]]:
        """Token ids of each `RANKS` successive ranks, the commonest first; at the end those of all ranks together."""
        ranks = np.arange(len(self.rows.gene_ids)) - np.repeat(self.rows.indptr[:-1], self.rows.lengths)
        bands = ranks // RANKS
        lists = [self._by_frequency(self.rows.gene_ids[bands == band]) for band in range(int(bands.max()) + 1)]
        return [*lists, self._by_frequency(self.rows.gene_ids)]

    def _by_frequency(self, gene_ids: NDArray[np.int32]) -> NDArray[np.int64]:
        counts = np.bincount(gene_ids, minlength=self.vocab_size)
        return np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]


def frequent_genes(population: Population, rows: TokenRows, hidden: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Fill each hidden place, from the first rank down, with the commonest gene of its rank that the cell lacks so far.

    Parameters
    ----------
    population
        Other cells.
    rows, hidden
        Cells, and which of their tokens are hidden.

    Returns
    -------
    ndarray
        int64 ``[hidden.sum()]`` token ids; -1 where the population has no gene left.
    """
    lists = [genes.tolist() for genes in population.frequent]
    found: list[int] = []
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        own = hidden[start:end]
        used = set(rows.gene_ids[start:end][~own].tolist())
        reached = [0] * len(lists)
        for place in np.flatnonzero(own):
            for band in (min(int(place) // RANKS, len(lists) - 1), len(lists) - 1):
                genes = lists[band]
                while reached[band] < len(genes) and genes[reached[band]] in used:
                    reached[band] += 1
                if reached[band] < len(genes):
                    found.append(genes[reached[band]])
                    used.add(found[-1])
                    break
            else:
                found.append(-1)
    return np.array(found, np.int64)


def random_genes(
    population: Population, rows: TokenRows, hidden: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fill hidden places with genes of the population drawn at random, none that is visible, none twice in a cell.

    Returns
    -------
    ndarray
        int64 ``[hidden.sum()]`` token ids; -1 where the population has no gene left.
    """
    there, found = np.sort(population.frequent[-1]), [np.empty(0, np.int64)]
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        own = hidden[start:end]
        free = np.setdiff1d(there, rows.gene_ids[start:end][~own])
        drawn = np.full(int(own.sum()), -1)
        n = min(len(drawn), len(free))
        drawn[:n] = rng.choice(free, n, replace=False)
        found.append(drawn)
    return np.concatenate(found)


def random_values(population: Population, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw values of the population's tokens, whatever their gene: float32 ``[n]``."""
    return rng.choice(population.rows.values, n)


def mean_values(population: Population, rows: TokenRows, hidden: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean value of each hidden token's gene in the population: float32 ``[hidden.sum()]``."""
    return population.means[rows.gene_ids[hidden]]


def neighbour_values(
    population: Population, rows: TokenRows, hidden: NDArray[np.bool_], neighbours: int = NEIGHBOURS
) -> NDArray[np.float32]:
    """Mean value of each hidden token's gene over the most similar other cells that have it as a token (kNN).

    Similar is meant by the cosine over the genes that are visible in the cell, no others, so that nothing of the hidden
    ones, not even which they are, finds the neighbours. `PRIOR` tokens of the gene's mean are added (our choice).

    Parameters
    ----------
    population
        Other cells.
    rows, hidden
        Cells, and which of their tokens are hidden.
    neighbours
        Cells at most.
    """
    cells, tokens = np.repeat(np.arange(len(rows)), rows.lengths), population.tokens
    shape = (len(rows), population.vocab_size)
    seen = ~hidden
    visible = sp.csr_matrix((rows.values[seen], (cells[seen], rows.gene_ids[seen])), shape)
    squares = (visible > 0).astype(np.float32) @ tokens.multiply(tokens).T.tocsr()
    similarity = (visible @ tokens.T).toarray() / np.sqrt(np.maximum(squares.toarray(), 1e-12))
    k = min(neighbours, len(population.rows))
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    chosen = sp.csr_matrix(
        (np.ones(nearest.size, np.float32), nearest.ravel(), np.arange(0, nearest.size + 1, k)),
        (len(rows), len(population.rows)),
    )
    asked = (cells[hidden], rows.gene_ids[hidden])
    sums = np.asarray((chosen @ tokens).tocsr()[asked]).ravel()
    counts = np.asarray((chosen @ (tokens > 0).astype(np.float32)).tocsr()[asked]).ravel()
    return ((sums + PRIOR * population.means[asked[1]]) / (counts + PRIOR)).astype(np.float32)


def rank_values(rows: TokenRows, hidden: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate between the visible values above and below in the row: what a hidden place alone tells of its value.

    Returns
    -------
    ndarray
        float32 ``[hidden.sum()]``; the nearest visible value at either end of a row.
    """
    found = [np.empty(0)]
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        own = hidden[start:end]
        if own.any():
            visible = np.flatnonzero(~own)
            found.append(np.interp(np.flatnonzero(own), visible, rows.values[start:end][visible]))
    return np.concatenate(found).astype(np.float32)
