"""Random genes beside the perturbed ones: how they are matched, that they make a null, and what stands beside p."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, ttest_1samp

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.engine import DEFAULT_CHECKPOINT
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import CellSample, Perturbation, effect, read_sample
from scdiva_core.tasks.perturbation_direction import change_towards, group_centroids, mean_changes
from scdiva_core.tasks.perturbation_null import (
    ShiftCache,
    adjusted,
    empirical_p,
    gene_statistics,
    matched_genes,
    matched_tuples,
    null_of,
)
from scdiva_core.tasks.perturbation_tests import Controls, controls, null_changes

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture
def sample(model: ScDiVaModel, dataset: H5adDataset) -> CellSample:
    return read_sample(model, model.tokenizer, dataset, np.arange(160))


@pytest.fixture
def cache(model: ScDiVaModel, sample: CellSample) -> Callable[..., ShiftCache]:
    return lambda **options: ShiftCache(model, model.tokenizer, sample, **options)


GROUPS = np.array(["a"] * 100 + ["b"] * 40 + ["c"] * 20, dtype=object)


def often_read(sample: CellSample, least: float = 0.3, most: float = 0.7) -> list[str]:
    share = np.diff(sample.tokens.indptr) / len(sample)
    return [sample.symbols[i] for i in np.flatnonzero((share > least) & (share < most))]


# ------------------------------------------------------------ matching


def test_statistics_are_those_of_cells_and_tokens(sample: CellSample) -> None:
    found = gene_statistics(sample)
    values = sample.expression.toarray()
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found["expressed"], (values > 0).sum(axis=0))
    among = np.zeros(len(found))
    for row in range(160):
        ids = sample.rows.gene_ids[sample.rows.indptr[row] : sample.rows.indptr[row + 1]]
        among[np.searchsorted(sample.gene_ids, ids)] += 1
    np.testing.assert_allclose(found["detection"], among / 160)
    assert found["symbol"].tolist() == list(sample.symbols)
    np.testing.assert_allclose(found["value"] * found["read"], sample.tokens.sum(axis=0).A1, rtol=1e-5)


@pytest.fixture
def graded() -> pd.DataFrame:
    """Two hundred genes whose value and detection rise together, and a few that no cell reads."""
    steps = np.arange(1, 201)
    table = pd.DataFrame(
        {"symbol": [f"g{i}" for i in steps], "value": steps / 50, "detection": steps / 200, "read": steps}
    )
    silent = pd.DataFrame({"symbol": ["s1", "s2"], "value": 0.0, "detection": 0.0, "read": 0})
    return pd.concat([table, silent], ignore_index=True)


def test_matches_are_the_nearest_in_rank(graded: pd.DataFrame) -> None:
    assert set(matched_genes(graded, "g100", 6)) == {"g97", "g98", "g99", "g101", "g102", "g103"}
    assert set(matched_genes(graded, "g200", 3)) == {"g197", "g198", "g199"}
    assert matched_genes(graded, "g100", 6, seed=1) == matched_genes(graded, "g100", 6, seed=1)
    assert len(matched_genes(graded, "g100", 500)) == 199, "all that cells read, but the gene itself"
    assert set(matched_genes(graded, "g100", 2, among=["g1", "g150", "g160", "s1"])) == {"g150", "g160"}


def test_a_symbol_that_two_columns_share_is_in_no_null(graded: pd.DataFrame) -> None:
    graded.loc[100, "symbol"] = "g100"
    found = matched_genes(graded, "g99", 4)
    assert "g100" not in found


def test_tuples_match_each_gene_and_hold_none_twice(graded: pd.DataFrame) -> None:
    found = matched_tuples(graded, ["g60", "g62", "g150"], 100)
    assert len(found) == 100
    assert all(len(set(genes)) == 3 and not set(genes) & {"g60", "g62", "g150"} for genes in found)
    numbers = np.array([[int(gene[1:]) for gene in genes] for genes in found])
    assert (abs(numbers.mean(axis=0) - [60, 62, 150]) < 15).all()
    assert found != matched_tuples(graded, ["g60", "g62", "g150"], 100, seed=1)


def test_p_counts_the_null_and_itself() -> None:
    null = np.arange(1.0, 100.0)
    assert empirical_p(99.5, null) == 1 / 100
    assert empirical_p(99.0, null) == 2 / 100
    assert empirical_p(0.0, null) == 1.0
    assert np.isnan(empirical_p(1.0, []))


def test_q_is_over_what_was_tested() -> None:
    np.testing.assert_allclose(adjusted([0.01, np.nan, 0.02, 0.9]), [0.03, np.nan, 0.03, 0.9])
    assert np.isnan(adjusted([np.nan, np.nan])).all()


def test_a_trend_among_the_matches_is_taken_out(graded: pd.DataFrame) -> None:
    """All shifts follow the rank: at the end, where all matches lie below, the gene is still no outlier."""
    rng = np.random.default_rng(0)
    shift = {f"g{i}": np.exp(i / 20 + rng.normal(0, 0.1)) for i in range(1, 201)}
    genes = matched_genes(graded, "g200", 99)
    expected = float(np.exp(10))
    raw = empirical_p(expected, [shift[gene] for gene in genes])
    null = null_of(graded, ["g200"], expected, [(gene,) for gene in genes], [shift[gene] for gene in genes])
    assert raw == 0.01
    assert 0.2 < null.p < 0.8
    assert abs(null.z) < 1
    far = null_of(graded, ["g200"], 2 * expected, null.genes, [shift[gene] for gene in genes])
    assert far.p == 0.01
    assert far.z == pytest.approx(null.z + np.log(2) / np.log(null.shifts).std(ddof=1))


# ------------------------------------------------------------ the cache


def test_a_gene_s_shift_is_computed_once(model: ScDiVaModel, sample: CellSample, cache: Callable) -> None:
    genes = [Perturbation((gene,)) for gene in often_read(sample)[:4]]
    shared, run = cache(), []
    handle = model.register_forward_pre_hook(lambda _, arguments: run.append(len(arguments[0])))
    first = shared.of(genes[:3])
    cells = sum(run)
    again = shared.of([genes[2], genes[3], genes[0]])
    handle.remove()
    assert again[0] is first[2]
    assert again[2] is first[0]
    assert cells == sum(len(each.rows) for each in first)
    assert sum(run) - cells == len(again[1].rows)
    whole = effect(model, model.tokenizer, sample, genes[0])
    np.testing.assert_array_equal(first[0].rows, np.flatnonzero(whole.read))
    np.testing.assert_allclose(first[0].cosine, whole.cosine[whole.read], rtol=1e-3, atol=1e-7)
    assert first[0].mean == pytest.approx(whole.mean_shift, rel=1e-4)


def test_a_draw_depends_on_the_gene_and_the_seed_alone(sample: CellSample, cache: Callable) -> None:
    one, two = (Perturbation((gene,)) for gene in often_read(sample)[:2])
    alone, after = cache(most_cells=9).of([one])[0], cache(most_cells=9).of([two, one])[1]
    np.testing.assert_array_equal(alone.rows, after.rows)
    assert len(alone.rows) == 9
    assert alone.n_read > 9
    assert cache(most_cells=9, seed=1).of([one])[0].rows.tolist() != alone.rows.tolist()


def test_small_groups_are_drawn_from_and_weighted_by_their_share(
    model: ScDiVaModel, sample: CellSample, cache: Callable
) -> None:
    perturbation = Perturbation((often_read(sample)[0],))
    found = cache(groups=GROUPS, most_cells=12).of([perturbation])[0]
    read = effect(model, model.tokenizer, sample, perturbation).read
    for group in "abc":
        inside = GROUPS[found.rows] == group
        assert inside.sum() == 4
        assert found.weights[inside].sum() == pytest.approx((read & (GROUPS == group)).sum() / read.sum())
    assert found.weights.sum() == pytest.approx(1)


def test_where_the_cells_go_is_kept_and_their_latents_are_not(
    model: ScDiVaModel, sample: CellSample, cache: Callable
) -> None:
    names, centroids = group_centroids(sample.latents, GROUPS)
    perturbation = Perturbation((often_read(sample)[0],))
    shared = cache(towards=lambda before, after: change_towards(before, after, centroids))
    found = shared.of([perturbation])[0]
    whole = effect(model, model.tokenizer, sample, perturbation)
    change = change_towards(sample.latents, whole.after, centroids)
    np.testing.assert_allclose(found.towards, change[whole.read], atol=1e-5)
    null = null_changes([found], GROUPS, names)
    expected = mean_changes(change[whole.read], GROUPS[whole.read], names, 10)[0]
    assert np.isfinite(expected[0]).all()
    np.testing.assert_allclose(null, expected[None], atol=1e-5)


def test_the_cache_refuses_what_it_cannot_use(sample: CellSample, cache: Callable) -> None:
    with pytest.raises(DataError, match="groups of 3 cells, but 160 cells"):
        cache(groups=["a", "b", "c"])
    silent = sample.symbols[int(np.flatnonzero(np.diff(sample.tokens.indptr) == 0)[0])]
    with pytest.raises(DataError, match=f"None of the 160 cells reads {silent}"):
        cache().of([Perturbation((silent,))])
    with pytest.raises(Cancelled):
        cache().of([Perturbation((often_read(sample)[0],))], cancelled=lambda: True)


# ------------------------------------------------------------ the controls


@pytest.fixture
def controlled(model: ScDiVaModel, sample: CellSample, cache: Callable) -> Callable[..., Controls]:
    def run(*genes: str, how: dict | None = None, **options: object) -> Controls:
        found = effect(model, model.tokenizer, sample, Perturbation(genes, **(how or {})))
        return controls(cache(groups=options.get("groups"), most_cells=60), found, **options)

    return run


def test_an_effect_stands_among_matched_genes(sample: CellSample, controlled: Callable) -> None:
    gene = often_read(sample)[0]
    found = controlled(gene)
    assert len(found.null.genes) == len(found.null.shifts) == 100
    assert (gene,) not in found.null.genes
    assert [shift.perturbation.genes for shift in found.null_shifts] == list(found.null.genes)
    assert found.null.p == (np.sum(found.null.shifts >= found.null.observed) + 1) / 101
    assert found.groups is None
    assert found.donors is None
    assert found.words.startswith(f"{gene} knocked out: mean shift of the ")
    assert "beside 100 random genes expressed alike in these cells; no p can be below 0.0099." in found.words


def test_several_genes_stand_among_sets_of_as_many(sample: CellSample, controlled: Callable) -> None:
    found = controlled(*often_read(sample)[:2], n_null=12)
    assert [len(genes) for genes in found.null.genes] == [2] * 12
    assert "beside 12 random sets of 2 genes" in found.words


def test_too_few_genes_to_match_are_counted(sample: CellSample, controlled: Callable) -> None:
    readable = int((np.diff(sample.tokens.indptr) > 0).sum())
    found = controlled(often_read(sample)[0], n_null=5000)
    assert len(found.null.shifts) == readable - 1
    assert f"There were only {readable - 1:,} to match, not 5,000." in found.words


def test_each_group_has_a_null_of_its_own(model: ScDiVaModel, sample: CellSample, controlled: Callable) -> None:
    gene = often_read(sample)[0]
    read = effect(model, model.tokenizer, sample, Perturbation((gene,)))
    groups = GROUPS.copy()
    groups[np.flatnonzero(read.read)[:4]] = "few"
    found = controlled(gene, groups=groups)
    table = found.groups.set_index("group")
    for group, row in table.iterrows():
        reading = read.read & (groups == group)
        assert row["n"] == reading.sum()
        assert row["mean"] == pytest.approx(read.cosine[reading].mean(), rel=1e-5)
    assert np.isnan(table.loc["few", ["p", "q"]].astype(float)).all()
    tested = table[table["n"] >= 10]
    assert len(tested) >= 2
    for group, row in tested.iterrows():
        null = [shift.cosine[groups[shift.rows] == group] for shift in found.null_shifts]
        means = np.array([each.mean() for each in null if len(each) >= 10])
        assert row["n_null"] == len(means)
        assert row["null_mean"] == pytest.approx(means.mean(), rel=1e-5)
        assert row["null_low"] < row["null_mean"] < row["null_high"]
        assert row["p"] == empirical_p(row["mean"], means)
    np.testing.assert_allclose(tested["q"], adjusted(tested["p"]))


def test_removal_is_shown_beside_masking(model: ScDiVaModel, sample: CellSample, controlled: Callable) -> None:
    gene = often_read(sample)[3]
    removed, masked = (
        effect(model, model.tokenizer, sample, Perturbation((gene,), mode)) for mode in ("knockout", "mask")
    )
    for mode in ("knockout", "mask"):
        ranks = controlled(gene, how={"mode": mode}, n_null=3).ranks
        drawn = len(np.flatnonzero(removed.read)) <= 60
        tolerance = 1e-4 if drawn else 0.5
        assert ranks.removed == pytest.approx(removed.mean_shift, rel=tolerance)
        assert ranks.masked == pytest.approx(masked.mean_shift, rel=tolerance)
        assert ranks.share == ranks.masked / ranks.removed
    assert controlled(gene, how={"mode": "scale", "factor": 0.5}, n_null=3).ranks is None


def test_donors_are_the_replicates(model: ScDiVaModel, sample: CellSample, controlled: Callable) -> None:
    gene, donors = often_read(sample, 0.4)[0], np.array(["d1", "d2", "d3", "d4"])[np.arange(160) % 4]
    found = controlled(gene, donors=donors, n_null=20)
    table, read = found.donors.table, effect(model, model.tokenizer, sample, Perturbation((gene,)))
    assert table["donor"].tolist() == ["d1", "d2", "d3", "d4"]
    for row in table.itertuples():
        inside = read.read & (donors == row.donor)
        null = [shift.cosine[donors[shift.rows] == row.donor] for shift in found.null_shifts]
        assert row.n == inside.sum()
        assert row.mean == pytest.approx(read.cosine[inside].mean(), rel=1e-5)
        assert row.null_mean == pytest.approx(np.mean([each.mean() for each in null if len(each)]), rel=1e-5)
    np.testing.assert_allclose(table["excess"], table["mean"] - table["null_mean"])
    assert found.donors.p == pytest.approx(ttest_1samp(table["excess"], 0).pvalue)
    assert "each counted once: cells of one donor are alike and no replicates" in found.donors.words


def test_too_few_donors_are_said_and_not_tested(sample: CellSample, controlled: Callable) -> None:
    donors = np.where(np.arange(160) < 70, "d1", np.where(np.arange(160) < 154, "d2", "d3"))
    found = controlled(often_read(sample)[0], donors=donors, n_null=5).donors
    assert np.isnan(found.p)
    assert found.words == (
        "2 donors with 10 reading cells or more; a test over donors needs 3. 1 with fewer than 10 reading cells left "
        "out."
    )
    with pytest.raises(DataError, match="labels of 2 cells, but 160 cells"):
        controlled(often_read(sample)[0], donors=["d1", "d2"])


# ------------------------------------------------------------ a null is a null


@pytest.mark.parametrize("name", ["kang2018_pbmc_ifnb_3k", "zheng2017_bone_marrow_healthy1"])
def test_random_genes_tested_as_if_real_have_uniform_p(name: str) -> None:
    """Two hundred random genes, each against its hundred nearest among them, with the trained network.

    Ranks of random genes are uniform even when nothing is matched; that strong and weak ones are so each by themselves
    is what matching must bring about. (Unmatched, the means below were 0.31 to 0.47 and 0.53 to 0.72.)
    """
    model = ScDiVaModel.from_pretrained(DEFAULT_CHECKPOINT).eval()
    rng = np.random.default_rng(4)
    with open_h5ad(DEMO / f"{name}.h5ad", model.vocabulary) as dataset:
        sample = read_sample(model, model.tokenizer, dataset, rng.choice(dataset.n_obs, 80, replace=False))
    statistics = gene_statistics(sample)
    known = statistics[(statistics["read"] >= 3) & ~statistics["symbol"].duplicated(keep=False)]
    genes = known.iloc[rng.choice(len(known), 200, replace=False)].set_index("symbol")
    cache = ShiftCache(model, model.tokenizer, sample, most_cells=2)
    shifts = dict(zip(genes.index, cache.of([Perturbation((gene,)) for gene in genes.index]), strict=True))
    p = []
    for gene in genes.index:
        others = matched_genes(statistics, gene, among=genes.index)
        means = [shifts[other].mean for other in others]
        p.append(null_of(statistics, [gene], shifts[gene].mean, [(other,) for other in others], means).p)
    assert kstest(p, "uniform").pvalue > 0.05
    low, high = genes["value"].quantile([0.25, 0.75])
    for part in (genes["value"] <= low, genes["value"] > high):
        assert 0.43 < np.mean(np.array(p)[part]) < 0.6
