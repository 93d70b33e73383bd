"""The job queue with real worker processes: run, cancel, die, resume, take turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from scdiva_core import jobs_claims
from scdiva_core.jobs import JobQueue, WorkerSupervisor
from scdiva_core.store import ResultStore
from tests.small_jobs import ended, running, submit, wait

ROOT = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path / "jobs")


@pytest.fixture
def supervisor(queue: JobQueue) -> Iterator[WorkerSupervisor]:
    supervisor = WorkerSupervisor(queue)
    yield supervisor
    supervisor.stop()


def test_a_job_runs_to_its_end_and_the_worker_stays_warm(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    first = submit(queue, "add", a=2, b=3)
    assert (first.state, first.progress, first.started, first.attempts) == ("queued", 0, None, 0)
    supervisor.start()
    first = ended(queue, first)
    assert (first.state, first.progress, first.message, first.eta_s) == ("done", 1, "adding", None)
    assert first.result["sum"] == 5
    assert first.result["device"] == first.device == "cpu"
    assert first.created <= first.started <= first.finished
    second = ended(queue, submit(queue, "add", a=1, b=1))
    assert second.result["pid"] == first.result["pid"] == supervisor.worker_pid


def test_no_worker_starts_without_work(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    supervisor.start()
    time.sleep(0.5)
    assert supervisor.worker_pid is None


def test_the_worker_is_light_until_a_job_imports_more(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    supervisor.start()
    loaded = set(ended(queue, submit(queue, "loaded_modules")).result)
    assert "scdiva_core" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "anndata", "h5py", "streamlit"}


def test_progress_and_time_left_are_seen_while_it_runs(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    supervisor.start()
    job = submit(queue, "steps", until=str(tmp_path / "go"))
    wait(lambda: queue.get(job.id).message == "half-way", "progress")
    job = queue.get(job.id)
    assert job.state == "running"
    assert job.progress == 0.5
    assert job.rate > 0
    assert job.eta_s == pytest.approx(5 / job.rate)
    (tmp_path / "go").touch()
    assert ended(queue, job).result == "released"


def test_a_cooperative_job_is_cancelled_and_the_worker_lives(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    supervisor.start()
    job = running(queue, submit(queue, "steps"))
    queue.cancel(job.id)
    job = ended(queue, job)
    assert job.state == "cancelled"
    assert job.result is None
    assert job.error_message == ""
    assert ended(queue, submit(queue, "add", a=1, b=1)).result["pid"] == job.worker_pid


def test_a_stuck_job_is_cancelled_with_its_children_and_the_worker_comes_back(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    supervisor.start()
    stuck = submit(queue, "stuck", file=str(tmp_path / "child"))
    wait(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the child")
    after = submit(queue, "add", a=1, b=1)
    queue.cancel(stuck.id)
    stuck = ended(queue, stuck)
    assert stuck.state == "cancelled"
    wait(lambda: not alive(int((tmp_path / "child").read_text())), "the end of the job's child")
    after = ended(queue, after)
    assert after.state == "done"
    assert after.worker_pid != stuck.worker_pid


def test_a_job_that_holds_the_interpreter_is_cancelled_by_the_supervisor(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    supervisor.start()
    job = submit(queue, "holds_the_interpreter", file=str(tmp_path / "in"))
    wait((tmp_path / "in").exists, "native code")
    queue.cancel(job.id)
    job = ended(queue, job)
    assert job.state == "cancelled"
    assert not alive(job.worker_pid)


def test_a_killed_worker_is_replaced_and_the_job_loses_at_most_a_batch(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    store, log = ResultStore(tmp_path / "results"), tmp_path / "rows"
    key = store.key("fill", "data", "weights", {})
    supervisor.start()
    sizes = {"n_rows": 60, "batch": 3, "seconds": 0.02}
    job = submit(queue, "fill", key=key, store=str(store.root), result=key, log=str(log), **sizes)
    wait(lambda: log.exists() and len(log.read_text().split()) >= 12, "the first rows")
    first_pid = queue.get(job.id).worker_pid
    os.kill(first_pid, signal.SIGKILL)
    job = ended(queue, job)
    assert (job.state, job.result, job.attempts) == ("done", {"key": key}, 2)
    assert job.worker_pid != first_pid
    expected = np.arange(60)[:, None] * np.ones(2)
    np.testing.assert_array_equal(store.get(key).arrays["values"], expected)
    computed = Counter(log.read_text().split())
    assert sum(count - 1 for count in computed.values()) <= 3


def test_a_job_that_keeps_killing_its_worker_is_given_up(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    supervisor.start()
    job = ended(queue, submit(queue, "dies"))
    assert job.state == "failed"
    assert job.attempts == 3
    assert job.error_message == "The worker process ended 3 times while it ran this job."
    assert "memory ran out" in job.error_hint
    assert ended(queue, submit(queue, "add", a=1, b=1)).state == "done"


def test_stopping_the_supervisor_hands_the_job_back(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    supervisor.start()
    job = running(queue, submit(queue, "steps", until=str(tmp_path / "go")))
    supervisor.stop()
    assert not alive(job.worker_pid)
    job = queue.get(job.id)
    assert (job.state, job.attempts) == ("queued", 0)
    (tmp_path / "go").touch()
    supervisor.start()
    assert ended(queue, job).result == "released"


SERVER = """
import sys, time
from scdiva_core.jobs import JobQueue, WorkerSupervisor
WorkerSupervisor(JobQueue(sys.argv[1])).start()
time.sleep(600)
"""


def test_the_worker_goes_with_its_server_and_the_next_one_resumes(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    job = submit(queue, "steps", until=str(tmp_path / "go"))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(queue.root)], cwd=ROOT)
    try:
        pid = running(queue, job).worker_pid
    finally:
        server.kill()
        server.wait()
    wait(lambda: not alive(pid), "the end of the worker")
    assert queue.get(job.id).active
    (tmp_path / "go").touch()
    supervisor.start()
    assert ended(queue, job).result == "released"


def test_an_error_for_the_user_becomes_message_and_hint(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    supervisor.start()
    job = ended(queue, submit(queue, "wrong_file"))
    assert job.state == "failed"
    assert job.error_message == "0 of 2,000 genes are known."
    assert job.error_hint == "Choose the symbol column."
    assert not queue.log_path(job.id).exists()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("job_functions:breaks", "KeyError"),
        ("job_functions:leaves", "SystemExit"),
        ("job_functions:no_json", "TypeError"),
        ("job_functions:absent", "AttributeError"),
        ("no_such_module:run", "ModuleNotFoundError"),
    ],
)
def test_an_unexpected_error_goes_to_a_log_and_not_into_the_table(
    queue: JobQueue, supervisor: WorkerSupervisor, function: str, error: str
) -> None:
    supervisor.start()
    job = ended(queue, queue.submit(function, {}, title="Embed", owner="me"))
    assert job.state == "failed"
    assert job.error_message == f"Unexpected {error} in 'Embed'."
    assert f"logs/{job.id}.log" in job.error_hint
    assert "Traceback" in queue.log_path(job.id).read_text()
    row = repr(job)
    assert "Traceback" not in row
    assert "patient 17" not in row
    assert supervisor.worker_pid == job.worker_pid


def test_the_same_key_is_the_same_job(queue: JobQueue, supervisor: WorkerSupervisor) -> None:
    job = submit(queue, "add", key="k", a=1, b=2)
    assert submit(queue, "add", key="k", a=1, b=2).id == job.id
    assert submit(queue, "add", key="other", a=1, b=2).id != job.id
    assert submit(queue, "add", key="k", owner="you", a=1, b=2).id != job.id
    assert submit(queue, "add", a=1, b=2).id != submit(queue, "add", a=1, b=2).id
    supervisor.start()
    ended(queue, job)
    assert submit(queue, "add", key="k", a=1, b=2).id == job.id
    queue.dismiss(job.id)
    assert submit(queue, "add", key="k", a=1, b=2).id != job.id


def test_owners_take_turns(queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path) -> None:
    log = tmp_path / "order"
    names = [("many", f"m{number}") for number in range(3)] + [("few", "f0"), ("few", "f1"), ("one", "o0")]
    jobs = [submit(queue, "note", owner=owner, file=str(log), name=name) for owner, name in names]
    supervisor.start()
    for job in jobs:
        ended(queue, job)
    assert log.read_text().split() == ["m0", "f0", "o0", "m1", "f1", "m2"]


def test_two_supervisors_never_run_a_job_twice(queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path) -> None:
    other = WorkerSupervisor(JobQueue(queue.root))
    log = tmp_path / "runs"
    jobs = [submit(queue, "note", file=str(log), name=f"j{number}", seconds=0.01) for number in range(20)]
    try:
        supervisor.start()
        other.start()
        pids = {ended(queue, job).worker_pid for job in jobs}
    finally:
        other.stop()
    assert len(pids) == 1
    assert Counter(log.read_text().split()) == Counter(f"j{number}" for number in range(20))


def test_the_second_supervisor_takes_over(queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path) -> None:
    first = WorkerSupervisor(queue)
    first.start()
    job = running(queue, submit(queue, "steps", until=str(tmp_path / "go")))
    supervisor.start()
    first.stop()
    wait(lambda: queue.get(job.id).worker_pid != job.worker_pid, "another worker")
    (tmp_path / "go").touch()
    assert ended(queue, job).state == "done"


def test_a_cancelled_job_may_take_the_time_it_asked_for(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    job = submit(queue, "keeps", file=str(tmp_path / "in"))
    supervisor.start()
    wait(lambda: queue.get(job.id).allowed_s, "the request")
    queue.cancel(job.id)
    done = ended(queue, job)
    assert (done.state, done.result, done.allowed_s) == ("done", "kept", 60)
    after = submit(queue, "steps", until=str(tmp_path / "never"))
    running(queue, after)
    assert queue.get(after.id).allowed_s == 0, "the next job has not asked"


def test_a_table_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    first = JobQueue(tmp_path)
    job = submit(first, "add", a=1, b=1)
    with first.transaction() as table:
        for name in ("allowed_s", "kills", "worker"):
            table.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
    found = JobQueue(tmp_path).get(job.id)
    assert (found.allowed_s, found.kills, found.worker) == (0, 0, None)


def test_workers_of_two_devices_share_the_queue(queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path) -> None:
    other = WorkerSupervisor(queue, device="cuda:0")
    jobs = [submit(queue, "steps", until=str(tmp_path / "go")) for _ in range(2)]
    try:
        supervisor.start()
        other.start()
        for job in jobs:
            running(queue, job)
        assert {queue.get(job.id).device for job in jobs} == {"cpu", "cuda:0"}
        jobs_claims.recover(queue, "cuda:1")  # a third worker leaves what living ones run alone
        assert {queue.get(job.id).attempts for job in jobs} == {1}
        assert {queue.get(job.id).state for job in jobs} == {"running"}
        (tmp_path / "go").touch()
        assert {ended(queue, job).state for job in jobs} == {"done"}
    finally:
        other.stop()


def test_a_worker_that_cannot_start_is_reported_where_the_user_looks(
    queue: JobQueue, supervisor: WorkerSupervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = submit(queue, "add", a=1, b=1)
    supervisor.start()
    wait(lambda: queue.get(job.id).message, "the message")
    assert queue.get(job.id).message.startswith("The worker process does not start (exit code 7)")
