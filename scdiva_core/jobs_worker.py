"""The worker process: ``python -m scdiva_core.jobs_worker --root FOLDER --device cpu``.

A folder and device have one, or as many as the server is told (SCDIVA_WORKERS). It imports nothing heavy
until a job's function does, and keeps what that imported for the next job. A watchdog thread reports
progress, so that a job never waits for the table, and ends the process when a cancelled job does not
stop, the server is gone, or memory runs short; what a job leaves on disk must therefore be safe at any
moment (see `scdiva_core.store`).
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from scdiva_core import jobs_claims, jobs_memory
from scdiva_core.errors import Cancelled, JobError, ScDiVaError
from scdiva_core.jobs_queue import Job, JobQueue, worker_name

_POLL_SECONDS = 0.2
_WEIGH_SECONDS = 1.0
_WARM_BYTES = 2_000_000_000  # a worker that still holds more after a job makes room for the server
_GRACE_SECONDS = 1.5  # what a cancelled function gets to stop by itself
_NOTHING = (0.0, "", None, None)  # what a function that has not reported yet has done


class JobContext:
    """What a job's function is given besides its payload: progress out, cancellation in.

    Attributes
    ----------
    device
        Where to compute, as the worker was started.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._cancelled = threading.Event()
        self._base = (0.0, 0.0, time.monotonic())  # total, done, when: what rates are counted from
        self._state: tuple[float, str, float | None, float | None] | None = None
        self._reported: object = (_NOTHING, 0.0)
        self._allowed, self._said = 0.0, 0.0  # seconds to keep what was made, and when they were asked for
        self._asked = math.inf  # when the cancellation was seen

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        """Say how far the work is; cheap enough for every batch.

        Parameters
        ----------
        done, total
            In any unit; the time left counts from the first call with this total, so that work
            resumed half-way does not look fast.
        message
            What is going on.
        rate
            Units a second; measured when left out.
        """
        now = time.monotonic()
        base_total, base_done, since = self._base
        if total != base_total or done < base_done:
            base_done, since = done, now
            self._base = (total, done, now)
        if rate is None and done > base_done and now > since:
            rate = (done - base_done) / (now - since)
        share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        self._state = (share, message, rate, max(total - done, 0.0) / rate if rate else None)

    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return self._cancelled.is_set()

    def allow(self, seconds: float) -> None:
        """Ask for time to keep what was made when the user cancels; without it the process ends soon after.

        Parameters
        ----------
        seconds
            That the function may still take after the cancellation, or from now on if that came before; 0 restores
            what is usual.
        """
        self._allowed, self._said = seconds, time.monotonic()

    @property
    def _allowed_s(self) -> float:
        """Seconds after the cancellation that were asked for."""
        return self._allowed + max(self._said - self._asked, 0.0)

    def check(self) -> None:
        """Stop here if the user asked to.

        Raises
        ------
        Cancelled
            Let it pass: the worker understands it.
        """
        if self.cancelled():
            raise Cancelled


class Worker:
    """Runs jobs one after the other, until it holds too much memory to stay.

    Parameters
    ----------
    queue
        The table.
    device
        Handed to the jobs.
    name
        Its own, see `worker_name`.
    parent
        Process id of the server; the worker ends when that is no longer its parent.
    memory
        Bytes that it may hold with its children; a job that needs more fails.
    """

    def __init__(self, queue: JobQueue, device: str, name: str, parent: int, memory: int) -> None:
        self._queue, self._device, self._name, self._parent = queue, device, name, parent
        self._memory, self._weighed = memory, 0.0
        # Held while a job begins or ends, so that the watchdog never sees half of that.
        self._lock = threading.Lock()
        self._current: tuple[Job, JobContext] | None = None
        self._stopping = False

    def run(self) -> None:
        """Claim and run; returns when a job has left much behind in memory."""
        signal.signal(signal.SIGTERM, self._stop)
        threading.Thread(target=self._watch, daemon=True).start()
        jobs_claims.recover(self._queue, self._name)
        while True:
            job, context = self._claim()
            if job is None:
                time.sleep(_POLL_SECONDS)
            else:
                self._run(job, context)
                if jobs_memory.held_bytes() > _WARM_BYTES:
                    return

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _claim(self) -> tuple[Job | None, JobContext]:
        context = JobContext(self._device)
        with self._lock:
            job = jobs_claims.claim(self._queue, self._device, self._name)
            self._current = None if job is None else (job, context)
        return job, context

    def _run(self, job: Job, context: JobContext) -> None:
        try:
            result = _load(job.function)(job.payload, context)
            self._finish(job, "done", result=result)
        except Cancelled:
            self._finish(job, "cancelled")
        except ScDiVaError as error:
            self._finish(job, "failed", error=(error.message, error.hint))
        except (Exception, SystemExit) as error:
            _write_log(self._queue.log_path(job.id), error)
            message = f"Unexpected {type(error).__name__} in {job.title!r}."
            hint = f"Start it again; if it fails again, report it with the file logs/{job.id}.log."
            self._finish(job, "failed", error=(message, hint))

    def _finish(self, job: Job, state: Any, **outcome: Any) -> None:
        with self._lock:
            self._report()
            jobs_claims.finish(self._queue, job.id, state, **outcome)
            self._current = None

    def _report(self) -> None:
        job, context = self._current
        state = context._state or _NOTHING, context._allowed_s
        if state != context._reported:
            jobs_claims.report(self._queue, job.id, *state[0], state[1])
            context._reported = state

    def _watch(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            if self._stopping or os.getppid() != self._parent:
                self._leave()
            with self._lock, suppress(JobError):  # table busy or disk full: look again
                if self._current is not None:
                    self._look_at(*self._current)

    def _look_at(self, job: Job, context: JobContext) -> None:
        """Report, pass a cancellation on, and end the process when the function does not stop or takes too much."""
        self._report()
        self._weigh(job)
        if context.cancelled():
            if time.monotonic() > context._asked + context._allowed_s + _GRACE_SECONDS:
                try:
                    jobs_claims.finish(self._queue, job.id, "cancelled")
                finally:
                    _die()
        elif self._queue.get(job.id).cancel_requested is not None:
            context._asked = time.monotonic()
            context._cancelled.set()

    def _weigh(self, job: Job) -> None:
        """End the job, and the process with it, when that holds more than it may."""
        if time.monotonic() < self._weighed + _WEIGH_SECONDS:
            return
        self._weighed, held = time.monotonic(), jobs_memory.held_bytes()
        if held <= self._memory:
            return
        message = f"{job.title!r} took {held / 1e9:.1f} GB of memory; a job may take {self._memory / 1e9:.1f} GB here."
        hint = "Choose fewer cells or genes; whoever runs the server can allow more (SCDIVA_JOB_MEMORY_GB)."
        try:
            jobs_claims.finish(self._queue, job.id, "failed", error=(message, hint))
        finally:
            _die()

    def _leave(self) -> NoReturn:
        """Hand the current job back and end, whatever happens."""
        try:
            if self._lock.acquire(timeout=1) and self._current is not None:
                jobs_claims.hand_back(self._queue, self._current[0].id)
        finally:
            _die()


def _load(function: str) -> Callable[[dict[str, Any], JobContext], Any]:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def _write_log(path: Path, error: BaseException) -> None:
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")


def _die() -> NoReturn:
    """End at once, and with it the processes that a job started (data loaders, for one)."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the worker, unless another one serves this folder and device."""
    parser = argparse.ArgumentParser(prog="python -m scdiva_core.jobs_worker", description=__doc__)
    parser.add_argument("--root", required=True, help="folder of the job table")
    parser.add_argument("--device", default="cpu", help="device handed to the jobs")
    parser.add_argument("--number", type=int, default=1, help="which of the device's workers this is")
    parser.add_argument("--memory", type=int, default=None, help="bytes that a job may take")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this process is gone")
    chosen = parser.parse_args(arguments)
    faulthandler.enable()
    queue = JobQueue(chosen.root)
    name = worker_name(chosen.device, chosen.number)
    if jobs_claims.take_lock(queue.lock_path(name)) is None:
        return
    os.nice(5)  # the page stays smooth while a job takes every core
    memory = jobs_memory.allowed_bytes() if chosen.memory is None else chosen.memory
    Worker(queue, chosen.device, name, chosen.parent, memory).run()


if __name__ == "__main__":
    main()
