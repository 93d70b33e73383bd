"""A checkpoint that offers every source of labels, and the Annotation page opened on a few embedded cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.engine import Engine
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import ROOT
from tests.naming_checkpoint import write_naming_checkpoint

OWNERS = iter(range(0x1000, 0x1FFF))

Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def naming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that offers every source."""
    return write_naming_checkpoint(tmp_path_factory.mktemp("naming"), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def named(naming: Path, engine: Engine, files: Path) -> Engine:
    """The engine of that checkpoint, which has embedded the file with few cells."""
    made = Engine(naming, "cpu", engine.store)
    with made.open(files / "few.h5ad") as cells:
        made.project(cells, settings=ProjectionSettings())
    return made


@pytest.fixture
def project() -> str:
    """Name of a project that nobody has used."""
    return f"{next(OWNERS):016x}"


@pytest.fixture
def open_page(
    app: AppTest, named: Engine, naming: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AppTest]:
    """Open the page in the project, each time in a session of its own."""
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(naming))
    first = [app]

    def run(**query: object) -> AppTest:
        page = first.pop() if first else AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        page.query_params.update({"data": "few.h5ad", "project": project, **query})
        return page.run().switch_page("pages/annotation.py").run()

    return run


@pytest.fixture
def labelled(open_page: Open) -> AppTest:
    """The page after the default source has named the cells."""
    page = open_page()
    if any(button.key == "annotate" and button.label.startswith("Name") for button in page.button):
        page.button(key="annotate").click().run()
    assert not page.exception
    return page


def log_of(engine: Engine, project: str, files: Path) -> AnnotationLog:
    path = engine.store.root.parent / "projects" / project / "annotations.sqlite"
    assert path.exists()
    with engine.open(files / "few.h5ad") as cells:
        return AnnotationLog(path, data_sha256=cells.sha256, n_obs=cells.n_obs, who="test")


def table_with(page: AppTest, column: str) -> pd.DataFrame:
    """The table on the page that has a column."""
    return next(frame.value for frame in page.dataframe if column in frame.value)


def queue(page: AppTest) -> pd.DataFrame:
    return table_with(page, "Doubt")


def decided(page: AppTest) -> str:
    return next(bar.proto.text for bar in page.get("progress") if "cells decided" in bar.proto.text)


def at_hand(page: AppTest) -> int:
    return int(queue(page).iloc[0]["Cells"])


def skip_unknown(page: AppTest) -> None:
    """Skip items until one with a label is at hand."""
    while page.button(key="accept").disabled:
        page.button(key="skip").click().run()


def accept(page: AppTest) -> None:
    """Accept the first item that has a label."""
    skip_unknown(page)
    page.button(key="accept").click().run()


def largest(page: AppTest) -> int:
    """Bring the largest item up; its cells."""
    rows = queue(page)
    place = int(rows["Cells"].to_numpy().argmax())
    key = next(frame.key for frame in page.dataframe if "Doubt" in frame.value)
    page.session_state[key] = {"selection": {"rows": [place], "columns": [], "cells": []}}
    page.run()
    return int(rows["Cells"].max())
