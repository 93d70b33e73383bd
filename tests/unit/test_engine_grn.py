"""A network behind one call: what it finds, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core import engine_jobs
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.regulons import regulons
from scdiva_core.engine import Engine
from scdiva_core.engine_grn import (
    GrnResult,
    GrnSettings,
    attention_choice,
    estimate_seconds,
    grn,
    regulon_activity,
    stored_activity,
    stored_grn,
)
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.attention_choice import AttentionChoice
from scdiva_core.store import ResultStore
from scdiva_core.tasks.cell_sample import read_cells
from scdiva_core.tasks.grn_attention import accumulate, choose_block
from scdiva_core.tasks.grn_scores import attention_scores
from scdiva_core.tasks.perturbation import Perturbation
from scdiva_core.tasks.predicted_expression import expression_change

SMALL = GrnSettings(cells="blood", most_targets=60, top=5, panel=False)


@pytest.fixture
def engine(tiny_checkpoint: Path, tmp_path: Path) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "results"))


@pytest.fixture
def dataset(engine: Engine, small_h5ad: Path) -> Iterator[H5adDataset]:
    with engine.open(small_h5ad) as opened:
        yield opened


def batches(engine: Engine) -> list[int]:
    """Sizes of the batches that go through the network from now on."""
    sizes: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    return sizes


def same(one: GrnResult, two: GrnResult) -> None:
    for field in fields(GrnResult):
        first, second = getattr(one, field.name), getattr(two, field.name)
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, second)
        elif isinstance(first, np.ndarray):
            np.testing.assert_array_equal(first, second)
        else:
            assert first == second, field.name


def test_edges_are_the_best_targets_by_attention(engine: Engine, dataset: H5adDataset) -> None:
    found = grn(engine, dataset, SMALL)
    sample = read_cells(engine.model.tokenizer, dataset, np.arange(160), engine.vocabulary)
    block = choose_block(sample, regulons().regulators, most_targets=60)
    scores = attention_scores(accumulate(engine.model, sample, block), "both")
    np.testing.assert_allclose(found.attention, scores, rtol=1e-5, atol=1e-6)
    assert found.regulators == tuple(sample.symbols[column] for column in block.regulators)
    assert found.edges.groupby("regulator").size().max() == 5
    for row in found.edges.itertuples():
        own = found.attention[found.regulators.index(row.regulator)]
        assert row.attention == pytest.approx(own[found.targets.index(row.target)])
        assert (own > row.attention).sum() < 5
    both = (sample.tokens[:, block.regulators[0]].multiply(sample.tokens[:, block.targets[1]])).getnnz()
    assert found.cells[0, 1] == (0 if block.regulators[0] == block.targets[1] else both)
    assert (found.n_cells, found.n_sampled, found.n_against) == (160, 160, 0)
    assert found.honesty is None
    assert found.heads is None
    assert found.contrast is None


def test_a_second_call_computes_nothing(engine: Engine, dataset: H5adDataset) -> None:
    assert stored_grn(engine, dataset, SMALL) is None
    assert estimate_seconds(engine, dataset, SMALL) > 0
    first = grn(engine, dataset, SMALL)
    sizes = batches(engine)
    same(first, grn(engine, dataset, SMALL))
    assert sizes == []
    assert estimate_seconds(engine, dataset, SMALL) == 0
    renamed = grn(engine, dataset, replace(SMALL, cells="the same by another name"))
    assert sizes == []
    assert "the same by another name" in renamed.summary["caption"]
    assert stored_grn(engine, dataset, replace(SMALL, seed=1)) is None
    assert stored_grn(engine, dataset, SMALL, np.arange(100)) is None


def test_the_panel_compares_methods_layers_and_heads(engine: Engine, dataset: H5adDataset) -> None:
    seen: list[tuple[float, float]] = []
    settings = replace(SMALL, panel=True, heads=((1, 0),), direction="from")
    found = grn(engine, dataset, settings, progress=lambda done, total, _: seen.append((done, total)))
    assert found.honesty["method"].tolist() == [
        *("attention", "co-expression", "partial correlation", "read together", "tree ensemble", "random")
    ]
    assert (found.honesty["n_pairs"].nunique(), found.honesty["n_true"].min() > 0) == (1, True)
    config = engine.model.config
    assert len(found.heads) == config.num_layers * config.num_heads
    used = found.heads[found.heads["used"]]
    assert used[["layer", "head"]].to_numpy().tolist() == [[1, 0]]
    assert "random" in found.summary["verdict"] or "chance" in found.summary["verdict"]
    assert found.summary["chosen_on"] == ""
    assert [done for done, _ in seen] == sorted(done for done, _ in seen), "the bar never goes back"
    assert seen[-1][0] == seen[-1][1]


def test_two_sets_are_compared_over_the_genes_of_the_first(engine: Engine, dataset: H5adDataset) -> None:
    settings = replace(SMALL, against="the rest")
    found = grn(engine, dataset, settings, np.arange(80), np.arange(80, 160))
    alone = grn(engine, dataset, SMALL, np.arange(80))
    np.testing.assert_array_equal(found.attention, alone.attention)
    contrast = found.contrast
    np.testing.assert_allclose(contrast["difference"], contrast["first"] - contrast["second"], atol=1e-6)
    assert set(zip(found.edges["regulator"], found.edges["target"], strict=True)) <= set(
        zip(contrast["regulator"], contrast["target"], strict=True)
    )
    assert found.n_against == 80
    with pytest.raises(DataError, match="name of the second set"):
        grn(engine, dataset, settings, np.arange(80))


def test_knockouts_fill_the_evidence_of_the_strongest_regulators(engine: Engine, dataset: H5adDataset) -> None:
    found = grn(engine, dataset, replace(SMALL, knockout=1))
    first = found.edges["regulator"].iloc[0]
    own = found.edges["regulator"] == first
    assert found.edges.loc[~own, "knockout"].isna().all()
    sample = read_cells(engine.model.tokenizer, dataset, np.arange(160), engine.vocabulary)
    asked = (engine.model, engine.model.tokenizer, sample, Perturbation((first,)))
    change = expression_change(*asked, repeats=1, most_cells=100).change
    expected = change[[sample.symbols.index(target) for target in found.edges.loc[own, "target"]]]
    np.testing.assert_allclose(found.edges.loc[own, "knockout"], expected)


def test_the_checkpoint_may_say_which_heads_are_read(
    engine: Engine, dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = grn(engine, dataset, SMALL)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    AttentionChoice(((0, 1),), "to", False, "cells of a test").save(folder, engine.model.sha256, [])
    monkeypatch.setattr(engine, "folder", folder)
    assert attention_choice(engine).heads == ((0, 1),)
    assert stored_grn(engine, dataset, SMALL) is None
    found = grn(engine, dataset, SMALL)
    assert (found.summary["heads"], found.summary["direction"]) == ([[0, 1]], "to")
    assert found.summary["chosen_on"] == "cells of a test"
    assert not np.allclose(found.attention, everything.attention, equal_nan=True)
    AttentionChoice().save(folder, "0" * 64, [])
    with pytest.raises(CheckpointError, match="made with weights"):
        grn(engine, dataset, SMALL)


def test_what_makes_no_sense_is_refused(engine: Engine, dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="top is 0"):
        GrnSettings(top=0)
    with pytest.raises(DataError, match="160 cells in the file, and cells 5 to 160"):
        grn(engine, dataset, SMALL, [5, 160])
    with pytest.raises(DataError, match="160 cells in the file, and no cells"):
        grn(engine, dataset, SMALL, [])
    with pytest.raises(DataError, match=r"Heads 9\.0"):
        grn(engine, dataset, replace(SMALL, heads=((9, 0),)))
    with pytest.raises(Cancelled):
        grn(engine, dataset, SMALL, cancelled=lambda: True)
    assert stored_grn(engine, dataset, SMALL) is None


def test_settings_survive_json() -> None:
    settings = GrnSettings(heads=((0, 1), (2, 3)), direction="from", against="b")
    assert GrnSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_few_and_drawn_cells_are_told(engine: Engine, dataset: H5adDataset) -> None:
    found = grn(engine, dataset, replace(SMALL, most_cells=40))
    assert found.n_sampled == 40
    told = " ".join(found.summary["warnings"])
    assert "Only 40 cells" in told
    assert "40 cells were drawn from 160" in told


def test_activity_is_kept(engine: Engine, dataset: H5adDataset) -> None:
    assert stored_activity(engine, dataset) is None
    found = regulon_activity(engine, dataset)
    assert found.shape[0] == 160
    pd.testing.assert_frame_equal(stored_activity(engine, dataset), found)
    pd.testing.assert_frame_equal(regulon_activity(engine, dataset), found)


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
    reading = {"path": str(small_h5ad), "checkpoint": str(tiny_checkpoint), "device": "cpu"}
    reading |= {"matrix": None, "gene_column": None, "values": "auto"}
    payload = {**reading, "settings": SMALL.to_dict(), "cells": list(range(100)), "against": None}
    told = engine_jobs.grn(json.loads(json.dumps(payload)), _Context())
    active = engine_jobs.regulon_activity(reading, _Context())
    engine = Engine(tiny_checkpoint, "cpu")
    with engine.open(small_h5ad) as dataset:
        found = stored_grn(engine, dataset, SMALL, np.arange(100))
        assert told == {"n_regulators": len(found.regulators), "n_edges": len(found.edges)}
        assert stored_activity(engine, dataset).shape[1] == active["n_regulators"]
