"""How much work may wait and run at once, as the server's environment says."""

from __future__ import annotations

import os

from scdiva_core.errors import JobError

_PER_USER, _WAITING, _WORKERS = 20, 200, 1


def jobs_per_user() -> int:
    """Return how many jobs of one owner may wait or run: SCDIVA_JOBS_PER_USER, 20 by default.

    Raises
    ------
    JobError
        If the variable holds no whole number from 1 up; so do the others here.
    """
    return _whole_number("SCDIVA_JOBS_PER_USER", _PER_USER)


def jobs_waiting() -> int:
    """Return how many jobs of all owners together may wait: SCDIVA_JOBS_WAITING, 200 by default."""
    return _whole_number("SCDIVA_JOBS_WAITING", _WAITING)


def workers() -> int:
    """Return how many jobs of a device run at once: SCDIVA_WORKERS, 1 by default."""
    return _whole_number("SCDIVA_WORKERS", _WORKERS)


def _whole_number(name: str, usual: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return usual
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        msg = f"{name} is {text[:40]!r}, and not a whole number from 1 up."
        raise JobError(msg, f"Set it to a number, or take it away for {usual}, and start the server again.")
    return int(text)
