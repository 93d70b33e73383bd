"""What sessions leave behind goes back to the system: for hours of many people, and for the server's other programs."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress

_WAIT_SECONDS = 10.0  # the session that lets go is still being taken apart, and others may follow

_lock = threading.Lock()
_waiting: list[threading.Timer] = []


def give_back_soon() -> None:
    """Give back what is no longer used, once for all that leave at about the same time.

    Python looks seldom at what is old, and glibc keeps what Python frees.
    """
    with _lock:
        if not _waiting:
            timer = threading.Timer(_WAIT_SECONDS, _give_back)
            timer.daemon = True
            _waiting.append(timer)
            timer.start()


def _give_back() -> None:
    with _lock:
        _waiting.clear()
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
