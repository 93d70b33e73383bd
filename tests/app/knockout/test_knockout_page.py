"""The Knockout page: what it asks for, what it refuses, a perturbation from the button to its figures and tables."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from scdiva_core.jobs import JobQueue
from tests.app.conftest import choose_genes, gene_fields, texts
from tests.app.knockout.conftest import DONE, Open, keep_sets


def choose(page: AppTest, *genes: str, expression: bool = False) -> AppTest:
    """Choose genes, without the predicted expression unless it is asked for: it takes the most time."""
    choose_genes(page, "ko-genes", list(genes))
    return page.toggle(key="ko-expression").set_value(expression).run()


def finish_jobs(engine: Engine, owner: str) -> list[str]:
    """Wait until the project's jobs have ended; their states."""
    queue = JobQueue(engine.store.root.parent / "jobs")
    deadline = time.monotonic() + 300
    while any(job.active for job in queue.jobs(owner)):
        assert time.monotonic() < deadline, queue.jobs(owner)
        time.sleep(0.2)
    return [job.state for job in queue.jobs(owner)]


@pytest.fixture
def shown(open_page: Open) -> AppTest:
    """The page with a result that was computed before."""
    page = choose(open_page(), "CD79A")
    return page.button(key="ko-run").click().run()


def test_a_file_that_is_gone_leads_to_the_data_page(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/knockout.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert [link.value for link in app.page_link] == ["Choose one on the page Data"]


def test_cells_without_an_embedding_are_embedded_first(open_page: Open) -> None:
    page = open_page(data="kang2018")
    assert "have to be embedded before they can be perturbed" in texts(page)
    assert page.button(key="embed").label == "Embed 3,000 cells"
    assert not gene_fields(page)


def test_the_empty_page_says_what_to_do(open_page: Open) -> None:
    page = open_page()
    assert not page.exception
    assert "Choose one to three genes that these cells express." in texts(page)
    assert page.button(key="ko-run").disabled
    page.session_state["ko-compare"] = True
    page.run()
    assert "Run a second perturbation above" in texts(page)
    assert page.selectbox(key="ko-groups").value == "cell_type"
    assert page.selectbox(key="ko-donors").options == ["donor", "sample"]


def test_a_search_by_alias_finds_the_gene_with_its_detection(open_page: Open) -> None:
    page = open_page()
    page.text_input(key="ko-find").set_value("PU.1").run()
    table = next(frame for frame in page.dataframe if "found_as" in frame.value)
    assert list(table.value["symbol"]) == ["SPI1"]
    assert list(table.value["found_as"]) == ["PU.1"]
    assert table.value["detection in CD14 Monocytes"].item() > table.value["detection in B"].item()
    page.text_input(key="ko-find").set_value("no such gene").run()
    assert "No gene of this file that the model knows is called no such gene" in page.info[0].value


def test_a_click_takes_a_gene_beside_the_others_or_alone() -> None:
    def click() -> None:
        import streamlit as st

        from pages._ui import knockout_genes

        for gene in ("A", "B", "C", "D", "C"):
            knockout_genes.take(gene)
        st.text(" ".join(st.session_state[knockout_genes.GENES]))
        knockout_genes.take_alone("E")
        st.text(" ".join(st.session_state[knockout_genes.GENES]))

    assert [text.value for text in AppTest.from_function(click).run().text] == ["B D C", "E"]


def test_typed_aliases_are_resolved_and_unknown_names_explained(open_page: Open) -> None:
    page = choose(open_page(), "PU.1", "NOTAGENE")
    assert "PU\\.1 is **SPI1** in this file." in texts(page)
    assert "no human gene is known by this name" in page.error[0].value
    assert page.button(key="ko-run").label == "Knock out SPI1"


def test_a_gene_that_no_cell_expresses_is_refused_with_its_counts(open_page: Open) -> None:
    page = choose(open_page(), "CD79A")
    page.selectbox(key="ko-cells").set_value("category").run()
    assert "Choose at least one value" in page.info[0].value
    page.multiselect(key="ko-values-cell_type").set_value(["Megakaryocytes"]).run()
    error = page.error[0].value
    assert "0 of 1 cells \\(cell\\_type=Megakaryocytes\\) express CD79A" in error
    assert "of 150 cells of the file express it, most of them in B" in error
    assert page.button(key="ko-run").disabled
    page.selectbox(key="ko-cells").set_value("all").run()
    assert not page.error
    assert not page.button(key="ko-run").disabled


def test_actions_have_factors_and_name_the_button(open_page: Open) -> None:
    page = choose(open_page(), "CD79A", "MS4A1")
    assert page.button(key="ko-run").label == "Knock out CD79A and MS4A1"
    page.segmented_control(key="ko-action").set_value("up").run()
    assert page.selectbox(key="ko-factor-up").options == ["× 2", "× 4", "× 10"]
    assert page.button(key="ko-run").label == "Over-express CD79A and MS4A1"
    assert "Each gene alone, × 2," in texts(page)
    page.segmented_control(key="ko-action").set_value("hide").run()
    assert page.button(key="ko-run").label == "Hide CD79A and MS4A1"
    assert "About " in texts(page)


def test_a_knockout_runs_as_a_job_and_is_found_again_in_another_session(
    open_page: Open, perturbed: Engine, cells: Path, project: str
) -> None:
    page = choose(open_page(), "MS4A1")
    page.selectbox(key="ko-cells").set_value("category").run()
    page.multiselect(key="ko-values-cell_type").set_value(["B"]).run()
    page.button(key="ko-run").click().run()
    assert "You can leave this page or close the browser: the work goes on." in texts(page)
    assert finish_jobs(perturbed, project) == ["done"]
    again = open_page()
    assert not again.exception
    assert "MS4A1 knocked out in cell\\_type=B" in [heading.value for heading in again.subheader]
    commands = [code.value for code in again.code]
    assert any("--genes MS4A1 --no-expression --group cell_type --subset cell_type=B" in text for text in commands)
    made: dict[str, object] = {}
    exec(next(text for text in commands if "Engine(" in text), made)
    with perturbed.open(cells) as dataset:
        assert made["result"].n_cells == made["result"].n_sampled == (dataset.obs["cell_type"] == "B").sum()
        assert list(made["result"].cells["group"].unique()) == ["B"]


def test_the_caption_states_counts_null_and_sign_in_words(shown: AppTest) -> None:
    text = texts(shown)
    assert "of 150 cells" in text
    assert "express the gene" in text
    assert "of 100 random genes" in text
    assert "This is what the model expects; it is no experiment." in text
    assert "Every other cell shifts by exactly 0" in text


@pytest.mark.parametrize(
    ("tab", "figures", "said"),
    [
        ("Map", 1, "Believe a direction only where it differs from the control"),
        ("Cell types", 1, "Where fewer than 10 cells read the genes, there is no p."),
        ("Directions", 2, "Which group the cells are nearest to, before and after"),
        ("Genes", 0, "Predicted expression was not asked for"),
        ("Controls", 1, "hidden in their places by"),
    ],
)
def test_every_tab_draws_its_figures(shown: AppTest, tab: str, figures: int, said: str) -> None:
    shown.session_state["ko-tabs"] = tab
    shown.run()
    assert not shown.exception
    assert len(shown.get("plotly_chart")) == figures
    assert said in texts(shown) or any(said in info.value for info in shown.info)
    assert len([button for button in shown.get("download_button") if "SVG" in button.proto.label]) == figures


def test_donors_and_expression_have_their_place(open_page: Open, perturbed: Engine, project: str) -> None:
    page = choose(open_page(), "CD79A", expression=True)
    page.selectbox(key="ko-donors").set_value("sample").run()
    page.selectbox(key="ko-cells").set_value("category").run()
    page.multiselect(key="ko-values-cell_type").set_value(["B"]).run()
    page.button(key="ko-run").click().run()
    assert finish_jobs(perturbed, project) == ["done"]
    page.run()
    page.session_state["ko-tabs"] = "Genes"
    page.run()
    assert len(page.get("plotly_chart")) == 2
    assert any("does not beat co-expression" in warning.value for warning in page.warning)
    table = next(frame.value for frame in page.dataframe if "noise" in frame.value)
    assert "CD79A" not in set(table["symbol"])
    page.session_state["ko-tabs"] = "Controls"
    page.run()
    donors = next(frame.value for frame in page.dataframe if "excess" in frame.value)
    assert set(donors["donor"]) <= {"s0", "s1", "s2"}


def test_a_cell_set_of_the_session_can_be_perturbed(
    open_page: Open, perturbed: Engine, cells: Path, project: str
) -> None:
    with perturbed.open(cells) as dataset:
        sets = CellSets(dataset.n_obs)
        recipe = {"kind": "lasso", "representation": "X_scdiva", "x": [0, 1, 1, 0], "y": [0, 0, 1, 1]}
        sets.add("my cells", recipe, np.arange(dataset.n_obs) < 60)
        keep_sets(perturbed, project, dataset.sha256, sets)
    page = open_page()
    page.selectbox(key="ko-cells").set_value("set: my cells").run()
    assert not page.exception
    assert "in 60 cells (my cells)" in texts(page)


def test_random_weights_are_called_so_in_red(
    app: AppTest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny_checkpoint import write_tiny_checkpoint

    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("random"), random_weights=True)
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(folder))
    app.query_params["data"] = "pbmc3k"
    app.run().switch_page("pages/knockout.py").run()
    assert "Random weights" in app.error[0].value


def test_the_settings_of_the_stored_result_are_those_that_the_page_asks_for(shown: AppTest) -> None:
    assert "Computed before: shown at once." in texts(shown)
    assert DONE.genes == ("CD79A",)
