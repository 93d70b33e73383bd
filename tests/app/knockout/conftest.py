"""A checkpoint that reads all genes of a cell, and the Knockout page opened on a few embedded cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from scdiva_core.engine_knockout import KnockoutSettings, knockout
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import ROOT
from tests.tiny_checkpoint import write_tiny_checkpoint

OWNERS = iter(range(0x2000, 0x2FFF))

Open = Callable[..., AppTest]

DONE = KnockoutSettings(("CD79A",), group_key="cell_type", expression=False)
"""As the page asks for it; computed once for all tests."""


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with room for all genes of a cell, so that those that tell types apart are read."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_genes": 300}))
    return folder


@pytest.fixture(scope="session")
def cells(files: Path) -> Path:
    """A few cells with labels and donors; no cell expresses IL10."""
    few = anndata.read_h5ad(files / "few.h5ad")
    few.obs["sample"] = [f"s{place % 3}" for place in range(few.n_obs)]
    few.write_h5ad(files / "knocked.h5ad")
    return files / "knocked.h5ad"


@pytest.fixture(scope="session")
def perturbed(reading: Path, engine: Engine, cells: Path) -> Engine:
    """The engine of that checkpoint, which has embedded the cells and knocked out and hidden CD79A in all of them."""
    made = Engine(reading, "cpu", engine.store)
    with made.open(cells) as dataset:
        made.project(dataset, settings=ProjectionSettings())
        for mode in ("knockout", "mask"):
            knockout(made, dataset, replace(DONE, mode=mode))
    return made


@pytest.fixture
def project() -> str:
    """Name of a project that nobody has used."""
    return f"{next(OWNERS):016x}"


@pytest.fixture
def open_page(app: AppTest, perturbed: Engine, reading: Path, project: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the page in the project, each time in a session of its own."""
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(reading))
    first = [app]

    def run(**query: object) -> AppTest:
        page = first.pop() if first else AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        page.query_params.update({"data": "knocked.h5ad", "project": project, **query})
        return page.run().switch_page("pages/knockout.py").run()

    return run


def keep_sets(engine: Engine, project: str, data_sha256: str, sets: CellSets) -> None:
    """Let a project have cell sets."""
    folder = engine.store.root.parent / "projects" / project
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"cell_sets": {data_sha256: sets.to_dict()}}
    (folder / "project.json").write_text(json.dumps(kept), encoding="utf-8")
