"""Integration behind one call: what it compares, what it says, and that nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core import engine_jobs
from scdiva_core.data.concatenate import concatenate
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_integration import (
    FINETUNED,
    IntegrateSettings,
    IntegrationResult,
    estimate_seconds,
    integrate,
    integration_map,
    stored_integration,
    stored_map,
)
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.training.live_curve import read_curve

SETTINGS = IntegrateSettings("half", "cell_type", seeds=1)


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small cells in two made-up batches, two donors each."""
    cells = small_cells.copy()
    cells.obs["half"] = np.where(np.arange(160) % 2, "odd", "even")
    path = tmp_path_factory.mktemp("halves") / "halves.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path_factory.mktemp("home") / "results"))


@pytest.fixture
def dataset(engine: Engine, file: Path) -> Iterator[H5adDataset]:
    with engine.open(file) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(engine: Engine, file: Path) -> IntegrationResult:
    with engine.open(file) as opened:
        return integrate(engine, opened, SETTINGS)


def test_every_method_is_measured_on_all_cells_and_on_those_that_judged(
    made: IntegrationResult, engine: Engine, dataset: H5adDataset
) -> None:
    methods = ["pca", "pca_centred", "harmony", "scdiva", "scdiva_harmony", FINETUNED]
    assert list(made.vectors) == methods
    assert made.table["method"].tolist() == made.judged["method"].tolist() == methods
    np.testing.assert_array_equal(made.vectors["scdiva"], engine.embed(dataset))
    assert made.table["n_cells"].iloc[0] > made.judged["n_cells"].iloc[0] > 0
    assert set(made.judged_cells) < set(range(160))
    assert made.summary["verdict"].startswith(
        f"On {made.judged['n_cells'].iloc[0]} cells whose labels it never learned from: "
    )
    assert made.summary["taught_by"] == "labels"
    assert "Fine-tuning drew together what the labels call one type" in " ".join(made.summary["warnings"])
    assert made.summary["batches"] == {"even": 80, "odd": 80}
    chance = made.summary["chance"]
    assert set(chance) == {"table", "judged"}
    assert chance["table"]["nmi"] < made.table["nmi"].iloc[0], "vectors dealt out at random know no types"


def test_the_new_checkpoint_is_the_new_embedding(made: IntegrationResult, engine: Engine, file: Path) -> None:
    other = Engine(made.checkpoint, "cpu", engine.store)
    with other.open(file) as dataset:
        stored = other.stored_embedding(dataset)
    np.testing.assert_array_equal(stored, made.vectors[FINETUNED])
    assert other.card().name == "tiny, integrated on halves"


def test_a_second_call_computes_nothing(made: IntegrationResult, engine: Engine, dataset: H5adDataset) -> None:
    assert estimate_seconds(engine, dataset, SETTINGS) == 0
    again = integrate(engine, dataset, SETTINGS, cancelled=lambda: True)
    pd.testing.assert_frame_equal(again.table, made.table)
    pd.testing.assert_frame_equal(again.apart, made.apart)
    assert again.summary == made.summary
    assert stored_integration(engine, dataset, replace(SETTINGS, seed=1)) is None
    assert estimate_seconds(engine, dataset, replace(SETTINGS, seed=1)) > 0


def test_maps_of_before_and_after(made: IntegrationResult, engine: Engine, dataset: H5adDataset) -> None:
    assert stored_map(engine, dataset, SETTINGS, FINETUNED) is None
    drawn = integration_map(engine, dataset, SETTINGS, FINETUNED)
    assert drawn.coordinates.shape == (160, 2)
    kept = stored_map(engine, dataset, SETTINGS, FINETUNED)
    np.testing.assert_array_equal(kept.coordinates, drawn.coordinates)
    with pytest.raises(DataError, match="there are pca, pca_centred, harmony"):
        integration_map(engine, dataset, SETTINGS, "X_old")
    with pytest.raises(DataError, match="nothing was integrated yet"):
        integration_map(engine, dataset, replace(SETTINGS, seed=1), "pca")


def test_without_labels_clusters_stand_in_and_little_is_claimed(engine: Engine, dataset: H5adDataset) -> None:
    found = integrate(engine, dataset, replace(SETTINGS, label_key=None))
    assert found.summary["taught_by"] == "clusters"
    assert list(found.table.columns) == ["method", "ilisi"]
    assert (found.judged, found.apart) == (None, None)
    assert found.summary["verdict"].startswith("Without labels nothing says whether types hold together")
    told = " ".join(found.summary["warnings"])
    assert "had clusters in place of labels" in told
    assert "Without a column of types" in told


def test_joined_files_warn_of_genes_that_some_lack(
    engine: Engine, small_cells: anndata.AnnData, tmp_path: Path
) -> None:
    small_cells[:80, :-200].copy().write_h5ad(tmp_path / "one.h5ad")
    small_cells[80:].copy().write_h5ad(tmp_path / "two.h5ad")
    path = concatenate([tmp_path / "one.h5ad", tmp_path / "two.h5ad"], tmp_path / "up", "file", engine.vocabulary)
    with engine.open(path) as dataset:
        found = integrate(engine, dataset, IntegrateSettings("file", "cell_type", finetune=False, seeds=1))
    assert found.summary["missing"] == 200
    assert found.checkpoint is None
    assert FINETUNED not in found.vectors
    assert "200 of 1,200 genes are missing from some of the joined files" in found.summary["warnings"][0]


def test_what_makes_no_sense_is_refused(engine: Engine, dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="no column 'nothing'"):
        integrate(engine, dataset, IntegrateSettings("nothing"))
    with pytest.raises(DataError, match="cannot say both batch and type"):
        IntegrateSettings("half", "half")
    with pytest.raises(DataError, match="seeds is 0"):
        IntegrateSettings("half", seeds=0)
    with pytest.raises(Cancelled):
        integrate(engine, dataset, replace(SETTINGS, seed=2), cancelled=lambda: True)
    assert stored_integration(engine, dataset, replace(SETTINGS, seed=2)) is None


class _Context:
    """What a worker gives a job."""

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        pass

    def cancelled(self) -> bool:
        return False

    def allow(self, seconds: float) -> None:
        pass


def test_the_job_leaves_its_result_in_the_store(
    tiny_checkpoint: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    reading = {"path": str(file), "checkpoint": str(tiny_checkpoint), "device": "cpu"}
    reading |= {"matrix": None, "gene_column": None, "values": "auto"}
    settings = replace(SETTINGS, finetune=False)
    asked = {"settings": settings.to_dict(), "projection": ProjectionSettings().to_dict()}
    told = engine_jobs.integration(json.loads(json.dumps({**reading, **asked})), _Context())
    assert told == {"n_batches": 2, "checkpoint": None}
    engine = Engine(tiny_checkpoint, "cpu")
    with engine.open(file) as dataset:
        methods = list(stored_integration(engine, dataset, settings).vectors)
        assert methods[-1] == "scdiva_harmony"
        assert all(stored_map(engine, dataset, settings, method) is not None for method in methods)


class _Stopping(_Context):
    """Asks for the end when the training has begun, as a user does who has seen enough."""

    def __init__(self, engine: Engine) -> None:
        self.curves, self.allowed = engine.store.root.parent / "checkpoints", [0.0]
        self.seen: list[dict] = []

    def cancelled(self) -> bool:
        for path in self.curves.glob("*.curve.jsonl"):
            self.seen = read_curve(path)
        return len(self.seen) > 1

    def allow(self, seconds: float) -> None:
        self.allowed.append(seconds)


def test_a_job_that_is_stopped_in_training_keeps_the_best_so_far(
    tiny_checkpoint: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    engine = Engine(tiny_checkpoint, "cpu")
    context = _Stopping(engine)
    payload = {"path": str(file), "checkpoint": str(tiny_checkpoint), "device": "cpu", "matrix": None}
    payload |= {"gene_column": None, "values": "auto", "settings": SETTINGS.to_dict()}
    told = engine_jobs.integration({**payload, "projection": ProjectionSettings().to_dict()}, context)
    with engine.open(file) as dataset:
        kept = stored_integration(engine, dataset, SETTINGS)
        assert stored_map(engine, dataset, SETTINGS, FINETUNED) is not None
    assert str(kept.checkpoint) == told["checkpoint"]
    assert len(kept.curve) == len(context.seen) == 2
    assert "It was stopped" in kept.summary["taught"]
    assert max(context.allowed) > 10
    assert context.allowed[-1] > 0, "nobody ends it while the maps are drawn"
    assert list(context.curves.glob("*.curve.jsonl")) == []


def test_files_are_put_together_in_a_job(
    tiny_checkpoint: Path, small_cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    paths = [tmp_path / "one.h5ad", tmp_path / "two.h5ad"]
    small_cells[:80].copy().write_h5ad(paths[0])
    small_cells[80:].copy().write_h5ad(paths[1])
    payload = {"paths": [str(path) for path in paths], "names": ["north", "south"], "batch_key": "clinic"}
    told = engine_jobs.concatenate({**payload, "checkpoint": str(tiny_checkpoint), "device": "cpu"}, _Context())
    joined = anndata.read_h5ad(tmp_path / "home" / "uploads" / f"{told['sha256']}.h5ad")
    assert joined.obs["clinic"].tolist() == ["north"] * 80 + ["south"] * 80
