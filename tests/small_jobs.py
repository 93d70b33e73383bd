"""Jobs of `tests/unit/job_functions.py`: submit them, and wait for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from scdiva_core.jobs import Job, JobQueue

DEADLINE = 180


def wait(condition: Callable[[], object], what: str) -> None:
    """Wait until the condition holds; a slow machine gets some minutes."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE} s for {what}"
        time.sleep(0.02)


def submit(queue: JobQueue, function: str, /, owner: str = "me", key: str | None = None, **payload: object) -> Job:
    return queue.submit(f"job_functions:{function}", payload, title=function, owner=owner, key=key)


def ended(queue: JobQueue, job: Job) -> Job:
    wait(lambda: not queue.get(job.id).active, f"the end of {job.title}")
    return queue.get(job.id)


def running(queue: JobQueue, job: Job) -> Job:
    wait(lambda: queue.get(job.id).state == "running", f"the start of {job.title}")
    return queue.get(job.id)
