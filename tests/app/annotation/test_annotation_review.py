"""The Annotation page: every decision, undo and redo without limit, and what a fresh session finds of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from tests.app.annotation.conftest import Open, accept, at_hand, decided, largest, log_of, queue, skip_unknown
from tests.app.conftest import texts


def test_nothing_is_written_before_the_first_decision(labelled: AppTest, engine: Engine, project: str) -> None:
    assert not (engine.store.root.parent / "projects" / project / "annotations.sqlite").exists()
    assert labelled.button(key="undo").disabled
    assert labelled.button(key="redo").disabled
    assert decided(labelled).startswith("0 of 150 cells decided")


def test_every_decision_is_made_taken_back_and_made_again(
    labelled: AppTest, named: Engine, project: str, files: Path
) -> None:
    page = labelled
    page.text_input(key="reviewer").set_value("Ada Lovelace").run()
    skip_unknown(page)
    page.text_input(key="reason").set_value("markers fit").run()
    accept(page)
    assert page.text_input(key="reason").value == ""
    page.text_input(key="label-search").set_value("Treg").run()
    choice = page.selectbox(key="new-label-Treg")
    assert "CL:" in choice.options[0]
    assert choice.options[-1] == "Treg (your own words)"
    page.button(key="relabel").click().run()
    page.button(key="reject").click().run()
    page.button(key="skip").click().run()
    assert not page.exception
    assert not page.error
    log = log_of(named, project, files)
    made = [event.action for event in log.events() if event.kind == "label"]
    assert made[-4:] == ["accept", "relabel", "reject", "skip"]
    event = next(event for event in log.events() if event.action == "accept")
    assert (event.who, event.why, bool(event.label_name)) == ("Ada Lovelace", "markers fit", True)
    after = decided(page)
    for _ in range(4):
        page.button(key="undo").click().run()
    assert decided(page).startswith("0 of 150 cells decided")
    for _ in range(4):
        page.button(key="redo").click().run()
    assert decided(page) == after
    assert page.button(key="redo").disabled
    assert [event.kind for event in log.events()][-8:] == ["undo"] * 4 + ["redo"] * 4


def test_a_candidate_is_chosen_with_one_click(labelled: AppTest, named: Engine, project: str, files: Path) -> None:
    size = at_hand(labelled)
    labelled.button(key="choose-0").click().run()
    assert not labelled.error
    event = log_of(named, project, files).events()[-1]
    assert event.action in ("accept", "relabel")
    assert event.label_id.startswith("CL:")
    assert event.mask().sum() == size


def test_a_label_in_own_words_and_one_in_use(labelled: AppTest, named: Engine, project: str, files: Path) -> None:
    labelled.text_input(key="label-search").set_value("my <b>odd</b> cells").run()
    labelled.button(key="relabel").click().run()
    assert log_of(named, project, files).events()[-1].label_name == "my <b>odd</b> cells"
    offered = labelled.selectbox(key="new-label-")
    assert "my <b>odd</b> cells (your own words)" in offered.options
    assert labelled.button(key="relabel").disabled
    offered.set_value(("", "my <b>odd</b> cells")).run()
    labelled.button(key="relabel").click().run()
    assert not labelled.error
    assert log_of(named, project, files).events()[-1].label_name == "my <b>odd</b> cells"


def test_an_item_is_split_by_sub_clusters(labelled: AppTest, named: Engine, project: str, files: Path) -> None:
    size = largest(labelled)
    labelled.radio(key="part").set_value("sub-clusters").run()
    labelled.slider(key="sub-resolution").set_value(2.0).run()
    table = next(frame.value for frame in labelled.dataframe if frame.value.index.name == "Sub-cluster")
    assert table["Cells"].sum() == size
    assert labelled.button(key="split").disabled
    labelled.multiselect(key="part-clusters").set_value([0]).run()
    labelled.text_input(key="label-search").set_value("memory T cell").run()
    labelled.button(key="split").click().run()
    assert not labelled.error
    event = log_of(named, project, files).events()[-1]
    assert (event.action, event.label_name) == ("split", "memory T cell")
    assert event.mask().sum() == table["Cells"][0]
    assert queue(labelled)["Cells"].sum() == 150 - table["Cells"][0]


def test_an_item_is_split_by_a_cell_set(labelled: AppTest, named: Engine, project: str, files: Path) -> None:
    size = largest(labelled)
    with named.open(files / "few.h5ad") as cells:
        sets: CellSets = labelled.session_state[f"_cell_sets-{cells.sha256}"]
    sets.add("first half", {"kind": "category", "column": "donor", "values": ["d2"]}, np.arange(150) < 75)
    labelled.run()
    labelled.radio(key="part").set_value("a cell set").run()
    label = labelled.button(key="split").label
    part = int(label.split()[2])
    assert 0 < part < size
    labelled.text_input(key="label-search").set_value("first").run()
    labelled.selectbox(key="new-label-first").set_value(("", "first")).run()
    labelled.button(key="split").click().run()
    event = log_of(named, project, files).events()[-1]
    assert event.mask().sum() == part
    assert not event.mask()[75:].any()


def test_without_a_lasso_there_is_nothing_to_split_off(labelled: AppTest) -> None:
    labelled.radio(key="part").set_value("those drawn around").run()
    assert "Draw around cells in the picture above" in texts(labelled)
    assert labelled.button(key="split").disabled


def test_a_fresh_session_replays_the_log(labelled: AppTest, open_page: Open) -> None:
    labelled.text_input(key="reviewer").set_value("Ada").run()
    accept(labelled)
    labelled.button(key="reject").click().run()
    labelled.button(key="undo").click().run()
    again = open_page()
    assert not again.exception
    assert decided(again) == decided(labelled)
    assert queue(again).equals(queue(labelled))
    assert again.text_input(key="reviewer").value == "Ada"
    assert again.selectbox(key="labels-of").value == "review"
    again.button(key="redo").click().run()
    assert not again.error
    assert decided(again) != decided(labelled)


def test_other_labels_do_not_take_a_review_over(labelled: AppTest) -> None:
    accept(labelled)
    before = decided(labelled)
    labelled.multiselect(key="label-source-names").set_value(["markers"]).run()
    labelled.button(key="annotate").click().run()
    assert "The review that you have begun is one of other labels" in texts(labelled)
    assert "accept" not in [button.key for button in labelled.button]
    labelled.button(key="go-back").click().run()
    assert decided(labelled) == before
    labelled.multiselect(key="label-source-names").set_value(["markers"]).run()
    labelled.button(key="annotate").click().run()
    labelled.button(key="begin-anew").click().run()
    assert decided(labelled).startswith("0 of 150 cells decided")
    assert labelled.button(key="undo").disabled


def test_more_sources_go_on_with_the_same_review(labelled: AppTest) -> None:
    accept(labelled)
    before = decided(labelled).split(" ·")[0]
    labelled.multiselect(key="label-source-names").set_value(["scdiva", "knn"]).run()
    labelled.button(key="annotate").click().run()
    assert decided(labelled).split(" ·")[0] == before


def test_two_windows_see_each_others_decisions(labelled: AppTest, open_page: Open) -> None:
    second = open_page()
    accept(labelled)
    second.button(key="undo").run()
    assert decided(second) == decided(labelled)
    while not second.button(key="undo").disabled:
        second.button(key="undo").click().run()
    labelled.button(key="undo").click().run()
    assert "There is nothing to undo" in labelled.error[0].value


def test_when_all_is_decided_the_page_says_so(labelled: AppTest) -> None:
    while queue_left(labelled):
        labelled.button(key="reject").click().run()
    assert "Every cell has been decided on" in labelled.success[0].value
    assert decided(labelled).startswith("150 of 150 cells decided")
    labelled.button(key="undo").click().run()
    assert len(queue(labelled)) == 1


def queue_left(page: AppTest) -> bool:
    return any("Doubt" in frame.value for frame in page.dataframe)
