"""Reconstruction behind one call: what it finds, that nothing leaks, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core import engine_jobs
from scdiva_core.baselines.reconstruction import Population, mean_values
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction import (
    ReconstructionResult,
    ReconstructionSettings,
    estimate_seconds,
    reconstruct,
    stored_reconstruction,
)
from scdiva_core.engine_reconstruction_denoising import denoise, estimate_denoise_seconds, stored_denoised
from scdiva_core.engine_reconstruction_result import (
    ITERATIVE,
    ITERATIVE_LEAKING,
    MEAN,
    NAMED,
    NEIGHBOURS,
    ONE_PASS,
    ONE_PASS_LEAKING,
    RANDOM,
    RANK,
)
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.cell_sample import read_cells
from tests.tiny_checkpoint import write_tiny_checkpoint

SMALL = ReconstructionSettings(masks=(0.3, 0.6), most_cells=20, iterative_cells=4, steps=3, group_key="cell_type")


@pytest.fixture
def engine(tiny_checkpoint: Path, tmp_path: Path) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "results"))


@pytest.fixture
def dataset(engine: Engine, small_h5ad: Path) -> Iterator[H5adDataset]:
    with engine.open(small_h5ad) as opened:
        yield opened


def same(one: ReconstructionResult, two: ReconstructionResult) -> None:
    for field in fields(ReconstructionResult):
        first, second = getattr(one, field.name), getattr(two, field.name)
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, second)
        else:
            assert first == second, field.name


def test_every_method_is_measured_at_every_mask(engine: Engine, dataset: H5adDataset) -> None:
    found = reconstruct(engine, dataset, SMALL)
    assert (found.n_cells, found.n_rebuilt, found.n_population) == (160, 20, 140)
    order = [ONE_PASS, ONE_PASS_LEAKING, ITERATIVE, ITERATIVE_LEAKING, RANK, RANDOM, NAMED, MEAN, NEIGHBOURS]
    for share in SMALL.masks:
        part = found.table[found.table["mask"] == share]
        assert part["method"].tolist() == order
        assert part["n"].tolist() == [20, 20, 4, 4, *[20] * 5]
        assert part["leaks"].tolist() == [False, True, False, True, *[False] * 5]
        by_gene = part["told"] == "gene"
        assert part.loc[~by_gene, "identity"].between(0, 1).all()
        assert part.loc[by_gene, ["identity", "bleu"]].isna().all(axis=None)
        assert (part["mse_low"] <= part["mse"]).all()
        assert (part["mse"] <= part["mse_high"]).all()
    leaking = found.table.query("method == @ONE_PASS_LEAKING")["mse"].to_numpy()
    assert not np.allclose(leaking, found.table.query("method == @ONE_PASS")["mse"]), "an untrained model leaks"
    assert found.types.groupby(["mask", "method"])["n"].sum().loc[0.6, MEAN] == 20
    assert found.genes["n"].is_monotonic_decreasing
    assert {f"mse: {name}" for name in (ONE_PASS, NAMED, MEAN, NEIGHBOURS)} < set(found.genes)


def test_the_mean_is_that_of_the_other_cells(engine: Engine, dataset: H5adDataset) -> None:
    found = reconstruct(engine, dataset, SMALL)
    profile = found.profiles
    asked = {name: place for place, name in enumerate(dataset.obs_names)}
    assert found.summary["mask"] == 0.6
    drawn = np.random.default_rng(SMALL.seed).permutation(160)[:20]
    assert {asked[name] for name in profile["cell"]} <= set(drawn)
    others = read_cells(engine.model.tokenizer, dataset, np.setdiff1d(np.arange(160), drawn), engine.vocabulary)
    population = Population(others.rows, len(engine.vocabulary))
    hidden = profile[profile["hidden"]]
    for name, own in hidden.groupby("cell"):
        sample = read_cells(engine.model.tokenizer, dataset, [asked[name]], engine.vocabulary)
        places = np.isin(np.arange(len(sample.rows.gene_ids)), own["place"] - 1)
        expected = mean_values(population, sample.rows, places)
        np.testing.assert_allclose(own["mean_value"], expected, rtol=1e-5)
        np.testing.assert_allclose(own["value"], sample.rows.values[places])
    shares = profile.groupby("cell")["hidden"].mean()
    assert shares.between(0.55, 0.65).all()
    assert profile.loc[~profile["hidden"], ["rebuilt_value", "named_value"]].isna().all(axis=None)
    assert (profile.loc[~profile["hidden"], "rebuilt_symbol"] == "").all()
    assert set(hidden["rebuilt_symbol"]) - {""}
    assert profile.groupby("group")["cell"].nunique().eq(1).all(), "the first cell of each type"


def test_words_tell_the_verdict_and_the_leak(engine: Engine, dataset: H5adDataset) -> None:
    found = reconstruct(engine, dataset, replace(SMALL, iterative_cells=0))
    told = found.summary
    for name in (RANK, MEAN, NEIGHBOURS):
        assert f"against {name}, 20 cells" in told["verdict"]
    assert "clean anchor" not in told["verdict"], "a method that sees what is hidden proves nothing"
    assert "as published" in told["leak"]
    row = found.comparisons.query("ours == @NAMED and theirs == @NEIGHBOURS and measure == 'mse'").iloc[0]
    assert (
        f"squared error of values: {row['word']} ({row['ours_mean']:.3f} and {row['theirs_mean']:.3f}"
        in (told["verdict"])
    )
    assert "30%, 60% of each cell's genes hidden at random" in told["caption"]
    assert "140 other cells" in told["caption"]
    warnings = " ".join(told["warnings"])
    assert "Only 20 cells were rebuilt" in warnings
    assert "20 cells were drawn from 160" in warnings
    assert ITERATIVE not in set(found.table["method"])


def test_nothing_is_computed_twice(engine: Engine, dataset: H5adDataset) -> None:
    assert stored_reconstruction(engine, dataset, SMALL) is None
    assert estimate_seconds(engine, dataset, SMALL) > 0
    seen: list[tuple[int, int]] = []
    first = reconstruct(engine, dataset, SMALL, progress=lambda done, total, _: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen), "the bar never goes back"
    assert seen[-1][0] == seen[-1][1]
    batches: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    same(reconstruct(engine, dataset, SMALL), first)
    assert estimate_seconds(engine, dataset, SMALL) == 0
    assert not batches
    renamed = reconstruct(engine, dataset, replace(SMALL, cells="blood"), np.arange(160))
    assert not batches
    assert "20 cells (blood)" in renamed.summary["caption"]
    other = reconstruct(engine, dataset, replace(SMALL, seed=1))
    assert batches
    assert not np.array_equal(other.table["mse"], first.table["mse"])


def test_a_gene_list_is_imputed(engine: Engine, dataset: H5adDataset) -> None:
    settings = replace(SMALL, genes=("RPL13", "LTB", "MALAT1"), most_cells=60)
    found = reconstruct(engine, dataset, settings)
    assert found.table["mask"].nunique() == 1
    assert 0 < found.table["mask"].iloc[0] < 0.1, "the share of their tokens"
    assert set(found.genes["symbol"]) <= {"RPL13", "LTB", "MALAT1"}
    assert set(found.profiles.loc[found.profiles["hidden"], "symbol"]) <= {"RPL13", "LTB", "MALAT1"}
    assert "rebuilt with 3 genes hidden" in found.summary["caption"]
    with pytest.raises(DataError, match="'NOSUCHGENE' is not in"):
        reconstruct(engine, dataset, replace(settings, genes=("NOSUCHGENE",)))


def test_genes_that_no_cell_reads_are_refused(engine: Engine, dataset: H5adDataset) -> None:
    sample = read_cells(engine.model.tokenizer, dataset, np.arange(160), engine.vocabulary)
    read = sample.tokens.getnnz(axis=0)
    rare = sample.symbols[int(np.flatnonzero(read == 0)[0])]
    with pytest.raises(DataError, match=f"In none of the 20 cells can {rare} be hidden"):
        reconstruct(engine, dataset, replace(SMALL, genes=(rare,)))


def test_cells_of_a_set_are_rebuilt_from_the_whole_file(engine: Engine, dataset: H5adDataset) -> None:
    found = reconstruct(engine, dataset, SMALL, np.arange(5))
    assert (found.n_cells, found.n_rebuilt, found.n_population) == (5, 5, 155)
    half = reconstruct(engine, dataset, replace(SMALL, most_cells=1000, masks=(0.3,), iterative_cells=0))
    assert (half.n_rebuilt, half.n_population) == (80, 80), "half of the file stays to learn from"


def test_a_checkpoint_without_a_decoder_says_so(small_h5ad: Path, tmp_path: Path) -> None:
    engine = Engine(write_tiny_checkpoint(tmp_path / "bare"), "cpu", ResultStore(tmp_path / "results"))
    with engine.open(small_h5ad) as dataset:
        found = reconstruct(engine, dataset, replace(SMALL, group_key=None, iterative_cells=0))
        values = denoise(engine, dataset)
    assert not found.summary["decoder"]
    assert any("has no decoder" in warning for warning in found.summary["warnings"])
    assert found.types is None
    assert set(found.profiles["group"]) == {""}
    assert found.table.query("method == @NAMED")["mse"].notna().all()
    assert values.nnz > 0


def test_what_makes_no_sense_is_refused(engine: Engine, dataset: H5adDataset, tmp_path: Path) -> None:
    for changes, message in (
        ({"most_cells": 0}, "most_cells is 0"),
        ({"steps": 1}, "steps is 1"),
        ({"masks": (0.5, 1.0)}, "share of 1 of the tokens"),
        ({"masks": ()}, "0 masks and 0 genes"),
    ):
        with pytest.raises(DataError, match=message):
            replace(SMALL, **changes)
    with pytest.raises(DataError, match="160 cells in the file, and cells 5 to 160"):
        reconstruct(engine, dataset, SMALL, [5, 160])
    with pytest.raises(DataError, match="has no column 'nothing'"):
        reconstruct(engine, dataset, replace(SMALL, group_key="nothing"))
    with pytest.raises(Cancelled):
        reconstruct(engine, dataset, SMALL, cancelled=lambda: True)
    assert stored_reconstruction(engine, dataset, SMALL) is None


def test_a_single_cell_has_nothing_to_compare_with(
    engine: Engine, small_cells: anndata.AnnData, tmp_path: Path
) -> None:
    small_cells[:1].write_h5ad(tmp_path / "one.h5ad")
    with engine.open(tmp_path / "one.h5ad") as dataset:
        with pytest.raises(DataError, match="has 1 cell"):
            reconstruct(engine, dataset, SMALL)
        with pytest.raises(DataError, match="has 1 cell"):
            denoise(engine, dataset)


def test_settings_survive_json() -> None:
    settings = replace(SMALL, genes=("A", "B"))
    assert ReconstructionSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_denoised_values_are_of_the_tokens_and_kept(engine: Engine, dataset: H5adDataset) -> None:
    told: list[int] = []
    assert stored_denoised(engine, dataset) is None
    assert estimate_denoise_seconds(engine, dataset) > 0
    values = denoise(engine, dataset, progress=lambda done, total, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 160
    sample = read_cells(engine.model.tokenizer, dataset, np.arange(160), engine.vocabulary)
    tokens = sample.tokens.tocsr()
    assert values.shape == tokens.shape
    assert values.nnz <= tokens.nnz
    assert not ((values > 0) > (tokens > 0)).nnz, "nothing is filled in"
    assert not np.allclose(values[tokens > 0], tokens[tokens > 0])
    batches: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    np.testing.assert_array_equal(denoise(engine, dataset).toarray(), values.toarray())
    assert estimate_denoise_seconds(engine, dataset) == 0
    assert not batches
    assert (denoise(engine, dataset, seed=1) != values).nnz


class _Context:
    """What a worker gives a job."""

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        pass

    def cancelled(self) -> bool:
        return False


def test_jobs_leave_their_results_in_the_store(
    tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    payload: dict[str, Any] = {"path": str(small_h5ad), "checkpoint": str(tiny_checkpoint), "device": "cpu"}
    payload |= {"matrix": None, "gene_column": None, "values": "auto"}
    payload |= {"settings": SMALL.to_dict(), "cells": list(range(100))}
    told = engine_jobs.reconstruct(json.loads(json.dumps(payload)), _Context())
    assert told == {"n_rebuilt": 20}
    assert engine_jobs.denoise({**payload, "seed": 3}, _Context()) == {"n_obs": 160}
    engine = Engine(tiny_checkpoint, "cpu")
    with engine.open(small_h5ad) as dataset:
        assert stored_reconstruction(engine, dataset, SMALL, np.arange(100)).n_rebuilt == 20
        assert stored_denoised(engine, dataset, seed=3).nnz > 0
