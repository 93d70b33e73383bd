"""The running app: a server with a home of its own and a small checkpoint, and a Chromium to look at it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from benchmarks.browser import IDLE, PICTURE
from benchmarks.browser import chromium as chromium_options
from tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PBMC = ROOT / "assets" / "demo" / "tenx_pbmc3k.h5ad"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "user_agent": "Mobile"}
_PATIENCE = 180_000  # ms for a server that has just started beside other tests: no test is about speed
expect.set_options(timeout=30_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps everything."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root: real cells in a small file, and a text file that calls itself .h5ad."""
    folder = tmp_path_factory.mktemp("files")
    anndata.read_h5ad(PBMC)[::9].copy().write_h5ad(folder / "few.h5ad")
    (folder / "text.h5ad").write_text("cell,gene\n" * 100, encoding="utf-8")
    return folder


@contextmanager
def serving(checkpoint: Path, home: Path, files: Path, log: Path) -> Iterator[str]:
    """Start the app on a free port and give its address; its output is shown when it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "SCDIVA_HOME": str(home),
        "SCDIVA_DATA_ROOT": str(files),
        "SCDIVA_CHECKPOINT": str(checkpoint),
        "SCDIVA_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}"]
    command += ["--server.headless=true", "--server.fileWatcherType=none"]
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(f"http://localhost:{port}/_stcore/health", child, log)
        yield f"http://localhost:{port}"
    finally:
        child.terminate()
        child.wait(timeout=20)
    # A browser that goes away while it connects leaves a traceback of Streamlit's own.
    ours = [name for name in ("Uncaught", "scdiva_core/", f"{ROOT.name}/pages/") if name in log.read_text()]
    assert not ours, log.read_text()


@pytest.fixture(scope="session")
def server(home: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a fresh server."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    with serving(checkpoint, home, files, home / "server.log") as address:
        yield address


def _wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A Chromium of this machine; closed after this folder, for Playwright keeps the thread's event loop running."""
    options = chromium_options()
    if options["executable_path"] is None:
        pytest.skip("needs a Chromium or a Chrome on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One session of the app, with everything that went wrong in its console."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> None:
        """Go to a page of the app and wait until it is drawn."""
        self.page.goto(self.address + path)
        self.settled()

    def settled(self) -> None:
        """Wait until the script has run and its title is there."""
        expect(self.page.locator("h1").first).to_be_visible(timeout=_PATIENCE)
        expect(self.page.locator(IDLE)).to_be_visible(timeout=_PATIENCE)

    def go(self, title: str) -> None:
        """Follow the navigation."""
        self.page.get_by_test_id("stSidebarNavLink").filter(has_text=title).click()
        expect(self.page.locator("h1").first).to_have_text(title)
        self.settled()

    def picture(self) -> None:
        """Wait for the scatter plot of the Embedding page."""
        expect(self.page.locator(PICTURE).first).to_be_visible(timeout=90_000)
        self.settled()

    def lasso(self) -> None:
        """Draw around the lower left half of the picture."""
        area = self.page.locator(PICTURE).first.bounding_box()
        corners = [(0.02, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
        points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=10)
        self.page.mouse.up()


@pytest.fixture
def visit(chromium: Browser, server: str, home: Path) -> Iterator[Callable[..., Visit]]:
    """Begin sessions; at the end, none may have an error in its console or the text of a stack trace."""
    visits: list[Visit] = []
    contexts: list[BrowserContext] = []

    def begin(**options: object) -> Visit:
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        new = Visit(context.new_page(), server)
        new.page.on("console", lambda message: _note(message, new.problems))
        new.page.on("pageerror", lambda error: new.problems.append(str(error)))
        visits.append(new)
        return new

    yield begin
    for each in visits:
        assert each.problems == []
        assert "Traceback" not in each.page.locator("body").inner_text()
    for context in contexts:
        context.close()


def _note(message: ConsoleMessage, problems: list[str]) -> None:
    # After a deep link Streamlit's client looks for its server below each part of the path, nearest first.
    probing = "/_stcore/" in (message.location or {}).get("url", "")
    if message.type == "error" and not probing:
        problems.append(f"{message.text} ({message.location})")
