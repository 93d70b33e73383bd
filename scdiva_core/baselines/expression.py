"""Corpus cells as one sparse matrix, and the genes in it that vary most."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.data.corpus import Corpus

N_TOP_GENES = 2000
"""Highly variable genes that a baseline sees (scanpy's usual number)."""

_CHUNK_CELLS = 8192


def corpus_expression(corpus: Corpus, cells: NDArray[np.integer]) -> sp.csr_matrix:
    """Read cells of a corpus.

    Parameters
    ----------
    corpus
        Prepared corpus.
    cells
        Their indices, in any order.

    Returns
    -------
    csr_matrix
        log1p of counts per 10,000, float32 ``[n_cells, vocab_size]``; columns are token ids.
    """
    blocks = [sp.csr_matrix((0, len(corpus.vocabulary)), dtype=np.float32)]
    for start in range(0, len(cells), _CHUNK_CELLS):
        rows = corpus.take(cells[start : start + _CHUNK_CELLS])
        shape = (len(rows), len(corpus.vocabulary))
        blocks.append(sp.csr_matrix((rows.log1p(), rows.gene_ids, rows.indptr), shape=shape))
    return sp.vstack(blocks, format="csr")


def variable_genes(X: sp.csr_matrix, n_top: int = N_TOP_GENES) -> NDArray[np.int64]:
    """Columns of the genes that vary most for their mean, ascending (Satija 2015, scanpy's default flavour).

    Parameters
    ----------
    X
        log1p expression ``[n_cells, n_genes]``.
    n_top
        How many; all detected ones where there are fewer.
    """
    import scanpy as sc  # seconds to import

    detected = np.flatnonzero(X.getnnz(axis=0))
    if len(detected) <= n_top:
        return detected
    cells = anndata.AnnData(X[:, detected])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy warns of missing raw counts, which this flavour does not need
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top)
    return detected[cells.var["highly_variable"].to_numpy()]
