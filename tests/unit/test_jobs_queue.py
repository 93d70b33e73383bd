"""The job table as pages see it: submit, list, cancel, dismiss; no worker runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from scdiva_core.errors import JobError
from scdiva_core.jobs import Job, JobQueue


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path / "jobs")


def submit(queue: JobQueue, owner: str = "me", key: str | None = None, **payload: object) -> Job:
    return queue.submit("job_functions:add", payload, title="add", owner=owner, key=key)


def test_a_waiting_job_is_cancelled_at_once(queue: JobQueue) -> None:
    job = submit(queue, a=1, b=1)
    queue.cancel(job.id)
    assert queue.get(job.id).state == "cancelled"
    queue.cancel(job.id)  # again, and on a job that has ended: nothing happens
    assert queue.get(job.id).state == "cancelled"


def test_a_cancelled_key_can_be_submitted_again(queue: JobQueue) -> None:
    job = submit(queue, key="k", a=1, b=2)
    queue.cancel(job.id)
    assert submit(queue, key="k", a=1, b=2).id != job.id


def test_many_submitters_of_one_key_get_one_job(tmp_path: Path) -> None:
    ids: list[str] = []

    def work() -> None:
        queue = JobQueue(tmp_path / "jobs")  # each creates the table, if it is first
        ids.append(submit(queue, key="k", a=1, b=2).id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_jobs_are_listed_newest_first_by_owner(queue: JobQueue) -> None:
    mine = [submit(queue, a=number, b=0) for number in range(3)]
    other = submit(queue, owner="you", a=0, b=0)
    assert [job.id for job in queue.jobs("me")] == [job.id for job in reversed(mine)]
    assert [job.id for job in queue.jobs("me", limit=1)] == [mine[-1].id]
    assert queue.jobs()[0].id == other.id
    assert queue.jobs("nobody") == []
    assert mine[0].payload == {"a": 0, "b": 0}


def test_only_an_ended_job_can_be_dismissed(queue: JobQueue) -> None:
    job = submit(queue, a=1, b=1)
    with pytest.raises(JobError, match="'add' has not finished. Cancel it first"):
        queue.dismiss(job.id)
    queue.cancel(job.id)
    queue.log_path(job.id).write_text("traceback")
    queue.dismiss(job.id)
    assert not queue.log_path(job.id).exists()
    with pytest.raises(JobError, match="There is no job .*It was dismissed"):
        queue.get(job.id)


@pytest.mark.parametrize("function", ["", "module", "module:", "os:system('x')", "a b:c", ":c"])
def test_only_a_function_name_can_be_submitted(queue: JobQueue, function: str) -> None:
    with pytest.raises(JobError, match="does not name a function.*'module:name'"):
        queue.submit(function, {}, title="x", owner="me")


def test_parameters_must_be_json(queue: JobQueue) -> None:
    with pytest.raises(JobError, match="parameters are not JSON"):
        submit(queue, a=object())


def test_a_table_that_is_no_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(JobError, match=r"job table .*jobs\.sqlite cannot be used .*not a database"):
        JobQueue(tmp_path)
