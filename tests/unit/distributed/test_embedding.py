"""Cells embedded by a real dask cluster on this machine: the same vectors as here, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
from distributed import Client
from safetensors.torch import load_file, save_file

from scdiva_core.cli import main
from scdiva_core.distributed.embedding import chunk_size, embed_on_workers, make_plan
from scdiva_core.distributed.result import finished_store, write_store
from scdiva_core.distributed.vectors import work_folder
from scdiva_core.distributed.worker import embed_chunk, examine
from scdiva_core.engine import Engine
from scdiva_core.errors import Cancelled, CheckpointError, DataError, JobError, StoreError
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings
from tests.unit.distributed.conftest import start_scheduler, stop

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo" / "tenx_pbmc3k.h5ad"
NOBODY = "tcp://127.0.0.1:9"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))


@pytest.fixture
def engine(checkpoint: Path) -> Engine:
    return Engine(checkpoint, "cpu")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real cells for 15 chunks: more than each of four workers can hold at once."""
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    anndata.read_h5ad(DEMO)[::3].copy().write_h5ad(path)
    return path


def test_a_worker_killed_on_the_way_changes_nothing(
    scheduler: str, engine: Engine, cells: Path, tmp_path: Path
) -> None:
    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(4, timeout=60)
        victim = min(client.run(os.getpid).values())
    left_at_kill = []

    def kill(done: int, total: int, message: str) -> None:
        """Hold one worker from the start, so that it surely has chunks when it is killed half-way."""
        if not left_at_kill and message.startswith("Embedding cells on"):
            if done == 0:
                os.kill(victim, signal.SIGSTOP)
            elif done >= total / 2:
                os.kill(victim, signal.SIGKILL)
                left_at_kill.append(total - done)

    target = tmp_path / "out.zarr"
    with engine.open(cells) as dataset:
        made = embed_on_workers(engine, dataset, target, scheduler, progress=kill)
        assert left_at_kill[0] > 0
        assert made.device == "cpu"
        assert made.vectors.missing() == []
        np.testing.assert_allclose(made.vectors.values(), engine.embed(dataset), atol=1e-5)
        again = embed_on_workers(engine, dataset, target, NOBODY)
        assert again.vectors.folder == work_folder(target), "nothing is left to do, so nobody is asked"


def test_only_what_is_missing_is_computed_again(scheduler: str, engine: Engine, cells: Path, tmp_path: Path) -> None:
    target, calls = tmp_path / "out.zarr", []
    with engine.open(cells) as dataset:
        with pytest.raises(Cancelled):
            embed_on_workers(
                engine,
                dataset,
                target,
                scheduler,
                progress=lambda *said: calls.append(said),
                cancelled=lambda: len(calls) > 4,
            )
        folder = work_folder(target)
        chunks = folder / "result.zarr" / "obsm" / "X_scdiva"
        before = {path.name: path.stat().st_mtime_ns for path in (folder / "done").iterdir()}
        assert before
        damaged = min(before)
        (chunks / f"{damaged}.0").write_bytes(b"no chunk")
        made = embed_on_workers(engine, dataset, target, scheduler)
        np.testing.assert_allclose(made.vectors.values(), engine.embed(dataset), atol=1e-5)
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "done").iterdir()}
    assert len(after) == made.vectors.n_chunks > len(before)
    assert [name for name in before if after[name] != before[name]] == [damaged]


def test_the_command_writes_a_store_that_anndata_reads(
    scheduler: str, engine: Engine, checkpoint: Path, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "results" / "out.zarr"
    command = ["embed", str(cells), "--checkpoint", str(checkpoint), "-o", str(out), "--no-map", "--scheduler"]
    assert main([*command, scheduler]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "Embedding cells on 4 workers: 0 of 900" in printed.err
    assert list(out.parent.iterdir()) == [out], "nothing of the work is left"
    found, read = anndata.read_zarr(out), anndata.read_h5ad(cells, backed="r")
    with engine.open(cells) as dataset:
        np.testing.assert_allclose(found.obsm["X_scdiva"], engine.embed(dataset), atol=1e-5)
    assert list(found.obs_names) == list(read.obs_names)
    assert found.obs["cell_type"].equals(read.obs["cell_type"])
    assert found.uns["scdiva"]["device"] == '"dask workers, cpu"'
    assert main([*command, NOBODY]) == 0, "it is there, so nobody is asked"
    assert main([*command[:-2], "--scheduler", scheduler]) == 1
    assert "is there already, made from another map" in capsys.readouterr().err


def test_the_command_writes_what_one_machine_would(
    scheduler: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, small_h5ad: Path
) -> None:
    command = ["embed", str(small_h5ad), "--checkpoint", str(checkpoint), "--no-map", "-o"]
    assert main([*command, str(tmp_path / "many.h5ad"), "--scheduler", scheduler]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "many.h5ad"]
    capsys.readouterr()
    assert main([*command, str(tmp_path / "one.h5ad")]) == 0
    assert "Embedding cells" not in capsys.readouterr().err, "it lies among the results"
    many, one = anndata.read_h5ad(tmp_path / "many.h5ad"), anndata.read_h5ad(tmp_path / "one.h5ad")
    assert list(many.obsm) == list(one.obsm) == ["X_old", "X_scdiva"]
    np.testing.assert_array_equal(many.obsm["X_scdiva"], one.obsm["X_scdiva"])


def test_a_map_goes_into_the_store_too(scheduler: str, engine: Engine, small_h5ad: Path, tmp_path: Path) -> None:
    target, settings = tmp_path / "out.zarr", ProjectionSettings(n_neighbors=7)
    with engine.open(small_h5ad) as dataset:
        leiden = np.arange(dataset.n_obs, dtype=np.int32) % 11
        drawn = Projection(np.ones((dataset.n_obs, 2), np.float32), leiden, "X_scdiva", settings)
        write_store(engine, dataset, embed_on_workers(engine, dataset, target, scheduler), target, drawn)
        assert finished_store(engine, dataset, target, settings)
        with pytest.raises(StoreError, match="made from another map"):
            finished_store(engine, dataset, target, replace(settings, n_neighbors=8))
    found = anndata.read_zarr(target)
    assert found.obsm["X_umap_scdiva"].tolist() == drawn.coordinates.tolist()
    assert found.obs["leiden_scdiva"].astype(int).tolist() == leiden.tolist()
    assert list(found.obs["leiden_scdiva"].cat.categories) == [str(number) for number in range(11)]
    assert json.loads(found.uns["scdiva"]["settings"])["X_scdiva"]["n_neighbors"] == 7
    assert found.obs["donor"].tolist() == ["d1", "d2", "d3", "d4"] * 40


def test_addresses_at_which_there_is_no_scheduler(scheduler: str, engine: Engine, tmp_path: Path) -> None:
    with engine.open(DEMO) as dataset:
        for address, reason in ((NOBODY, "no answer"), ("banana", "missing port number"), ("foo://x:1", "unknown")):
            with pytest.raises(JobError, match=f"No dask scheduler can be reached at {address} .*{reason}") as caught:
                embed_on_workers(engine, dataset, tmp_path / "out.zarr", address, patience=1.5)
            assert "tcp://host:port" in caught.value.hint
        with Client(scheduler, set_as_default=False) as client:
            worker = next(iter(client.nthreads()))
        with pytest.raises(JobError, match="there is a dask worker, not a scheduler"):
            embed_on_workers(engine, dataset, tmp_path / "out.zarr", worker)
    assert list(tmp_path.glob("out*")) == []


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[str]:
    process, address = start_scheduler(tmp_path / "lonely.log")
    yield address
    stop(process)


def test_a_scheduler_without_workers(lonely: str, engine: Engine, tmp_path: Path) -> None:
    with engine.open(DEMO) as dataset, pytest.raises(JobError, match=r"has had no worker for 3 s.*dask worker"):
        embed_on_workers(engine, dataset, tmp_path / "out.zarr", lonely, patience=3)


def test_workers_with_another_checkpoint(scheduler: str, checkpoint: Path, small_h5ad: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    engine = Engine(mine, "cpu")
    weights = load_file(mine / "model.safetensors")
    save_file(weights | {"final_norm.weight": weights["final_norm.weight"] * 2}, mine / "model.safetensors")
    wrong = r"The worker tcp://\S+ cannot take part: The checkpoint .*mine is another one there"
    with engine.open(small_h5ad) as dataset, pytest.raises(JobError, match=wrong):
        embed_on_workers(engine, dataset, tmp_path / "out.zarr", scheduler)
    assert not work_folder(tmp_path / "out.zarr").exists()


def test_what_a_worker_checks(engine: Engine, small_h5ad: Path, tmp_path: Path) -> None:
    with engine.open(small_h5ad) as dataset:
        plan = make_plan(engine, dataset, "cpu")
    assert examine(plan).device == "cpu"
    assert examine(replace(plan, mtime_ns=0)).device == "cpu", "a copy made later, with the same bytes"
    with pytest.raises(JobError, match=r"Its program is \w{12}, torch .*; the command's is 0, torch 1"):
        examine(replace(plan, program="0, torch 1"))
    with pytest.raises(DataError, match=f"There is no file {tmp_path}/away.h5ad there"):
        examine(replace(plan, path=str(tmp_path / "away.h5ad")))
    for changes in ({"size": 5}, {"mtime_ns": 0, "sha256": "0" * 64}):
        with pytest.raises(DataError, match="is another file there"):
            examine(replace(plan, **changes))
    with pytest.raises(CheckpointError, match="'banana' is not available"):
        examine(replace(plan, device="banana"))
    with pytest.raises(StoreError, match="There is no unfinished embedding"):
        embed_chunk(replace(plan, folder=str(tmp_path / "elsewhere.partial")), 0)


def test_what_is_in_the_way_is_left_alone(
    checkpoint: Path, small_h5ad: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.zarr"
    out.mkdir()
    (out / "precious").write_text("mine")
    command = ["embed", str(small_h5ad), "--checkpoint", str(checkpoint), "-o", str(out), "--no-map"]
    assert main([*command, "--scheduler", NOBODY]) == 1
    assert f"{out} is there already, made from something else" in capsys.readouterr().err
    assert main(command) == 1
    assert "only --scheduler writes" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["precious"]


@pytest.mark.parametrize(("n_obs", "cells"), [(1, 64), (160, 64), (2700, 64), (10_000, 157), (1_000_000, 4096)])
def test_chunks_are_many_but_not_small(n_obs: int, cells: int) -> None:
    assert chunk_size(n_obs) == cells
