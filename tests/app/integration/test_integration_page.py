"""The Integration page: what it asks for, a result from the button to its tabs, and what is kept of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_integration import FINETUNED, IntegrationResult
from tests.app.conftest import texts
from tests.app.integration.conftest import Open
from tests.app.knockout.test_knockout_page import finish_jobs


def plain(page: AppTest) -> str:
    """All text, without the backslashes that keep Markdown out."""
    return texts(page).replace("\\", "")


def tab(page: AppTest, name: str) -> AppTest:
    page.session_state["integration-tabs"] = name
    return page.run()


def field(page: AppTest, kind: str, beginning: str):  # noqa: ANN201 - AppTest's elements have no common public type
    return next(item for item in page.get(kind) if (item.key or "").startswith(beginning))


def frame_with(page: AppTest, column: str) -> pd.DataFrame:
    return next(frame.value for frame in page.dataframe if column in frame.value)


def test_a_file_that_is_gone_leads_to_the_data_page(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/integration.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert [link.value for link in app.page_link] == ["Choose one on the page Data"]


def test_a_file_without_batches_says_what_to_do(open_page: Open) -> None:
    page = open_page(data="pbmc3k")  # its only column is of types
    assert not page.exception
    assert any("no column that says which batch a cell is from" in info.value for info in page.info)
    assert "integration-run" not in [button.key for button in page.button]
    assert page.multiselect(key="join-files").options[0] == "PBMC 3k (open now)"


def test_likely_columns_come_first_and_cells_are_counted(open_page: Open) -> None:
    page = open_page()
    assert not page.exception
    assert field(page, "selectbox", "integration-batch").value == "donor"
    assert field(page, "selectbox", "integration-type").value == "cell_type"
    assert "2 batches: d1 " in plain(page)
    assert "Nothing has been integrated with this checkpoint yet." in page.info[-1].value
    field(page, "selectbox", "integration-type").select_index(0).run()
    assert "About " in plain(page)
    assert "stand in for them, and nothing but iLISI can be measured" in plain(page)


def test_a_column_that_makes_no_batches_is_refused_in_words(open_page: Open) -> None:
    page = open_page()
    field(page, "selectbox", "integration-batch").set_value("cell_type").run()
    assert not page.exception
    assert "The batch Megakaryocytes has" in page.error[0].value.replace("\\", "")
    assert "integration-run" not in [button.key for button in page.button]


def test_words_stand_above_the_tabs(shown: AppTest, integrated: IntegrationResult) -> None:
    assert not shown.exception
    for name in ("verdict", "apart", "taught"):
        assert integrated.summary[name] in plain(shown)
    assert [tab.label for tab in shown.tabs] == ["Before and after", "Measures", "Types apart", "Training"]
    commands = [code.value for code in shown.code]
    assert any("integrate" in text and "--batch donor --label cell_type --minutes 5" in text for text in commands)
    lines = next(text for text in commands if "Engine(" in text)
    made_again: dict[str, IntegrationResult] = {}
    exec(lines, made_again)
    pd.testing.assert_frame_equal(made_again["result"].table, integrated.table)


def test_two_methods_stand_side_by_side(shown: AppTest, integrated: IntegrationResult) -> None:
    left, right = (field(shown, "selectbox", f"integration-{side}-") for side in ("left", "right"))
    assert (left.value, right.value) == ("scdiva", FINETUNED)
    titles = [chart.proto.spec for chart in shown.get("plotly_chart")]
    assert len(titles) == 2
    assert "ScDiVa: donor" in titles[0]
    assert "ScDiVa, fine-tuned: donor" in titles[1]
    left.set_value("harmony").run()
    assert "Harmony: donor" in shown.get("plotly_chart")[0].proto.spec


def test_all_methods_stand_beside_chance_and_those_that_judge_come_first(
    shown: AppTest, integrated: IntegrationResult
) -> None:
    page = tab(shown, "Measures")
    assert not page.exception
    n_cells = int(integrated.judged["n_cells"].iloc[0])
    assert f"{n_cells} cells that only judged" in plain(page)
    first = frame_with(page, "avg_bio")
    assert first["method"].tolist()[-2:] == ["ScDiVa, fine-tuned", "By chance"]
    np.testing.assert_allclose(first["avg_bio"][:-1], integrated.judged["avg_bio"])
    assert first["avg_bio"].iloc[-1] == integrated.summary["chance"]["judged"]["avg_bio"]
    assert first["avg_bio"].iloc[-1] < first["avg_bio"].iloc[0]


def test_types_of_one_batch_are_told_apart_by_method(shown: AppTest, integrated: IntegrationResult) -> None:
    page = tab(shown, "Types apart")
    assert not page.exception
    rows = frame_with(page, "n_cells")
    assert set(rows["label"]) == set(integrated.apart["label"])
    assert {"pca", "harmony", FINETUNED} <= set(rows.columns)
    assert "Harmony: " in plain(page).replace("*", "")


def test_the_training_shows_its_curve(shown: AppTest, integrated: IntegrationResult) -> None:
    page = tab(shown, "Training")
    assert not page.exception
    assert len(frame_with(page, "reconstruction")) == len(integrated.curve)
    assert len(page.get("plotly_chart")) == 1


def test_without_labels_only_mixing_is_measured(open_page: Open, engine: Engine, project: str) -> None:
    page = open_page()
    field(page, "selectbox", "integration-type").select_index(0).run()
    page.toggle(key="integration-finetune").set_value(False).run()
    page.button(key="integration-run").click().run()
    assert "You can leave this page or close the browser: the work goes on." in texts(page)
    assert finish_jobs(engine, project) == ["done"]
    again = open_page()
    assert not again.exception
    assert "Without labels nothing says whether types hold together." in plain(again)
    assert [tab.label for tab in again.tabs] == ["Before and after", "Measures"]
    assert len(again.get("plotly_chart")) == 2, "the job has drawn the maps"
    assert "The model was not fine-tuned." in plain(again)
    page = tab(again, "Measures")
    assert set(frame_with(page, "ilisi").columns) == {"method", "ilisi"}


def test_maps_are_drawn_again_when_their_settings_change(open_page: Open, integrated: IntegrationResult) -> None:
    page = open_page(n_neighbors=9)
    page.button(key="integration-run").click().run()
    assert not page.exception
    assert page.button(key="integration-draw").label == "Draw the maps"
    assert "Its map has to be drawn first." in plain(page)


def test_the_checkpoint_is_used_on_every_page_and_names_no_types(
    shown: AppTest, integrated: IntegrationResult, tuned: Engine
) -> None:
    page = shown.button(key="integration-use").click().run()
    assert not page.exception
    assert page.query_params["checkpoint"] == integrated.checkpoint.name
    assert page.selectbox(key="checkpoint-choice").value == integrated.checkpoint.name
    assert "Nothing has been integrated with this checkpoint yet." in page.info[-1].value
    page.switch_page("pages/embedding.py").run()
    assert not page.exception
    assert "donors.h5ad: ScDiVa, " in page.get("plotly_chart")[0].proto.spec
    page.switch_page("pages/annotation.py").run()
    assert not page.exception
    assert "This checkpoint names no cell types by itself" in plain(page)
