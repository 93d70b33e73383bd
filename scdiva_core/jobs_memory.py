"""How much memory a worker may hold, and how much it holds."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from scdiva_core.errors import JobError

_SHARE = 0.8  # of what the machine or its container has; the server and others need the rest
_CGROUPS = Path("/sys/fs/cgroup")


def allowed_bytes() -> int:
    """Return what all workers of a server may hold together.

    SCDIVA_JOB_MEMORY_GB, by default 80 % of the machine's memory or of the container's limit (cgroup version 1 or 2).

    Raises
    ------
    JobError
        If the variable holds no number above 0.
    """
    text = os.environ.get("SCDIVA_JOB_MEMORY_GB", "").strip()
    if not text:
        return int(_SHARE * min([psutil.virtual_memory().total, *_container_limits(_CGROUPS)]))
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        msg = f"SCDIVA_JOB_MEMORY_GB is {text[:40]!r}, and not a number above 0."
        raise JobError(msg, "Set it to gigabytes, or take it away, and start the server again.")
    return int(gigabytes * 1e9)


def held_bytes() -> int:
    """Return what this process and its children hold; files mapped into memory do not count where the system tells."""
    process = psutil.Process()
    total = 0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found = each.memory_info()
            # The system takes pages of mapped files back when it needs them.
            total += found.rss - (found.shared if sys.platform == "linux" else 0)
    return total


def _container_limits(root: Path) -> list[int]:
    """Limits below a cgroup file system, in bytes; none where there is no limit."""
    found = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found.append(int((root / name).read_text()))
    return found
