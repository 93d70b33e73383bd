"""Variable genes and their components, against scikit-learn, by definition, and on values planted by hand."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from sklearn.decomposition import PCA

from scdiva_core.data.corpus import CellDraws, Corpus
from scdiva_core.data.prepare import SPECIAL_TOKENS, prepare
from scdiva_core.data.studies import Studies
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.training.genes import N_VARIABLE, gene_vectors, variable_genes
from tests.labelled_corpus import write_tables

KANG = Path(__file__).resolve().parents[3] / "assets" / "demo" / "kang2018_pbmc_ifnb_3k.h5ad"
TOTAL = 2_000_000_000
STUDY = """\
[[dataset]]
name = "exact"
title = "Exact"
batch_column = "lane"
donor_column = "person"
held_out = ["last"]
source = "made for a test"
"""


def corpus_of(folder: Path, values: np.ndarray, genes: list[str], batch: np.ndarray) -> Corpus:
    """Corpus of training cells with these log1p values, to five digits: an unknown gene fills each cell to one total.

    The first cell is there once more, held out.
    """
    counts = np.rint(np.expm1(values) * (TOTAL / 10_000)).astype(np.int64)
    assert (counts.sum(axis=1) < TOTAL).all()
    counts = np.column_stack([counts, TOTAL - counts.sum(axis=1)])[[*range(len(values)), 0]]
    obs = pd.DataFrame({"lane": batch[[*range(len(batch)), 0]], "person": ["some"] * len(values) + ["last"]})
    obs.index = obs.index.astype(str)
    folder.mkdir()
    cells = anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[*genes, "FILLER"]))
    cells.write_h5ad(folder / "exact.h5ad")
    studies = Studies.read(write_tables(folder, STUDY, ()))
    vocabulary = GeneVocabulary([*SPECIAL_TOKENS, *genes])
    prepare([folder / "exact.h5ad"], folder / "corpus", studies=studies, vocabulary=vocabulary)
    return Corpus(folder / "corpus")


def real_values(n_genes: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Log1p values of 120 cells, half of them stimulated, by their most frequent genes; names; conditions."""
    cells = anndata.read_h5ad(KANG)
    conditions = cells.obs["condition"].to_numpy().astype(str)
    cells = cells[np.concatenate([np.flatnonzero(conditions == name)[:60] for name in ("CTRL", "STIM")])].copy()
    sc.pp.normalize_total(cells, target_sum=5_000)
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    cells = cells[:, np.sort(np.argsort(-detected, kind="stable")[:n_genes])]
    return np.log1p(cells.X.toarray().astype(float)), list(cells.var_names), cells.obs["condition"].to_numpy()


def centred_sample(corpus: Corpus, seed: int) -> np.ndarray:
    """Log1p values of the sampled cells by tokens, less their batch's mean."""
    cells = CellDraws(corpus, 4 * len(corpus.cells("training")), seed, 0.5).batch(0)
    rows = corpus.take(cells)
    values = rows.sparse(rows.log1p(), len(corpus.vocabulary)).to_dense().double().numpy()
    for number in np.unique(corpus.batch_of[cells]):
        inside = corpus.batch_of[cells] == number
        values[inside] -= values[inside].mean(axis=0)
    return values


STEADY, BY_BATCH, SWITCHED, ABSENT = 5 + 1000, 5 + 1001, 5 + 1002, 5 + 1003


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """2,400 genes in two batches; of four in the middle the values are planted."""
    values, genes, batch = real_values(2400)
    values[:, STEADY - 5] = 0.6
    values[:, BY_BATCH - 5] = np.where(batch == "CTRL", 0.1, 1.1)
    values[:, SWITCHED - 5] = np.tile([0.0, 1.2], 60)
    values[:, ABSENT - 5] = 0.0
    return corpus_of(tmp_path_factory.mktemp("wide") / "files", values, genes, batch)


def test_genes_are_variable_within_batches(wide: Corpus) -> None:
    found = variable_genes(wide, seed=0)
    assert len(found) == N_VARIABLE == 2000
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    assert SWITCHED in found
    assert not {0, 1, 2, 3, 4, STEADY, BY_BATCH, ABSENT} & set(found.tolist())


def test_genes_are_judged_among_those_of_like_mean(wide: Corpus) -> None:
    """In each twentieth of the genes by mean, no gene left out varies more than one that is chosen."""
    found = variable_genes(wide, seed=0)
    cells = CellDraws(wide, 4 * len(wide.cells("training")), 0, 0.5).batch(0)
    rows = wide.take(cells)
    mean = rows.sparse(rows.log1p(), len(wide.vocabulary)).to_dense().double().numpy().mean(axis=0)
    variance = centred_sample(wide, 0).var(axis=0)
    chosen = np.isin(np.arange(len(mean)), found)
    bins = pd.qcut(mean, 20, labels=False)
    split = 0
    for number in range(20):
        kept, left = variance[(bins == number) & chosen], variance[(bins == number) & ~chosen]
        if len(kept) and len(left):
            assert left.max() < kept.min() * 1.001, number
            split += 1
    assert split > 15
    assert variance[~chosen].max() > 1.5 * variance[chosen].min(), "a plain ranking would choose others"


def test_where_fewer_genes_vary_all_of_them_are_variable(labelled: Corpus) -> None:
    varying = np.flatnonzero(centred_sample(labelled, 0).var(axis=0) > 1e-12)
    assert variable_genes(labelled, seed=0).tolist() == varying.tolist()
    assert len(varying) < N_VARIABLE


def test_only_variable_genes_are_projected_and_all_that_are_seen_have_loadings(wide: Corpus) -> None:
    found, variable = gene_vectors(wide, 8, seed=0), variable_genes(wide, seed=0)
    others = np.setdiff1d(np.arange(len(wide.vocabulary)), variable)
    assert found.projection.shape == found.loadings.shape == (len(wide.vocabulary), 8)
    assert found.projection.dtype == found.loadings.dtype == torch.float32
    assert found.projection[variable].any(dim=1).all()
    assert not found.projection[others].any()
    varying = np.flatnonzero(centred_sample(wide, 0).var(axis=0) > 1e-6)
    assert found.loadings[varying].any(dim=1).all()
    assert len(np.intersect1d(varying, others)) > 300
    assert not found.loadings[[0, 1, 2, 3, 4, ABSENT]].any()
    assert found.loadings[[STEADY, BY_BATCH]].abs().max() < 1e-3, "nothing within a batch"


def test_projected_cells_have_unit_variance_and_no_correlation(labelled: Corpus) -> None:
    scores = centred_sample(labelled, 0) @ gene_vectors(labelled, 12, seed=0).projection.double().numpy()
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scores.T @ scores / len(scores), np.eye(12), atol=0.02)


def test_components_are_those_of_scikit_learn(labelled: Corpus) -> None:
    values = centred_sample(labelled, 0)
    deviation = np.maximum(values.std(axis=0), 0.1)
    expected = PCA(12, svd_solver="full").fit(values / deviation)
    found = gene_vectors(labelled, 12, seed=0).projection.double().numpy() * deviation[:, None]
    found /= np.linalg.norm(found, axis=0)
    for k in range(3):
        assert abs(found[:, k] @ expected.components_[k]) > 0.999, f"component {k}"
    # Variances further down lie so close that only the space that they span is determined.
    overlap = np.linalg.svd(found[:, :6].T @ expected.components_.T, compute_uv=False)
    assert overlap.min() > 0.99


def correlations(corpus: Corpus, projection: torch.Tensor) -> np.ndarray:
    """Of genes and projected cells within batches; of a gene with a deviation below 0.1, as if it were 0.1."""
    values = centred_sample(corpus, 0)
    scores, deviation = values @ projection.double().numpy(), values.std(axis=0)
    seen = np.flatnonzero(deviation > 1e-6)
    found = np.zeros(projection.shape)
    found[seen] = np.corrcoef(values[:, seen].T, scores.T)[: len(seen), len(seen) :]
    return found * np.minimum(deviation / 0.1, 1)[:, None]


def test_few_genes_are_decomposed_exactly(tmp_path: Path) -> None:
    """Every component, its variance and its loadings, also of genes that hardly vary."""
    values, genes, batch = real_values(40)
    values[:, :6] *= 0.05
    corpus = corpus_of(tmp_path / "few", values, genes, batch)
    sample, found = centred_sample(corpus, 0), gene_vectors(corpus, 30, seed=0)
    deviation = np.maximum(sample.std(axis=0), 0.1)
    expected = PCA(30, svd_solver="full").fit(sample / deviation)
    axes = found.projection.double().numpy() * deviation[:, None] * np.sqrt(expected.explained_variance_)
    np.testing.assert_allclose(np.abs((axes * expected.components_.T).sum(axis=0)), 1, atol=0.005)
    scores = sample @ found.projection.double().numpy()
    np.testing.assert_allclose(scores.T @ scores / len(scores), np.eye(30), atol=1e-3)
    np.testing.assert_allclose(found.loadings, correlations(corpus, found.projection), atol=1e-3)
    assert (sample.std(axis=0)[5:11] < 0.1).all()
    assert found.loadings[5:11].any(dim=1).all()


def test_loadings_are_correlations_of_genes_that_are_not_projected_too(wide: Corpus) -> None:
    found = gene_vectors(wide, 8, seed=0)
    expected = correlations(wide, found.projection)
    np.testing.assert_allclose(found.loadings[:, :3], expected[:, :3], atol=0.01)
    others = np.setdiff1d(np.arange(len(wide.vocabulary)), variable_genes(wide, seed=0))
    assert np.abs(expected[others, :3]).max() > 0.2


@pytest.mark.parametrize("shifted", ["CTRL", "STIM"])
def test_what_a_whole_batch_has_in_common_does_not_matter(tmp_path: Path, shifted: str) -> None:
    values, genes, batch = real_values(150)
    offsets = np.random.default_rng(0).uniform(0, 1.0, 150) * (np.arange(150) % 3 == 0)
    other = values + offsets * (batch == shifted)[:, None]
    one, two = (
        gene_vectors(corpus_of(tmp_path / name, matrix, genes, batch), 6, seed=0)
        for name, matrix in (("plain", values), ("shifted", other))
    )
    for name in ("projection", "loadings"):
        first, second = getattr(one, name).numpy(), getattr(two, name).numpy()
        sign = np.sign((first * second).sum(axis=0))
        np.testing.assert_allclose(first * sign, second, atol=0.01 * np.abs(first).max())
    assert offsets.max() > 0.9


def test_one_seed_one_result(labelled: Corpus) -> None:
    torch.manual_seed(1)
    one, before = gene_vectors(labelled, 8, seed=3), torch.get_rng_state()
    torch.manual_seed(2)  # the global generator must not matter
    two = gene_vectors(labelled, 8, seed=3)
    assert torch.equal(one.loadings, two.loadings)
    assert torch.equal(one.projection, two.projection)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before), "nor is it used"
    other = gene_vectors(labelled, 8, seed=4)
    assert not torch.allclose(one.loadings.abs(), other.loadings.abs(), atol=1e-2)
    assert np.array_equal(variable_genes(labelled, seed=3), variable_genes(labelled, seed=3))


def test_genes_that_vary_together_lie_together(corpus: Corpus) -> None:
    found = gene_vectors(corpus, 16, seed=0).loadings
    tokens = {token: i for i, token in enumerate(corpus.vocabulary.tokens)}

    def cosine(one: str, two: str) -> float:
        return torch.cosine_similarity(found[tokens[one]], found[tokens[two]], dim=0).item()

    assert cosine("RPL13", "RPS27") > cosine("RPL13", "FTL")
    assert cosine("FTH1", "FTL") > cosine("RPS27", "FTL")


def test_more_dimensions_than_cells_are_filled_with_zeros(tmp_path: Path) -> None:
    values, genes, batch = real_values(100)
    few = np.r_[0:5, 60:65]
    found = gene_vectors(corpus_of(tmp_path / "few", values[few], genes, batch[few]), 32, seed=0)
    for vectors in (found.loadings, found.projection):
        assert vectors.shape == (105, 32)
        assert torch.isfinite(vectors).all()
        assert vectors[:, :8].any(dim=0).all(), "ten cells less the means of two batches"
        assert not vectors[:, 8:].any()
