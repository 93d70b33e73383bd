"""Gene embeddings to start from: a truncated SVD of the corpus.

Our choice: with a small budget, embeddings learned from nothing by the identity loss alone leave the cell
embedding far behind PCA, while genes that vary together already lie together after an SVD.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from scdiva_core.data.corpus import Corpus


def svd_gene_embeddings(corpus: Corpus, width: int, *, seed: int, max_cells: int = 12_000) -> torch.Tensor:
    """Right singular vectors of standardised training cells, scaled to unit variance a coordinate.

    Parameters
    ----------
    corpus
        Prepared corpus.
    width
        Number of singular vectors, the network's width.
    seed
        Chooses the cells and the range finder's start.
    max_cells
        Cells that are used at most.

    Returns
    -------
    Tensor
        float32 ``[vocab_size, width]``; 0 in rows of genes that never occur in these cells, and in columns beyond
        the number of cells.
    """
    rng = np.random.default_rng(seed)
    cells = corpus.cells("training")
    cells = np.sort(rng.choice(cells, min(max_cells, len(cells)), replace=False))
    rows = corpus.take(cells)
    # Scaled, not centred, so that the matrix stays sparse; the first vector takes up the mean.
    values = rows.log1p() / np.maximum(corpus.gene_std, 0.1)[rows.gene_ids]
    matrix = rows.sparse(values.astype(np.float32), len(corpus.vocabulary))
    transposed = matrix.t().coalesce()
    basis = torch.randn(len(rows), width + 10, generator=torch.Generator().manual_seed(seed))
    genes = transposed @ basis
    for _ in range(3):  # power iterations sharpen a slowly falling spectrum
        basis = torch.linalg.qr(matrix @ genes).Q
        genes = transposed @ basis
    left, singular, _ = torch.linalg.svd(genes, full_matrices=False)
    vectors = left[:, :width] * singular[:width].sqrt()
    seen = torch.from_numpy(np.bincount(rows.gene_ids, minlength=len(vectors)) > 0)
    vectors = vectors / vectors[seen].std(dim=0).clamp(min=1e-6)
    vectors[~seen] = 0
    # Fewer cells than dimensions span fewer: the others start at 0.
    return F.pad(vectors, (0, width - vectors.shape[1]))
