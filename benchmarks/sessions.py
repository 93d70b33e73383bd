"""``python -m benchmarks.sessions -n 22 --browsers 2 --minutes 10``: as many people at work at once on one server.

Each has a file and a project of their own: they look at its map, colour it by genes, draw around cells and keep them as
a set, have genes knocked out by the worker, walk through the pages, and reload. What went wrong is counted: an error on
a page or in a browser's console, and whatever is gone after a reload. Some sit before real browsers, whose drawing
without a graphics card takes the server's cores from it; the other browsers draw nothing, see `benchmarks.tab`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import anndata
import numpy as np
import psutil
from playwright.async_api import Browser, async_playwright

from benchmarks.browser import ROOT, PeakMemory, chromium, resident_bytes, serving
from benchmarks.people import Person, Seen, project
from benchmarks.people_browser import BrowserPerson
from benchmarks.people_tab import TabPerson
from benchmarks.timing import markdown
from scdiva_core.jobs import JobQueue
from scdiva_core.tasks.neighbors import ProjectionSettings

DEMO = ROOT / "assets" / "demo" / "tenx_pbmc3k.h5ad"
_EMBED = "scdiva_core.engine_jobs:embed"
_FORGOTTEN = 150  # seconds after which the server has let go of sessions whose browser went away


def main() -> None:
    """Let them work, and print what they saw."""
    parser = argparse.ArgumentParser(prog="benchmarks.sessions", description=__doc__)
    parser.add_argument("-n", "--people", type=int, default=22)
    parser.add_argument("--browsers", type=int, default=2, help="how many of them sit before a real browser")
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
        jobs.append(queue.submit(_EMBED, payload, title=f"Embed {path.name}", owner=project(number)))
    while any(queue.get(job.id).active for job in jobs):
        await asyncio.sleep(1)
    return time.perf_counter() - began


async def _measure(folder: Path, address: str, server: psutil.Process, asked: argparse.Namespace) -> str:
    seen, first = Seen(), Seen()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**chromium())
        # One who does everything once: what the server loads and compiles then stays, whoever comes.
        one = await BrowserPerson.come(browser, address, asked.people, first)
        await one.arrive()
        await one.work(1)
        await asyncio.sleep(_FORGOTTEN)
        before = _megabytes(server)
        embedding = await _embedded(folder, asked.people)
        with PeakMemory(server) as peak:
            people = [await _person(browser, address, number, asked, seen) for number in range(asked.people)]
            await asyncio.gather(*(person.arrive() for person in people))
            await asyncio.gather(*(person.work(asked.minutes) for person in people))
        await browser.close()
    await asyncio.sleep(_FORGOTTEN)
    after = _megabytes(server)
    told = f"Their {asked.people} files of {asked.cells} cells were embedded in {embedding:.0f} s, through the queue."
    return _report(seen, first, asked, (before, peak.bytes / 1e6, after)) + "\n" + told


async def _person(browser: Browser, address: str, number: int, asked: argparse.Namespace, seen: Seen) -> Person:
    if number < asked.browsers:
        return await BrowserPerson.come(browser, address, number, seen)
    return TabPerson(address, number, seen)


def _megabytes(server: psutil.Process) -> float:
    """Memory of the server alone: its workers leave by themselves when they hold much."""
    return resident_bytes(server) / 1e6


def _report(seen: Seen, first: Seen, asked: argparse.Namespace, memory: tuple[float, float, float]) -> str:
    rows = []
    reactions = []
    for what, seconds in sorted(seen.seconds.items()):
        reactions += seconds
        rows.append([what, f"{len(seconds)}", *(f"{np.percentile(seconds, share):.2f}" for share in (50, 95, 100))])
    rows.append(["every reaction", f"{len(reactions)}", *(f"{np.percentile(reactions, p):.2f}" for p in (50, 95, 100))])
    before, highest, after = memory
    errors = first.errors + seen.errors
    lines = [
        markdown(
            f"{asked.people} people, {asked.browsers} of them before browsers, for {asked.minutes:g} minutes on "
            f"{os.cpu_count()} cores",
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
