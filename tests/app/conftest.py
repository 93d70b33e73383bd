"""One home with one small checkpoint for all tests of the pages; the first demo is embedded once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import anndata
import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.store import ResultStore
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PBMC = ROOT / "assets" / "demo" / "tenx_pbmc3k.h5ad"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny checkpoint that calls itself provisional."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine on a home of its own, in which the first demo has been embedded."""
    home = tmp_path_factory.mktemp("home")
    made = Engine(checkpoint, "cpu", ResultStore(home / "results"))
    with made.open(PBMC) as cells:
        for representation in ("X_scdiva", "X_pca"):
            made.project(cells, representation=representation, settings=ProjectionSettings())
    return made


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root: a few cells with labels, and a text file that calls itself .h5ad."""
    folder = tmp_path_factory.mktemp("files")
    cells = anndata.read_h5ad(PBMC)[::18].copy()
    cells.obs["donor"] = ["<b>d1</b>", "d2"] * (cells.n_obs // 2)
    cells.obs["age"] = float("nan")
    cells.obs.loc[cells.obs_names[:50], "age"] = 40.5
    cells.write_h5ad(folder / "few.h5ad")
    (folder / "text.h5ad").write_text("cell,gene\n", encoding="utf-8")
    return folder


@pytest.fixture
def app(engine: Engine, checkpoint: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    """The app, not yet run."""
    monkeypatch.setenv("SCDIVA_HOME", str(engine.store.root.parent))
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("SCDIVA_DEVICE", "cpu")
    monkeypatch.setenv("SCDIVA_DATA_ROOT", str(files))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _like_a_warm_server(monkeypatch)
    yield AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    st.cache_data.clear()


def _like_a_warm_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages run through app.py, as a server does once ``st.navigation`` was called in any session.

    AppTest forgets that before every run, and then runs the files of ``pages/`` alone; and in every run it looks anew
    through all that is installed for components of other packages, which takes it a third of a second (streamlit 1.67).
    """
    begin = PagesManager.__init__

    def begin_warm(self: PagesManager, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        PagesManager.uses_pages_directory = False

    monkeypatch.setattr(PagesManager, "__init__", begin_warm)
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", _components)


_components = cache(manifest_scanner.scan_component_manifests)


def gene_fields(page: AppTest) -> dict[str, list[str]]:
    """Label of each field of genes -> the genes it holds."""
    told = [json.loads(element.proto.json or "{}") for element in page.get("bidi_component")]
    return {data["label"]: data["chosen"] for data in told if "address" in data}


def choose_genes(page: AppTest, key: str, genes: str | list[str]) -> AppTest:
    """Choose in a field of genes, which AppTest cannot do: what its field's answer does is done in its stead."""
    page.session_state[key] = genes
    return page.run()


def texts(app: AppTest) -> str:
    """All text on the page and in the sidebar."""
    elements = [*app.title, *app.subheader, *app.markdown, *app.caption, *app.error, *app.info, *app.warning]
    return "\n".join(str(element.value) for element in elements)
