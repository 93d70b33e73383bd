"""Streaming of ``.h5ad`` files, held against scanpy's own normalisation."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import DataError, GeneMatchError


def write(adata: anndata.AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path


def stream(dataset: H5adDataset, rows: int = 2048) -> np.ndarray:
    chunks = list(dataset.chunks(rows))
    assert [start for start, _ in chunks] == list(range(0, dataset.n_obs, rows))
    assert all(chunk.shape[0] == rows for _, chunk in chunks[:-1])
    assert all(chunk.dtype == np.float32 and chunk.has_canonical_format for _, chunk in chunks)
    return sp.vstack([chunk for _, chunk in chunks]).toarray()


def reference(adata: anndata.AnnData, dataset: H5adDataset) -> np.ndarray:
    """Normalise with scanpy over all genes, then sum the linear values of columns that share a token."""
    copy = anndata.AnnData(adata.X.astype(np.float64))
    sc.pp.normalize_total(copy, target_sum=1e4)
    known = np.flatnonzero(dataset.genes.ids >= 0)
    columns = np.searchsorted(dataset.gene_ids, dataset.genes.ids[known])
    membership = sp.csr_matrix((np.ones(len(known)), (known, columns)), (adata.n_vars, len(dataset.gene_ids)))
    return np.log1p((sp.csr_matrix(copy.X) @ membership).toarray())


@pytest.mark.parametrize("name", ["demo/tenx_pbmc3k", "corpus/hao2021_pbmc_1k", "corpus/placenta_decidua_220"])
def test_real_files_equal_scanpy(data_root: Path, name: str) -> None:
    path = data_root / f"{name}.h5ad"
    adata = anndata.read_h5ad(path)
    with open_h5ad(path, human_genes()) as dataset:
        assert dataset.value_kind == "counts"
        assert len(dataset.gene_ids) < dataset.genes.n_known  # real duplicates are summed
        np.testing.assert_allclose(stream(dataset, 700), reference(adata, dataset), rtol=2e-6, atol=1e-6)
        pd.testing.assert_frame_equal(dataset.obs, adata.obs, check_names=False, check_index_type=False)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "uint64", "float32", "float64", ">f4"])
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_every_storage_and_type_gives_the_same(pbmc, tmp_path: Path, form: str, dtype: str) -> None:
    adata = pbmc[:40].copy()
    adata.X.data = np.minimum(adata.X.data, 200)
    expected = adata.X.toarray()
    path = write(adata, tmp_path / "a.h5ad")
    values = expected.astype(dtype) if form == "dense" else sp.csr_matrix(expected).asformat(form)
    with h5py.File(path, "r+") as file:
        del file["X"]
        if form == "dense":
            file.create_dataset("X", data=values, chunks=(7, 300), compression="gzip")
        else:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": f"{form}_matrix", "shape": expected.shape})
            group.create_dataset("data", data=values.data.astype(dtype))
            group.create_dataset("indices", data=values.indices)
            group.create_dataset("indptr", data=values.indptr)
    with open_h5ad(path, human_genes()) as dataset:
        np.testing.assert_allclose(stream(dataset, 16), reference(adata, dataset), rtol=2e-6, atol=1e-6)
        counts = sp.vstack([chunk for _, chunk in dataset.count_chunks(16)]).toarray()
    assert counts.sum() == expected[:, dataset.genes.ids >= 0].sum()


def test_half_precision_and_bool(pbmc, tmp_path: Path) -> None:
    for dtype in ("float16", "bool"):
        adata = anndata.AnnData((pbmc.X.toarray() > 0).astype(dtype), var=pbmc.var)
        with open_h5ad(write(adata, tmp_path / f"{dtype}.h5ad"), human_genes()) as dataset:
            np.testing.assert_allclose(stream(dataset), reference(adata, dataset), rtol=2e-6, atol=1e-6)


def test_blocks_smaller_than_chunks_are_joined(pbmc, tmp_path: Path, monkeypatch) -> None:
    expected = None
    for form in ("csr", "csc", "dense"):
        adata = pbmc.copy()
        adata.X = adata.X.toarray() if form == "dense" else adata.X.asformat(form)
        path = write(adata, tmp_path / f"{form}.h5ad")
        for name in ("_BLOCK_ENTRIES", "_GATHERED_ENTRIES", "_PIECE_ENTRIES", "_DENSE_BYTES"):
            monkeypatch.setattr(f"scdiva_core.data.matrix.{name}", 3000)
        with open_h5ad(path, human_genes()) as dataset:
            found = stream(dataset, 25)
        expected = reference(adata, dataset) if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_log_values_are_taken_as_they_are(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    vocabulary = GeneVocabulary(list(pbmc.var_names[::-1]))
    with open_h5ad(write(adata, tmp_path / "a.h5ad"), vocabulary, gene_column="index") as dataset:
        assert dataset.value_kind == "log1p"
        found = stream(dataset)
        assert dataset.gene_ids.tolist() == list(range(700))
        with pytest.raises(DataError, match="X holds no raw counts"):
            next(dataset.count_chunks())
    np.testing.assert_array_equal(found, adata.X.toarray()[:, ::-1])


def test_duplicated_log_values_are_summed_as_counts(tmp_path: Path) -> None:
    linear = np.array([[1.5, 2.25, 0.0, 4.5], [0.0, 3.5, 1.0, 0.5]])
    adata = anndata.AnnData(np.log1p(linear), var=pd.DataFrame(index=["CD3D", "CD4", "CD8A", "CD3D-1"]))
    with open_h5ad(write(adata, tmp_path / "a.h5ad"), GeneVocabulary(["CD3D", "CD4", "CD8A"])) as dataset:
        expected = np.log1p([[6.0, 2.25, 0.0], [0.5, 3.5, 1.0]])
        np.testing.assert_allclose(stream(dataset), expected, rtol=1e-6)


def test_cells_are_normalised_by_all_genes_not_only_known_ones(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    half = GeneVocabulary(list(pbmc.var_names[::2]))
    with open_h5ad(path, half, gene_column="index") as some, open_h5ad(path, human_genes()) as all_genes:
        some_values = some.gene(pbmc.var_names[0])
        np.testing.assert_array_equal(some_values, all_genes.gene(pbmc.var_names[0]))
    assert some_values.any()


def test_override_beats_detection(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    capped = pbmc.copy()
    capped.X.data = np.minimum(capped.X.data, 12)
    capped_path = write(capped, tmp_path / "capped.h5ad")
    with open_h5ad(capped_path, human_genes(), values="log1p") as dataset:
        assert dataset.value_kind == "log1p"
        assert stream(dataset).max() == pytest.approx(12)
    half = pbmc.copy()
    half.X = half.X.astype(np.float32) / 2
    with open_h5ad(write(half, tmp_path / "half.h5ad"), human_genes(), values="counts") as dataset:
        np.testing.assert_allclose(stream(dataset), reference(pbmc, dataset), rtol=2e-6, atol=1e-6)
        with pytest.raises(DataError, match=r"no raw counts throughout: cell '[ACGT]+-1' has the value"):
            list(dataset.count_chunks())
    with pytest.raises(DataError, match="cannot be read as 'raw'"):
        open_h5ad(path, human_genes(), values="raw")


def test_other_matrices_can_be_chosen(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata.copy()
    adata = adata[:, :300].copy()
    sc.pp.log1p(adata)
    path = write(adata, tmp_path / "a.h5ad")
    kinds = {}
    for name in ("X", "raw/X", "layers/counts", None):
        with open_h5ad(path, human_genes(), matrix=name) as dataset:
            kinds[name] = (dataset.value_kind, dataset.n_vars)
            stream(dataset)
    assert kinds == {
        "X": ("log1p", 300),
        "raw/X": ("counts", 700),
        "layers/counts": ("counts", 300),
        None: ("counts", 700),
    }
    with pytest.raises(DataError, match=r"no matrix 'layers/x'.*X, raw/X, layers/counts"):
        open_h5ad(path, human_genes(), matrix="layers/x")


def test_cellxgene_style(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.var = pd.DataFrame(
        {"feature_name": pd.Categorical(pbmc.var_names), "feature_is_filtered": False},
        index=pd.Index(pbmc.var["gene_id"].to_numpy()),
    )
    path = write(adata, tmp_path / "a.h5ad")
    vocabulary = GeneVocabulary(list(pbmc.var_names))
    with open_h5ad(path, vocabulary) as dataset, open_h5ad(path, vocabulary, gene_column="index") as by_id:
        assert dataset.preflight.gene_column == "feature_name"
        assert dataset.genes.fraction == 1
        assert by_id.preflight.gene_kind == "ensembl"
        assert by_id.genes.fraction > 0.9
    with pytest.raises(DataError, match=r"no column 'symbol'.*feature_name"):
        open_h5ad(path, vocabulary, gene_column="symbol")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({3: np.nan}, "1 NaN"),
        ({3: np.inf, 9: -np.inf}, "2 infinite"),
        ({3: -1.0}, "1 negative"),
        ({3: np.nan, 7: -2.0, 9: np.inf, 11: 1e30}, "1 NaN, 1 infinite, 1 negative, 1 impossibly large"),
    ],
)
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_unusable_values_are_counted_and_located(
    pbmc, tmp_path: Path, form: str, bad: dict[int, float], words: str
) -> None:
    values = pbmc.X.toarray().astype(np.float32)
    for cell, value in bad.items():
        values[cell, np.flatnonzero(values[cell])[0]] = value
    matrix = values if form == "dense" else sp.csr_matrix(values).asformat(form)
    path = write(anndata.AnnData(matrix, obs=pbmc.obs, var=pbmc.var), tmp_path / "a.h5ad")
    with pytest.raises(DataError) as caught, open_h5ad(path, human_genes(), values="counts") as dataset:
        list(dataset.chunks(2))
    assert f"X holds values that cannot be used: {words}; the first is in cell {pbmc.obs_names[3]!r}." in str(
        caught.value
    )
    assert caught.value.hint


def test_negative_values_refused_at_once_with_the_way_out(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.toarray().astype(np.float32)
    sc.pp.scale(adata)
    path = write(adata, tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"[\d,]+ negative; .*layers/counts"):
        open_h5ad(path, human_genes(), matrix="X")
    with open_h5ad(path, human_genes()) as dataset:
        assert dataset.preflight.recommended == "layers/counts"


def test_bad_value_beyond_the_sample_is_found_while_streaming(data_root: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(data_root / "demo" / "kang2018_pbmc_ifnb_3k.h5ad")
    adata.X = adata.X.astype(np.float32)
    adata.X.data[adata.X.indptr[90] + 5] = np.nan
    path = write(adata, tmp_path / "a.h5ad")
    with open_h5ad(path, human_genes()) as dataset:
        assert dataset.value_kind == "counts"
        with pytest.raises(DataError, match=f"1 NaN; the first is in cell {adata.obs_names[90]!r}"):
            list(dataset.chunks())


def test_too_few_known_genes(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.var_names = [f"gene {i}" for i in range(630)] + list(pbmc.var_names[630:])
    adata.var = adata.var.drop(columns="gene_id")
    path = write(adata, tmp_path / "a.h5ad")
    vocabulary = GeneVocabulary(["<pad>", *pbmc.var_names])
    with pytest.raises(GeneMatchError) as caught:
        open_h5ad(path, vocabulary)
    assert "knows 70 of the 700 genes (10.0%); at least 20% are needed" in caught.value.message
    assert f"Expected names such as {pbmc.var_names[0]}" in caught.value.message
    assert "found gene 0, gene 1, gene 2" in caught.value.message
    with open_h5ad(path, vocabulary, min_share=0.1) as dataset:
        assert dataset.genes.n_known == 70
    with pytest.raises(GeneMatchError, match="knows 0 of the 700"):
        open_h5ad(path, GeneVocabulary(["no gene"]), min_share=0)


def test_one_gene_by_any_name(pbmc, tmp_path: Path) -> None:
    symbol = pbmc.var_names[5]
    with open_h5ad(write(pbmc, tmp_path / "a.h5ad"), human_genes()) as dataset:
        column = dataset.gene_symbols.index(symbol)
        expected = stream(dataset)[:, column]
        np.testing.assert_array_equal(dataset.gene(symbol), expected)
        np.testing.assert_array_equal(dataset.gene(pbmc.var["gene_id"].iloc[5]), expected)
        with pytest.raises(DataError, match="'XIST' is not in this file"):
            dataset.gene("XIST")
        with pytest.raises(DataError, match="'nonsense' is not in the model's vocabulary"):
            dataset.gene("nonsense")


def test_columns_of_obs_keep_their_types(pbmc, tmp_path: Path) -> None:
    adata = pbmc[:5].copy()
    adata.obs["missing"] = pd.Categorical(["a", None, "b", "a", None], categories=["b", "a"], ordered=True)
    adata.obs["integer"] = pd.array([1, None, 3, 4, 5], dtype="Int64")
    adata.obs["flag"] = pd.array([True, None, False, True, True], dtype="boolean")
    adata.obs["plain"] = [True, False, True, False, True]
    adata.obs["score"] = np.linspace(0, 1, 5, dtype=np.float32)
    adata.obs["text"] = ["ä", "b", "c", "d", "e"]
    path = write(adata, tmp_path / "a.h5ad")
    with open_h5ad(path, human_genes()) as dataset:
        found = dataset.obs
        kinds = {column.name: (column.kind, column.n_unique) for column in dataset.preflight.obs_columns}
    expected = anndata.read_h5ad(path).obs
    pd.testing.assert_frame_equal(found, expected, check_names=False, check_index_type=False)
    assert kinds == {
        "cell_type": ("category", adata.obs["cell_type"].cat.categories.size),
        "missing": ("category", 2),
        "integer": ("number", None),
        "flag": ("bool", None),
        "plain": ("bool", None),
        "score": ("number", None),
        "text": ("text", None),
    }


def test_categories_of_older_files(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        codes, labels = file["obs/cell_type/codes"][:], file["obs/cell_type/categories"][:]
        del file["obs/cell_type"]
        file["obs/__categories/cell_type"] = labels
        file["obs/cell_type"] = codes
    with open_h5ad(path, human_genes()) as dataset:
        assert dataset.obs["cell_type"].tolist() == pbmc.obs["cell_type"].tolist()
        assert isinstance(dataset.obs["cell_type"].dtype, pd.CategoricalDtype)


def test_all_who_have_a_file_open_share_its_table_until_it_changes(pbmc, tmp_path: Path) -> None:
    path = write(pbmc[:40].copy(), tmp_path / "a.h5ad")
    with open_h5ad(path, human_genes()) as first, open_h5ad(path, human_genes()) as second:
        assert first.obs is second.obs
        assert first.obs_names is second.obs_names
    write(pbmc[40:60].copy(), path)
    with open_h5ad(path, human_genes()) as anew:
        assert list(anew.obs_names) == list(pbmc.obs_names[40:60])
        assert len(anew.obs) == 20
    assert len(first.obs) == 40


def test_files_of_the_same_genes_share_their_names(pbmc, tmp_path: Path) -> None:
    paths = [write(pbmc[:20, first : first + 300].copy(), tmp_path / f"{first}.h5ad") for first in (0, 100)]
    with open_h5ad(paths[0], human_genes()) as one, open_h5ad(paths[1], human_genes()) as other:
        assert list(one.var_names) == list(pbmc.var_names[:300])
        assert all(mine is theirs for mine, theirs in zip(one.var_names[100:], other.var_names, strict=False))


def test_sessions_that_read_tables_at_once_do_not_wait_for_each_other_for_ever(pbmc, tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    paths = [write(pbmc[:20, :200].copy(), tmp_path / f"{number}.h5ad") for number in range(2)]
    for _ in range(30):
        opened = [open_h5ad(path, human_genes()) for path in paths * 2]
        together = threading.Barrier(len(opened))

        def look(dataset: H5adDataset, what: str, together: threading.Barrier = together) -> None:
            together.wait()
            getattr(dataset, what)

        wanted = zip(opened, ("obs", "obs_names", "obs_names", "obs"), strict=True)
        threads = [threading.Thread(target=look, args=item, daemon=True) for item in wanted]
        sys.setswitchinterval(1e-6)  # many more orders of who reads when
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        sys.setswitchinterval(interval)
        assert not any(thread.is_alive() for thread in threads)
        for dataset in opened:
            dataset.close()


def test_file_is_closed_hashed_and_left_alone(pbmc, tmp_path: Path) -> None:
    path = write(pbmc, tmp_path / "a.h5ad")
    before = path.read_bytes()
    with open_h5ad(path, human_genes()) as dataset:
        stream(dataset)
        assert dataset.sha256 == hashlib.sha256(before).hexdigest()
        assert list(dataset.obs_names) == list(pbmc.obs_names)
    assert path.read_bytes() == before
    with pytest.raises(DataError, match="cannot be read"):
        next(dataset.chunks())


def test_empty_cells_stay_empty(pbmc, tmp_path: Path) -> None:
    adata = pbmc.copy()
    adata.X.data[adata.X.indptr[4] : adata.X.indptr[5]] = 0
    with open_h5ad(write(adata, tmp_path / "a.h5ad"), human_genes()) as dataset:
        found = stream(dataset)
    assert not found[4].any()
    assert np.isfinite(found).all()
