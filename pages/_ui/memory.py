"""What sessions leave behind goes back to the system: for weeks of many people, and for other programs."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import streamlit as st
from streamlit.runtime import get_instance

_LOG = logging.getLogger(__name__)
_LOOKS = 4  # while a session that has left may come back
_M_ARENA_MAX = -8  # of malloc.h
_HEAPS = 2


@asynccontextmanager
async def giving_back(app: object) -> AsyncIterator[None]:
    """Look after what sessions hold for as long as the server runs; the lifespan of a ``streamlit.App``."""
    # Each run of a page is a thread, and glibc gives threads heaps of their own, up to eight for each core: what one
    # of them has freed the others do not use.
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)
    looking = asyncio.create_task(_look())
    looking.add_done_callback(_tell)
    try:
        yield
    finally:
        looking.cancel()


def _tell(looking: asyncio.Task[None]) -> None:
    """Say why nobody looks any more: the server runs on, and would grow without a word."""
    if not looking.cancelled():
        _LOG.error("Memory of sessions that left is no longer given back.", exc_info=looking.exception())


async def _look() -> None:
    known: set[str] = set()
    while True:
        await asyncio.sleep(st.get_option("server.disconnectedSessionTTL") / _LOOKS)
        present = _sessions()
        if known - present:
            _give_back(everybody_left=not present)
        known = present


def _sessions() -> set[str]:
    """Sessions that are open or may come back.

    Streamlit lets go of one that was away for ``server.disconnectedSessionTTL`` when the next one leaves: the last ones
    would stay for good. It offers no other way to have it look.
    """
    manager = get_instance()._session_mgr
    manager._session_storage._cache.expire()
    return {found.session.id for found in manager.list_sessions()}


def _give_back(*, everybody_left: bool) -> None:
    """Free what is in circles, and have glibc return what Python freed.

    Parameters
    ----------
    everybody_left
        Look through what the engine's libraries made, too, where objects of a session lie that was there when they
        were loaded. It takes half a second, in which nobody is served.
    """
    if everybody_left:
        gc.unfreeze()
    gc.collect()
    if everybody_left:
        gc.freeze()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
