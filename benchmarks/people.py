"""What somebody does in one session of the app, and what came of it."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

PATIENCE = 300
"""Seconds that somebody waits for a page, or for what is on its way to it."""

_GENES = ("CD3E", "LYZ", "NKG7", "CD79A", "GNLY", "CST3", "PPBP", "FTL")
_PAGES = ("Data", "Annotation", "GRN", "Reconstruction", "Model")


@dataclass
class Seen:
    """What all of them saw.

    Attributes
    ----------
    seconds
        Action -> how long the page took to react, each time.
    errors, lost
        In words.
    kept
        Results that were still there after a reload.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    kept: int = 0


def project(number: int) -> str:
    """Name of somebody's project."""
    return f"{random.Random(number).getrandbits(64):016x}"


class Person(ABC):
    """One session: a file and a project of their own.

    Parameters
    ----------
    address
        Of the server.
    number
        Who it is, which file is theirs, and the seed of what they do.
    seen
        Where they write what they see.
    """

    def __init__(self, address: str, number: int, seen: Seen) -> None:
        self.address, self.seen = address, seen
        self.query = {"data": f"cells{number}.h5ad", "project": project(number)}
        self.name, self._random = self.query["data"], random.Random(number)
        self._sets: list[str] = []
        self._knocked_out = ""
        self._gene = ""

    async def arrive(self) -> None:
        """Open the file's map, and have it made unless it is there."""
        await self._try(self.begin)

    async def work(self, minutes: float) -> None:
        """Do one thing after the other until it is time."""
        until = time.monotonic() + 60 * minutes
        deeds = [self._colour, self._colour, self._draw, self._walk, self._reload, self._knock_out]
        turn = self._random.randrange(len(deeds))
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(2, 8))  # somebody looks at what is there
            await self._try(deeds[turn % len(deeds)])
            turn += 1
        await self._try(self._reload)
        await self.leave()

    async def timed(self, what: str, reaction: Awaitable[object]) -> None:
        """Wait for a reaction, and note how long it took."""
        began = time.perf_counter()
        await reaction
        self.seen.seconds[what].append(time.perf_counter() - began)

    @abstractmethod
    async def begin(self) -> None:
        """Open the file's map, and have it made unless it is there."""

    @abstractmethod
    async def leave(self) -> None:
        """Close everything."""

    @abstractmethod
    async def open(self, page: str, **query: str) -> None:
        """Load a page by its address, as a new session."""

    @abstractmethod
    async def to_the_map(self) -> None:
        """See the map, loading its page where another is open."""

    @abstractmethod
    async def colour(self, gene: str) -> None:
        """Colour the map by a gene, and see it named over the picture."""

    @abstractmethod
    async def draw(self, name: str) -> None:
        """Draw around cells and save them as a set."""

    @abstractmethod
    async def walk(self, title: str) -> None:
        """Go to another page by the sidebar, and see its title."""

    @abstractmethod
    async def begin_knockout(self) -> bool:
        """Have the gene on the page knocked out; False where other work goes on or the result is there."""

    @abstractmethod
    async def sees(self, text: str) -> bool:
        """Whether something is on the page, or comes to it within `PATIENCE`."""

    @abstractmethod
    async def complaint(self) -> str:
        """What the page says went wrong inside; "" for nothing."""

    async def _try(self, deed: Callable[[], Awaitable[None]]) -> None:
        try:
            await deed()
            found = await self.complaint()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what the run is to find
            found = f"{type(error).__name__}: {str(error)[:1500]}"
        if found:
            self.seen.errors.append(f"{self.name}: {deed.__name__}: {found}")
            print(self.seen.errors[-1], file=sys.stderr, flush=True)

    async def _colour(self) -> None:
        await self.to_the_map()
        self._gene = self._random.choice([gene for gene in _GENES if gene != self._gene])
        await self.colour(self._gene)

    async def _draw(self) -> None:
        await self.to_the_map()
        name = f"set {len(self._sets) + 1}"
        await self.draw(name)
        await self._note(name)
        self._sets.append(name)

    async def _walk(self) -> None:
        await self.walk(self._random.choice(_PAGES))

    async def _reload(self) -> None:
        await self.open("embedding")
        await self.to_the_map()
        for name in self._sets:
            await self._note(name)

    async def _knock_out(self) -> None:
        """Look at what came of the last one, and begin another when it has ended; nobody waits before the screen."""
        gene = self._random.choice(_GENES)
        await self.open("knockout", gene=gene)
        if self._knocked_out:
            await self._note(f"{self._knocked_out} knocked out")
        if await self.begin_knockout():
            self._knocked_out = gene
            await self._note(f"{gene} knocked out")

    async def _note(self, text: str) -> None:
        """Count a result that is there, or is not."""
        if await self.sees(text):
            self.seen.kept += 1
        else:
            self.seen.lost.append(f"{self.name}: {text}")
