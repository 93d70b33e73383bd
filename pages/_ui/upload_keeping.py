"""What becomes of uploads: how much they may take together, and how long one is kept that nobody uses.

When a file was last used stands in its time of access, which is set here; its time of change is never touched.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from scdiva_core.errors import ScDiVaError
from scdiva_core.jobs import JobQueue
from scdiva_core.store import home

_DAY, _HOUR = 24 * 3600, 3600
_DAILY = "upload-retention"
_STALE_SECONDS = _DAY  # an unfinished file untouched for so long belongs to a server that was killed


def uploads_folder() -> Path:
    """Folder of the uploaded files, ``uploads/<sha256>.h5ad`` below `home`."""
    folder = home() / "uploads"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def quota_bytes() -> int | None:
    """Most that all uploads together may take: ``SCDIVA_UPLOAD_QUOTA_GB`` (10^9 bytes each); None when not set.

    Raises
    ------
    ScDiVaError
        If the variable is not a positive number.
    """
    if not os.environ.get("SCDIVA_UPLOAD_QUOTA_GB"):
        return None
    return int(positive("SCDIVA_UPLOAD_QUOTA_GB", "", "gigabytes") * 1e9)


def keep_days() -> float:
    """Days that an upload is kept after its last use: ``SCDIVA_UPLOAD_DAYS``, 30 by default.

    Raises
    ------
    ScDiVaError
        If the variable is not a positive number.
    """
    return positive("SCDIVA_UPLOAD_DAYS", "30", "days")


def positive(variable: str, default: str, unit: str) -> float:
    """Positive number of an environment variable.

    Parameters
    ----------
    variable, default, unit
        Its name, what it is when not set, and what it counts, for the message.

    Raises
    ------
    ScDiVaError
        It is none.
    """
    text = os.environ.get(variable) or default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e12:  # NaN fails as well
        message = f"{variable} is {text!r}, not a number of {unit}."
        raise ScDiVaError(message, f"Set it to a number such as {default or 100} and start the server again.")
    return number


def note_use(path: Path) -> None:
    """Set the time of access, at most once an hour; the time of change, by which caches know the file, stays.

    Parameters
    ----------
    path
        An upload.
    """
    with suppress(OSError):
        found = path.stat()
        if abs(time.time() - found.st_atime) > _HOUR:
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))


def remove_unused() -> list[str]:
    """Remove uploads that nobody has used for `keep_days`; results computed from them stay.

    A file that a job waits for, or that any process has open (HDF5 keeps a lock on it), is never removed. A clock
    that was set back makes files look young, and they are kept.

    Returns
    -------
    list of str
        Hashes of the files removed.

    Raises
    ------
    ScDiVaError
        If the setting is no number, or the table of jobs cannot be read; then nothing is removed.
    """
    oldest, needed, removed = time.time() - keep_days() * _DAY, _wanted_by_jobs(), []
    for path in sorted(uploads_folder().glob("*.h5ad")):
        with suppress(OSError):
            found = path.stat()
            if max(found.st_atime, found.st_mtime) < oldest and path.stem not in needed and _unlinked(path):
                removed.append(path.stem)
    return removed


def tidy() -> None:
    """Remove what a killed server left and what nobody uses, now and then once a day."""
    _remove_stale(uploads_folder())
    with suppress(ScDiVaError):  # a setting that is no number is told on the upload tab
        remove_unused()
    if _DAILY not in (thread.name for thread in threading.enumerate()):
        threading.Thread(target=_tidy_daily, name=_DAILY, daemon=True).start()


def _tidy_daily() -> None:
    while True:
        time.sleep(_DAY)
        with suppress(ScDiVaError, OSError):
            remove_unused()


def _wanted_by_jobs() -> str:
    """Payloads of all jobs that wait or run, in one text."""
    folder = home() / "jobs"
    if not (folder / "jobs.sqlite").exists():
        return ""
    with JobQueue(folder).transaction(write=False) as table:
        rows = table.execute("SELECT payload FROM jobs WHERE state IN ('queued', 'running')").fetchall()
    return "\n".join(row["payload"] for row in rows)


def _unlinked(path: Path) -> bool:
    """Remove a file unless somebody has it open."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
    return True


def used() -> int:
    """Bytes that all uploads take, unfinished ones included."""
    total = 0
    for entry in os.scandir(uploads_folder()):
        with suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def _remove_stale(folder: Path) -> None:
    for path in folder.glob(".upload-*.part"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
