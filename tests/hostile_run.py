"""Opening many hostile files in child processes, and watching what is touched meanwhile."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from tests.hostile_files import sound_files, write_hostile

DEADLINE = 60.0
"""Seconds by the clock after which a child that computes nothing counts as hanging (see also its own limit)."""
_BATCH = 100
_CHILD = Path(__file__).with_name("hostile_child.py")
_OPEN_ACCESS_CHANGE = 0x00000FFF  # every event of inotify(7)


@dataclass
class Report:
    """How a run ended.

    Attributes
    ----------
    files
        Files that were opened.
    outcomes
        Number of ``"read"``, ``"refused"``, ``"unexpected"``, ``"crash"``, ``"hang"`` and ``"touched"``.
    problems
        What was wrong with each that was neither read nor refused.
    slowest
        Seconds on a processor, and description, of the file that took longest.
    peak_bytes
        Most memory that a child took beyond its libraries.
    """

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    peak_bytes: int = 0


class Watch:
    """Tells whether anything in a folder was opened, read or changed (Linux's inotify).

    Parameters
    ----------
    folder
        The folder; what lies below its folders is not watched.
    """

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, bytes(folder), _OPEN_ACCESS_CHANGE) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def touched(self) -> bool:
        """Whether something happened since the last call."""
        try:
            return bool(os.read(self._descriptor, 1 << 16))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)


class Child:
    """A process that opens files; started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._libraries = 0

    def open(self, path: Path) -> dict[str, object]:
        """Return how opening the file ended; the outcome is ``"crash"`` or ``"hang"`` where no answer came."""
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        reply = self._line(DEADLINE)
        if reply is None:
            hang = self._ended() in (None, -signal.SIGXCPU)
            self.stop()
            return {"outcome": "hang" if hang else "crash", "text": "no answer", "seconds": 0.0, "peak": 0}
        return {**reply, "peak": reply["peak"] - self._libraries}

    def _start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        ready = self._line(120)
        if ready is None:
            message = "the child process did not start"
            raise RuntimeError(message)
        self._libraries = ready["peak"]

    def _line(self, seconds: float) -> dict[str, object] | None:
        """Next answer; None when the process died or is silent for so long."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def _ended(self) -> int | None:
        """Exit status; None while it runs. One whose output has ended is given a moment."""
        if select.select([self._process.stdout], [], [], 0)[0]:
            return self._process.wait(10)
        return self._process.poll()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


def run(folder: Path, seeds: range, keep: Path | None = None) -> Report:
    """Make and open the files of some seeds.

    Parameters
    ----------
    folder
        Empty folder to work in.
    seeds
        Numbers of the files.
    keep
        Where files that made trouble are put.
    """
    report = Report()
    outside = _outside(folder)
    sound = sound_files(folder / "sound")
    root = folder / "root"
    root.mkdir()
    watch, child = Watch(outside.parent), Child()
    try:
        for n, seed in enumerate(seeds):
            if n % _BATCH == 0:
                child.stop()
            path = root / f"{seed}.h5ad"
            said = write_hostile(path, seed, sound, outside)
            content = path.read_bytes()
            watch.touched()  # writing a link may look at where it leads
            reply = child.open(path)
            if watch.touched() or path.read_bytes() != content or os.listdir(root) != [path.name]:
                reply |= {"outcome": "touched"}
            _note(report, said, reply)
            if keep is not None and reply["outcome"] not in ("read", "refused"):
                (keep / path.name).write_bytes(content)
            path.unlink()
    finally:
        child.stop()
        watch.close()
    return report


def _outside(folder: Path) -> Path:
    """Make the file, a sound one, that links lead to; with the first of a numbered series beside it."""
    place = folder / "outside"
    place.mkdir()
    for name in ("secret.h5", "secret0.h5"):
        with h5py.File(place / name, "w") as file:
            file.create_dataset("X", data=np.ones((400, 300)), maxshape=(None, 300))
    return place / "secret.h5"


def _note(report: Report, said: str, reply: dict[str, object]) -> None:
    report.files += 1
    report.outcomes[reply["outcome"]] += 1
    report.peak_bytes = max(report.peak_bytes, reply["peak"])
    report.slowest = max(report.slowest, (reply["seconds"], said))
    if reply["outcome"] not in ("read", "refused"):
        report.problems.append(f"{said}: {reply['outcome']}\n{reply['text']}")
