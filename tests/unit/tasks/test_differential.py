"""Genes of a set: cell by cell as scanpy has them, donor by donor as DESeq2 does, and words for what each rests on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks.differential import differential_genes, marker_profile, pseudobulk_genes

COLUMNS = ["symbol", "score", "log2_fold_change", "p", "q", "share_inside", "share_outside"]
INSIDE = np.arange(160) < 80  # the four donors take turns, so each has 20 cells on both sides
DONORS = np.array(["d1", "d2", "d3", "d4"])[np.arange(160) % 4]

Open = Callable[..., H5adDataset]


@pytest.fixture
def opened(tmp_path: Path, small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary) -> Iterator[Open]:
    """Open counts ``[n, m]`` under the names of the small file's first m genes."""
    files = []

    def make(counts: np.ndarray) -> H5adDataset:
        cells = anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)))
        cells.obs_names = [f"c{number}" for number in range(len(counts))]
        cells.var_names = small_cells.var_names[: counts.shape[1]]
        cells.write_h5ad(tmp_path / "made.h5ad")
        files.append(open_h5ad(tmp_path / "made.h5ad", small_vocabulary, min_share=0.0))
        return files[-1]

    yield make
    for file in files:
        file.close()


def logged(dataset: H5adDataset) -> anndata.AnnData:
    values = sp.vstack([block for _, block in dataset.chunks()], format="csr")
    return anndata.AnnData(values, var=pd.DataFrame(index=list(dataset.gene_symbols)))


def by_symbol(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("symbol").sort_index()


# ----------------------------------------------------------------- by cells


@pytest.mark.parametrize(("n_inside", "n_outside"), [(40, 120), (6, 9)])
def test_the_table_is_scanpy_s_of_all_genes(dataset: H5adDataset, n_inside: int, n_outside: int) -> None:
    places = np.random.default_rng(0).permutation(160)
    cells, background = (np.isin(np.arange(160), part) for part in (places[:n_inside], places[-n_outside:]))
    found = differential_genes(dataset, cells, background)
    expected = logged(dataset)[cells | background].copy()
    expected.obs["side"] = pd.Categorical(np.where(cells[cells | background], "in", "out"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # genes that none of the few cells shows
        sc.tl.rank_genes_groups(
            expected, "side", groups=["in"], reference="out", method="wilcoxon", tie_correct=True, pts=True
        )
    ranked = sc.get.rank_genes_groups_df(expected, "in").set_index("names").sort_index()
    shares = expected.uns["rank_genes_groups"]["pts"].sort_index()
    assert list(found.columns) == COLUMNS
    assert len(found) == len(dataset.gene_symbols) == 1200
    undetected = found["share_inside"] + found["share_outside"] == 0
    assert undetected.any() == (n_inside == 6)
    mine = by_symbol(found)
    assert list(mine.index) == list(ranked.index)
    for name, theirs in (
        ("score", "scores"),
        ("log2_fold_change", "logfoldchanges"),
        ("p", "pvals"),
        ("q", "pvals_adj"),
    ):
        np.testing.assert_allclose(mine[name], ranked[theirs], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(mine[["share_inside", "share_outside"]], shares[["in", "out"]])


def test_the_gene_of_a_planted_set_comes_first(opened: Open, small_cells: anndata.AnnData) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (60, 30))
    counts[:20, 7] += rng.poisson(12.0, 20)
    dataset = opened(counts)
    cells = np.arange(60) < 20
    table = differential_genes(dataset, cells, ~cells)
    assert (np.diff(table["score"]) <= 0).all()
    best = table.iloc[0]
    assert best["symbol"] == small_cells.var_names[7]
    assert best["log2_fold_change"] > 1
    assert best["q"] < 1e-6
    assert (table["q"].iloc[1:] > 1e-3).all()


def test_the_words_say_that_cells_are_no_replicates(dataset: H5adDataset) -> None:
    table = differential_genes(dataset, INSIDE, ~INSIDE)
    words = table.attrs["words"]
    assert words.startswith("80 cells inside were compared with 80 outside as if each cell were independent")
    assert "no evidence" in words
    assert "drawn" not in words
    assert "rough" not in words
    assert table.attrs["replicates"] == "cells"
    few = np.arange(160) < 25
    assert "25 cells or fewer" in differential_genes(dataset, few, ~few).attrs["words"]


def test_of_many_cells_some_are_drawn_with_a_seed(dataset: H5adDataset) -> None:
    cells = np.arange(160) < 30
    table = differential_genes(dataset, cells, ~cells, max_cells=40, seed=3)
    assert "The 40 cells outside were drawn at random from 130 (seed 3)." in table.attrs["words"]
    assert "cells inside were drawn" not in table.attrs["words"]
    np.testing.assert_allclose(table["share_outside"] * 40, np.round(table["share_outside"] * 40), atol=1e-9)
    assert table.equals(differential_genes(dataset, cells, ~cells, max_cells=40, seed=3))
    assert not table.equals(differential_genes(dataset, cells, ~cells, max_cells=40, seed=4))


@pytest.mark.parametrize(
    ("cells", "background", "message"),
    [
        (INSIDE, np.ones(160, bool), "80 cells are on both sides"),
        (np.arange(160) < 1, np.arange(160) > 3, "1 cell inside and 156 outside are too few"),
        (INSIDE, np.zeros(160, bool), "80 cells inside and 0 outside are too few"),
        (INSIDE[1:], ~INSIDE, "There are 159 marks of cells, but small.h5ad has 160 cells"),
    ],
)
def test_sides_that_are_refused(dataset: H5adDataset, cells: np.ndarray, background: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        differential_genes(dataset, cells, background)


def test_the_work_reports_and_stops(dataset: H5adDataset) -> None:
    seen: list[tuple[int, int, str]] = []
    differential_genes(dataset, INSIDE, ~INSIDE, progress=lambda *state: seen.append(state))
    done = [state[0] for state in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(Cancelled):
        differential_genes(dataset, INSIDE, ~INSIDE, cancelled=lambda: True)
    seen.clear()
    with pytest.raises(Cancelled):
        differential_genes(
            dataset,
            INSIDE,
            ~INSIDE,
            progress=lambda *state: seen.append(state),
            cancelled=lambda: any(state[2] == "Comparing genes" for state in seen),
        )


# ----------------------------------------------------------------- by donors


def deseq2(cells: anndata.AnnData, inside: np.ndarray, design: str, donors: np.ndarray = DONORS) -> pd.DataFrame:
    """Run pydeseq2 on sums made by pandas."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    counts = pd.DataFrame(cells.X.toarray().astype(int), columns=cells.var_names)
    sums = counts.groupby([np.where(inside, "inside", "outside"), donors]).sum()
    about = sums.index.to_frame(index=False).set_axis(["side", "donor"], axis=1)
    about.index = sums.index = [f"s{i}" for i in range(len(sums))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = DeseqDataSet(counts=sums.loc[:, sums.sum() >= 10], metadata=about, design=design, quiet=True, n_cpus=1)
        fitted.deseq2()
        stats = DeseqStats(fitted, contrast=["side", "inside", "outside"], quiet=True, n_cpus=1)
        stats.summary()
    return stats.results_df.sort_index()


def same_fit(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    mine = by_symbol(found[found["score"].notna()])
    assert list(mine.index) == list(expected.index)
    names = {"score": "stat", "log2_fold_change": "log2FoldChange", "p": "pvalue", "q": "padj", "base_mean": "baseMean"}
    for name, theirs in names.items():
        np.testing.assert_allclose(mine[name], expected[theirs], rtol=1e-6, err_msg=name)


def test_donors_on_both_sides_are_paired(dataset: H5adDataset, small_cells: anndata.AnnData) -> None:
    found = pseudobulk_genes(dataset, INSIDE, ~INSIDE, DONORS)
    assert list(found.columns) == [*COLUMNS, "base_mean"]
    assert len(found) == 1200
    same_fit(found, deseq2(small_cells, INSIDE, "~donor + side"))
    words = found.attrs["words"]
    assert words.startswith("4 donors, each on both sides, are the replicates (paired)")
    assert "Left out" not in words
    assert found.attrs["replicates"] == "donors"
    detected = (small_cells.X[INSIDE] > 0).toarray().mean(axis=0)
    np.testing.assert_allclose(
        by_symbol(found)["share_inside"], pd.Series(detected, small_cells.var_names).sort_index()
    )


def test_other_donors_on_the_other_side_are_not_paired(dataset: H5adDataset, small_cells: anndata.AnnData) -> None:
    inside = np.isin(DONORS, ["d1", "d3"])
    found = pseudobulk_genes(dataset, inside, ~inside, DONORS)
    same_fit(found, deseq2(small_cells, inside, "~side"))
    words = found.attrs["words"]
    assert words.startswith("2 donors inside and 2 outside are the replicates (not paired)")
    assert "Two donors can show large differences only." in words
    assert "counted as two" not in words


def test_cells_and_donors_that_do_not_count_are_left_out_and_said(
    dataset: H5adDataset, small_cells: anndata.AnnData
) -> None:
    donors = pd.Series(DONORS.astype(object))
    donors[[0, 81]] = None
    background = ~INSIDE
    background[np.flatnonzero(~INSIDE & (DONORS == "d4"))[9:]] = False  # nine cells of d4 remain there
    found = pseudobulk_genes(dataset, INSIDE, background, donors)
    kept = donors.notna().to_numpy() & (INSIDE | (background & (DONORS != "d4")))
    same_fit(found, deseq2(small_cells[kept], INSIDE[kept], "~side", DONORS[kept]))
    words = found.attrs["words"]
    assert words.startswith("4 donors inside and 3 outside are the replicates (not paired)")
    assert "3 donors on both sides counted as two" in words
    assert "Left out: 1 donor with fewer than 10 cells on a side, there; 2 cells without a donor." in words


def donor_effects(rng: np.random.Generator, rates: np.ndarray, n_donors: int, per_donor: int) -> np.ndarray:
    """Poisson counts whose rates differ from donor to donor by a factor of about 1.6, as those of people do."""
    own = rates * np.exp(rng.normal(0, 0.5, (n_donors, len(rates))))
    return rng.poisson(np.repeat(own, per_donor, axis=0))


@pytest.fixture(scope="module")
def rates(small_cells: anndata.AnnData) -> np.ndarray:
    """Mean counts of 300 real genes."""
    return np.asarray(small_cells.X.mean(axis=0)).ravel()[:300] + 0.05


def test_where_only_donors_differ_cells_find_genes_and_donors_do_not(opened: Open, rates: np.ndarray) -> None:
    dataset = opened(donor_effects(np.random.default_rng(1), rates, 8, 50))
    donors = np.repeat(np.arange(8), 50)
    inside = donors < 4
    by_cells, by_donors = (
        differential_genes(dataset, inside, ~inside),
        pseudobulk_genes(dataset, inside, ~inside, donors),
    )
    assert (by_cells["q"] < 0.05).mean() > 0.3, "the planted trap"
    assert (by_donors["q"] < 0.05).mean() <= 0.05


def test_what_each_donor_shows_is_found_in_spite_of_their_differences(opened: Open, rates: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    counts = donor_effects(rng, rates, 4, 60)
    inside = np.arange(240) % 2 == 0
    planted = np.argsort(-rates)[:10]
    counts[np.ix_(inside, planted[:5])] *= 3
    counts[np.ix_(~inside, planted[5:])] *= 3
    dataset = opened(counts)
    table = by_symbol(pseudobulk_genes(dataset, inside, ~inside, np.repeat(list("abcd"), 60)))
    names = anndata.read_h5ad(dataset.path).var_names[planted]
    np.testing.assert_allclose(table.loc[names, "log2_fold_change"], np.repeat([1.6, -1.6], 5), atol=0.4)
    assert (table.loc[names, "q"] < 0.01).all()
    assert (table.drop(names)["q"] < 0.05).mean() <= 0.05


def test_a_gene_with_few_molecules_is_listed_but_not_tested(opened: Open, rates: np.ndarray) -> None:
    counts = donor_effects(np.random.default_rng(3), rates[:60], 4, 30)
    counts[:, 5] = 0
    counts[:9, 5] = 1
    dataset = opened(counts)
    table = pseudobulk_genes(dataset, np.arange(120) % 2 == 0, np.arange(120) % 2 == 1, np.repeat(range(4), 30))
    assert len(table) == 60
    rare = table[table["symbol"] == anndata.read_h5ad(dataset.path).var_names[5]]
    assert rare.index.tolist() == [59], "what was not tested stands last"
    assert rare[["score", "log2_fold_change", "p", "q"]].isna().all(axis=None)
    assert rare["base_mean"].item() > 0
    assert rare["share_inside"].item() == 5 / 60


@pytest.mark.parametrize(
    ("donors", "found"),
    [
        (["one"] * 160, "1 donor inside and 1 donor outside with 10 cells or more"),
        ([None] * 160, "0 donors inside and 0 donors outside"),
        (np.arange(160) % 20, "0 donors inside and 0 donors outside"),
        (np.where(INSIDE, "a", DONORS), "1 donor inside and 4 donors outside"),
    ],
)
def test_too_few_donors_are_refused_with_their_number(dataset: H5adDataset, donors: object, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        pseudobulk_genes(dataset, INSIDE, ~INSIDE, donors)
    assert "each side needs 2" in caught.value.message
    assert "compare cells" in caught.value.hint


def test_donors_need_raw_counts_and_molecules(
    opened: Open, small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    counts = np.zeros((160, 30))
    counts[0, :] = 1
    with pytest.raises(DataError, match="No gene has 10 molecules or more"):
        pseudobulk_genes(opened(counts), INSIDE, ~INSIDE, DONORS)
    cells = small_cells.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    cells.write_h5ad(tmp_path / "logged.h5ad")
    with (
        open_h5ad(tmp_path / "logged.h5ad", small_vocabulary) as dataset,
        pytest.raises(DataError, match="holds no raw counts"),
    ):
        pseudobulk_genes(dataset, INSIDE, ~INSIDE, DONORS)


def test_adding_up_stops(dataset: H5adDataset) -> None:
    with pytest.raises(Cancelled):
        pseudobulk_genes(dataset, INSIDE, ~INSIDE, DONORS, cancelled=lambda: True)


# ----------------------------------------------------------------- markers


def test_a_profile_is_mean_and_share_of_each_group(dataset: H5adDataset) -> None:
    groups = np.array(["T", "B", None, "NK"], dtype=object)[np.arange(160) % 4]
    wanted = [dataset.gene_symbols[30], "no such gene", dataset.gene_symbols[4], dataset.gene_symbols[30]]
    found = marker_profile(dataset, wanted, groups)
    assert list(found.columns) == ["group", "symbol", "mean_log1p", "share"]
    assert found["group"].tolist() == ["B", "B", "NK", "NK", "T", "T"]
    assert found["symbol"].tolist() == [wanted[0], wanted[2]] * 3
    values = logged(dataset)[:, [wanted[0], wanted[2]]].X.toarray()
    for name, each in (("mean_log1p", values), ("share", values > 0)):
        expected = np.stack([each[groups == group].mean(axis=0) for group in ("B", "NK", "T")])
        np.testing.assert_allclose(found[name], expected.ravel(), rtol=1e-6)


def test_a_profile_may_be_empty(dataset: H5adDataset) -> None:
    for symbols, groups in (
        (["no such gene"], ["T"] * 160),
        (dataset.gene_symbols[:2], [None] * 160),
        ([], ["T"] * 160),
    ):
        found = marker_profile(dataset, symbols, groups)
        assert (len(found), list(found.columns)) == (0, ["group", "symbol", "mean_log1p", "share"])


def test_a_profile_of_other_cells_is_refused(dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="There are 3 groups"):
        marker_profile(dataset, ["CD3D"], ["T", "T", "B"])
    with pytest.raises(Cancelled):
        marker_profile(dataset, ["CD3D"], ["T"] * 160, cancelled=lambda: True)
