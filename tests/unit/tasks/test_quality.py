"""Quality metrics against scanpy's."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.tasks.quality import quality_metrics

COLUMNS = ["total_counts", "n_genes_by_counts", "pct_counts_mt"]


@pytest.fixture
def expected(small_cells: anndata.AnnData) -> pd.DataFrame:
    cells = small_cells.copy()
    cells.var["mt"] = cells.var_names.str.startswith("MT-")
    assert cells.var["mt"].sum() == 13
    sc.pp.calculate_qc_metrics(cells, qc_vars=["mt"], percent_top=None, log1p=False, inplace=True)
    return cells.obs[COLUMNS]


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.index) == list(expected.index)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)


def test_metrics_are_scanpy_s(dataset: H5adDataset, expected: pd.DataFrame) -> None:
    found = quality_metrics(dataset)
    assert list(found.columns) == COLUMNS
    same(found, expected)
    assert found.attrs["sampled"] is False
    assert expected["pct_counts_mt"].max() > 2


def test_a_large_file_is_sampled_with_a_seed(dataset: H5adDataset, expected: pd.DataFrame) -> None:
    found = quality_metrics(dataset, max_cells=40, seed=1)
    assert len(found) == 40
    assert found.attrs["sampled"] is True
    assert expected.index.get_indexer(found.index).tolist() == sorted(expected.index.get_indexer(found.index))
    same(found, expected.loc[found.index])
    assert found.equals(quality_metrics(dataset, max_cells=40, seed=1))
    assert list(found.index) != list(quality_metrics(dataset, max_cells=40, seed=2).index)


def test_log_values_give_the_same_shares_but_no_totals(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, expected: pd.DataFrame, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.write_h5ad(tmp_path / "logged.h5ad")
    with open_h5ad(tmp_path / "logged.h5ad", small_vocabulary) as dataset:
        found = quality_metrics(dataset)
    same(found, expected[["n_genes_by_counts", "pct_counts_mt"]])
    assert "total_counts" not in found


def test_without_mitochondrial_genes_the_share_is_missing(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    kept = ~small_cells.var_names.str.startswith("MT-")
    small_cells[:, kept].copy().write_h5ad(tmp_path / "nuclei.h5ad")
    with open_h5ad(tmp_path / "nuclei.h5ad", small_vocabulary) as dataset:
        found = quality_metrics(dataset)
    assert found["pct_counts_mt"].isna().all()
    assert (found["total_counts"] > 0).all()


def test_ensembl_ids_have_mitochondrial_genes_too(small_cells: anndata.AnnData, tmp_path: Path) -> None:
    cells = small_cells.copy()
    cells.var_names = cells.var["gene_id"].astype(str).to_numpy()
    cells.var = cells.var[[]]
    cells.write_h5ad(tmp_path / "ids.h5ad")
    vocabulary = GeneVocabulary(["<pad>", *cells.var_names])
    with open_h5ad(tmp_path / "ids.h5ad", vocabulary) as dataset:
        found = quality_metrics(dataset)
    assert (found["pct_counts_mt"] > 0).mean() > 0.9


def test_a_cell_without_counts_has_no_nan(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    cells.X.data[cells.X.indptr[3] : cells.X.indptr[4]] = 0
    cells.write_h5ad(tmp_path / "empty.h5ad")
    with open_h5ad(tmp_path / "empty.h5ad", small_vocabulary) as dataset:
        found = quality_metrics(dataset)
    assert found.iloc[3].tolist() == [0, 0, 0]
    assert np.isfinite(found.to_numpy()).all()
