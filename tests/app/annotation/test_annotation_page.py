"""The Annotation page: sources, picture, evidence on the item at hand, exports."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.tasks.annotation_export import read_annotation
from scdiva_core.tasks.review_session import LabelSettings
from tests.app.annotation.conftest import Open, accept, at_hand, largest, log_of, queue, table_with
from tests.app.conftest import texts


def test_a_file_that_is_gone_leads_to_the_data_page(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/annotation.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert [link.value for link in app.page_link] == ["Choose one on the page Data"]


def test_cells_without_an_embedding_are_embedded_first(open_page: Open) -> None:
    page = open_page(data="kang2018")
    assert "have to be embedded before they can be named" in texts(page)
    assert page.button(key="embed").label == "Embed 3,000 cells"
    assert "annotate" not in [button.key for button in page.button]


def test_a_checkpoint_that_names_nothing_offers_the_files_own_columns(app: AppTest) -> None:
    app.run().switch_page("pages/annotation.py").run()
    assert "This checkpoint names no cell types by itself" in texts(app)
    assert app.button(key="annotate").disabled
    app.multiselect(key="label-columns").set_value(["cell_type"]).run()
    app.button(key="annotate").click().run()
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="labels-of").options == ["Your column cell_type"]
    assert len(queue(app)) > 0
    assert "brings no table of marker genes" in texts(app)
    assert "states no confidence" not in texts(app)
    app.session_state["truth"] = True
    app.run()
    app.selectbox(key="truth-column").set_value("cell_type").run()
    assert "agreement with it proves little" in app.warning[0].value
    assert "A column states no confidence" in texts(app)


def test_sources_are_chosen_and_explained(open_page: Open) -> None:
    page = open_page()
    sources = page.multiselect(key="label-source-names")
    assert len(sources.options) == 5
    assert sources.value == ["scdiva", "profiles", "knn"]
    assert "a vote of the labelled reference cells" in texts(page)
    sources.set_value([]).run()
    assert page.button(key="annotate").disabled
    page.multiselect(key="label-source-names").set_value(["scdiva", "knn", "markers"]).run()
    page.multiselect(key="label-columns").set_value(["cell_type"]).run()
    page.button(key="annotate").click().run()
    assert not page.exception
    assert page.selectbox(key="labels-of").options == [
        "ScDiVa (trained head and profiles)",
        "Nearest reference cells",
        "Marker genes",
        "Your column cell_type",
        "Consensus of the sources",
    ]
    asked = page.query_params["labels"]
    assert LabelSettings.from_text(asked).sources == ("scdiva", "knn", "markers")


def test_the_same_sources_are_there_after_a_reload(open_page: Open) -> None:
    page = open_page()
    page.multiselect(key="label-source-names").set_value(["scdiva", "knn"]).run()
    page.button(key="annotate").click().run()
    again = open_page(labels=LabelSettings(("scdiva", "knn")).to_text())
    assert len(again.selectbox(key="labels-of").options) == 3


def test_the_picture_shows_labels_confidence_disagreement_and_novelty(open_page: Open) -> None:
    page = open_page()
    page.multiselect(key="label-source-names").set_value(["scdiva", "markers"]).run()
    page.button(key="annotate").click().run()
    for way, said in (
        ("confidence", "The probability that the source gives"),
        ("disagreement", "Share of the other sources that say something else"),
        ("novelty", "Distance to the nearest type of the reference"),
        ("label", "Grey cells are unknown"),
    ):
        page.segmented_control(key="label-colour").set_value(way).run()
        assert not page.exception
        assert said in texts(page)
        assert len(page.get("plotly_chart")) >= 1
    for source in ("markers", "consensus"):
        page.selectbox(key="labels-of").set_value(source).run()
        assert not page.exception
    page.toggle(key="show-item").set_value(True).run()
    assert not page.exception


def test_known_labels_give_accuracy_beside_its_baseline(labelled: AppTest, files: Path) -> None:
    labelled.session_state["truth"] = True
    labelled.run()
    labelled.selectbox(key="truth-column").set_value("cell_type").run()
    assert not labelled.exception
    shown = {metric.label: float(metric.value.removesuffix(" %")) for metric in labelled.metric}
    types = anndata.read_h5ad(files / "few.h5ad").obs["cell_type"].value_counts(normalize=True)
    assert shown["Commonest type alone"] == pytest.approx(100 * types.max(), abs=0.06)
    assert shown["Right"] > shown["Commonest type alone"]
    assert "is better than calling every cell CD4\\-positive" in texts(labelled)
    assert "expected calibration error" in texts(labelled)
    labelled.selectbox(key="truth-column").set_value("donor").run()
    assert "is a cell type that the Cell Ontology knows" in labelled.error[0].value


def test_the_first_item_is_at_hand_with_candidates_and_markers(labelled: AppTest) -> None:
    rows = queue(labelled)
    assert rows["Cells"].sum() == 150
    first = rows.iloc[0]
    count = "1 cell" if first["Cells"] == 1 else f"{first['Cells']} cells"
    assert f"#### {count} of cluster {first['Cluster']}: " in texts(labelled)
    assert [button.key for button in labelled.button if button.key.startswith("choose-")][0] == "choose-0"
    assert "genes that speak for" in texts(labelled)


def test_another_row_brings_another_item_up(labelled: AppTest) -> None:
    row = queue(labelled).iloc[2]
    key = next(frame.key for frame in labelled.dataframe if "Doubt" in frame.value)
    labelled.session_state[key] = {"selection": {"rows": [2], "columns": [], "cells": []}}
    labelled.run()
    assert not labelled.exception
    count = "1 cell" if row["Cells"] == 1 else f"{row['Cells']} cells"
    assert f"#### {count} of cluster {row['Cluster']}: " in texts(labelled)


def test_differential_genes_are_found_when_asked_for(labelled: AppTest) -> None:
    largest(labelled)
    labelled.session_state["evidence"] = "Differential genes"
    labelled.run()
    assert "Which genes set these cells apart?" in texts(labelled)
    labelled.button(key="find-genes").click().run()
    assert not labelled.exception
    assert "as if each cell were independent" in texts(labelled)
    table = table_with(labelled, "share_inside")
    assert {"symbol", "q", "share_inside"} <= set(table)
    assert len(table) > 5000
    labelled.selectbox(key="gene-donors").set_value("donor").run()
    assert "Which genes set these cells apart?" in texts(labelled)


def test_batches_are_compared(labelled: AppTest) -> None:
    labelled.session_state["evidence"] = "Batches"
    labelled.run()
    labelled.selectbox(key="batch-column").set_value("donor").run()
    assert not labelled.exception
    assert "A set of cells from one batch alone" in texts(labelled)


def test_old_labels_stand_against_new_ones(labelled: AppTest) -> None:
    table = next(frame.value for frame in labelled.dataframe if "dendritic cell" in frame.value.index)
    assert table.to_numpy().sum() == 150
    labelled.selectbox(key="old-labels").set_value("the labels that the review started from").run()
    assert "Nothing has been changed yet" in texts(labelled)
    size = at_hand(labelled)
    labelled.text_input(key="label-search").set_value("mine").run()
    labelled.selectbox(key="new-label-mine").set_value(("", "mine")).run()
    labelled.button(key="relabel").click().run()
    assert table_with(labelled, "mine")["mine"].sum() == size


def test_exports_hold_labels_and_log(labelled: AppTest, named: Engine, project: str, files: Path) -> None:
    before = (files / "few.h5ad").read_bytes()
    labelled.text_input(key="reviewer").set_value("Ada Lovelace").run()
    accept(labelled)
    labelled.button(key="reject").click().run()
    labelled.button(key="undo").click().run()
    labelled.button(key="prepare-labels").click().run()
    assert not labelled.error
    address = labelled.get("link_button")[0].proto.url
    written = named.store.root.parent / "exports" / address.split("/")[-2] / "few-labels.h5ad"
    reopened = read_annotation(written)
    assert reopened.events == log_of(named, project, files).events()
    assert (reopened.state.can_undo, reopened.state.can_redo) == (True, True)
    content = anndata.read_h5ad(written)
    assert "accepted" in set(content.obs["scdiva_label_source"])
    schema = json.loads(content.uns["cas"])
    assert (schema["author_name"], schema["title"]) == ("Ada Lovelace", "few.h5ad")
    assert (files / "few.h5ad").read_bytes() == before
    assert [button.label for button in labelled.get("download_button")].count("Cell annotation (JSON)") == 1


def test_labels_are_exported_before_any_review(labelled: AppTest, named: Engine) -> None:
    assert "not reviewed yet" in texts(labelled)
    labelled.button(key="prepare-labels").click().run()
    assert not labelled.error
    address = labelled.get("link_button")[0].proto.url
    written = named.store.root.parent / "exports" / address.split("/")[-2] / "few-labels.h5ad"
    assert set(anndata.read_h5ad(written).obs["scdiva_label_source"]) == {"scdiva"}


def test_a_damaged_companion_is_a_message(open_page: Open, naming: Path, named: Engine, files: Path) -> None:
    markers = naming / "markers.tsv"
    content = markers.read_text(encoding="utf-8")
    try:
        markers.write_text("nonsense\n", encoding="utf-8")
        page = open_page()
        page.multiselect(key="label-source-names").set_value(["markers"]).run()
        page.button(key="annotate").click().run()
        assert not page.exception
        assert "markers\\.tsv" in page.error[0].value
        assert page.button(key="annotate").label == "Name 150 cells"
    finally:
        markers.write_text(content, encoding="utf-8")
