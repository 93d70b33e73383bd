"""Somebody whose browser draws nothing: all that the server has to do for a session, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from benchmarks.people import PATIENCE, Person, Seen
from benchmarks.tab import Tab

_PICTURE = "picture-X_scdiva"
_EVERYWHERE = [-1000.0, 1000.0, 1000.0, -1000.0]


class TabPerson(Person):
    """One session in a `Tab`; parameters as of `Person`."""

    def __init__(self, address: str, number: int, seen: Seen) -> None:
        super().__init__(address, number, seen)
        self._session = AsyncExitStack()
        self._tab: Tab

    async def begin(self) -> None:
        """Open the file's map, and have it made unless it is there."""
        await self.open("embedding")
        if not self._has("plotly_chart", _PICTURE):
            await self._reaction("work begun", self._tab.click(key="embed"))
            await self._tab.until(lambda: self._has("plotly_chart", _PICTURE), PATIENCE)

    async def leave(self) -> None:
        """Close the tab."""
        await self._session.aclose()

    async def open(self, page: str, **query: str) -> None:
        """Load a page by its address, in a new session as a browser does."""
        await self.leave()
        self._tab = Tab(self.address, page, self.query | query)

        async def load() -> None:
            await self._session.enter_async_context(self._tab)
            await self._tab.load()

        await self._reaction("page opened by its address", load())

    async def to_the_map(self) -> None:
        """See the map, loading its page where another is open."""
        if not self._has("plotly_chart", _PICTURE):
            await self.open("embedding")
        self._tab.element("plotly_chart", key=_PICTURE)

    async def colour(self, gene: str) -> None:
        """Colour the map by a gene, and see it named over the picture."""
        if "Gene" not in self._tab.gene_fields():
            await self._reaction("colour", self._tab.choose("Colour by", "Gene …"))
        await self._reaction("colour", self._tab.choose_gene("Gene", gene))
        title = self._tab.figures()[0]["layout"]["title"]["text"]
        if f" {gene}," not in title:
            self.seen.errors.append(f"{self.name}: the picture is called {title!r} after {gene} was chosen")

    async def draw(self, name: str) -> None:
        """Draw around cells and save them as a set."""
        shape = (_EVERYWHERE, sorted(_EVERYWHERE))
        await self._reaction("drawn around cells", self._tab.lasso(_PICTURE, *shape))
        if "cells selected" not in self._tab.text():
            self.seen.errors.append(f"{self.name}: nothing is selected after cells were drawn around")
        self._tab.fill("Name", name)
        await self._reaction("set saved", self._tab.click(label="Save as cell set"))

    async def walk(self, title: str) -> None:
        """Go to another page by the sidebar, and see its title."""
        await self._reaction("walked to another page", self._tab.walk(title))
        if (found := self._tab.elements("heading")[0].proto.body) != title:
            self.seen.errors.append(f"{self.name}: {found!r} is the title of the page {title!r}")

    async def begin_knockout(self) -> bool:
        """Have the gene on the page knocked out; False where other work goes on or the result is there."""
        busy = any(drawn.proto.label == "Cancel" for drawn in self._tab.elements("button"))
        if busy or self._tab.element("button", key="ko-run").proto.disabled:
            return False
        await self._reaction("work begun", self._tab.click(key="ko-run"))
        return True

    async def sees(self, text: str) -> bool:
        """Whether something is on the page, or comes to it within `PATIENCE`."""
        return await self._tab.until(lambda: text in self._tab.text(), PATIENCE)

    async def complaint(self) -> str:
        """What the page says went wrong inside; "" for nothing."""
        return "".join(str(drawn.proto)[:1500] for drawn in self._tab.elements("exception"))

    async def _reaction(self, what: str, act: Awaitable[None]) -> None:
        await self.timed(what, asyncio.wait_for(act, PATIENCE))

    def _has(self, kind: str, key: str) -> bool:
        try:
            self._tab.element(kind, key=key)
        except LookupError:
            return False
        return True
