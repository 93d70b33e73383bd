"""A perturbation behind one call: what it finds, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import drawn_cells
from scdiva_core.engine_knockout import (
    KnockoutResult,
    KnockoutSettings,
    ScreenSettings,
    estimate_seconds,
    knockout,
    stored_knockout,
)
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.perturbation import CellSample, effect, read_sample
from scdiva_core.tasks.perturbation_direction import group_centroids
from scdiva_core.tasks.perturbation_null import adjusted, empirical_p
from scdiva_core.tasks.predicted_expression import expression_change

MAP = ProjectionSettings(n_neighbors=10)
N_NULL = 12


@pytest.fixture
def engine(tiny_checkpoint: Path, tmp_path: Path) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "results"))


@pytest.fixture
def dataset(engine: Engine, small_h5ad: Path) -> Iterator[H5adDataset]:
    with engine.open(small_h5ad) as opened:
        yield opened


@pytest.fixture
def sample(engine: Engine, dataset: H5adDataset) -> CellSample:
    return read_sample(engine.model, engine.model.tokenizer, dataset, np.arange(160))


@pytest.fixture
def gene(sample: CellSample) -> str:
    """A gene that about a hundred cells read."""
    return sample.symbols[np.argmin(np.abs(np.diff(sample.tokens.indptr) - 100))]


@pytest.fixture
def settings(gene: str) -> KnockoutSettings:
    return KnockoutSettings(
        (gene,), group_key="cell_type", donor_key="donor", n_null=N_NULL, expression=False, cells="blood"
    )


def count_cells(engine: Engine) -> list[int]:
    """Sizes of the batches that go through the network from now on."""
    sizes: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    return sizes


def same(one: KnockoutResult, two: KnockoutResult) -> None:
    for field in fields(KnockoutResult):
        first, second = getattr(one, field.name), getattr(two, field.name)
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, second)
            assert first.attrs == second.attrs
        elif isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second)
        else:
            assert first == second, field.name


def test_cells_groups_and_null_of_a_knockout(
    engine: Engine, dataset: H5adDataset, sample: CellSample, settings: KnockoutSettings
) -> None:
    found = knockout(engine, dataset, settings)
    alone = effect(engine.model, engine.model.tokenizer, sample, settings.perturbation)
    assert (found.n_cells, found.n_sampled) == (160, 160)
    assert (found.n_expressing, found.n_read) == (alone.expressed.sum(), alone.read.sum())
    assert found.cells["cell"].tolist() == list(range(160))
    assert found.cells["name"].tolist() == dataset.obs_names.tolist()
    np.testing.assert_allclose(found.cells["cosine"], alone.cosine, rtol=1e-3, atol=1e-9)
    assert (found.cells.loc[~found.cells["read"], ["cosine", "l2"]] == 0).all(axis=None)
    assert 0 < found.n_read < 160

    reading = found.cells[found.cells["read"]]
    assert found.summary["shift"] == pytest.approx(reading["cosine"].mean(), rel=1e-5)
    assert found.summary["n_null"] == len(found.null) == N_NULL
    assert found.summary["p"] == empirical_p(found.summary["shift"], found.null)
    low, high = np.quantile(found.null, [0.05, 0.95])
    assert (found.summary["null_low"], found.summary["null_high"]) == (low, high)
    assert json.loads(json.dumps(found.summary)) == found.summary

    groups = found.groups.set_index("group")
    assert groups["n_cells"].to_dict() == dataset.obs["cell_type"].value_counts().to_dict()
    assert groups["n_read"].sum() == found.n_read
    means = reading.groupby("group")["cosine"].mean()
    np.testing.assert_allclose(groups["shift"].dropna(), means, rtol=1e-5)
    assert groups["p"].notna().tolist() == (groups["n_read"] >= 10).tolist()
    np.testing.assert_allclose(groups["q"], adjusted(groups["p"]))


def test_directions_name_groups_and_sum_to_the_reading_cells(
    engine: Engine, dataset: H5adDataset, settings: KnockoutSettings
) -> None:
    found = knockout(engine, dataset, settings)
    names, _ = group_centroids(engine.embed(dataset), dataset.obs["cell_type"])
    assert set(found.directions["target"]) == set(names)
    assert set(found.directions["word"]) <= {"towards", "away", "neither", "not tested"}
    assert "matched random genes" in found.directions.attrs["words"]
    tested = found.directions[found.directions["word"] != "not tested"]
    assert (tested["n"] >= 10).all()
    assert tested["p"].between(1 / (N_NULL + 1), 1).all()
    assert found.transitions.columns.tolist() == ["before", "after", "n"]
    assert found.transitions["n"].sum() == found.n_read


def test_masking_and_donors_stand_beside_a_removal(
    engine: Engine, dataset: H5adDataset, sample: CellSample, settings: KnockoutSettings
) -> None:
    found = knockout(engine, dataset, settings)
    hidden = effect(engine.model, engine.model.tokenizer, sample, replace(settings.perturbation, mode="mask"))
    assert found.summary["masked"] == pytest.approx(hidden.mean_shift, rel=1e-3)
    assert found.summary["remaining"] == pytest.approx(hidden.mean_shift / found.summary["shift"], rel=1e-3)
    assert found.summary["donors"]["n"] == len(found.donors) == 4
    assert "One-sample t-test over donors" in found.summary["donors"]["words"]
    assert found.donors["n"].sum() == found.n_read

    scaled = knockout(engine, dataset, replace(settings, mode="scale", factor=0.5, donor_key=None))
    assert (scaled.summary["masked"], scaled.summary["remaining"], scaled.donors) == (None, None, None)
    assert "No column of donors" in scaled.summary["donors"]


def test_predicted_expression_has_its_p_from_random_genes(
    engine: Engine, dataset: H5adDataset, sample: CellSample, settings: KnockoutSettings
) -> None:
    asked = replace(settings, expression=True, n_null=3)
    found = knockout(engine, dataset, asked)
    alone = expression_change(engine.model, engine.model.tokenizer, sample, asked.perturbation)
    assert found.expression["symbol"].tolist() == alone.table["symbol"].tolist()
    np.testing.assert_allclose(found.expression["change"], alone.table["change"], rtol=1e-3, atol=1e-6)
    assert set(asked.genes).isdisjoint(found.expression["symbol"])
    possible = [0.25, 0.5, 0.75, 1.0]  # 0 to 3 of the three random genes at least as far, and itself
    own = found.expression["p"].isin(possible)
    assert (~own).sum() <= 3, "a random gene does not count in its own null"
    assert own.sum() > 1000
    assert "3 random genes" in found.expression.attrs["words"]
    assert knockout(engine, dataset, settings).expression is None


def test_what_was_computed_is_fetched(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings) -> None:
    assert stored_knockout(engine, dataset, settings) is None
    found = knockout(engine, dataset, settings)
    sizes = count_cells(engine)
    same(found, knockout(engine, dataset, settings))
    same(found, stored_knockout(engine, dataset, settings))
    renamed = stored_knockout(engine, dataset, replace(settings, cells="all of them"), np.arange(160))
    assert renamed.null.tolist() == found.null.tolist(), "the same cells by another name"
    assert ("(blood)" in found.summary["caption"], "(all of them)" in renamed.summary["caption"]) == (True, True)
    assert sum(sizes) == 0
    for other in (replace(settings, n_null=11), replace(settings, seed=1), replace(settings, group_key="donor")):
        assert stored_knockout(engine, dataset, other) is None
    assert stored_knockout(engine, dataset, settings, np.arange(159)) is None
    # A second engine on the same store, as in a page beside a worker.
    other = Engine(engine.checkpoint, "cpu", engine.store)
    same(found, stored_knockout(other, dataset, settings))


def test_a_second_perturbation_of_the_same_cells_finds_the_random_genes_of_the_first(
    engine: Engine, dataset: H5adDataset, settings: KnockoutSettings
) -> None:
    knockout(engine, dataset, settings)
    sizes = count_cells(engine)
    found = knockout(engine, dataset, replace(settings, donor_key=None))
    assert found.n_read <= sum(sizes) < 3 * found.n_read, "its own cells and those of the arrows' control"


def test_caption_and_warnings_say_the_numbers(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings) -> None:
    found = knockout(engine, dataset, settings)
    caption, warned = found.summary["caption"], " ".join(found.summary["warnings"])
    assert caption.startswith(f"{settings.genes[0]} knocked out: of 160 cells (blood), {found.n_expressing} express ")
    assert f"in {found.n_read} the model reads it; these shift by {found.summary['shift']:.3g} on average" in caption
    assert f"of {N_NULL} random genes expressed alike (p {found.summary['p']:.2g})" in caption
    assert f"of {found.groups['q'].notna().sum()} tested groups" in caption
    assert "drawn" not in warned
    assert f"{found.n_expressing - found.n_read} cells express a perturbed gene below" in warned
    few = knockout(engine, dataset, replace(settings, most_cells=60), np.arange(100))
    assert (few.n_cells, few.n_sampled) == (100, 60)
    assert "60 cells were drawn from 100" in " ".join(few.summary["warnings"])


def test_arrows_come_with_the_map(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings) -> None:
    before = knockout(engine, dataset, settings, projection=MAP)
    assert (before.field, before.control) == (None, None)
    drawn = engine.project(dataset, settings=MAP)
    sizes = count_cells(engine)
    found = knockout(engine, dataset, settings, projection=MAP)
    assert sum(sizes) == 0, "the arrows alone were missing"
    assert found.field.columns.tolist() == ["x", "y", "dx", "dy", "n"]
    assert (found.field["n"] >= 5).all()
    assert found.control.attrs["words"] == "a matched random gene"
    low, high = drawn.coordinates.min(axis=0), drawn.coordinates.max(axis=0)
    assert (found.field[["x", "y"]].to_numpy() >= low - 1).all()
    assert (found.field[["x", "y"]].to_numpy() <= high + 1).all()
    assert stored_knockout(engine, dataset, settings).field is None, "of another map"

    clusters = knockout(engine, dataset, replace(settings, group_key=None), projection=MAP)
    assert set(clusters.groups["group"]) == {f"cluster {number}" for number in set(drawn.leiden)}
    assert clusters.cells["group"].tolist() == [f"cluster {number}" for number in drawn.leiden]
    assert stored_knockout(engine, dataset, replace(settings, group_key=None)) is None, "other clusters"


def test_what_cannot_be_perturbed(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings) -> None:
    with pytest.raises(DataError, match=r"The gene 'NOSUCH' is not in the model's vocabulary"):
        knockout(engine, dataset, replace(settings, genes=("NOSUCH",)))
    with pytest.raises(DataError, match="The gene 'NOSUCH' is not in"):
        estimate_seconds(engine, dataset, replace(settings, genes=("NOSUCH",)))
    with pytest.raises(DataError, match="small.h5ad has no column 'tissue'"):
        knockout(engine, dataset, replace(settings, group_key="tissue"))
    with pytest.raises(DataError, match="has no column 'patient'"):
        stored_knockout(engine, dataset, replace(settings, donor_key="patient"))
    with pytest.raises(DataError, match="There are 160 cells in the file, and cells 0 to 160 were chosen"):
        knockout(engine, dataset, settings, np.arange(161))
    with pytest.raises(DataError, match="no cells were chosen"):
        knockout(engine, dataset, settings, [])
    assert engine.stored_embedding(dataset) is None, "refused before any cell was embedded"


def test_a_gene_that_no_drawn_cell_reads_is_refused_with_its_counts(
    engine: Engine, dataset: H5adDataset, sample: CellSample, settings: KnockoutSettings
) -> None:
    unread = np.flatnonzero((np.diff(sample.tokens.indptr) == 0) & (np.diff(sample.expressed.indptr) > 20))[0]
    gene, n = sample.symbols[unread], np.diff(sample.expressed.indptr)[unread]
    with pytest.raises(DataError, match=f"None of the 160 cells reads {gene}.*{n} of 160 express it") as caught:
        knockout(engine, dataset, replace(settings, genes=(gene,)))
    assert "Choose a gene that these cells express" in caught.value.hint
    with pytest.raises(DataError, match=f"None of the 50 cells reads {gene}") as caught:
        knockout(engine, dataset, replace(settings, genes=(gene,), most_cells=50))
    assert caught.value.hint.startswith("They were drawn from 160")


def test_a_column_of_names_is_no_column_of_groups(
    small_h5ad: Path, engine: Engine, settings: KnockoutSettings, tmp_path: Path
) -> None:
    import anndata

    cells = anndata.read_h5ad(small_h5ad)
    cells.obs["barcode"] = cells.obs_names.to_numpy()
    cells.write_h5ad(tmp_path / "named.h5ad")
    with engine.open(tmp_path / "named.h5ad") as dataset:
        with pytest.raises(DataError, match="'barcode' has 160 different values; at most 100"):
            knockout(engine, dataset, replace(settings, group_key="barcode"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"genes": ()}, "0 genes to perturb"),
        ({"genes": ("A", "B", "C", "D")}, "4 genes to perturb"),
        ({"genes": ("A",), "mode": "scale"}, "scaled by 0"),
        ({"genes": ("A",), "n_null": 0}, "n_null is 0"),
        ({"genes": ("A",), "most_cells": 0}, "most_cells is 0"),
    ],
)
def test_settings_that_make_no_sense(values: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        KnockoutSettings(**values)


def test_settings_are_plain_values() -> None:
    asked = KnockoutSettings(("A", "B"), "scale", 2.0, "cell_type", "donor", "T cells", 50, 300, False, 4)
    assert KnockoutSettings.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    many = ScreenSettings(("A", "B", "C", "D"), "scale", 2.0, "cell_type", "T cells", 300, 50, 4)
    assert ScreenSettings.from_dict(json.loads(json.dumps(many.to_dict()))) == many
    with pytest.raises(DataError, match="No gene to screen"):
        ScreenSettings(())


def test_time_is_estimated_by_what_is_to_be_computed(
    engine: Engine, dataset: H5adDataset, settings: KnockoutSettings
) -> None:
    whole = estimate_seconds(engine, dataset, settings)
    assert whole > 0
    assert estimate_seconds(engine, dataset, replace(settings, expression=True)) > whole
    assert estimate_seconds(engine, dataset, replace(settings, n_null=100)) > whole
    assert estimate_seconds(engine, dataset, replace(settings, group_key=None)) > whole, "the map is to be drawn"
    engine.embed(dataset)
    assert estimate_seconds(engine, dataset, settings) < whole
    knockout(engine, dataset, settings)
    assert estimate_seconds(engine, dataset, settings) == 0


def test_progress_is_one_bar_and_cancelling_keeps_the_embedding(
    engine: Engine, dataset: H5adDataset, settings: KnockoutSettings
) -> None:
    seen: list[tuple[int, int, str]] = []
    with pytest.raises(Cancelled):
        knockout(
            engine,
            dataset,
            settings,
            progress=lambda *told: seen.append(told),
            cancelled=lambda: bool(seen) and seen[-1][2].startswith("Perturbing random genes"),
        )
    assert len({total for _, total, _ in seen}) == 1
    done = [each for each, _, _ in seen]
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] < seen[0][1]
    assert engine.stored_embedding(dataset) is not None
    assert stored_knockout(engine, dataset, settings) is None


def test_drawn_cells_keep_the_shares_of_their_groups() -> None:
    groups = np.array(["a"] * 900 + ["b"] * 80 + [None] * 20, dtype=object)
    cells = np.arange(1000, 2000)
    drawn = drawn_cells(cells, groups, 200, seed=3)
    assert len(set(drawn)) == 200
    assert drawn.tolist() == sorted(drawn)
    assert np.histogram(drawn, [1000, 1900, 1980, 2000])[0].tolist() == [160, 20, 20], "16 and 4 by their share"
    assert np.histogram(drawn_cells(cells, groups, 500, 0), [1000, 1900, 1980, 2000])[0].tolist() == [441, 39, 20]
    assert np.histogram(drawn_cells(cells, groups, 10, 0), [1000, 1900, 1980, 2000])[0].tolist() == [4, 3, 3]
    assert drawn_cells(cells, groups, 200, 3).tolist() == drawn.tolist()
    assert drawn_cells(cells, groups, 200, 4).tolist() != drawn.tolist()
    assert drawn_cells(cells, groups, 1000, 0).tolist() == cells.tolist()
