"""Three checkpoints of one's own, trained in seconds, and the page Fine-tune opened in the project that owns them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui.project import Project
from scdiva_core.engine import Engine
from scdiva_core.engine_finetune import FinetuneRequest, finetune
from tests.app.conftest import PBMC, ROOT
from tests.small_perturbations import write_perturbations

OWNERS = iter(range(0x7000, 0x7FFF))
FILES = {"annotation": "few.h5ad", "perturbation": "perturbed.h5ad", "integration": "few.h5ad"}
REQUESTS = {
    "annotation": FinetuneRequest("annotation", "cell_type", minutes=0.05, name="my types"),
    "perturbation": FinetuneRequest(
        "perturbation", "perturbation", control="ctrl", kind="knockout", minutes=0.05, name="my knockouts"
    ),
    "integration": FinetuneRequest("integration", "cell_type", "donor", minutes=0.05, name="my mixture"),
}

Open = Callable[..., AppTest]


@pytest.fixture(scope="session")
def trained(engine: Engine, files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task -> folder of a checkpoint that was trained for it and has embedded a few cells; not where the app looks."""
    write_perturbations(files / "perturbed.h5ad", list(anndata.read_h5ad(PBMC, backed="r").var_names))
    made = {}
    for task, request in REQUESTS.items():
        folder = tmp_path_factory.mktemp("trained") / task
        with engine.open(files / FILES[task]) as dataset:
            finetune(engine, dataset, request, folder)
        with (own := Engine(folder, "cpu", engine.store)).open(files / "few.h5ad") as dataset:
            own.project(dataset)
        made[task] = folder
    return made


@pytest.fixture
def project() -> str:
    """Name of a project that nobody has used."""
    return f"{next(OWNERS):016x}"


@pytest.fixture
def own(app: AppTest, engine: Engine, trained: dict[str, Path], project: str) -> dict[str, str]:
    """Task -> id of that checkpoint among the project's own."""
    ids = {}
    for task, folder in trained.items():
        ids[task] = f"{task}-{int(project, 16):012x}"
        shutil.copytree(folder, engine.store.root.parent / "checkpoints" / ids[task])
        Project(project).remember_checkpoint(ids[task], name=REQUESTS[task].name, task=task)
    return ids


@pytest.fixture
def open_page(app: AppTest, trained: dict[str, Path], project: str) -> Open:
    """Open a page in the project, each time in a session of its own."""
    first = [app]

    def run(page: str = "finetune", **query: str) -> AppTest:
        made = first.pop() if first else AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        made.query_params.update({"data": "few.h5ad", "project": project, **query})
        return made.run().switch_page(f"pages/{page}.py").run()

    return run
