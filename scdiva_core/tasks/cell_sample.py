"""Cells read, serialised and encoded once, and the names of their genes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer, TokenRows
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property
from scdiva_core.tasks.embedding import CHUNK_CELLS
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

_NEAR = 3  # spellings offered for a gene that is not there


@dataclass(frozen=True, eq=False)
class CellSample:
    """Cells read once, to be asked many times; made by `read_cells` or `scdiva_core.tasks.perturbation.read_sample`.

    Attributes
    ----------
    cells
        int64 ``[n]`` places in the file, ascending.
    expression
        float32 CSR ``[n, n_genes]``, log1p of counts per 10,000 of the genes that file and vocabulary share.
    rows
        The cells' tokens.
    latents
        float32 ``[n, d]`` of the unperturbed cells; d is 0 where they were not encoded.
    gene_ids
        int64 ``[n_genes]`` token id of each column, ascending.
    symbols
        Symbol of each column.
    vocabulary
        Genes of the checkpoint.
    max_genes
        Most tokens of a cell.
    """

    cells: NDArray[np.int64]
    expression: sp.csr_matrix
    rows: TokenRows
    latents: NDArray[np.float32]
    gene_ids: NDArray[np.int64]
    symbols: tuple[str, ...]
    vocabulary: GeneVocabulary
    max_genes: int

    def __len__(self) -> int:
        return len(self.cells)

    @cached_property
    def tokens(self) -> sp.csc_matrix:
        """float32 CSC ``[n, n_genes]`` log1p values of the genes that are among a cell's tokens."""
        columns = np.searchsorted(self.gene_ids, self.rows.gene_ids)
        shape = (len(self), len(self.gene_ids))
        return sp.csr_matrix((self.rows.values, columns, self.rows.indptr), shape).tocsc()

    @cached_property
    def expressed(self) -> sp.csc_matrix:
        """`expression` by columns."""
        return self.expression.tocsc()

    def take(self, rows: NDArray[np.integer]) -> CellSample:
        """Some of the cells: rows of this sample, ascending."""
        return replace(
            self,
            cells=self.cells[rows],
            expression=self.expression[rows],
            rows=self.rows.take(rows),
            latents=self.latents[rows],
        )

    def columns(self, genes: Sequence[str]) -> NDArray[np.int64]:
        """Column of each gene.

        Raises
        ------
        DataError
            The vocabulary or the file lacks a gene, or two names are one gene.
        """
        ids = self.vocabulary.match(genes).ids
        places = np.minimum(np.searchsorted(self.gene_ids, ids), len(self.gene_ids) - 1)
        for gene, token, place in zip(genes, ids, places, strict=True):
            if token < 0 or self.gene_ids[place] != token:
                self._refuse(gene, "the model's vocabulary" if token < 0 else "this file")
        if len(set(places)) < len(places):
            msg = f"{' and '.join(genes)} name one gene twice ({', '.join(self.symbols[i] for i in places)})."
            raise DataError(msg, "Choose different genes.")
        return places

    def _refuse(self, gene: str, where: str) -> None:
        known = {symbol.upper(): symbol for symbol in self.symbols}
        near = [known[name] for name in difflib.get_close_matches(gene.upper(), known, _NEAR)]
        msg = f"The gene {gene!r} is not in {where}."
        raise DataError(msg, f"Similar names there: {', '.join(near)}." if near else "Search the list of its genes.")


def read_cells(
    tokenizer: Tokenizer,
    dataset: H5adDataset,
    cells: ArrayLike,
    vocabulary: GeneVocabulary,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> CellSample:
    """Read and serialise cells, without encoding them.

    Parameters
    ----------
    tokenizer
        Of the checkpoint, or of the data set where that has none.
    dataset
        Open file.
    cells
        Places of the cells in the file.
    vocabulary
        Of the checkpoint.
    progress, cancelled
        Called once a chunk of the file.

    Raises
    ------
    DataError
        No cells, or places outside the file.
    Cancelled
        The user stopped.
    """
    cells = np.unique(np.asarray(cells, np.int64))
    if not len(cells) or cells[0] < 0 or cells[-1] >= dataset.n_obs:
        found = f"cells {cells[0]} to {cells[-1]}" if len(cells) else "no cells"
        msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
        raise DataError(msg, "Choose a cell set of this file.")
    parts = []
    for start, block in dataset.chunks(CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, dataset.n_obs, "Reading cells")
        first, last = np.searchsorted(cells, [start, start + block.shape[0]])
        parts.append(block[cells[first:last] - start])
    expression = sp.vstack(parts, format="csr", dtype=np.float32)
    return CellSample(
        cells,
        expression,
        tokenizer.serialize(expression.indptr, expression.indices, expression.data, dataset.gene_ids),
        np.empty((len(cells), 0), np.float32),
        dataset.gene_ids,
        dataset.gene_symbols,
        vocabulary,
        tokenizer.max_genes,
    )
