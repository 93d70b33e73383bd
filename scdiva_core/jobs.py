"""Long work off the page: a queue on disk, and a supervisor that keeps a worker process alive.

Pages use `JobQueue` and `Job`; the server starts the workers (`start_workers`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from scdiva_core import jobs_limits, jobs_memory
from scdiva_core.errors import JobError
from scdiva_core.jobs_claims import finish, is_locked, note_kill
from scdiva_core.jobs_queue import Job, JobQueue, worker_name

__all__ = ["Job", "JobQueue", "WorkerSupervisor", "start_workers"]

_POLL_SECONDS = 0.2
_STUCK_SECONDS = 4  # the worker's own watchdog acts after 1.5 s, unless native code holds the interpreter
_QUICK_DEATH_SECONDS = 5
_LONGEST_PAUSE_SECONDS = 30
_PACKAGE_PARENT = Path(__file__).resolve().parent.parent


class WorkerSupervisor:
    """Keeps one worker process for a queue and device while there is work, and warm afterwards.

    Several supervisors (two servers on one folder) are fine: only one worker gets the lock.

    Parameters
    ----------
    queue
        The queue to serve.
    device
        Handed to the jobs.
    number, of
        Which of the device's workers this is, and how many share memory and cores.

    Raises
    ------
    JobError
        If SCDIVA_JOB_MEMORY_GB is no number above 0.
    """

    def __init__(self, queue: JobQueue, device: str = "cpu", number: int = 1, of: int = 1) -> None:
        self._queue, self._device, self._number = queue, device, number
        self._name, self._memory = worker_name(device, number), jobs_memory.allowed_bytes() // of
        # By default a thread that waits for another keeps its core busy for a millisecond, and takes it from the server
        # and the browser: embedding took 3.2 times as long beside one busy process, so it takes 2 (alone: the same).
        self._threads = {"GOMP_SPINCOUNT": "1000"}
        if of > 1:  # threads of several workers that take every core each wait for one another
            self._threads["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // of, 1))
        self._child: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._quick_deaths = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def worker_pid(self) -> int | None:
        """Process id of the living worker that this supervisor started."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Begin to look after the queue; does nothing when it does already."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, name="worker-supervisor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the worker; a job that runs waits again and is resumed by the next worker."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None

    def _watch(self) -> None:
        try:
            while not self._stop.wait(_POLL_SECONDS):
                with suppress(JobError):  # table busy or disk full: look again
                    self._look()
        finally:
            self._end_child()

    def _look(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._end_stuck_job()
            return
        if self._child is not None:
            self._note_death(self._child.returncode)
        if self._has_work() and not is_locked(self._queue.lock_path(self._name)):
            self._begin_child()

    def _has_work(self) -> bool:
        """Whether a job waits, or runs by the table though this worker, or any for the first, may have died with it."""
        with self._queue.transaction(write=False) as table:
            row = table.execute(
                "SELECT 1 FROM jobs WHERE state = 'queued' OR state = 'running' AND (?1 = 1 OR worker = ?2) LIMIT 1",
                (self._number, self._name),
            ).fetchone()
        return row is not None

    def _begin_child(self) -> None:
        command = [sys.executable, "-m", "scdiva_core.jobs_worker", "--root", str(self._queue.root)]
        command += ["--device", self._device, "--parent", str(os.getpid())]
        command += ["--number", str(self._number), "--memory", str(self._memory)]
        paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._child = subprocess.Popen(
            command,
            env={**self._threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the server's terminal is the server's to handle
        )
        self._born = time.monotonic()

    def _note_death(self, code: int) -> None:
        """Count a kill, wait longer after each quick death, and say so where a user will look."""
        if code == -signal.SIGKILL:
            note_kill(self._queue, self._child.pid)
        self._child = None
        quick = code != 0 and time.monotonic() - self._born < _QUICK_DEATH_SECONDS
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if self._quick_deaths > 2:
            message = f"The worker process does not start (exit code {code}); see the server's log."
            with self._queue.transaction() as table:
                table.execute("UPDATE jobs SET message = ? WHERE state = 'queued'", (message,))
        if self._quick_deaths:
            self._stop.wait(min(0.1 * 2**self._quick_deaths, _LONGEST_PAUSE_SECONDS))

    def _end_stuck_job(self) -> None:
        """Kill a worker that neither stops its cancelled job nor is able to end itself."""
        child = self._child
        with self._queue.transaction(write=False) as table:
            row = table.execute(
                "SELECT id FROM jobs WHERE state = 'running' AND worker_pid = ? AND cancel_requested + allowed_s < ?",
                (child.pid, time.time() - _STUCK_SECONDS),
            ).fetchone()
        if row is not None:
            _kill_group(child)
            finish(self._queue, row["id"], "cancelled")

    def _end_child(self) -> None:
        child = self._child
        if child is None:
            return
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            _kill_group(child)
        self._child = None


def start_workers(queue: JobQueue, device: str) -> list[WorkerSupervisor]:
    """Look after a queue with as many workers as SCDIVA_WORKERS says; they share memory and cores.

    Parameters
    ----------
    queue
        The queue.
    device
        Handed to the jobs.

    Raises
    ------
    JobError
        If a setting in the environment is no number.
    """
    count = jobs_limits.workers()
    made = [WorkerSupervisor(queue, device, number, count) for number in range(1, count + 1)]
    for each in made:
        each.start()
    return made


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a worker and the processes that its job started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
