"""The table of long work: pages submit and look, a worker process claims and reports.

One SQLite file in write-ahead mode, so that pages read while the worker writes. It must lie on a
local disk: SQLite's locks are not reliable on network file systems.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scdiva_core import jobs_limits
from scdiva_core.errors import JobError
from scdiva_core.jobs_turns import in_turn

State = Literal["queued", "running", "done", "failed", "cancelled"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key TEXT,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    function TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    progress REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '',
    rate REAL,
    eta_s REAL,
    result TEXT,
    error_message TEXT NOT NULL DEFAULT '',
    error_hint TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    cancel_requested REAL,
    device TEXT,
    worker_pid INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    allowed_s REAL NOT NULL DEFAULT 0,
    kills INTEGER NOT NULL DEFAULT 0,
    worker TEXT
);
CREATE INDEX IF NOT EXISTS jobs_state ON jobs (state);
CREATE INDEX IF NOT EXISTS jobs_owner ON jobs (owner, key);
"""
# Columns that tables of earlier versions lack.
_LATER = {"allowed_s": "REAL NOT NULL DEFAULT 0", "kills": "INTEGER NOT NULL DEFAULT 0", "worker": "TEXT"}


@dataclass(frozen=True)
class Job:
    """One row of the table, as it was when it was read.

    Attributes
    ----------
    id
        Random name, hard to guess.
    owner
        Session or project that submitted it.
    title
        What the user calls it.
    function, payload
        ``"module:name"`` and the JSON object that it is called with.
    key
        What the result is stored under, if the submitter gave one.
    state
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    progress, message, rate, eta_s
        Share done (0 to 1), what is going on, units a second and seconds left (None when unknown).
    result
        JSON value that the function returned; None until it is done.
    error_message, error_hint
        Why it failed and what to do next.
    created, started, finished
        Seconds since the epoch.
    cancel_requested
        Time of the request to stop, None without one.
    device, worker_pid
        Where it runs or ran.
    attempts
        How often a worker began it and did not hand it back.
    allowed_s
        Seconds that it asked for to keep what was made when it is cancelled; 0 when it stops at once.
    kills
        How often the system killed the worker that ran it.
    worker
        Name of that worker, see `JobQueue.lock_path`.
    """

    id: str
    owner: str
    title: str
    function: str
    payload: dict[str, Any]
    key: str | None
    state: State
    progress: float
    message: str
    rate: float | None
    eta_s: float | None
    result: Any
    error_message: str
    error_hint: str
    created: float
    started: float | None
    finished: float | None
    cancel_requested: float | None
    device: str | None
    worker_pid: int | None
    attempts: int
    allowed_s: float
    kills: int
    worker: str | None

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")


class JobQueue:
    """What pages see of the jobs below one folder; safe for threads and processes.

    Parameters
    ----------
    root
        Folder of ``jobs.sqlite``, the worker locks and ``logs/``; created when it does not exist.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self.logs = self.root / "logs"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"The folder {self.logs} cannot be created ({error.strerror})."
            raise JobError(message, "Set SCDIVA_HOME to a folder that you may write to.") from error
        self._use_wal()
        with self.transaction() as table:
            for statement in _SCHEMA.split(";"):
                table.execute(statement)
            there = {row["name"] for row in table.execute("PRAGMA table_info(jobs)")}
            for name in _LATER.keys() - there:
                table.execute(f"ALTER TABLE jobs ADD COLUMN {name} {_LATER[name]}")

    def submit(self, function: str, payload: dict[str, Any], *, title: str, owner: str, key: str | None = None) -> Job:
        """Queue ``function(payload, context)``.

        Parameters
        ----------
        function
            ``"module:name"`` of a function that the worker can import.
        payload
            JSON object.
        title
            What the user calls it.
        owner
            Session or project; owners take turns.
        key
            Name of the result. A job of the same owner with the same key that waits, runs or is done
            is returned instead of a new one (dismiss a done one to compute again). Another
            owner gets a job of their own, so that one's cancel never stops the other's work; it is
            short, for by then the result is stored.

        Raises
        ------
        JobError
            If the function name or the payload cannot be queued, or too many jobs wait already.
        """
        if not _FUNCTION.fullmatch(function):
            message = f"{function!r} does not name a function."
            raise JobError(message, "Write it as 'module:name'.")
        try:
            text = json.dumps(payload)
        except (TypeError, ValueError) as error:
            message = f"The job's parameters are not JSON ({error})."
            raise JobError(message, "Use numbers, text, lists and dictionaries.") from error
        with self.transaction() as table:
            same = table.execute(
                "SELECT * FROM jobs WHERE owner = ? AND key = ? AND state IN ('queued', 'running', 'done') "
                "AND cancel_requested IS NULL ORDER BY number DESC LIMIT 1",
                (owner, key),
            ).fetchone()
            if same is not None:
                return read_job(same)
            _refuse_too_many(table, owner)
            row = (secrets.token_hex(8), key, owner, title, function, text, time.time())
            return read_job(
                table.execute(
                    "INSERT INTO jobs (id, key, owner, title, function, payload, created) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING *",
                    row,
                ).fetchone()
            )

    def get(self, job_id: str) -> Job:
        """Return the job as it is now.

        Raises
        ------
        JobError
            If there is none of that id.
        """
        with self.transaction(write=False) as table:
            row = table.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            message = f"There is no job {job_id!r}."
            raise JobError(message, "It was dismissed, or belongs to another data folder.")
        return read_job(row)

    def jobs(self, owner: str | None = None, limit: int = 20) -> list[Job]:
        """Return the newest jobs, of one owner or of all."""
        with self.transaction(write=False) as table:
            rows = table.execute(
                "SELECT * FROM jobs WHERE ?1 IS NULL OR owner = ?1 ORDER BY number DESC LIMIT ?2",
                (owner, limit),
            ).fetchall()
        return [read_job(row) for row in rows]

    def place(self, job_id: str) -> int:
        """Return how many jobs run or will begin before a waiting one, if nobody queues another; else 0."""
        with self.transaction(write=False) as table:
            waiting = table.execute("SELECT number, owner, id FROM jobs WHERE state = 'queued'").fetchall()
            number = next((row["number"] for row in waiting if row["id"] == job_id), None)
            if number is None:
                return 0
            running = table.execute("SELECT COUNT(*) FROM jobs WHERE state = 'running'").fetchone()[0]
            served = dict(table.execute("SELECT owner, MAX(started) FROM jobs WHERE started > 0 GROUP BY owner"))
        return running + in_turn([(row["number"], row["owner"]) for row in waiting], served).index(number)

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop: a waiting one is cancelled at once, a running one within about two seconds."""
        with self.transaction() as table:
            table.execute(
                "UPDATE jobs SET state = 'cancelled', finished = ?1, cancel_requested = ?1 "
                "WHERE id = ?2 AND state = 'queued'",
                (time.time(), job_id),
            )
            table.execute(
                "UPDATE jobs SET cancel_requested = ? WHERE id = ? AND state = 'running' AND cancel_requested IS NULL",
                (time.time(), job_id),
            )

    def dismiss(self, job_id: str) -> None:
        """Forget a finished job and its log; what it stored stays.

        Raises
        ------
        JobError
            If it waits or runs.
        """
        job = self.get(job_id)
        if job.active:
            message = f"{job.title!r} has not finished."
            raise JobError(message, "Cancel it first.")
        with self.transaction() as table:
            table.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self.log_path(job_id).unlink(missing_ok=True)

    def log_path(self, job_id: str) -> Path:
        """File that holds the traceback of a job that failed unexpectedly."""
        return self.logs / f"{job_id}.log"

    def lock_path(self, worker: str) -> Path:
        """File that the one worker of this name (see `worker_name`) keeps locked."""
        return self.root / f"worker-{re.sub('[^A-Za-z0-9]', '-', worker)}.lock"

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """One connection and one transaction; statements of pages and worker never interleave.

        Raises
        ------
        JobError
            If SQLite cannot use the file.
        """
        # The inner table commits or rolls back.
        with self._errors(), closing(self._connect()) as table, table:
            table.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield table

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            message = f"The job table {self.root / 'jobs.sqlite'} cannot be used ({error})."
            raise JobError(message, "Free space on the disk and check the folder's permissions.") from error

    def _use_wal(self) -> None:
        """Let readers and a writer work at once; the file remembers it.

        SQLite does not wait when two connections switch a new file at the same time, but fails: hence the lock.
        """
        with self._errors(), (self.root / "jobs.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with closing(self._connect()) as table:
                table.execute("PRAGMA journal_mode = WAL")

    def _connect(self) -> sqlite3.Connection:
        table = sqlite3.connect(self.root / "jobs.sqlite", timeout=30, isolation_level=None)
        table.row_factory = sqlite3.Row
        table.execute("PRAGMA synchronous = NORMAL")
        return table


def worker_name(device: str, number: int) -> str:
    """Name of a device's first, second, ... worker; the first one's is the device's."""
    return device if number == 1 else f"{device}/{number}"


def _refuse_too_many(table: sqlite3.Connection, owner: str) -> None:
    theirs, waiting = table.execute(
        "SELECT COALESCE(SUM(owner = ?), 0), COALESCE(SUM(state = 'queued'), 0) FROM jobs "
        "WHERE state IN ('queued', 'running')",
        (owner,),
    ).fetchone()
    if theirs >= jobs_limits.jobs_per_user():
        what = "a job that waits or runs" if theirs == 1 else f"{theirs:,} jobs that wait or run"
        msg = f"You have {what}, and this server takes no more of one project."
        raise JobError(msg, "Wait until one has ended, or cancel one in the list of jobs.")
    if waiting >= jobs_limits.jobs_waiting():
        msg = f"{waiting:,} jobs wait on this server, and it takes no more."
        raise JobError(msg, "Try again in some minutes; nothing of yours is lost.")


def read_job(row: sqlite3.Row) -> Job:
    """Turn a row of the table into a `Job`."""
    values = dict(row)
    del values["number"]
    values["payload"] = json.loads(values["payload"])
    values["result"] = None if values["result"] is None else json.loads(values["result"])
    return Job(**values)
