"""The worker's side of the job table: claim, report, finish, and pick up what a dead worker left."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from scdiva_core.jobs_queue import Job, JobQueue, read_job

MAX_ATTEMPTS = 3
"""A job whose worker process died this often is given up."""

MAX_KILLS = 2
"""So is one whose worker was killed by the system so often: memory hardly grows from one time to the next."""

_LESS = "Most often memory ran out: choose fewer cells, or close other programs, and start it again."

# Owners for whom no other worker is at work come first, then the one served longest ago (see `jobs_turns`).
_NEXT = """
SELECT id FROM jobs AS waiting WHERE state = 'queued'
ORDER BY EXISTS (SELECT 1 FROM jobs WHERE owner = waiting.owner AND state = 'running'),
    COALESCE((SELECT MAX(started) FROM jobs WHERE owner = waiting.owner), 0), number LIMIT 1
"""


def take_lock(path: Path) -> int | None:
    """Lock a file for the life of this process; None when another process holds it.

    The kernel drops the lock when the process ends, however it ends. A record lock (not ``flock``),
    because children of a job must not inherit it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock. Ask for no lock that this process itself holds."""
    descriptor = take_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def claim(queue: JobQueue, device: str, worker: str) -> Job | None:
    """Take the next waiting job for this process, the worker of this name; None when nothing waits."""
    with queue.transaction() as table:
        row = table.execute(_NEXT).fetchone()
        if row is None:
            return None
        row = table.execute(
            "UPDATE jobs SET state = 'running', started = ?, device = ?, worker = ?, worker_pid = ?, rate = NULL, "
            "eta_s = NULL, allowed_s = 0, attempts = attempts + 1 WHERE id = ? RETURNING *",
            (time.time(), device, worker, os.getpid(), row["id"]),
        ).fetchone()
        return read_job(row)


def report(
    queue: JobQueue,
    job_id: str,
    progress: float,
    message: str,
    rate: float | None,
    eta_s: float | None,
    allowed_s: float,
) -> None:
    """Write how far a running job is, and how long it may still take once it is cancelled."""
    with queue.transaction() as table:
        table.execute(
            "UPDATE jobs SET progress = ?, message = ?, rate = ?, eta_s = ?, allowed_s = ? "
            "WHERE id = ? AND state = 'running'",
            (progress, message, rate, eta_s, allowed_s, job_id),
        )


def finish(
    queue: JobQueue,
    job_id: str,
    state: Literal["done", "failed", "cancelled"],
    *,
    result: Any = None,
    error: tuple[str, str] = ("", ""),
) -> None:
    """End a running job; `error` is message and hint. A job that has ended already stays as it is.

    Raises
    ------
    TypeError, ValueError
        If `result` is not JSON.
    """
    text = json.dumps(result) if state == "done" else None
    with queue.transaction() as table:
        table.execute(
            "UPDATE jobs SET state = ?1, result = ?2, error_message = ?3, error_hint = ?4, finished = ?5, "
            "eta_s = NULL, progress = CASE ?1 WHEN 'done' THEN 1 ELSE progress END "
            "WHERE id = ?6 AND state = 'running'",
            (state, text, *error, time.time(), job_id),
        )


def hand_back(queue: JobQueue, job_id: str) -> None:
    """Let a running job wait again because the server stops; this does not count as an attempt."""
    with queue.transaction() as table:
        table.execute(
            "UPDATE jobs SET state = 'queued', attempts = attempts - 1, eta_s = NULL "
            "WHERE id = ? AND state = 'running'",
            (job_id,),
        )


def note_kill(queue: JobQueue, worker_pid: int) -> None:
    """Count that the system killed a worker, with the job that it ran."""
    with queue.transaction() as table:
        table.execute("UPDATE jobs SET kills = kills + 1 WHERE state = 'running' AND worker_pid = ?", (worker_pid,))


def recover(queue: JobQueue, worker: str) -> None:
    """Deal with jobs whose worker is dead; the caller holds the lock of `worker`.

    Whether a worker lives is read from its lock, because process ids are used again.
    """
    with queue.transaction() as table:
        running = [read_job(row) for row in table.execute("SELECT * FROM jobs WHERE state = 'running'")]
    for job in running:
        name = job.worker or job.device
        if name not in (None, worker) and is_locked(queue.lock_path(name)):
            continue
        if job.cancel_requested is not None:
            finish(queue, job.id, "cancelled")
        elif job.kills >= MAX_KILLS:
            message = f"The system killed the worker process {job.kills} times while it ran this job."
            finish(queue, job.id, "failed", error=(message, _LESS))
        elif job.attempts >= MAX_ATTEMPTS:
            message = f"The worker process ended {job.attempts} times while it ran this job."
            finish(queue, job.id, "failed", error=(message, _LESS))
        else:
            _wait_again(queue, job.id)


def _wait_again(queue: JobQueue, job_id: str) -> None:
    with queue.transaction() as table:
        table.execute("UPDATE jobs SET state = 'queued', eta_s = NULL WHERE id = ? AND state = 'running'", (job_id,))
