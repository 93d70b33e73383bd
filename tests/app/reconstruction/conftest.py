"""A checkpoint that reads many genes of a cell, reconstructions that are stored, and the page opened on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction import ReconstructionResult, ReconstructionSettings, reconstruct
from scdiva_core.engine_reconstruction_denoising import denoise
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import ROOT
from tests.tiny_checkpoint import write_tiny_checkpoint

OWNERS = iter(range(0xA000, 0xAFFF))

Open = Callable[..., AppTest]

ASKED = ReconstructionSettings(masks=(0.3, 0.5), most_cells=10, iterative_cells=1, steps=2, group_key="cell_type")
"""Of all cells, as `ask` has the page ask for it."""

IMPUTED = ReconstructionSettings(genes=("RPL13", "LTB", "IL10"), most_cells=60, iterative_cells=0, group_key=None)


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with room for all genes of a cell."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_genes": 300}))
    return folder


@pytest.fixture(scope="session")
def cells(files: Path) -> Path:
    """A few cells with labels."""
    anndata.read_h5ad(files / "few.h5ad").write_h5ad(files / "hidden.h5ad")
    return files / "hidden.h5ad"


@pytest.fixture(scope="session")
def bare(files: Path) -> Path:
    """Cells that nobody has embedded or denoised."""
    anndata.read_h5ad(files / "few.h5ad")[::4].write_h5ad(files / "bare.h5ad")
    return files / "bare.h5ad"


@pytest.fixture(scope="session")
def made(reading: Path, engine: Engine, cells: Path, bare: Path) -> Engine:
    """The engine of that checkpoint, which has embedded and denoised the cells but not the bare ones."""
    found = Engine(reading, "cpu", engine.store)
    with found.open(cells) as dataset:
        found.project(dataset, settings=ProjectionSettings())
        denoise(found, dataset)
    return found


@pytest.fixture(scope="session")
def rebuilt(made: Engine, cells: Path) -> ReconstructionResult:
    """All cells, two shares."""
    with made.open(cells) as dataset:
        return reconstruct(made, dataset, ASKED)


@pytest.fixture(scope="session")
def imputed(made: Engine, cells: Path) -> ReconstructionResult:
    """Three genes, one of which no cell expresses."""
    with made.open(cells) as dataset:
        return reconstruct(made, dataset, IMPUTED)


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
        page.query_params.update({"data": "hidden.h5ad", "project": project, **query})
        return page.run().switch_page("pages/reconstruction.py").run()

    return run


def ask(page: AppTest) -> AppTest:
    """Fill the form in as `ASKED` is."""
    page.multiselect(key="rec-shares").set_value([30, 50])
    page.number_input(key="rec-most").set_value(10)
    page.number_input(key="rec-iterative").set_value(1)
    return page.number_input(key="rec-steps").set_value(2).run()
