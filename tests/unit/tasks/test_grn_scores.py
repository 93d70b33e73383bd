"""Scores, stability and contrasts of sums made by hand, and of real cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import AttentionSums, Block, accumulate, choose_block
from scdiva_core.tasks.grn_scores import attention_scores, contrast, stability, top_targets

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
nan = np.nan

Make = Callable[..., AttentionSums]


@pytest.fixture
def make() -> Make:
    """Sums of one channel over regulators 0, 1 and targets 1, 2, 3; both directions alike unless given."""

    def of(by_fold: list, counts: list, to: list | None = None) -> AttentionSums:
        sums = np.array([by_fold, by_fold if to is None else to], np.float32)[None]
        return AttentionSums(Block(np.array([0, 1]), np.array([1, 2, 3])), ((0, 0),), sums, np.array(counts, np.int32))

    return of


@pytest.fixture(scope="module")
def blood(tiny_checkpoint: Path) -> tuple[ScDiVaModel, CellSample]:
    """1,000 blood cells and a network that was never trained: its heads are random, but they are the same."""
    model = ScDiVaModel.from_pretrained(tiny_checkpoint)
    with open_h5ad(DEMO / "tenx_pbmc3k.h5ad", model.vocabulary, min_share=0) as dataset:
        return model, read_cells(model.tokenizer, dataset, np.arange(1000), model.vocabulary)


def test_scores_are_means_drawn_towards_nothing(make: Make) -> None:
    sums = make(
        [[[4, 10, 0], [0, 6, 2]], [[8, 20, 0], [0, 3, 0]]],
        [[[2, 10, 0], [0, 5, 2]], [[8, 20, 0], [0, 5, 0]]],
        to=[[[0, 0, 0], [0, 0, 4]], [[0, 0, 0], [0, 1, 0]]],
    )
    # sum / (cells + 10); regulator 1 is target 1, and no cell shows the pair of regulator 0 and target 3.
    assert_allclose(attention_scores(sums, "from"), [[12 / 20, 30 / 40, nan], [nan, 9 / 20, 2 / 12]], rtol=1e-6)
    assert_allclose(attention_scores(sums, "to"), [[0, 0, nan], [nan, 1 / 20, 4 / 12]], rtol=1e-6)
    assert_allclose(attention_scores(sums, "both"), [[6 / 20, 15 / 40, nan], [nan, 5 / 20, 3 / 12]], rtol=1e-6)
    once = attention_scores(sums, "from", weights=[0, 1])
    assert_allclose(once, [[8 / 18, 20 / 30, nan], [nan, 3 / 15, nan]], rtol=1e-6)
    assert_allclose(attention_scores(sums, "from", weights=[3, 0])[0, 0], 12 / 16, rtol=1e-6)


def test_centring_takes_each_genes_mean_away(make: Make) -> None:
    scores = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 2.0]])
    sums = make([scores * 100], [np.full((2, 3), 90)])
    centred = attention_scores(sums, "from", centred=True)
    # Rows have the means 2 and 4, columns 2.5, 4 and 2.5, all together 3.
    assert_allclose(centred, [[-0.5, -1, 1.5], [0.5, 1, -1.5]], atol=1e-5)


def test_top_targets_leave_out_what_has_no_score() -> None:
    scores = np.array([[3.0, nan, 1.0, 2.0], [nan, nan, -5.0, nan]])
    assert_array_equal(top_targets(scores, 2), [[True, False, False, True], [False, False, True, False]])
    assert_array_equal(top_targets(scores, 9), ~np.isnan(scores))
    with pytest.raises(DataError, match="best 0 targets"):
        top_targets(scores, 0)


def test_stability_is_the_share_of_draws(make: Make) -> None:
    # Regulator 0: target 1 leads in fold 0, target 2 in fold 1, by as much; target 3 is far behind.
    sums = make([[[9, 4, 0], [0, 8, 8]], [[4, 9, 0], [0, 8, -8]]], [[[5, 5, 5], [0, 5, 5]]] * 2)
    drawn = np.random.default_rng(5).multinomial(2, [0.5, 0.5], size=400)
    found = stability(sums, "both", 1, draws=400, seed=5)
    assert_allclose(found[0, :2].sum(), 1, rtol=1e-5)
    assert found[0, 2] == 0
    first, even = (drawn[:, 0] == 2).mean(), (drawn[:, 0] == 1).mean()
    assert 0.4 < even < 0.6
    assert first - 1e-6 <= found[0, 0] <= first + even + 1e-6
    assert np.isnan(found[1, 0])
    # Target 3 of regulator 1 can only tie with target 2, when fold 0 is drawn twice.
    assert found[1, 1] >= 1 - first - 1e-6
    assert_array_equal(stability(sums, "both", 3, draws=10)[0], [1, 1, 1])


def test_a_contrast_by_hand(make: Make) -> None:
    # Ten folds of 9 cells and one pair of note: 100 cells with those that draw it to 0.
    a = np.zeros((10, 2, 3))
    away = 45 / 4.781
    a[:, 0, 0] = [15 - away, 15 + away] * 5
    a[:, 0, 1] = 5
    counts = np.full((10, 2, 3), 9)
    counts[:, 1, 0] = 0
    found = contrast(make(a, counts), make(np.zeros((10, 2, 3)), counts), "from")
    assert_allclose(found.difference, [[1.5, 0.5, 0], [nan, 0, 0]], rtol=1e-6)
    # Variance of the total: 10 folds, each away**2 from their mean, times 10 / 9; its root over 100 cells is away / 30.
    assert_allclose(found.z[0, 0], 4.781, rtol=1e-5)
    assert_allclose(found.p[0, 0], 0.001, rtol=1e-3)  # tables of Student's t, 9 degrees of freedom
    assert np.isnan(found.z[0, 1:]).all()  # without any spread nothing can be said
    assert_allclose(found.adjusted[0, 0], found.p[0, 0])
    sparse = counts.copy()
    sparse[4:] = 0
    assert np.isnan(contrast(make(a, counts), make(a, sparse), "from").p).all()


def test_networks_over_other_genes_are_not_compared(make: Make) -> None:
    sums = make(np.zeros((5, 2, 3)), np.ones((5, 2, 3)))
    other = AttentionSums(Block(np.array([0, 1]), np.array([1, 2, 4])), sums.heads, sums.sums, sums.counts)
    with pytest.raises(DataError, match="Compare two cell sets over the same genes"):
        contrast(sums, other, "from")


def test_what_cannot_be_asked_is_refused(make: Make) -> None:
    sums = make(np.zeros((5, 2, 3)), np.ones((5, 2, 3)))
    with pytest.raises(DataError, match="Unknown direction 'up'"):
        attention_scores(sums, "up")
    with pytest.raises(DataError, match="Channel 1 of 1"):
        attention_scores(sums, "from", 1)
    with pytest.raises(DataError, match=r"Weights of shape \[3\] for 5 folds"):
        attention_scores(sums, "from", weights=[1, 1, 1])


def test_two_halves_of_one_set_do_not_differ(blood: tuple[ScDiVaModel, CellSample]) -> None:
    model, sample = blood
    block = choose_block(sample, sample.symbols, most_regulators=40, most_targets=100)
    halves = np.random.default_rng(3).permutation(1000).reshape(2, 500)
    first, second = (accumulate(model, sample.take(np.sort(half)), block) for half in halves)
    itself = contrast(first, first, "both")
    assert_array_equal(itself.difference[block.pairs()], 0)
    assert np.nanmin(itself.p) == 1
    found = contrast(first, second, "both")
    tested = found.p[~np.isnan(found.p)]
    assert len(tested) > 2000
    assert (tested < 0.05).mean() < 0.1
    assert (found.adjusted < 0.05).sum() <= len(tested) / 1000


def test_one_cell_of_a_thousand_changes_few_edges(blood: tuple[ScDiVaModel, CellSample]) -> None:
    model, sample = blood
    block = choose_block(sample, sample.symbols, most_regulators=40, most_targets=200)
    whole = top_targets(attention_scores(accumulate(model, sample, block), "both"), 10)
    for left_out in (0, 500):
        less = accumulate(model, sample.take(np.delete(np.arange(1000), left_out)), block)
        kept = top_targets(attention_scores(less, "both"), 10)
        assert (whole & ~kept).sum() / whole.sum() <= 0.05
