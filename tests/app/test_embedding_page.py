"""The Embedding page: jobs, colours, comparison, cell sets, exports."""

from __future__ import annotations

import json
import time
from pathlib import Path

import anndata
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui import view
from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from scdiva_core.figures.raster import Window
from scdiva_core.jobs import JobQueue
from scdiva_core.tasks.neighbors import ProjectionSettings
from tests.app.conftest import PBMC, ROOT, choose_genes, gene_fields, texts

PROJECT = "00000000000000aa"


def finish_jobs(engine: Engine, owner: str) -> list[str]:
    """Wait until the project's jobs have ended; their states."""
    queue = JobQueue(engine.store.root.parent / "jobs")
    deadline = time.monotonic() + 180  # a worker that has just started beside other tests
    while any(job.active for job in queue.jobs(owner)):
        assert time.monotonic() < deadline, queue.jobs(owner)
        time.sleep(0.1)
    return [job.state for job in queue.jobs(owner)]


def test_a_file_is_embedded_in_a_job_and_its_picture_appears(app: AppTest, engine: Engine) -> None:
    app.query_params.update({"data": "few.h5ad", "project": PROJECT})
    app.run()
    assert "have not been embedded with this checkpoint yet" in texts(app)
    app.button(key="embed").click().run()
    assert "You can leave this page or close the browser: the work goes on." in texts(app)
    assert any("Embed few" in element.value for element in app.sidebar.markdown)
    assert finish_jobs(engine, PROJECT) == ["done"]
    app.run()
    assert len(app.get("plotly_chart")) == 1
    assert "done in" in texts(app)
    app.sidebar.button[0].click().run()
    assert "done in" not in texts(app)


def test_a_cancelled_job_says_so_and_can_be_started_again(app: AppTest, engine: Engine) -> None:
    owner = "00000000000000ab"
    app.query_params.update({"data": "kang2018", "project": owner})
    app.run()
    app.button(key="embed").click().run()
    queue = JobQueue(engine.store.root.parent / "jobs")
    app.button(key=f"stop-{queue.jobs(owner)[0].id}").click().run()
    assert finish_jobs(engine, owner) == ["cancelled"]
    app.run()
    assert "Embedding was cancelled" in texts(app)
    assert app.button(key="embed").label == "Try again"


def test_a_click_that_the_queue_refuses_says_why(app: AppTest, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = "00000000000000fe"
    monkeypatch.setenv("SCDIVA_JOBS_PER_USER", "1")
    app.query_params.update({"data": "kang2018", "project": owner})
    app.run()
    app.button(key="embed").click().run()
    elsewhere = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    elsewhere.query_params.update({"data": "bone_marrow", "project": owner})
    elsewhere.run()
    elsewhere.button(key="embed").click().run()
    assert "You have a job that waits or runs" in texts(elsewhere)
    elsewhere.run()
    assert "a job that waits or runs" not in texts(elsewhere)
    queue = JobQueue(engine.store.root.parent / "jobs")
    queue.cancel(queue.jobs(owner)[0].id)
    assert finish_jobs(engine, owner) == ["cancelled"]


def test_a_failed_job_shows_message_and_hint(app: AppTest, engine: Engine, files: Path) -> None:
    owner = "00000000000000ac"
    tiny = anndata.read_h5ad(files / "few.h5ad")[:3].copy()
    tiny.write_h5ad(files / "three.h5ad")
    app.query_params.update({"data": "three.h5ad", "project": owner})
    app.run()
    app.button(key="embed").click().run()
    assert finish_jobs(engine, owner) == ["failed"]
    app.run()
    assert "3 cells are too few for a map" in app.error[0].value
    assert "at least 5 cells" in app.error[0].value
    assert not app.exception


def test_colours_can_be_labels_clusters_and_genes(app: AppTest) -> None:
    app.run()
    colour = app.selectbox(key="colour")
    assert colour.options == ["cell_type", "Leiden clusters (ScDiVa)", "Leiden clusters (PCA)", "Gene …"]
    colour.set_value("gene").run()
    assert gene_fields(app)["Gene"] == ["CD3D"]
    assert "gene" not in app.query_params
    choose_genes(app, "gene", "LYZ")
    app.toggle(key="gene_log").set_value(False).run()
    assert not app.exception
    assert gene_fields(app)["Gene"] == ["LYZ"]
    assert app.query_params["gene"] == "LYZ"
    assert len(app.get("plotly_chart")) == 1
    app.selectbox(key="colour").set_value("obs:cell_type").run()
    assert "gene" not in app.query_params


@pytest.mark.parametrize(
    ("linked", "shown", "said"),
    [("LYZ", "LYZ", []), ("<b>no gene", "CD3D", ["The link names \\<b\\>no gene, which is no gene of this file"])],
)
def test_a_link_names_the_gene(app: AppTest, linked: str, shown: str, said: list[str]) -> None:
    app.query_params.update({"colour": "Gene …", "gene": linked})
    app.run()
    assert not app.exception
    assert gene_fields(app)["Gene"] == [shown]
    assert [toast.value.partition(" that the model")[0] for toast in app.toast] == said


def test_the_filter_says_how_many_cells_pass(app: AppTest) -> None:
    app.run()
    app.multiselect(key="filter_values").set_value(["NK", "B"]).run()
    found = anndata.read_h5ad(PBMC).obs["cell_type"].isin(["NK", "B"]).sum()
    assert f"{found:,} of 2,700 cells pass the filter" in texts(app)


def test_pca_stands_beside_scdiva_with_the_level_of_chance(app: AppTest) -> None:
    app.run()
    shown = {metric.label: float(metric.value.removesuffix(" %")) for metric in app.metric}
    assert shown["By chance"] < shown["ScDiVa"] < shown["PCA"] <= 100
    assert "ScDiVa does not beat PCA here" in texts(app)
    app.segmented_control(key="picture").set_value("Side by side").run()
    assert len(app.get("plotly_chart")) == 2


def test_very_many_cells_are_a_picture_that_can_be_zoomed_into(
    app: AppTest, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    monkeypatch.setattr(view, "MAX_DRAWN", 1000)
    app.run()
    assert "All cells are drawn, as one picture" in texts(app)
    assert (app.button(key="zoom-in").disabled, app.button(key="zoom-out").disabled) == (True, True)
    with engine.open(PBMC) as cells:
        stored = engine.stored_projection(cells, representation="X_scdiva", settings=ProjectionSettings())
        across = np.median(stored.coordinates[:, 0])
        app.session_state["_windows"][cells.sha256, ProjectionSettings()]["X_scdiva"] = Window(-100, across, -100, 100)
    app.run()
    inside = int((stored.coordinates[:, 0] <= across).sum())
    assert f"{inside:,} of 2,700 cells lie in this part" in texts(app)
    app.button(key="zoom-out").click().run()
    assert "lie in this part" not in texts(app)
    assert not app.exception


def test_without_labels_nothing_is_claimed(app: AppTest, engine: Engine, files: Path) -> None:
    unlabelled = anndata.read_h5ad(files / "few.h5ad")
    unlabelled.obs = unlabelled.obs[[]]
    unlabelled.write_h5ad(files / "unlabelled.h5ad")
    with engine.open(files / "unlabelled.h5ad") as cells:
        for representation in ("X_scdiva", "X_pca"):
            engine.project(cells, representation=representation, settings=ProjectionSettings())
    app.query_params["data"] = "unlabelled.h5ad"
    app.run()
    assert "nothing to measure" in texts(app)
    assert not app.metric


@pytest.fixture
def with_a_set(app: AppTest, engine: Engine) -> AppTest:
    """The page of a project that has one cell set."""
    with engine.open(PBMC) as cells:
        sets = CellSets(cells.n_obs)
        recipe = {"kind": "lasso", "representation": "X_scdiva", "x": [0, 1, 1, 0], "y": [0, 0, 1, 1]}
        sets.add("<i>my</i> cells", recipe, np.arange(cells.n_obs) < 120)
        kept = {"cell_sets": {cells.sha256: sets.to_dict()}}
    folder = engine.store.root.parent / "projects" / "00000000000000ad"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.json").write_text(json.dumps(kept), encoding="utf-8")
    app.query_params.update({"data": "pbmc3k", "project": "00000000000000ad"})
    return app.run()


def test_cell_sets_come_back_with_the_project(with_a_set: AppTest) -> None:
    assert "120 cells · drawn on the ScDiVa map, 4 corners" in texts(with_a_set)
    assert "My cell sets" in with_a_set.selectbox(key="colour").options
    with_a_set.selectbox(key="colour").set_value("sets").run()
    assert not with_a_set.exception


def test_cell_sets_are_renamed_deleted_and_brought_back(with_a_set: AppTest, engine: Engine) -> None:
    page = with_a_set
    page.text_input(key="new-name-<i>my</i> cells").set_value("naive")
    next(button for button in page.button if button.label == "Rename").click().run()
    assert "**naive**" in texts(page)
    page.button(key="delete-naive").click().run()
    assert "**naive**" not in texts(page)
    page.button(key="undo-sets").click().run()
    assert "**naive**" in texts(page)
    kept = json.loads(
        (engine.store.root.parent / "projects" / "00000000000000ad" / "project.json").read_text(encoding="utf-8")
    )
    assert [item["name"] for sets in kept["cell_sets"].values() for item in sets["sets"]] == ["naive"]


def test_the_lines_of_python_make_the_same_picture(app: AppTest, engine: Engine) -> None:
    app.run()
    lines = next(code.value for code in app.code if "Engine(" in code.value)
    made: dict[str, object] = {}
    exec(lines, made)
    with engine.open(PBMC) as cells:
        stored = engine.stored_projection(cells, representation="X_scdiva", settings=ProjectionSettings())
    np.testing.assert_array_equal(made["picture"].coordinates, stored.coordinates)


def test_a_new_file_is_prepared_for_download(app: AppTest, engine: Engine) -> None:
    app.run()
    app.button(key="prepare-h5ad").click().run()
    assert app.get("link_button")[0].proto.url.startswith("/api/download/")
    exports = engine.store.root.parent / "exports"
    written = anndata.read_h5ad(next(exports.glob("*/PBMC-3k-scdiva.h5ad")))
    assert written.obsm["X_scdiva"].shape == (2700, 16)
    assert "leiden_scdiva" in written.obs
