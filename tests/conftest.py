"""Fixtures that every test may use: where the real data and the golden values lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs {path}: set SCDIVA_DATA and SCDIVA_REFERENCE to where the project's data lie")
    return path


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real data sets (``corpus/``, ``eval/``, ``demo/``)."""
    return _existing(Path(os.environ.get("SCDIVA_DATA", ROOT.parent / "shared" / "data")))


@pytest.fixture(scope="session")
def reference_root() -> Path:
    """Folder of golden values and reference tables."""
    return _existing(Path(os.environ.get("SCDIVA_REFERENCE", ROOT.parent / "shared" / "reference")))


_TOGETHER = {"tests/app/": "pages", "tests/browser/": "many processes", "tests/unit/distributed/": "many processes"}


class FilesTogether(LoadFileScheduling):
    """Files go to processes whole, and some of them to the same process.

    The pages share what they show, which each process would compute for itself. A browser, its server and its worker
    keep two cores busy by themselves, and so do four workers of dask; two of these at once wait for one another.
    """

    def _split_scope(self, nodeid: str) -> str:
        together = (name for folder, name in _TOGETHER.items() if nodeid.startswith(folder))
        return next(together, super()._split_scope(nodeid))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browsers come after dask, with which they share a process: by then the other has compiled what a map needs."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/browser/"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Use it where files go to processes whole."""
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None
