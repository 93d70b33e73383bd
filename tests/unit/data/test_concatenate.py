"""Several files as one: genes brought together, cells as they were, and what is missing said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.concatenate import concatenate, measured_in_all, overlap, record_of
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.hgnc import gene_names
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import Cancelled, DataError


@pytest.fixture(scope="module")
def cells(small_cells: anndata.AnnData) -> anndata.AnnData:
    """The small cells over 1,000 genes with approved symbols."""
    approved = np.flatnonzero(small_cells.var_names.isin(human_genes().tokens))
    places = approved[:1000]
    assert "CD3E" in small_cells.var_names[places[100:800]]
    return small_cells[:, places].copy()


@pytest.fixture
def files(cells: anndata.AnnData, tmp_path: Path) -> list[Path]:
    """80 cells each: all but the last 200 genes; all but the first 100, CD3E by its Ensembl id."""
    first, second = cells[:80, :-200].copy(), cells[80:, 100:].copy()
    del first.obs["donor"]
    second.obs["score"] = np.arange(80.0)
    first.obs["score"] = [f"s{i}" for i in range(80)]
    ensembl = {symbol: identifier for identifier, symbol in gene_names().ensembl.items()}
    second.var_names = [ensembl.get(name, name) if name == "CD3E" else name for name in second.var_names]
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    first.write_h5ad(paths[0])
    second.write_h5ad(paths[1])
    return paths


def test_the_overlap_is_told_before_anything_is_written(files: list[Path], small_vocabulary: GeneVocabulary) -> None:
    found = overlap(files, small_vocabulary)
    assert [(file.name, file.n_cells, file.n_genes) for file in found.files] == [("one", 80, 800), ("two", 80, 900)]
    assert (found.n_union, found.n_shared) == (1000, 700)
    assert found.share == pytest.approx(0.875)
    assert found.n_known == 1000, "all genes of the cells are in the vocabulary, one by its id"
    assert found.values == "counts"
    assert (
        "160 cells and 1,000 genes together; 700 genes are in all of them (88% of the smallest file's)" in found.words
    )
    assert "300 genes are missing from some file: there a zero means not measured, not silent." in found.words


def test_cells_keep_their_values_under_one_name_a_gene(
    files: list[Path], cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    before = [path.read_bytes() for path in files]
    written = concatenate(files, tmp_path / "uploads", "file", small_vocabulary)
    assert [path.read_bytes() for path in files] == before
    assert written.name == f"{hashlib.sha256(written.read_bytes()).hexdigest()}.h5ad"
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    joined = anndata.read_h5ad(written)
    assert joined.shape == (160, 1000)
    assert joined.obs["file"].tolist() == ["one"] * 80 + ["two"] * 80
    assert joined.obs_names[0] == f"{cells.obs_names[0]}-one"
    expected = cells[:, joined.var_names].X.toarray()
    missing = {"one": set(cells.var_names[-200:]), "two": set(cells.var_names[:100])}
    expected[:80, joined.var_names.isin(missing["one"])] = 0
    expected[80:, joined.var_names.isin(missing["two"])] = 0
    np.testing.assert_array_equal(joined.X.toarray(), expected)
    assert joined.var["measured_in_all"].sum() == 700
    assert set(joined.var_names[~joined.var["measured_in_all"]]) == missing["one"] | missing["two"]
    assert joined.obs["donor"].isna().sum() == 80
    assert joined.obs["score"].iloc[[0, 81]].tolist() == ["s0", "1.0"], "columns of two kinds become text"
    assert joined.obs["cell_type"].tolist() == cells.obs["cell_type"].tolist()


def test_a_joined_file_says_what_it_lacks(
    files: list[Path], small_h5ad: Path, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    written = concatenate(files, tmp_path / "uploads", "file", small_vocabulary)
    with open_h5ad(written, small_vocabulary) as dataset:
        record = record_of(dataset)
        everywhere = measured_in_all(dataset)
        assert everywhere.shape == dataset.gene_ids.shape
        assert everywhere.sum() == 700
    assert (record["batch_key"], record["n_union"], record["n_shared"]) == ("file", 1000, 700)
    assert [file["n_cells"] for file in record["files"]] == [80, 80]
    with open_h5ad(small_h5ad, small_vocabulary) as dataset:
        assert record_of(dataset) is None
        assert measured_in_all(dataset).all()


def test_files_that_do_not_all_hold_counts_become_logarithms(
    files: list[Path], small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    second = anndata.read_h5ad(files[1])
    totals = np.asarray(second.X.sum(axis=1))
    second.X = second.X.multiply(1e4 / totals).log1p().tocsr()
    second.write_h5ad(files[1])
    found = overlap(files, small_vocabulary)
    assert found.values == "log1p"
    assert "Not all files hold counts (two do not)" in found.words
    joined = anndata.read_h5ad(concatenate(files, tmp_path / "out", "file", small_vocabulary))
    # Each cell by the total of its own file's genes.
    np.testing.assert_allclose(np.expm1(joined.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)


def test_a_gene_that_would_be_found_by_another_name_in_the_union_is_not_lost(
    cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    """A gene of the first file is known by a second column alone; in the union its third one is known better."""
    ensembl = {symbol: identifier for identifier, symbol in gene_names().ensembl.items()}
    known = [name for name in cells.var_names if name in ensembl]
    first, second = cells[:80, known[:300]].copy(), cells[80:, known[:800]].copy()
    gene = str(first.var_names[first.X.sum(axis=0).argmax()])
    first.var = pd.DataFrame(
        {
            "symbol": ["unnamed" if name == gene else name for name in known[:300]],
            "identifier": [f"nothing {name}" if name in known[:2] else ensembl[name] for name in known[:300]],
        },
        index=[f"row {number}" for number in range(300)],
    )
    second.var = pd.DataFrame(index=[*known[:500], *first.var_names])
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    first.write_h5ad(paths[0])
    second.write_h5ad(paths[1])
    assert gene not in known[:2]
    joined = anndata.read_h5ad(concatenate(paths, tmp_path / "out", "file", small_vocabulary))
    np.testing.assert_array_equal(
        joined[:80, gene].X.toarray().ravel(), first.X[:, known.index(gene)].toarray().ravel()
    )
    assert joined[:80].X.sum() == first.X.sum()


def test_columns_that_name_no_gene_are_counted(
    cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    first, second = cells[:80].copy(), cells[80:].copy()
    first.var = pd.DataFrame(index=["", "<unmapped>", *first.var_names[2:]])
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    first.write_h5ad(paths[0])
    second.write_h5ad(paths[1])
    found = overlap(paths, small_vocabulary, ["first run", "second run"])
    assert [file.name for file in found.files] == ["first run", "second run"]
    assert (found.n_unnamed, found.n_shared, found.n_union) == (2, 998, 1000)
    assert "2 columns without a gene's name are left out." in found.words
    joined = anndata.read_h5ad(
        concatenate(paths, tmp_path / "out", "run", small_vocabulary, names=["first run", "second run"])
    )
    assert joined.X.sum() == first.X[:, 2:].sum() + second.X.sum()
    assert joined.obs["run"].tolist() == ["first run"] * 80 + ["second run"] * 80


def test_what_does_not_belong_together_is_refused(
    files: list[Path], cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    apart = [tmp_path / "left.h5ad", tmp_path / "right.h5ad"]
    cells[:80, :540].copy().write_h5ad(apart[0])
    cells[80:, 500:].copy().write_h5ad(apart[1])
    with pytest.raises(DataError, match="Only 40 genes are in all 2 files, 8% of the 500 of right; at least 20%"):
        concatenate(apart, tmp_path / "out", "file", small_vocabulary)
    assert overlap(apart, small_vocabulary).refusal.startswith("Only 40 genes are in all 2 files")
    assert overlap(files, small_vocabulary).refusal == ""
    with pytest.raises(DataError, match=r"one.h5ad has a column 'cell_type' already"):
        concatenate(files, tmp_path / "out", "cell_type", small_vocabulary)
    with pytest.raises(DataError, match="The file one 1 is there twice"):
        overlap([files[0], files[0]], small_vocabulary)
    with pytest.raises(DataError, match="1 file is nothing to put together"):
        overlap(files[:1], small_vocabulary)
    with pytest.raises(Cancelled):
        concatenate(files, tmp_path / "out", "file", small_vocabulary, cancelled=lambda: True)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir()), "nothing is left behind"
