"""A checkpoint that reads many genes of a cell, two networks that are stored, and the page GRN opened on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_grn import GrnResult, GrnSettings, grn, regulon_activity
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import ROOT
from tests.tiny_checkpoint import write_tiny_checkpoint

OWNERS = iter(range(0x6000, 0x6FFF))

Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with room for all genes of a cell, so that regulators are read."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_genes": 300}))
    return folder


@pytest.fixture(scope="session")
def cells(files: Path) -> Path:
    """A few cells with labels."""
    few = anndata.read_h5ad(files / "few.h5ad")
    few.obs["half"] = [f"half {place % 2}" for place in range(few.n_obs)]
    few.write_h5ad(files / "regulated.h5ad")
    return files / "regulated.h5ad"


@pytest.fixture(scope="session")
def made(reading: Path, engine: Engine, cells: Path) -> Engine:
    """The engine of that checkpoint, which has embedded the cells."""
    found = Engine(reading, "cpu", engine.store)
    with found.open(cells) as dataset:
        found.project(dataset, settings=ProjectionSettings())
        regulon_activity(found, dataset)
    return found


@pytest.fixture(scope="session")
def network(made: Engine, cells: Path) -> GrnResult:
    """Network of all cells, as the page asks for it unless it is told otherwise."""
    with made.open(cells) as dataset:
        return grn(made, dataset, GrnSettings())


@pytest.fixture(scope="session")
def compared(made: Engine, cells: Path) -> GrnResult:
    """Network of the T cells against all others of one half, without the comparison of methods."""
    with made.open(cells) as dataset:
        sets = [
            np.flatnonzero((dataset.obs[column].astype(str) == value).to_numpy())
            for column, value in (("cell_type", "CD4 T"), ("half", "half 1"))
        ]
        settings = GrnSettings(cells="cell_type=CD4 T", against="half=half 1", top=10, panel=False)
        return grn(made, dataset, settings, *sets)


@pytest.fixture
def project() -> str:
    """Name of a project that nobody has used."""
    return f"{next(OWNERS):016x}"


@pytest.fixture
def open_page(app: AppTest, made: Engine, reading: Path, project: str, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the page in the project, each time in a session of its own."""
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(reading))
    first = [app]

    def run(**query: object) -> AppTest:
        page = first.pop() if first else AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        page.query_params.update({"data": "regulated.h5ad", "project": project, **query})
        return page.run().switch_page("pages/grn.py").run()

    return run
