"""Several results on the Knockout page: the list, two side by side, and a screen."""

from __future__ import annotations

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui.asked_list import AskedList
from pages._ui.knockout_list import Asked
from scdiva_core.engine import Engine
from scdiva_core.engine_knockout import KnockoutSettings, ScreenSettings
from tests.app.conftest import texts
from tests.app.knockout.conftest import Open
from tests.app.knockout.test_knockout_page import choose, finish_jobs


@pytest.fixture
def two(open_page: Open, perturbed: Engine) -> AppTest:
    """The page with the knockout of a gene and its hiding."""
    page = choose(open_page(), "CD79A")
    page.button(key="ko-run").click().run()
    page.segmented_control(key="ko-action").set_value("hide").run()
    page.session_state["ko-compare"] = True
    return page.button(key="ko-run").click().run()


def test_two_results_stand_side_by_side_with_the_same_scales(two: AppTest) -> None:
    assert not two.exception
    assert "Results (2)" in [expander.label for expander in two.expander]
    assert two.selectbox(key="ko-compare-A").value != two.selectbox(key="ko-compare-B").value
    table = next(frame.value for frame in two.dataframe if "shift A" in frame.value)
    assert {"shift B", "q A", "q B"} <= set(table)
    assert len(two.get("plotly_chart")) == 1 + 4
    two.selectbox(key="ko-compare-B").set_value(two.selectbox(key="ko-compare-A").value).run()
    assert any("Both sides show the same" in info.value for info in two.info)


def test_a_result_taken_off_the_list_comes_back(two: AppTest) -> None:
    assert two.subheader[1].value == "CD79A masked"
    remove = [button for button in two.button if button.key.startswith("ko-remove-")]
    remove[0].click().run()
    assert two.subheader[1].value == "CD79A knocked out"
    assert "Results (1)" in [expander.label for expander in two.expander]
    two.button(key="ko-undo").click().run()
    assert "Results (2)" in [expander.label for expander in two.expander]
    show = [button for button in two.button if button.key.startswith("ko-show-") and not button.disabled]
    show[0].click().run()
    assert two.subheader[1].value == "CD79A masked"


def test_a_pasted_list_is_screened_in_a_job(open_page: Open, perturbed: Engine, project: str) -> None:
    page = open_page()
    page.selectbox(key="ko-cells").set_value("category").run()
    page.multiselect(key="ko-values-cell_type").set_value(["B"]).run()
    page.segmented_control(key="ko-screen-kind").set_value("pasted").run()
    assert "Paste genes" in texts(page)
    page.text_area(key="ko-screen-text").set_value("CD79A, cd20; IL10 NOTAGENE").run()
    assert "3 genes of this file found; cd20 is MS4A1" in texts(page).replace("\\", "")
    lost = next(frame.value for frame in page.dataframe if "why" in frame.value)
    assert list(lost["name"]) == ["NOTAGENE"]
    page.button(key="ko-screen").click().run()
    assert "You can leave this page" in texts(page)
    assert finish_jobs(perturbed, project) == ["done"]
    page.run()
    assert not page.exception
    found = next(frame for frame in page.dataframe if "refused" in frame.value)
    rows: pd.DataFrame = found.value
    assert set(rows["gene"]) == {"CD79A", "MS4A1", "IL10"}
    assert rows.set_index("gene").loc["IL10", "refused"]
    assert "1 was refused" in texts(page)
    assert "put that gene into the form above" in texts(page)
    assert len(page.get("plotly_chart")) == 1


def test_regulators_and_variable_genes_are_offered(open_page: Open) -> None:
    page = open_page()
    assert "Transcription factors with known targets" in texts(page)
    page.number_input(key="ko-screen-most").set_value(20).run()
    assert page.button(key="ko-screen").label == "Screen 20 genes"
    page.segmented_control(key="ko-screen-kind").set_value("variable").run()
    assert "Genes that vary most for their mean" in texts(page)
    assert not page.button(key="ko-screen").disabled


def test_the_list_keeps_order_and_undoes_removals() -> None:
    first, second, third = (Asked(KnockoutSettings((gene,)), None) for gene in "ABC")
    asked = AskedList([first])
    asked.show(second)
    asked.remove(first.key)
    asked.show(third)
    asked.remove(second.key)
    assert [item.title for item in asked] == ["C knocked out"]
    asked.undo()
    assert [item.title for item in asked] == ["C knocked out", "B knocked out"]
    asked.undo()
    assert [item.title for item in asked] == ["C knocked out", "B knocked out", "A knocked out"]
    assert not asked.can_undo
    assert asked.shown is third
    asked.show(first)
    assert asked.shown is first
    assert len(asked) == 3


def test_a_screen_says_how_many_genes_and_what_is_done() -> None:
    settings = ScreenSettings(("A", "B"), mode="scale", factor=2.0, cells="type=B")
    assert Asked(settings, None).title == "2 genes, each x 2"
