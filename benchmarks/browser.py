"""The app on a port of its own and Chromium before it: what benchmarks and tests in the browser share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "[class*=st-key-picture-] .nsewdrag"
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
_BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# WebGL without a graphics card; a sandbox needs rights that containers lack.
_ARGUMENTS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-rasterization",
    "--disable-gpu-compositing",
]
_LOOK_SECONDS = 0.2


def chromium() -> dict[str, Any]:
    """Options to launch the installed Chromium with; its path is None where there is none."""
    return {"executable_path": next(filter(None, map(shutil.which, _BROWSERS)), None), "args": _ARGUMENTS}


@contextmanager
def serving(home: Path, files: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start the app on a free port: its address and its process.

    Parameters
    ----------
    home
        Its SCDIVA_HOME; the server's output goes to ``server.log`` there.
    files
        Its data root.
    """
    home.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://localhost:{probe.getsockname()[1]}"
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}"]
    command += ["--server.headless=true", "--server.fileWatcherType=none"]
    places = {"SCDIVA_HOME": str(home), "SCDIVA_DATA_ROOT": str(files)}
    log = home / "server.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **places}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(f"{address}/_stcore/health")
        yield address, psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(timeout=30)
    if "Traceback" in (text := log.read_text()):
        print(text[-5000:], file=sys.stderr)


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start")


class PeakMemory:
    """Watches how much memory processes hold, several times a second; use it in a with statement.

    Parameters
    ----------
    process
        The process, see `resident_bytes`.
    children
        Count its children too.

    Attributes
    ----------
    bytes
        The most that was seen.
    """

    def __init__(self, process: psutil.Process, *, children: bool = False) -> None:
        self._process, self._children = process, children
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            self.bytes = max(self.bytes, resident_bytes(self._process, children=self._children))


def resident_bytes(process: psutil.Process, *, children: bool = False) -> int:
    """Memory that a process holds now, with its children where they are to count."""
    held = 0
    with suppress(psutil.NoSuchProcess):
        for one in [process, *(process.children(recursive=True) if children else [])]:
            with suppress(psutil.NoSuchProcess):
                held += one.memory_info().rss
    return held
