"""Sessions that have left are let go, with Streamlit's own store of sessions."""

from __future__ import annotations

import asyncio
import weakref
from types import SimpleNamespace

import pytest
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.runtime.session_manager import SessionInfo
from streamlit.runtime.websocket_session_manager import WebsocketSessionManager

from pages._ui import memory

_TTL = 0.2


class Session:
    """What is kept of one: its name, and itself in a circle, as real ones are."""

    def __init__(self, name: str) -> None:
        self.id, self.itself = name, self


def test_they_are_let_go_though_nobody_comes_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemorySessionStorage(ttl_seconds=_TTL)
    manager = WebsocketSessionManager(storage, MemoryUploadedFileManager("/upload"), ScriptCache(), None)
    monkeypatch.setattr(memory, "get_instance", lambda: SimpleNamespace(_session_mgr=manager))
    monkeypatch.setattr(memory.st, "get_option", lambda _: _TTL)

    async def server() -> bool:
        async with memory.giving_back(None):
            held = Session("left")
            storage.save(SessionInfo(client=None, session=held))
            gone = weakref.ref(held)
            del held
            await asyncio.sleep(_TTL / 2)
            assert gone() is not None, "it may still come back"
            for _ in range(100):
                await asyncio.sleep(_TTL / 4)
                if gone() is None:
                    return True
        return False

    assert asyncio.run(server())


def test_a_server_that_no_longer_looks_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "get_instance", SimpleNamespace)  # of another Streamlit: it keeps sessions elsewhere
    monkeypatch.setattr(memory.st, "get_option", lambda _: _TTL)

    async def server() -> None:
        async with memory.giving_back(None):
            await asyncio.sleep(_TTL)

    asyncio.run(server())
    assert "no longer given back" in caplog.text
    assert "_session_mgr" in caplog.text
