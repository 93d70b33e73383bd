"""The Fine-tune page: what can be learned, the training as a job, and the user's own checkpoints."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui.frame import PAGES
from pages._ui.project import Project
from scdiva_core.engine import Engine
from scdiva_core.engine_finetune import FinetuneRequest
from scdiva_core.jobs import Job, JobQueue
from scdiva_core.model.checkpoint import load_pretrained, read_card
from tests.app.conftest import choose_genes, texts
from tests.app.finetune.conftest import Open


def plain(page: AppTest) -> str:
    return texts(page).replace("\\", "")


def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine.store.root.parent / "jobs")


def finished(engine: Engine, owner: str) -> Job:
    _wait(lambda: not queue(engine).jobs(owner)[0].active)
    return queue(engine).jobs(owner)[0]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_says_what_would_be_learned_and_what_is_left_out(open_page: Open) -> None:
    page = open_page()
    assert page.selectbox(key=f"finetune-label-{sha(page)}").value == "cell_type"
    # 147 of the 150 cells carry one of the six labels with five cells or more; one in five judges.
    assert "**6 labels** are learned from 117 cells; 30 cells only judge (drawn at random within each" in plain(page)
    assert "Megakaryocytes (1 labelled cells; a class needs 5)" in plain(page)
    table = next(frame.value for frame in page.dataframe if "left_out" in frame.value)
    assert table["teach"].sum() == 117
    page.selectbox(key=f"finetune-donor-{sha(page)}").set_value("donor").run()
    assert "only judge (all cells of " in plain(page)
    commands = [code.value for code in page.code]
    assert any("finetune annotation" in text and "--batch donor --minutes 10" in text for text in commands)


def sha(page: AppTest) -> str:
    """End of the keys that belong to the open file."""
    keys = [
        box.key for box in page.selectbox if box.key and box.key.startswith(("finetune-label", "finetune-perturbed-"))
    ]
    return next(key for key in keys if not key.startswith("finetune-perturbed-batch")).split("-")[2]


def test_the_kind_of_perturbation_must_be_said(open_page: Open) -> None:
    page = open_page(data="perturbed.h5ad")
    page.radio(key="finetune-task").set_value("perturbation").run()
    assert "This needs a Perturb-seq file" in page.info[0].value
    assert not [button for button in page.button if button.key == "finetune-run"]
    page.selectbox(key="finetune-kind").set_value("knockout").run()
    assert "**6 perturbations** are learned from 120 cells; 2 others only judge" in plain(page)
    assert "Left out: RPL5 (3 cells; a perturbation needs 10)" in plain(page)


def test_columns_that_do_not_suffice_are_refused_in_words(open_page: Open) -> None:
    page = open_page()
    page.radio(key="finetune-task").set_value("perturbation").run()
    page.selectbox(key="finetune-kind").set_value("knockout")
    page.selectbox(key=f"finetune-perturbed-{sha(page)}").set_value("cell_type").run()
    (control,) = [box for box in page.selectbox if box.label == "Unperturbed cells are called"]
    control.set_value("B").run()
    assert not page.exception
    assert "0 perturbations can be used (left out: " in page.error[0].value.replace("\\", "")


def test_a_file_without_columns_says_what_to_do(open_page: Open, files: Path) -> None:
    cells = anndata.read_h5ad(files / "few.h5ad")
    cells.obs = cells.obs[[]]
    cells.write_h5ad(files / "bare.h5ad")
    page = open_page(data="bare.h5ad")
    assert not page.exception
    assert "obs has no column with two groups or more" in page.info[0].value


def test_a_training_is_a_job_and_makes_a_checkpoint_that_is_used(
    open_page: Open, engine: Engine, project: str, files: Path
) -> None:
    page = open_page()
    assert "You have no checkpoint of your own yet" in plain(page)
    page.number_input(key="finetune-minutes-annotation").set_value(0.5).run()
    (field,) = [field for field in page.text_input if field.label == "Name of the checkpoint"]
    assert field.value == "few.h5ad: names cell types"
    field.set_value(" blood  types ").run()
    page.button(key="finetune-run").click().run()
    assert not page.exception
    begun = queue(engine).jobs(project)[0]
    while (now := queue(engine).get(begun.id)).active and not now.allowed_s:
        time.sleep(0.05)
    queue(engine).cancel(begun.id)  # from here on there is something to keep
    job = finished(engine, project)
    assert (job.state, job.title) == ("done", "Fine-tune blood types")
    made = job.result["checkpoint_id"]
    again = open_page()
    assert not again.exception
    assert "blood types is ready." in again.success[0].value
    assert "the frozen latent: macro-F1" in again.success[0].value.replace("\\", "")
    again.button(key="finetune-use-it").click().run()
    assert again.query_params["checkpoint"] == made
    assert not again.success
    assert again.sidebar.selectbox[0].value == made
    folder = engine.store.root.parent / "checkpoints" / made
    assert read_card(folder)["name"] == "blood types"
    left = sorted(path.name for path in folder.parent.iterdir() if made in path.name)
    assert left == [made], "neither curve nor state stay"


def test_the_same_training_is_not_queued_twice_and_names_are_free(
    open_page: Open, engine: Engine, project: str
) -> None:
    page = open_page()
    page.button(key="finetune-run").click().run()
    assert page.button(key="finetune-run").disabled
    assert "This very training is under way" in plain(page)
    (field,) = [field for field in page.text_input if field.label == "Name of the checkpoint"]
    assert field.value == "few.h5ad: names cell types 2"
    field.set_value("few.h5ad: names cell types").run()
    assert "You have a checkpoint called 'few.h5ad: names cell types'" in page.error[0].value.replace("\\", "")
    (job,) = queue(engine).jobs(project)
    queue(engine).cancel(job.id)
    finished(engine, project)


def test_a_training_that_failed_says_why_until_it_is_dismissed(
    open_page: Open, engine: Engine, checkpoint: Path, project: str, files: Path
) -> None:
    request = FinetuneRequest("annotation", "absent", name="nothing").to_dict()
    payload = {"path": str(files / "few.h5ad"), "checkpoint": str(checkpoint), "device": "cpu", "matrix": None}
    payload |= {"gene_column": None, "values": "auto", "request": request, "checkpoint_id": "annotation-00000000dead"}
    queue(engine).submit("scdiva_core.engine_jobs:finetune", payload, title="Fine-tune nothing", owner=project)
    page = open_page()
    assert finished(engine, project).state == "failed"
    page.run()
    assert "few.h5ad has no column 'absent' in obs" in page.error[0].value.replace("\\", "")
    page.button(key="finetune-dismiss").click().run()
    assert not page.error


def test_the_list_tells_base_and_worth_and_draws_the_curve(open_page: Open, own: dict[str, str]) -> None:
    page = open_page()
    assert not page.exception
    assert "Your checkpoints (3)" in [heading.value for heading in page.subheader]
    page.button(key=f"finetune-show-{own['perturbation']}").click().run()
    assert "rank correlation of predicted and measured change" in plain(page)
    assert "predicts perturbations · 20" in plain(page)
    assert "from tiny test model" in plain(page)
    assert len(page.get("plotly_chart")) == 1
    assert {"PNG", "SVG", "HTML"} <= {button.label for button in page.get("download_button")}


def test_a_checkpoint_is_renamed_deleted_and_put_back(
    open_page: Open, own: dict[str, str], engine: Engine, project: str
) -> None:
    page = open_page(checkpoint=own["annotation"])
    page.button(key=f"finetune-show-{own['annotation']}").click().run()
    (field,) = [field for field in page.text_input if field.label == "New name"]
    field.set_value("my knockouts").run()
    page.button(key="finetune-rename").click().run()
    assert "Another checkpoint is called 'my knockouts'" in page.error[0].value.replace("\\", "")
    (field,) = [field for field in page.text_input if field.label == "New name"]
    field.set_value("blood").run()
    page.button(key="finetune-rename").click().run()
    assert not page.error
    folder = engine.store.root.parent / "checkpoints" / own["annotation"]
    assert read_card(folder)["name"] == "blood"
    assert Project(project).checkpoints()[own["annotation"]]["name"] == "blood"
    page.button(key="finetune-delete").click().run()
    assert not page.exception
    assert not folder.exists()
    assert "checkpoint" not in page.query_params, "the server's own again"
    assert "Your checkpoints (2)" in [heading.value for heading in page.subheader]
    page.button(key="finetune-undo").click().run()
    assert "Your checkpoints (3)" in [heading.value for heading in page.subheader]
    assert load_pretrained(folder).card["name"] == "blood"


def test_one_that_a_job_reads_is_not_deleted(
    open_page: Open, own: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    page = open_page()
    assert not page.button(key="finetune-delete").disabled
    folder = engine.store.root.parent / "checkpoints" / own["integration"]
    payload = {"checkpoint": str(folder), "until": str(tmp_path / "enough")}
    job = queue(engine).submit("tests.unit.job_functions:steps", payload, title="reads it", owner="nobody")
    _wait(lambda: queue(engine).get(job.id).state == "running")
    page.run()
    disabled = page.button(key="finetune-delete").disabled
    (tmp_path / "enough").touch()
    _wait(lambda: not queue(engine).get(job.id).active)
    assert disabled


def test_a_checkpoint_is_taken_home_without_code(
    open_page: Open, own: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    page = open_page()
    page.button(key=f"finetune-show-{own['annotation']}").click().run()
    page.button(key="finetune-zip").click().run()
    (packed,) = (engine.store.root.parent / "exports").glob("*/my-types-checkpoint.zip")
    with zipfile.ZipFile(packed) as file:
        assert {Path(name).suffix for name in file.namelist()} == {".safetensors", ".json"}
        file.extractall(tmp_path)
    assert load_pretrained(tmp_path / "my-types-checkpoint").labels is not None
    packed.unlink()


def test_the_sidebar_chooses_and_the_link_keeps_it(open_page: Open, own: dict[str, str]) -> None:
    page = open_page("embedding")
    box = page.sidebar.selectbox[0]
    assert box.options == ["The server's own", "my mixture", "my knockouts", "my types"]
    box.set_value(own["annotation"]).run()
    assert page.query_params["checkpoint"] == own["annotation"]
    again = open_page("model", checkpoint=own["annotation"])
    assert again.sidebar.selectbox[0].value == own["annotation"]
    assert "my types" in [heading.value for heading in again.subheader]
    again.sidebar.selectbox[0].set_value("").run()
    assert "checkpoint" not in again.query_params
    assert "tiny test model" in [heading.value for heading in again.subheader]


@pytest.mark.parametrize("foreign", ["annotation-0123456789ab", "../../../etc", "annotation-0123456789ab/../.."])
def test_a_checkpoint_that_is_not_the_projects_is_refused_in_words(
    open_page: Open, own: dict[str, str], foreign: str
) -> None:
    page = open_page("embedding", checkpoint=foreign)
    assert not page.exception
    assert "checkpoint" not in page.query_params
    assert "This project has no checkpoint" in plain(page)
    assert "**tiny test model**" in plain(page)


def test_another_project_does_not_get_it(open_page: Open, own: dict[str, str]) -> None:
    page = open_page("embedding", checkpoint=own["annotation"], project="00000000deadbeef")
    assert "This project has no checkpoint" in plain(page)
    assert page.sidebar.selectbox.len == 0


@pytest.mark.parametrize("task", ["perturbation", "integration"])
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("data", "finetune")])
def test_every_page_works_with_a_checkpoint_that_names_nothing(
    open_page: Open, own: dict[str, str], page: str, task: str
) -> None:
    shown = open_page(page, checkpoint=own[task])
    assert not shown.exception
    assert not shown.error
    assert shown.query_params["checkpoint"] == own[task]
    if page == "annotation":
        assert "This checkpoint names no cell types by itself" in plain(shown)


def test_the_page_annotation_offers_the_labels_that_were_learned(
    open_page: Open, own: dict[str, str], engine: Engine
) -> None:
    folder = engine.store.root.parent / "checkpoints" / own["annotation"]
    page = open_page("annotation", checkpoint=own["annotation"])
    assert page.multiselect(key="label-source-names").value == ["head"]
    page.button(key="annotate").click().run()
    assert not page.exception
    assert not page.error
    learned = {entry["name"] for entry in read_card(folder)["finetuned"]["classes"]}
    assert any(name in plain(page) for name in learned)


def test_the_page_knockout_predicts_with_what_was_learned(open_page: Open, own: dict[str, str]) -> None:
    page = open_page("knockout", checkpoint=own["perturbation"], data="perturbed.h5ad")
    assert "rank correlation of predicted and measured change" in plain(page)
    assert "the mean 0." in plain(page), "the baseline stands beside it"
    choose_genes(page, "ko-learned-genes", ["ACTB", "B2M"])
    page.selectbox(key="ko-learned-cells").set_value("category").run()
    page.selectbox(key="ko-learned-column").set_value("perturbation").run()
    page.multiselect(key="ko-learned-values-perturbation").set_value(["ctrl"]).run()
    page.button(key="ko-learned-run").click().run()
    assert not page.exception
    assert not page.error
    rows = next(frame.value for frame in page.dataframe if "change" in frame.value)
    assert len(rows) == 40
    assert rows["change"].abs().is_monotonic_decreasing
    assert "Mean of 60 cells" in plain(page)
    assert "This perturbation was not measured there; alone: ACTB, B2M." in plain(page)
