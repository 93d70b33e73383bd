"""Fine-tuning behind one call: what would be learned, the checkpoint, and the job that keeps the best when stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import pytest

from scdiva_core.engine import Engine
from scdiva_core.engine_finetune import FinetuneRequest, finetune, lesson, state_path
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.jobs import Job, JobQueue, WorkerSupervisor
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.store import ResultStore
from scdiva_core.training.live_curve import curve_path, read_curve
from tests.small_perturbations import write_perturbations

NAMING = FinetuneRequest("annotation", "cell_type", "donor", minutes=2, name="mine")
KNOCKING = FinetuneRequest("perturbation", "perturbation", control="ctrl", kind="knockout", minutes=0.05)


@pytest.fixture
def engine(tiny_checkpoint: Path, tmp_path: Path) -> Engine:
    return Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path / "home" / "results"))


@pytest.fixture(scope="module")
def perturbed(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perturbations(tmp_path_factory.mktemp("perturbed") / "p.h5ad", list(small_cells.var_names))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"task": "cooking"}, "There is no fine-tuning for 'cooking'"),
        ({"task": "annotation"}, "needs label_key"),
        ({"task": "integration", "label_key": "cell_type"}, "needs batch_key"),
        ({"task": "perturbation", "label_key": "gene", "kind": "knockout"}, "needs control"),
        ({"task": "perturbation", "label_key": "gene", "control": "ctrl"}, "needs kind"),
        ({"task": "annotation", "label_key": "cell_type", "minutes": 0.0}, "The budget is 0 minutes"),
    ],
)
def test_requests_that_make_no_sense_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FinetuneRequest(**asked)


def test_a_lesson_says_who_teaches_who_judges_and_what_is_left_out(engine: Engine, small_h5ad: Path) -> None:
    with engine.open(small_h5ad) as dataset:
        found = lesson(engine, dataset, NAMING)
        labels, donors = dataset.obs["cell_type"], dataset.obs["donor"]
    sizes = labels.value_counts()
    assert set(found.left_out) == set(sizes[(sizes > 0) & (sizes < 5)].index.astype(str))
    used = found.used.set_index("name")
    held = donors.isin(found.held_out)
    for name in used.index:
        assert used.loc[name, "judge"] == (held & (labels == name)).sum(), "whole donors judge"
        assert used.loc[name, "teach"] == (~held & (labels == name)).sum()
    assert found.enough
    assert 0 < found.seconds_reading < 60


def test_a_lesson_of_perturbations_holds_some_out(engine: Engine, perturbed: Path) -> None:
    with engine.open(perturbed) as dataset:
        found = lesson(engine, dataset, KNOCKING)
    assert found.left_out == {"RPL5": "3 cells; a perturbation needs 10"}
    used = found.used
    assert (used["teach"] + used["judge"]).tolist() == [20] * 8
    assert (used["judge"] > 0).sum() == 2, "a fifth of eight, rounded"


def test_a_lesson_of_batches_counts_them(engine: Engine, small_h5ad: Path) -> None:
    with engine.open(small_h5ad) as dataset:
        found = lesson(engine, dataset, FinetuneRequest("integration", batch_key="donor"))
    assert found.used["name"].tolist() == ["d1", "d2", "d3", "d4"]
    assert found.used["judge"].tolist() == [8] * 4


def test_a_column_that_is_not_there_is_named(engine: Engine, small_h5ad: Path) -> None:
    with engine.open(small_h5ad) as dataset, pytest.raises(DataError, match="small.h5ad has no column 'absent'"):
        lesson(engine, dataset, FinetuneRequest("annotation", "absent"))


@pytest.mark.parametrize(
    ("request_", "record"),
    [
        (FinetuneRequest("annotation", "cell_type", minutes=0.05, name="mine"), "finetuned"),
        (FinetuneRequest("integration", None, "donor", minutes=0.05, name="mine"), "integration"),
    ],
)
def test_a_checkpoint_comes_of_it_under_the_users_name(
    engine: Engine, small_h5ad: Path, tmp_path: Path, request_: FinetuneRequest, record: str
) -> None:
    records: list[dict[str, Any]] = []
    with engine.open(small_h5ad) as dataset:
        tuned = finetune(engine, dataset, request_, tmp_path / "made", report=records.append)
        made = load_pretrained(tmp_path / "made")
        assert (made.card["name"], made.card[record]["words"]) == ("mine", tuned.words)
        assert made.card[record]["curve"] == list(tuned.curve) == records
        assert [path.name for path in tmp_path.iterdir() if "made" in path.name] == ["made"]
        with pytest.raises(CheckpointError, match="holds files already"):
            finetune(engine, dataset, request_, tmp_path / "made")


def test_a_killed_training_goes_on_from_its_last_pass(engine: Engine, perturbed: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        """Nothing that any code of ours would catch."""

    def killed(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            raise KilledError

    folder, records = tmp_path / "made", []
    with engine.open(perturbed) as dataset:
        request = FinetuneRequest("perturbation", "perturbation", control="ctrl", kind="knockout", minutes=0.5)
        with pytest.raises(KilledError):
            finetune(engine, dataset, request, folder, report=killed)
        assert state_path(folder).is_file()
        assert not folder.exists()
        finetune(engine, dataset, request, folder, report=records.append, cancelled=lambda: len(records) > 1)
    assert records[0]["epoch"] == 2, "the first two records were kept"
    assert not state_path(folder).exists()
    assert load_pretrained(folder).card["perturbation"]["stopped"] == "cancelled"


def test_cancelled_before_there_was_anything_leaves_nothing(engine: Engine, small_h5ad: Path, tmp_path: Path) -> None:
    with engine.open(small_h5ad) as dataset, pytest.raises(Cancelled):
        finetune(engine, dataset, NAMING, tmp_path / "made", cancelled=lambda: True)
    assert not (tmp_path / "made").exists()


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = JobQueue(tmp_path / "home" / "jobs")
    supervisor = WorkerSupervisor(found, "cpu")
    supervisor.start()
    yield found
    supervisor.stop()


def waited(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_that_is_stopped_keeps_the_best_so_far(
    queue: JobQueue, tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "checkpoints" / "annotation-00000000abcd"
    payload = {"path": str(small_h5ad), "checkpoint": str(tiny_checkpoint), "device": "cpu", "matrix": None}
    payload |= {"gene_column": None, "values": "auto", "request": NAMING.to_dict(), "checkpoint_id": folder.name}

    def submitted(title: str) -> Job:
        return queue.submit("scdiva_core.engine_jobs:finetune", payload, title=title, owner="me")

    job = submitted("first")
    waited(lambda: read_curve(curve_path(folder)) or not queue.get(job.id).active)
    queue.cancel(job.id)
    waited(lambda: not queue.get(job.id).active)
    done = queue.get(job.id)
    assert done.state == "done", done
    assert done.result == {"checkpoint_id": folder.name}
    card = load_pretrained(folder).card
    assert card["finetuned"]["stopped"] in ("cancelled", "patience")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    again = submitted("second")
    waited(lambda: not queue.get(again.id).active)
    assert queue.get(again.id).state == "done", "what is whole is not made again"
    assert load_pretrained(folder).card == card
