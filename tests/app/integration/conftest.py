"""Cells of two donors that were integrated before, two files to be put together, and the page opened on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_integration import IntegrateSettings, IntegrationResult, integrate, integration_map
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import ROOT

OWNERS = iter(range(0x8000, 0x8FFF))
SETTINGS = IntegrateSettings("donor", "cell_type")

Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def cells(files: Path) -> Path:
    """A few cells with labels; B cells are of one donor alone."""
    few = anndata.read_h5ad(files / "few.h5ad")
    few.obs["donor"] = [f"d{place % 2}" for place in range(few.n_obs)]
    few.obs.loc[few.obs["cell_type"] == "B", "donor"] = "d1"
    few.write_h5ad(files / "donors.h5ad")
    few[:70, :-100].copy().write_h5ad(files / "north.h5ad")
    few[70:].copy().write_h5ad(files / "south.h5ad")
    few[:, :300].copy().write_h5ad(files / "left.h5ad")
    few[:, 290:700].copy().write_h5ad(files / "right.h5ad")
    return files / "donors.h5ad"


@pytest.fixture(scope="session")
def integrated(engine: Engine, cells: Path) -> IntegrationResult:
    """What the page asks for unless it is told otherwise, with all maps."""
    with engine.open(cells) as dataset:
        made = integrate(engine, dataset, SETTINGS)
        for method in made.vectors:
            integration_map(engine, dataset, SETTINGS, method)
        for representation in ("X_scdiva", "X_pca"):
            engine.project(dataset, representation=representation, settings=ProjectionSettings())
    return made


@pytest.fixture(scope="session")
def tuned(engine: Engine, cells: Path, integrated: IntegrationResult) -> Engine:
    """The engine of the fine-tuned checkpoint, which has drawn the cells."""
    made = Engine(integrated.checkpoint, "cpu", engine.store)
    with made.open(cells) as dataset:
        made.project(dataset, settings=ProjectionSettings())
    return made


@pytest.fixture
def project() -> str:
    """Name of a project that nobody has used."""
    return f"{next(OWNERS):016x}"


@pytest.fixture
def open_page(app: AppTest, cells: Path, project: str) -> Open:
    """Open a page in the project, each time in a session of its own."""
    first = [app]

    def run(page_name: str = "integration", **query: object) -> AppTest:
        page = first.pop() if first else AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        page.query_params.update({"data": "donors.h5ad", "project": project, **query})
        return page.run().switch_page(f"pages/{page_name}.py").run()

    return run


@pytest.fixture
def shown(open_page: Open, integrated: IntegrationResult) -> AppTest:
    """The page with the integration that was made before."""
    return open_page().button(key="integration-run").click().run()
