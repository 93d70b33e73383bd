"""A screen against single perturbations; what an interrupted one keeps, and what it does not compute again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import CellSample, Perturbation, effect, read_sample
from scdiva_core.tasks.perturbation_direction import change_towards, group_centroids
from scdiva_core.tasks.perturbation_null import adjusted, gene_statistics, matched_genes, null_of
from scdiva_core.tasks.screen import ScreenRow, ScreenSettings, screen

GROUPS = np.array(["a", "b", "c", "d"], dtype=object)[np.arange(120) % 4]
FEW = ScreenSettings(n_null=12)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture
def sample(model: ScDiVaModel, dataset: H5adDataset) -> CellSample:
    return read_sample(model, model.tokenizer, dataset, np.arange(120))


class Screened:
    """What a screen wrote, and how many cells went through the network."""

    def __init__(self, model: ScDiVaModel, sample: CellSample) -> None:
        self.model, self.sample = model, sample
        self.rows: dict[str, ScreenRow] = {}
        self.cells = 0

    def write(self, row: ScreenRow) -> None:
        assert row.gene not in self.rows, "no gene twice"
        self.rows[row.gene] = row

    def run(self, genes: list[str], settings: ScreenSettings = FEW, **options: object) -> pd.DataFrame:
        def count(_: object, arguments: tuple) -> None:
            self.cells += len(arguments[0])

        handle = self.model.register_forward_pre_hook(count)
        try:
            done = dict(self.rows)
            return screen(
                self.model, self.model.tokenizer, self.sample, genes,
                done=done, write=self.write, settings=settings, **options,
            )  # fmt: skip
        finally:
            handle.remove()


@pytest.fixture
def screened(model: ScDiVaModel, sample: CellSample) -> Screened:
    return Screened(model, sample)


@pytest.fixture
def genes(sample: CellSample) -> list[str]:
    """Eight genes that from a tenth to all of the cells read."""
    read = np.diff(sample.tokens.indptr)
    order = np.argsort(read, kind="stable")
    return [sample.symbols[i] for i in order[read[order] >= 12][::9][:8]]


def test_a_screen_is_many_perturbations(
    model: ScDiVaModel, sample: CellSample, screened: Screened, genes: list[str]
) -> None:
    names, centroids = group_centroids(sample.latents, GROUPS)
    table = screened.run(genes, centroids=(names, centroids)).set_index("symbol")
    assert sorted(table.index) == sorted(genes)
    statistics = gene_statistics(sample).set_index("symbol")
    for gene in genes:
        row, alone = table.loc[gene], effect(model, model.tokenizer, sample, Perturbation((gene,)))
        assert row["effect"] == pytest.approx(alone.mean_shift, rel=1e-4)
        towards = change_towards(sample.latents, alone.after, centroids)[alone.read].mean(axis=0)
        assert row["direction"] == (names[towards.argmax()] if towards.max() > 0 else "")
        closer = towards.max() if towards.max() > 0 else np.nan
        assert row["direction_change"] == pytest.approx(closer, rel=1e-2, nan_ok=True)
        assert row["n_read"] == row["n_cells"] == alone.read.sum()
        assert row["n_expressed"] == alone.expressed.sum()
        assert row["detection"] == pytest.approx(alone.read.mean())
        assert row["mean"] == statistics.loc[gene, "mean"]
        matched = matched_genes(statistics.reset_index(), gene, 12)
        means = [screened.rows[other].effect for other in matched]
        null = null_of(statistics.reset_index(), [gene], row["effect"], [(other,) for other in matched], means)
        assert (row["p"], row["z"]) == (pytest.approx(null.p), pytest.approx(null.z))
        assert row["n_null"] == 12
    np.testing.assert_allclose(table["q"], adjusted(table["p"]))
    assert table["z"].is_monotonic_decreasing
    assert (table["reason"] == "").all()


def test_each_gene_costs_the_cells_that_read_it_once(screened: Screened, genes: list[str]) -> None:
    screened.run(genes)
    assert screened.cells == sum(row.n_cells for row in screened.rows.values())
    assert len(screened.rows) > 20, "the null is among them"


def test_an_interrupted_screen_loses_one_batch(
    model: ScDiVaModel, sample: CellSample, screened: Screened, genes: list[str]
) -> None:
    whole = Screened(model, sample)
    expected = whole.run(genes)
    asked = []

    def stop() -> bool:
        asked.append(screened.cells)
        return screened.cells > whole.cells / 2

    with pytest.raises(Cancelled):
        screened.run(genes, cancelled=stop)
    kept = sum(row.n_cells for row in screened.rows.values())
    assert 0 < kept < whole.cells
    assert screened.cells - kept <= 400 + 120, "a batch, and the gene that fills it"
    before = screened.cells
    found = screened.run(genes)
    assert screened.cells - before == whole.cells - kept
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)
    cells = screened.cells
    pd.testing.assert_frame_equal(screened.run(genes), found)
    assert screened.cells == cells, "all done: nothing is computed"


def test_rows_survive_being_written_down(screened: Screened, genes: list[str]) -> None:
    found = screened.run(genes, centroids=(("a",), np.ones((1, 8), np.float32)))
    for gene, row in screened.rows.items():
        kept = json.loads(json.dumps(asdict(row)))
        screened.rows[gene] = ScreenRow(**kept | {"towards": tuple(kept["towards"])})
    pd.testing.assert_frame_equal(screened.run(genes, centroids=(("a",), np.ones((1, 8), np.float32))), found)


def test_refused_genes_are_rows_with_a_reason(sample: CellSample, screened: Screened, genes: list[str]) -> None:
    silent = sample.symbols[int(np.flatnonzero(np.diff(sample.tokens.indptr) == 0)[0])]
    table = screened.run([genes[0], "no such gene", silent, genes[0]])
    assert table["symbol"].tolist() == [genes[0], "no such gene", silent], "a gene asked for twice is one gene"
    assert table["reason"].iloc[0] == ""
    assert "'no such gene' is not in the model's vocabulary" in table["reason"].iloc[1]
    assert f"None of the 120 cells reads {silent}" in table["reason"].iloc[2]
    assert table.loc[1:, ["effect", "z", "p", "q"]].isna().all(axis=None)
    assert table["q"].iloc[0] == table["p"].iloc[0], "adjusted over what was tested"
    assert screened.rows[silent].reason == table["reason"].iloc[2]
    only = Screened(screened.model, sample).run([silent])
    assert only["symbol"].tolist() == [silent]


def test_most_cells_bounds_the_cost_of_a_gene(screened: Screened, genes: list[str]) -> None:
    table = screened.run(genes, ScreenSettings(n_null=12, most_cells=10), groups=GROUPS)
    assert (table["n_cells"] == 10).all()
    assert (table["n_read"] > 10).all()
    assert screened.cells == sum(row.n_cells for row in screened.rows.values())


def test_random_genes_are_drawn_from_less(screened: Screened, genes: list[str]) -> None:
    table = screened.run(genes, ScreenSettings(n_null=12, null_cells=5)).set_index("symbol")
    random = [row for gene, row in screened.rows.items() if gene not in genes]
    assert max(row.n_cells for row in random) == 5
    assert max(row.n_read for row in random) > 5
    assert (table["n_cells"] == table["n_read"]).all()


def test_a_pool_bounds_the_cost_of_the_null(screened: Screened, genes: list[str]) -> None:
    table = screened.run(genes, ScreenSettings(n_null=12, null_pool=15))
    assert len(set(screened.rows) - set(genes)) <= 15
    assert table["n_null"].between(12, 12).all()
    wider = screened.run(genes, ScreenSettings(n_null=12, null_pool=16, seed=1))
    assert table["effect"].tolist() == wider.set_index("symbol").loc[table["symbol"], "effect"].tolist()


def test_progress_counts_cells_up_to_all(
    screened: Screened, genes: list[str], model: ScDiVaModel, sample: CellSample
) -> None:
    seen: list[tuple[int, int, str]] = []
    screened.run(genes, progress=lambda *state: seen.append(state))
    done, totals, words = zip(*seen, strict=True)
    assert set(totals) == {screened.cells}
    assert done[0] == 0
    assert done[-1] == screened.cells
    assert list(done) == sorted(done)
    assert set(words) == {f"Perturbing {len(screened.rows)} genes, random ones included"}


def test_other_ways_to_perturb_can_be_screened(screened: Screened, genes: list[str], model: ScDiVaModel) -> None:
    table = screened.run(genes[:2], ScreenSettings(mode="scale", factor=3.0, n_null=5)).set_index("symbol")
    alone = effect(model, model.tokenizer, screened.sample, Perturbation((genes[0],), "scale", 3.0))
    assert table.loc[genes[0], "effect"] == pytest.approx(alone.mean_shift, rel=1e-4)
    assert table.loc[genes[0], "n_read"] == alone.read.sum()


def test_nothing_to_screen_is_said(screened: Screened) -> None:
    with pytest.raises(DataError, match="No gene to screen"):
        screened.run([])
