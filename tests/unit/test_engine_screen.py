"""A screen behind one call and as a job: its table, and what one that was interrupted or killed keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core import engine_jobs
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_knockout import (
    KnockoutSettings,
    ScreenSettings,
    screen,
    screen_progress,
    stored_knockout,
    stored_screen,
)
from scdiva_core.errors import Cancelled
from scdiva_core.store import ResultStore
from scdiva_core.tasks import screen as task
from scdiva_core.tasks.perturbation import CellSample, Perturbation, read_sample
from scdiva_core.tasks.perturbation_direction import group_centroids
from scdiva_core.tasks.predicted_expression import expression_change

ROOT = Path(__file__).resolve().parents[2]
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
def settings(sample: CellSample) -> ScreenSettings:
    """Nine genes that many cells read, and one that the file lacks."""
    often = np.argsort(-np.diff(sample.tokens.indptr), kind="stable")[:9]
    genes = [sample.symbols[column] for column in often]
    return ScreenSettings((*genes, "NOSUCH"), group_key="cell_type", n_null=N_NULL)


def test_the_table_is_that_of_the_task(
    engine: Engine, dataset: H5adDataset, sample: CellSample, settings: ScreenSettings
) -> None:
    assert stored_screen(engine, dataset, settings) is None
    found = screen(engine, dataset, settings)
    groups = dataset.obs["cell_type"].to_numpy(object)
    plain = task.screen(
        engine.model,
        engine.model.tokenizer,
        sample,
        settings.genes,
        done={},
        write=lambda _: None,
        settings=task.ScreenSettings(n_null=N_NULL),
        groups=groups,
        centroids=group_centroids(engine.embed(dataset), groups),
    )
    assert found["gene"].tolist() == plain["symbol"].tolist()
    np.testing.assert_allclose(found["effect"], plain["effect"], rtol=1e-3)
    for name in ("p", "q", "n_read", "detection", "n_expressed", "n_null"):
        np.testing.assert_allclose(found[name], plain[name], err_msg=name)
    assert found["direction"].tolist() == plain["direction"].tolist()
    assert ((found["word"] == "towards") == (found["direction"] != "")).all()
    assert (found["direction"] != "").any()
    refused = found[found["refused"] != ""]
    assert refused["gene"].tolist() == ["NOSUCH"]
    assert "not in the model's vocabulary" in refused["refused"].iloc[0]

    first = found.iloc[0]
    moved = expression_change(
        engine.model, engine.model.tokenizer, sample, Perturbation((first["gene"],)), repeats=1, most_cells=20
    ).table.iloc[0]
    assert first["top_moved"].startswith(f"{moved['symbol']} {moved['change']:+.2g}, ")
    assert first["top_moved"].count(",") == 4
    assert (found.loc[found["refused"] != "", "top_moved"] == "").all()


def test_a_finished_screen_is_fetched(engine: Engine, dataset: H5adDataset, settings: ScreenSettings) -> None:
    found = screen(engine, dataset, settings)

    def unwanted(*_: object) -> None:
        raise AssertionError

    renamed = replace(settings, cells="all of them")
    pd.testing.assert_frame_equal(found, screen(engine, dataset, renamed, np.arange(160), progress=unwanted))
    pd.testing.assert_frame_equal(found, stored_screen(engine, dataset, settings))
    assert screen_progress(engine, dataset, settings) is None, "it is finished"
    assert stored_screen(engine, dataset, replace(settings, most_cells=100)) is None
    assert list(engine.store.root.glob("*.partial")) == []


def stop_at(share: float) -> Callable[[int, int, str], None]:
    """Fail once genes are perturbed and the bar is beyond a share of the way."""

    def progress(done: int, total: int, message: str) -> None:
        if message.startswith("Perturbing genes") and done > share * total:
            msg = "stopped"
            raise RuntimeError(msg)

    return progress


def test_a_screen_that_failed_goes_on_where_it_stopped(
    engine: Engine, dataset: H5adDataset, settings: ScreenSettings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole = screen(Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "other")), dataset, settings)
    assert screen_progress(engine, dataset, settings) is None
    with pytest.raises(RuntimeError, match="stopped"):
        screen(engine, dataset, settings, progress=stop_at(0.3))
    some = screen_progress(engine, dataset, settings)
    assert 1 < len(some) <= 10
    assert some.columns.tolist() == whole.columns.tolist()
    assert some["p"].isna().all()
    finished = whole.set_index("gene")
    tested = some[some["refused"] == ""].set_index("gene")
    np.testing.assert_allclose(tested["effect"], finished.loc[tested.index, "effect"], rtol=1e-3)
    assert tested["direction"].tolist() == finished.loc[tested.index, "direction"].tolist()
    assert some["refused"].tolist()[-1] == finished.loc["NOSUCH", "refused"]

    # Cut off in the middle of a line, as by a crash of the machine.
    (rows,) = engine.store.root.glob("*.partial/rows.jsonl")
    kept = rows.read_bytes()
    n_kept = kept.count(b"\n")
    rows.write_bytes(kept[:-20])
    n_lines = []

    def count(*_: object) -> None:
        n_lines.append(rows.read_bytes().count(b"\n"))

    found = screen(engine, dataset, settings, progress=count)
    pd.testing.assert_frame_equal(found.drop(columns="top_moved"), whole.drop(columns="top_moved"), rtol=1e-3)
    assert n_lines[0] >= n_kept - 1, "nothing was begun anew"


def test_a_screen_survives_kill_9(
    engine: Engine, dataset: H5adDataset, settings: ScreenSettings, small_h5ad: Path, tiny_checkpoint: Path
) -> None:
    script = f"""
import json, os, signal
import torch
from scdiva_core.engine import Engine
from scdiva_core.engine_knockout import ScreenSettings, screen
from scdiva_core.store import ResultStore
torch.set_num_threads(1)
engine = Engine({str(tiny_checkpoint)!r}, "cpu", ResultStore({str(engine.store.root)!r}))
def progress(done, total, message):
    if message.startswith("Perturbing genes") and done > 0.3 * total:
        os.kill(os.getpid(), signal.SIGKILL)
with engine.open({str(small_h5ad)!r}) as dataset:
    screen(engine, dataset, ScreenSettings.from_dict(json.loads({json.dumps(settings.to_dict())!r})), progress=progress)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=os.environ, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr
    some = screen_progress(engine, dataset, settings)
    assert len(some) > 1
    (rows,) = engine.store.root.glob("*.partial/rows.jsonl")
    perturbed = {json.loads(line)["row"]["gene"] for line in rows.read_text().splitlines() if '"row"' in line}
    written: list[str] = []

    def collect(*_: object) -> None:
        written[:] = rows.read_text().splitlines()

    found = screen(engine, dataset, settings, progress=collect)
    names = [json.loads(line)["row"]["gene"] for line in written if '"row"' in line]
    assert len(names) == len(set(names)) > len(perturbed), "no gene twice"
    assert len(found) == 10
    assert found["p"].notna().sum() == 9


class Context:
    """What a worker gives its job."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[str] = []
        self.stop_after = stop_after

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        assert 0 <= done <= total
        self.seen.append(message)

    def cancelled(self) -> bool:
        return self.stop_after is not None and len(self.seen) >= self.stop_after


@pytest.fixture
def payload(tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    engine_jobs._engine.cache_clear()
    intake = {"matrix": None, "gene_column": None, "values": "auto"}
    return {"path": str(small_h5ad), "checkpoint": str(tiny_checkpoint), "device": "cpu", **intake}


def through_json(payload: dict) -> dict:
    return json.loads(json.dumps(payload))


def test_jobs_leave_their_results_in_the_store(payload: dict, settings: ScreenSettings, small_h5ad: Path) -> None:
    one = KnockoutSettings(settings.genes[:2], group_key="cell_type", n_null=N_NULL, expression=False)
    cells = list(range(20, 140))
    told = engine_jobs.knockout(through_json({**payload, "settings": one.to_dict(), "cells": cells}), Context())
    many = engine_jobs.screen(through_json({**payload, "settings": settings.to_dict(), "cells": None}), Context())
    assert many == {"n_tested": 9, "n_refused": 1}
    engine = Engine(payload["checkpoint"], "cpu")
    with engine.open(small_h5ad) as dataset:
        found = stored_knockout(engine, dataset, one, cells)
        assert told == {"n_read": found.n_read, "p": found.summary["p"]}
        assert found.n_cells == 120
        assert len(stored_screen(engine, dataset, settings)) == 10


@pytest.mark.parametrize("kind", ["knockout", "screen"])
def test_a_cancelled_job_stops_at_the_next_batch(payload: dict, settings: ScreenSettings, kind: str) -> None:
    one = KnockoutSettings(settings.genes[:1], group_key="cell_type", n_null=N_NULL)
    asked = {**payload, "settings": (one if kind == "knockout" else settings).to_dict(), "cells": None}
    context = Context(stop_after=8)
    with pytest.raises(Cancelled):
        getattr(engine_jobs, kind)(asked, context)
    assert len(context.seen) < 14
