"""Gene vectors to start from, against numpy's own decomposition."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.training.initial import svd_gene_embeddings


@pytest.fixture(scope="module")
def standardised(corpus: Corpus) -> np.ndarray:
    """Training cells by tokens: log1p over standard deviation, not centred."""
    rows = corpus.take(corpus.cells("training"))
    logged = np.zeros((len(rows), len(corpus.vocabulary)))
    logged[rows.rows, rows.gene_ids] = rows.log1p()
    return logged / np.maximum(corpus.gene_std, 0.1)


def test_columns_are_the_leading_right_singular_vectors(corpus: Corpus, standardised: np.ndarray) -> None:
    found = svd_gene_embeddings(corpus, 16, seed=0).double().numpy()
    _, singular, right = np.linalg.svd(standardised, full_matrices=False)
    assert found.shape == (len(corpus.vocabulary), 16)
    unit = found / np.linalg.norm(found, axis=0)
    for k in range(3):
        assert abs(unit[:, k] @ right[k]) > 0.999, f"vector {k}"
    # Singular values further down lie so close that only the space they span is determined.
    assert singular[3] / singular[8] > 1.05
    overlap = np.linalg.svd(np.linalg.qr(unit[:, :4])[0].T @ right[:8].T, compute_uv=False)
    assert overlap.min() > 0.99


def test_every_coordinate_has_unit_variance_and_absent_genes_are_zero(corpus: Corpus, standardised: np.ndarray) -> None:
    found = svd_gene_embeddings(corpus, 12, seed=0)
    seen = torch.from_numpy(standardised.any(axis=0))
    assert not found[~seen].any()
    assert (~seen).sum() >= 5, "the reserved tokens at least"
    torch.testing.assert_close(found[seen].std(dim=0), torch.ones(12), atol=1e-4, rtol=0)


def test_one_seed_one_result(corpus: Corpus) -> None:
    one = svd_gene_embeddings(corpus, 8, seed=3, max_cells=60)
    assert torch.equal(one, svd_gene_embeddings(corpus, 8, seed=3, max_cells=60))
    assert not torch.allclose(one.abs(), svd_gene_embeddings(corpus, 8, seed=4, max_cells=60).abs(), atol=1e-2)


def test_genes_that_vary_together_lie_together(corpus: Corpus) -> None:
    found = svd_gene_embeddings(corpus, 16, seed=0)
    tokens = {token: i for i, token in enumerate(corpus.vocabulary.tokens)}

    def cosine(one: str, two: str) -> float:
        return torch.cosine_similarity(found[tokens[one]], found[tokens[two]], dim=0).item()

    assert cosine("RPL13", "RPS27") > cosine("RPL13", "FTL")
    assert cosine("FTH1", "FTL") > cosine("RPS27", "FTL")


def test_more_dimensions_than_cells_are_filled_with_zeros(corpus_files: list[Path], tmp_path: Path) -> None:
    file = Path(shutil.copy(corpus_files[0], tmp_path))
    anndata.read_h5ad(file)[:12].copy().write_h5ad(file)
    prepare([file], tmp_path / "corpus", min_cells=3)
    small = Corpus(tmp_path / "corpus")
    assert len(small.cells("training")) == 9
    found = svd_gene_embeddings(small, 32, seed=0)
    assert found.shape == (len(small.vocabulary), 32)
    assert torch.isfinite(found).all()
    assert found[:, :8].any(dim=0).all()
    assert not found[:, 9:].any()
