"""A session without a browser is one to the server: what the benchmark of many people stands on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.server import serve

from benchmarks.tab import Tab
from tests.browser.conftest import serving
from tests.tiny_checkpoint import write_tiny_checkpoint

_PATIENCE = 180


def test_a_tab_without_a_browser_walks_and_is_told_what_is_not_there(server: str) -> None:
    async def visit() -> None:
        async with Tab(server, "knockout", {"data": "few.h5ad", "project": "00000000000000ab"}) as tab:
            await asyncio.wait_for(tab.load(), _PATIENCE)
            assert tab.elements("heading")[0].proto.body == "Knockout"
            assert "few\\.h5ad" in tab.text()
            await asyncio.wait_for(tab.walk("Model"), _PATIENCE)
            assert tab.elements("heading")[0].proto.body == "Model"
            with pytest.raises(LookupError, match="no button 'nowhere'"):
                await tab.click(key="nowhere")

    asyncio.run(visit())


def test_what_a_session_held_is_let_go_though_nobody_comes_after_it(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLIT_SERVER_DISCONNECTED_SESSION_TTL", "1")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")

    def is_open(address: str) -> bool:
        port = int(address.rpartition(":")[2])
        (process,) = (child for child in psutil.Process().children() if f"--server.port={port}" in child.cmdline())
        return str(files / "few.h5ad") in {file.path for file in process.open_files()}

    async def visit(address: str) -> None:
        async with Tab(address, "knockout", {"data": "few.h5ad", "project": "00000000000000ac"}) as tab:
            await asyncio.wait_for(tab.load(), _PATIENCE)
            assert is_open(address)

    with serving(checkpoint, tmp_path / "home", files, tmp_path / "log") as address:
        asyncio.run(visit(address))
        deadline = time.monotonic() + _PATIENCE
        while is_open(address):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_tab_says_when_the_server_has_gone() -> None:
    async def visit() -> None:
        async with serve(lambda connection: connection.recv(), "localhost", 0) as closing:
            port = closing.sockets[0].getsockname()[1]
            async with Tab(f"http://localhost:{port}", "", {}) as tab:
                with pytest.raises(ConnectionError, match="closed the connection"):
                    await asyncio.wait_for(tab.load(), _PATIENCE)

    asyncio.run(visit())
