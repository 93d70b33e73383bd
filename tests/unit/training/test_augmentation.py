"""What may happen to a training cell: which cells, how much, and that the rest stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from scdiva_core.data.corpus import CellRows, Corpus
from scdiva_core.training.augmentation import FEWEST_VARIABLE, LARGEST_BIAS, MOST_OTHERS, Augmentation
from scdiva_core.training.genes import variable_genes


@pytest.fixture(scope="module")
def rows(labelled: Corpus) -> CellRows:
    """All cells, with some counts of genes without a token."""
    whole = labelled.take(np.arange(len(labelled)))
    return replace(whole, totals=whole.totals * 1.5)


@pytest.fixture(scope="module")
def variable(labelled: Corpus) -> np.ndarray:
    """Half of the genes that vary; the others are seen as well."""
    return variable_genes(labelled, seed=0)[::2]


def changed(rows: CellRows, augmentation: Augmentation, seed: int = 0) -> CellRows:
    return augmentation(rows, np.random.default_rng(seed))


def same_rows(one: CellRows, two: CellRows) -> np.ndarray:
    """Which cells are alike, entry by entry."""

    def cell(rows: CellRows, number: int) -> tuple[np.ndarray, np.ndarray, float]:
        span = slice(rows.indptr[number], rows.indptr[number + 1])
        return rows.gene_ids[span], rows.counts[span], rows.totals[number]

    pairs = [(cell(one, number), cell(two, number)) for number in range(len(one))]
    return np.array([all(np.array_equal(*pair) for pair in zip(a, b, strict=True)) for a, b in pairs])


def test_without_shares_nothing_changes(rows: CellRows, variable: np.ndarray) -> None:
    assert same_rows(rows, changed(rows, Augmentation(variable=variable))).all()


@pytest.mark.parametrize("name", ["thinned_share", "biased_share", "panel_share"])
def test_a_share_of_the_cells_changes_and_the_seed_says_which(rows: CellRows, variable: np.ndarray, name: str) -> None:
    augmentation = Augmentation(variable=variable, **{name: 0.4})
    same = same_rows(rows, changed(rows, augmentation))
    assert scipy.stats.binomtest(int((~same).sum()), len(rows), 0.4).pvalue > 1e-3
    assert same_rows(changed(rows, augmentation), changed(rows, augmentation)).all()
    assert not same_rows(changed(rows, augmentation), changed(rows, augmentation, seed=1)).all()


def test_biased_genes_stay_and_the_spread_of_their_factors_differs_from_cell_to_cell(rows: CellRows) -> None:
    biased = changed(rows, Augmentation(biased_share=1.0))
    assert np.array_equal(biased.gene_ids, rows.gene_ids)
    assert np.array_equal(biased.indptr, rows.indptr)
    factors = np.log(biased.counts / rows.counts)
    deviations = np.array([factors[rows.rows == cell].std() for cell in range(len(rows))])
    assert scipy.stats.kstest(deviations, scipy.stats.uniform(0, LARGEST_BIAS).cdf).pvalue > 1e-3
    means = np.array([factors[rows.rows == cell].mean() for cell in range(len(rows))])
    assert np.abs(means).max() < 0.5, "genes differ, cells do not"


def test_a_biased_cell_keeps_its_counts_without_a_token(rows: CellRows) -> None:
    biased = changed(rows, Augmentation(biased_share=1.0))
    unknown = [cells.totals - np.bincount(cells.rows, cells.counts) for cells in (rows, biased)]
    np.testing.assert_allclose(*unknown, rtol=1e-6)


def test_a_panel_keeps_many_variable_genes_and_few_others(rows: CellRows, variable: np.ndarray) -> None:
    cut = changed(rows, Augmentation(panel_share=1.0, variable=variable))
    for of_panel, low, high in ((True, FEWEST_VARIABLE, 1.0), (False, 0.0, MOST_OTHERS)):
        before, after = (
            np.bincount(cells.rows[np.isin(cells.gene_ids, variable) == of_panel], minlength=len(rows))
            for cells in (rows, cut)
        )
        shares = after / np.maximum(before, 1)
        noise = 5 * np.sqrt(0.25 / np.maximum(before, 1))
        assert ((shares >= low - noise) & (shares <= high + noise)).all()
        middle = (low + high) / 2
        assert shares.mean() == pytest.approx(middle, abs=0.1 * middle)


def test_a_cell_on_a_panel_has_no_counts_besides(rows: CellRows, variable: np.ndarray) -> None:
    cut = changed(rows, Augmentation(panel_share=1.0, variable=variable))
    np.testing.assert_array_equal(cut.totals, np.bincount(cut.rows, cut.counts, minlength=len(rows)))
    assert all((np.diff(cut.gene_ids[a:b]) > 0).all() for a, b in zip(cut.indptr[:-1], cut.indptr[1:], strict=True))
    counts = {(row, gene): count for row, gene, count in zip(rows.rows, rows.gene_ids, rows.counts, strict=True)}
    kept = zip(cut.rows, cut.gene_ids, cut.counts, strict=True)
    assert all(counts[row, gene] == count for row, gene, count in kept)
