"""A session without a browser is one to the server: what the benchmark of many people stands on."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import serve

from benchmarks.tab import Tab

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


def test_a_tab_without_a_browser_has_cells_embedded_and_coloured_by_a_gene(server: str) -> None:
    async def visit() -> None:
        query = {"data": "few.h5ad", "colour": "Gene …", "project": "00000000000000ac"}
        async with Tab(server, "embedding", query) as tab:
            await asyncio.wait_for(tab.load(), _PATIENCE)
            if not tab.figures():
                await asyncio.wait_for(tab.click(key="embed"), _PATIENCE)
                assert await tab.until(lambda: bool(tab.figures()), _PATIENCE), tab.text()
                await asyncio.wait_for(tab.choose("Colour by", "Gene …"), _PATIENCE)
            await asyncio.wait_for(tab.choose_gene("Gene", "LYZ"), _PATIENCE)
            assert " LYZ," in tab.figures()[0]["layout"]["title"]["text"]
            with pytest.raises(LookupError, match="'Gene' offers no 'NOTAGENE'"):
                await tab.choose_gene("Gene", "NOTAGENE")

    asyncio.run(visit())


def test_a_tab_says_when_the_server_has_gone() -> None:
    async def visit() -> None:
        async with serve(lambda connection: connection.recv(), "localhost", 0) as closing:
            port = closing.sockets[0].getsockname()[1]
            async with Tab(f"http://localhost:{port}", "", {}) as tab:
                with pytest.raises(ConnectionError, match="closed the connection"):
                    await asyncio.wait_for(tab.load(), _PATIENCE)

    asyncio.run(visit())
