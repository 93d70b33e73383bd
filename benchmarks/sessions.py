"""``python -m benchmarks.sessions -n 20 --minutes 10``: people at work in as many browser sessions on one server.

Each has a file and a project of their own: they look at its map, colour it by genes, draw around cells and keep them as
a set, have genes knocked out by the worker, walk through the pages, and reload. What went wrong is counted: an error on
a page or in a browser's console, and whatever is gone after a reload. The browsers share the machine's cores with the
server, so a reaction here is slower than that of a server with its users elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anndata
import numpy as np
import psutil
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from benchmarks.browser import IDLE, PICTURE, ROOT, PeakMemory, chromium, resident_bytes, serving
from benchmarks.timing import markdown
from scdiva_core.jobs import JobQueue
from scdiva_core.tasks.neighbors import ProjectionSettings

DEMO = ROOT / "assets" / "demo" / "tenx_pbmc3k.h5ad"
_GENES = ("CD3E", "LYZ", "NKG7", "CD79A", "GNLY", "CST3", "PPBP", "FTL")
_PAGES = ("Data", "Annotation", "GRN", "Reconstruction", "Model")
_PATIENCE = 300_000  # ms that somebody waits for a page
_EMBED = "scdiva_core.engine_jobs:embed"
_FORGOTTEN = 150  # seconds after which the server has let go of sessions whose browser went away


def main() -> None:
    """Let them work, and print what they saw."""
    parser = argparse.ArgumentParser(prog="benchmarks.sessions", description=__doc__)
    parser.add_argument("-n", "--people", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--cells", type=int, default=100, help="cells of each one's file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        files.mkdir()
        _write_files(files, asked.people, asked.cells)
        with serving(Path(folder) / "home", files) as (address, server):
            print(asyncio.run(_measure(Path(folder), address, server, asked)))


def _write_files(folder: Path, people: int, n_cells: int) -> None:
    """Another draw of real cells for each of them, and one for whoever comes first."""
    cells = anndata.read_h5ad(DEMO)
    for number in range(people + 1):
        rows = np.random.default_rng(number).choice(cells.n_obs, n_cells, replace=False)
        cells[np.sort(rows)].copy().write_h5ad(folder / f"cells{number}.h5ad")


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


class Person:
    """One session: a page, a file, a project.

    Parameters
    ----------
    context
        A browser profile of their own.
    page
        Its one page.
    address
        Of the server.
    number
        Who it is, which file is theirs, and the seed of what they do.
    seen
        Where they write what they see.
    """

    def __init__(self, context: BrowserContext, page: Page, address: str, number: int, seen: Seen) -> None:
        self._context, self._page, self._address, self._seen = context, page, address, seen
        self._name, self._random = f"cells{number}.h5ad", random.Random(number)
        self._sets: list[str] = []
        self._knocked_out = ""
        self._project = _project(number)
        page.on("pageerror", lambda error: seen.errors.append(f"{self._name}: {error}"))
        page.on("console", self._console)

    def _console(self, message: object) -> None:
        # After a deep link Streamlit's client looks for its server below each part of the path, nearest first.
        if message.type == "error" and "/_stcore/" not in (message.location or {}).get("url", ""):
            self._seen.errors.append(f"{self._name}: console: {message.text[:300]}")

    async def arrive(self) -> None:
        """Open the file."""
        await self._try(self._begin)

    async def work(self, minutes: float) -> None:
        """Do one thing after the other until it is time."""
        until = time.monotonic() + 60 * minutes
        deeds = [self._gene, self._gene, self._draw, self._walk, self._reload, self._knock_out]
        turn = self._random.randrange(len(deeds))
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(2, 8))  # somebody looks at what is there
            await self._try(deeds[turn % len(deeds)])
            turn += 1
        await self._try(self._reload)
        await self._context.close()

    async def _try(self, deed: Callable[[], Awaitable[None]]) -> None:
        try:
            await deed()
            body = await self._page.inner_text("body")
            if "Traceback" in body or await self._page.get_by_test_id("stException").count():
                self._seen.errors.append(f"{self._name}: {deed.__name__}: a stack trace on the page")
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what the run is to find
            self._seen.errors.append(f"{self._name}: {deed.__name__}: {str(error)[:1500]}")
            print(self._seen.errors[-1], file=sys.stderr, flush=True)

    async def _timed(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Act, and wait until the page has reacted."""
        began = time.perf_counter()
        await act()
        await self._page.wait_for_timeout(100)  # the click's way to the server
        await expect(self._page.locator(IDLE)).to_be_visible(timeout=_PATIENCE)
        self._seen.seconds[what].append(time.perf_counter() - began - 0.1)

    def _url(self, page: str, more: str = "") -> str:
        return f"{self._address}/{page}?data={self._name}&project={self._project}{more}"

    async def _open(self, page: str, more: str = "") -> None:
        async def go() -> None:
            await self._page.goto(self._url(page, more), timeout=_PATIENCE)
            await expect(self._page.locator("h1").first).to_be_visible(timeout=_PATIENCE)

        await self._timed("page opened by its address", go)

    async def _begin(self) -> None:
        """Look at the map; have the file embedded unless it is."""
        await self._open("embedding")
        button = self._page.locator(".st-key-embed button")
        await expect(button.or_(self._page.locator(PICTURE)).first).to_be_visible(timeout=_PATIENCE)
        if await button.count():
            await self._timed("work begun", button.click)
        await self._picture()

    async def _picture(self) -> None:
        await expect(self._page.locator(PICTURE).first).to_be_visible(timeout=_PATIENCE)

    async def _at_the_map(self) -> None:
        if "/embedding" not in self._page.url or not await self._page.locator(PICTURE).count():
            await self._open("embedding")
            await self._picture()

    async def _choose(self, label: str, text: str) -> None:
        box = self._page.get_by_role("combobox", name=label, exact=True)
        await box.click()
        await self._page.keyboard.type(text)  # as people do: to clear the box first takes it seconds
        option = self._page.get_by_role("option", name=text, exact=True)
        await self._timed("colour", option.click)

    async def _gene(self) -> None:
        await self._at_the_map()
        if not await self._page.get_by_role("combobox", name="Gene", exact=True).count():
            await self._choose("Colour by", "Gene …")
        gene = self._random.choice(_GENES)
        await self._choose("Gene", gene)
        await expect(self._page.locator(".js-plotly-plot .gtitle").first).to_contain_text(gene, timeout=_PATIENCE)

    async def _draw(self) -> None:
        await self._at_the_map()
        picture = self._page.locator(PICTURE).first
        await picture.scroll_into_view_if_needed()
        area = await picture.bounding_box()
        corners = [(0.02, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
        points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
        mouse = self._page.mouse
        await mouse.move(*points[0])
        await mouse.down()
        for point in points[1:]:
            await mouse.move(*point, steps=8)
        await self._timed("drawn around cells", mouse.up)
        name = f"set {len(self._sets) + 1}"
        await self._page.get_by_label("Name", exact=True).fill(name, timeout=_PATIENCE)
        await self._timed("set saved", self._page.get_by_role("button", name="Save as cell set").click)
        await self._has(name)
        self._sets.append(name)

    async def _has(self, name: str) -> None:
        await expect(self._page.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)

    async def _walk(self) -> None:
        title = self._random.choice(_PAGES)
        link = self._page.get_by_test_id("stSidebarNavLink").filter(has_text=title)
        await self._timed("walked to another page", link.click)
        await expect(self._page.locator("h1").first).to_have_text(title, timeout=_PATIENCE)

    async def _reload(self) -> None:
        await self._open("embedding")
        await self._picture()
        for name in self._sets:
            try:
                await self._has(name)
                self._seen.kept += 1
            except AssertionError:
                self._seen.lost.append(f"{self._name}: {name}")

    async def _knock_out(self) -> None:
        """Look at what came of the last one, and begin another when it has ended; nobody waits before the screen."""
        gene = self._random.choice(_GENES)
        await self._open("knockout", f"&gene={gene}")
        if self._knocked_out:
            await self._is_there(f"{self._knocked_out} knocked out")
        busy = self._page.get_by_test_id("stSidebar").get_by_role("button", name="Cancel", exact=True)
        button = self._page.locator(".st-key-ko-run button").first
        if not await busy.count() and await button.is_enabled(timeout=_PATIENCE):
            await self._timed("work begun", button.click)
            self._knocked_out = gene
            await self._is_there(f"{gene} knocked out")

    async def _is_there(self, title: str) -> None:
        """Whether a job, or its result, is on the page."""
        try:
            await expect(self._page.get_by_text(title).first).to_be_visible(timeout=60_000)
            self._seen.kept += 1
        except AssertionError:
            self._seen.lost.append(f"{self._name}: {title}")


def _project(number: int) -> str:
    return f"{random.Random(number).getrandbits(64):016x}"


async def _embedded(folder: Path, people: int) -> float:
    """Have everybody's file embedded, as their pages would ask for it; seconds until the last one is.

    Done before they come: twenty browsers on the server's own cores would leave its worker next to nothing.
    """
    queue, began = JobQueue(folder / "home" / "jobs"), time.perf_counter()
    jobs = []
    for number in range(people):
        path = folder / "files" / f"cells{number}.h5ad"
        payload = {
            **{"path": str(path), "checkpoint": "default", "device": "auto"},
            **{"matrix": None, "gene_column": None, "values": "auto", "settings": asdict(ProjectionSettings())},
        }
        jobs.append(queue.submit(_EMBED, payload, title=f"Embed {path.name}", owner=_project(number)))
    while any(queue.get(job.id).active for job in jobs):
        await asyncio.sleep(1)
    return time.perf_counter() - began


async def _measure(folder: Path, address: str, server: psutil.Process, asked: argparse.Namespace) -> str:
    seen, first = Seen(), Seen()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**chromium())
        # One who does everything once: what the server loads and compiles then stays, whoever comes.
        one = await _person(browser, address, asked.people, first)
        await one.arrive()
        await one.work(1)
        await asyncio.sleep(_FORGOTTEN)
        before = _megabytes(server)
        embedding = await _embedded(folder, asked.people)
        with PeakMemory(server) as peak:
            people = [await _person(browser, address, number, seen) for number in range(asked.people)]
            await asyncio.gather(*(person.arrive() for person in people))
            await asyncio.gather(*(person.work(asked.minutes) for person in people))
        await browser.close()
    await asyncio.sleep(_FORGOTTEN)
    after = _megabytes(server)
    told = f"Their {asked.people} files of {asked.cells} cells were embedded in {embedding:.0f} s, through the queue."
    return _report(seen, first, asked, (before, peak.bytes / 1e6, after)) + "\n" + told


async def _person(browser: Browser, address: str, number: int, seen: Seen) -> Person:
    # A quarter of the pixels: one process draws for all of them, without a graphics card.
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=0.5)
    context.set_default_timeout(_PATIENCE)
    return Person(context, await context.new_page(), address, number, seen)


def _megabytes(server: psutil.Process) -> float:
    """Memory of the server alone: its workers leave by themselves when they hold much."""
    return resident_bytes(server) / 1e6


def _report(seen: Seen, first: Seen, asked: argparse.Namespace, memory: tuple[float, float, float]) -> str:
    rows = []
    reactions = []
    for what, seconds in sorted(seen.seconds.items()):
        if "waiting" not in what:
            reactions += seconds
        rows.append([what, f"{len(seconds)}", *(f"{np.percentile(seconds, share):.2f}" for share in (50, 95, 100))])
    rows.append(["every reaction", f"{len(reactions)}", *(f"{np.percentile(reactions, p):.2f}" for p in (50, 95, 100))])
    before, highest, after = memory
    errors = first.errors + seen.errors
    lines = [
        markdown(
            f"{asked.people} people for {asked.minutes:g} minutes, {os.cpu_count()} cores with their browsers",
            ["what", "times", "median, s", "p95, s", "longest, s"],
            rows,
        ),
        f"\n{len(errors)} errors, {len(seen.lost)} results lost, {seen.kept} found again after a reload.",
        f"Memory of the server: {before:.0f} MB before, {highest:.0f} MB at most, {after:.0f} MB "
        f"{_FORGOTTEN} s after they left ({after / before - 1:+.0%}).",
        *(f"- {text}" for text in [*errors, *seen.lost][:50]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
