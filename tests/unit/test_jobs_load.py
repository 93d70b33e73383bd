"""Many jobs, many owners, little memory: limits, places in the queue, several workers, workers that die of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core import jobs_claims, jobs_limits, jobs_memory, jobs_worker
from scdiva_core.errors import JobError
from scdiva_core.jobs import JobQueue, WorkerSupervisor, start_workers
from scdiva_core.jobs_turns import in_turn
from tests.small_jobs import ended, running, submit, wait


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


def test_one_owner_may_queue_so_many_and_no_more(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_JOBS_PER_USER", "2")
    first, _ = submit(queue, "add", key="one", a=1, b=1), submit(queue, "add", a=1, b=2)
    with pytest.raises(JobError, match="You have 2 jobs that wait or run") as caught:
        submit(queue, "add", a=1, b=3)
    assert "cancel one" in caught.value.hint
    assert submit(queue, "add", key="one", a=1, b=1).id == first.id  # no new job: nothing to refuse
    submit(queue, "add", owner="you", a=1, b=3)
    queue.cancel(first.id)
    submit(queue, "add", a=1, b=3)


def test_all_together_may_queue_so_many_and_no_more(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_JOBS_WAITING", "3")
    for number in range(3):
        submit(queue, "add", owner=f"owner {number}", a=1, b=1)
    with pytest.raises(JobError, match="3 jobs wait on this server"):
        submit(queue, "add", owner="another", a=1, b=1)
    jobs_claims.claim(queue, "cpu", "cpu")
    submit(queue, "add", owner="another", a=1, b=1)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "²"])
@pytest.mark.parametrize("read", [jobs_limits.jobs_per_user, jobs_limits.jobs_waiting, jobs_limits.workers])
def test_a_limit_that_is_no_whole_number_is_named(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[], int], value: str
) -> None:
    name = f"SCDIVA_{read.__name__.upper()}"
    monkeypatch.setenv(name, value)
    with pytest.raises(JobError, match=f"{name} is '{value}'"):
        read()
    monkeypatch.setenv(name, "7")
    assert read() == 7


@pytest.mark.parametrize("value", ["0", "-1", "many", "nan", "inf"])
def test_an_amount_of_memory_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SCDIVA_JOB_MEMORY_GB", value)
    with pytest.raises(JobError, match=f"SCDIVA_JOB_MEMORY_GB is '{value}'"):
        jobs_memory.allowed_bytes()
    monkeypatch.setenv("SCDIVA_JOB_MEMORY_GB", "1.5")
    assert jobs_memory.allowed_bytes() == 1_500_000_000


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert jobs_memory._container_limits(tmp_path) == []
    (tmp_path / "memory.max").write_text("4000000000\n")
    assert jobs_memory._container_limits(tmp_path) == [4_000_000_000]


@settings(max_examples=20, deadline=None)
@given(owners=st.lists(st.sampled_from("abcd"), max_size=8), begun=st.integers(0, 4))
def test_the_place_told_is_the_one_it_gets(
    tmp_path_factory: pytest.TempPathFactory, owners: list[str], begun: int
) -> None:
    queue = JobQueue(tmp_path_factory.mktemp("jobs"))
    jobs = [submit(queue, "add", owner=owner, a=1, b=1) for owner in owners]

    def one() -> str | None:
        job = jobs_claims.claim(queue, "cpu", "cpu")
        if job is None:
            return None
        jobs_claims.finish(queue, job.id, "done")
        return job.id

    for _ in range(begun):
        one()
    told = {job.id: queue.place(job.id) for job in jobs if queue.get(job.id).state == "queued"}
    taken = list(iter(one, None))
    assert told == {job_id: place for place, job_id in enumerate(taken)}
    assert all(queue.place(job.id) == 0 for job in jobs)


def test_those_who_were_never_served_come_before_all_others() -> None:
    waiting = [(1, "often"), (2, "often"), (3, "once"), (4, "never"), (5, "never")]
    assert in_turn(waiting, {"often": 9.0, "once": 5.0}) == [4, 3, 1, 5, 2]


def test_a_job_that_takes_too_much_memory_fails_with_the_reason_and_the_next_one_runs(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_JOB_MEMORY_GB", "0.3")
    supervisor = WorkerSupervisor(queue)
    try:
        hungry, modest = submit(queue, "grows"), submit(queue, "add", a=1, b=2)
        supervisor.start()
        hungry = ended(queue, hungry)
        assert hungry.state == "failed"
        assert "GB of memory; a job may take 0.3 GB here" in hungry.error_message
        assert "fewer cells" in hungry.error_hint
        assert ended(queue, modest).result["sum"] == 3
    finally:
        supervisor.stop()


def test_a_job_whose_worker_the_system_kills_is_begun_once_more_and_then_ended_with_the_reason(
    queue: JobQueue, supervisor: WorkerSupervisor, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job, other = submit(queue, "killed", file=str(log)), submit(queue, "add", owner="you", a=1, b=2)
    supervisor.start()
    job = ended(queue, job)
    assert (job.state, job.kills, log.read_text()) == ("failed", 2, "in\nin\n")
    assert "killed the worker process 2 times" in job.error_message
    assert "memory ran out" in job.error_hint
    assert ended(queue, other).state == "done"


def test_a_worker_that_holds_much_after_a_job_leaves_and_another_takes_the_next(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_worker = jobs_worker.Worker(queue, "cpu", "cpu", 0, 10**12)
    monkeypatch.setattr(jobs_worker, "_WARM_BYTES", 0)
    monkeypatch.setattr(jobs_worker.Worker, "_watch", lambda self: None)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    job = submit(queue, "add", a=1, b=2)
    queue_worker.run()  # returns: whatever it holds is too much
    assert queue.get(job.id).state == "done"


def test_two_workers_run_jobs_of_two_owners_at_once(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCDIVA_WORKERS", "2")
    until = str(tmp_path / "go")
    mine = [submit(queue, "steps", until=until) for _ in range(2)]
    yours = submit(queue, "steps", owner="you", until=until)
    started = start_workers(queue, "cpu")
    try:
        assert len(started) == 2
        assert {running(queue, mine[0]).worker, running(queue, yours).worker} == {"cpu", "cpu/2"}
        assert queue.get(mine[1].id).state == "queued"
        assert queue.place(mine[1].id) == 2
        (tmp_path / "go").touch()
        assert {ended(queue, job).state for job in (*mine, yours)} == {"done"}
    finally:
        for each in started:
            each.stop()


def test_workers_leave_alone_what_another_one_of_the_device_runs(queue: JobQueue, tmp_path: Path) -> None:
    first, second = (WorkerSupervisor(queue, "cpu", number, of=2) for number in (1, 2))
    job = submit(queue, "steps", until=str(tmp_path / "go"))
    try:
        first.start()
        running(queue, job)
        jobs_claims.recover(queue, "cpu/2")
        assert (queue.get(job.id).state, queue.get(job.id).attempts) == ("running", 1)
        second.start()
        wait(lambda: queue.get(job.id).progress > 0, "progress")
        assert second.worker_pid is None  # nothing to do: no process
    finally:
        first.stop()
        second.stop()
    assert queue.get(job.id).state == "queued"


def test_a_second_worker_that_is_killed_comes_back_for_its_job(queue: JobQueue, tmp_path: Path) -> None:
    second = WorkerSupervisor(queue, "cpu", number=2, of=2)
    job = submit(queue, "steps", until=str(tmp_path / "go"))
    try:
        second.start()
        os.kill(running(queue, job).worker_pid, signal.SIGKILL)
        wait(lambda: queue.get(job.id).attempts == 2, "another attempt")
        (tmp_path / "go").touch()
        assert (ended(queue, job).state, queue.get(job.id).kills) == ("done", 1)
    finally:
        second.stop()
