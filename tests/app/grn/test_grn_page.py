"""The GRN page: what it asks for, a network from the button to its tabs, and the way to the page Knockout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from scdiva_core.engine_grn import GrnResult
from tests.app.conftest import choose_genes, gene_fields, texts
from tests.app.grn.conftest import Open
from tests.app.knockout.conftest import keep_sets
from tests.app.knockout.test_knockout_page import finish_jobs
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture
def shown(open_page: Open, network: GrnResult) -> AppTest:
    """The page with the network of all cells, which was made before."""
    return open_page().button(key="grn-run").click().run()


@pytest.fixture
def against(open_page: Open, compared: GrnResult) -> AppTest:
    """The page with the network of two sets."""
    page = open_page()
    page.number_input(key="grn-top").set_value(10)
    page.toggle(key="grn-panel").set_value(False)
    page.selectbox(key="grn-cells").set_value("category").run()
    page.multiselect(key="grn-values-cell_type").set_value(["CD4 T"]).run()
    page.selectbox(key="grn-against-cells").set_value("category").run()
    page.selectbox(key="grn-against-column").set_value("half").run()
    page.multiselect(key="grn-against-values-half").set_value(["half 1"]).run()
    return page.button(key="grn-run").click().run()


def tab(page: AppTest, name: str) -> AppTest:
    page.session_state["grn-tabs"] = name
    return page.run()


def take(page: AppTest, gene: str | None) -> AppTest:
    """Take a gene to hand."""
    field = next(box for box in page.selectbox if box.key.startswith("grn-gene-"))
    return field.set_value(gene).run()


def frame_with(page: AppTest, column: str) -> pd.DataFrame:
    return next(frame.value for frame in page.dataframe if column in frame.value)


def downloads(page: AppTest) -> list[str]:
    return [button.proto.label for button in page.get("download_button")]


def test_a_file_that_is_gone_leads_to_the_data_page(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/grn.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert [link.value for link in app.page_link] == ["Choose one on the page Data"]


def test_the_empty_page_says_what_to_do_and_what_it_costs(open_page: Open) -> None:
    page = open_page()
    assert not page.exception
    assert "Choose cells of one kind above" in page.info[0].value
    assert "The checkpoint's choice: all 2 heads, mean of both (nothing was chosen for it yet)." in texts(page)
    page.number_input(key="grn-most").set_value(100).run()
    assert "About " in texts(page)
    page.number_input(key="grn-knockout").set_value(3).run()
    assert "of it for the knockouts; you can leave the page meanwhile." in texts(page)


def test_sets_without_cells_and_sets_that_are_one_are_refused(open_page: Open) -> None:
    page = open_page()
    page.selectbox(key="grn-cells").set_value("category").run()
    assert "Choose at least one value of the column." in page.info[0].value
    page.multiselect(key="grn-values-cell_type").set_value(["B"]).run()
    assert page.button(key="grn-run").label == "Make the network"
    page.selectbox(key="grn-against-cells").set_value("category").run()
    page.multiselect(key="grn-against-values-cell_type").set_value(["B"]).run()
    assert "Both sets are the same cells." in page.info[0].value
    assert "grn-run" not in [button.key for button in page.button]


def test_a_network_runs_as_a_job_and_is_found_again_in_another_session(
    open_page: Open, made: Engine, cells: Path, project: str
) -> None:
    with made.open(cells) as dataset:
        sets = CellSets(dataset.n_obs)
        recipe = {"kind": "lasso", "representation": "X_scdiva", "x": [0, 1, 1, 0], "y": [0, 0, 1, 1]}
        sets.add("my cells", recipe, np.arange(dataset.n_obs) < 80)
        keep_sets(made, project, dataset.sha256, sets)
    page = open_page()
    page.selectbox(key="grn-cells").set_value("set: my cells").run()
    page.toggle(key="grn-panel").set_value(False)
    page.multiselect(key="grn-heads-1-2").set_value([(0, 1)])
    page.selectbox(key="grn-direction").set_value("from").run()
    page.button(key="grn-run").click().run()
    assert "You can leave this page or close the browser: the work goes on." in texts(page)
    assert finish_jobs(made, project) == ["done"]
    again = open_page()
    assert not again.exception
    assert "Network of my cells" in [heading.value for heading in again.subheader]
    assert "from the model's attention in 80 cells" in texts(again).replace("\\", "")
    lines = next(code.value for code in again.code if "Engine(" in code.value)
    assert not any("scdiva_core grn" in code.value for code in again.code)
    made_again: dict[str, GrnResult] = {}
    exec(lines, made_again)
    assert made_again["result"].n_cells == 80
    assert made_again["result"].summary["heads"] == [[0, 1]]
    assert made_again["result"].summary["direction"] == "from"


def test_caption_and_verdict_stand_above_the_tabs(shown: AppTest, network: GrnResult) -> None:
    text = texts(shown).replace("\\", "")
    assert network.summary["caption"] in text
    assert network.summary["verdict"] in text
    assert "Attention is no proof of regulation." in text
    assert [tab.label for tab in shown.tabs] == ["Network", "Regulons", "Module", "How far to trust it"]
    commands = [code.value for code in shown.code]
    assert any("scdiva_core grn" in text and "-n 2000 --top 20" in text for text in commands)


def test_the_network_is_filtered_and_says_what_is_left_out(shown: AppTest, network: GrnResult) -> None:
    assert len(shown.get("plotly_chart")) == 1
    assert f"of {len(network.edges):,} edges" in texts(shown)
    assert {"GraphML", "GMT", "JSON", "CSV", "All edges (CSV)", "PNG", "SVG", "HTML"} <= set(downloads(shown))
    first = network.edges["regulator"].iloc[0]
    field = next(box for box in shown.multiselect if box.key.startswith("grn-regulators-"))
    field.set_value([first]).run()
    assert f"5 of {len(network.edges):,} edges" in texts(shown)
    shown.number_input(key="grn-least-attention").set_value(99.0).run()
    assert f"0 of {len(network.edges):,} edges; {len(network.edges):,} do not meet the filters." in texts(shown)
    assert not shown.exception


def test_a_gene_at_hand_shows_its_edges_its_map_and_leads_back(shown: AppTest, network: GrnResult) -> None:
    gene = network.edges["regulator"].iloc[0]
    page = take(shown, gene)
    assert not page.exception
    assert gene in [heading.value for heading in page.subheader]
    edges = frame_with(page, "effect")
    assert ((edges["regulator"] == gene) | (edges["target"] == gene)).all()
    assert (edges["regulator"] == gene).sum() == (network.edges["regulator"] == gene).sum()
    assert len(page.get("plotly_chart")) == 2
    page.segmented_control(key="grn-colour").set_value("Regulon activity").run()
    assert len(page.get("plotly_chart")) == 2
    assert not page.exception
    page.toggle(key="grn-alone").set_value(True).run()
    assert not page.exception
    page.button(key="grn-clear").click().run()
    assert gene not in [heading.value for heading in page.subheader]
    assert len(page.get("plotly_chart")) == 1


def test_a_gene_is_knocked_out_by_a_link(app: AppTest, open_page: Open, network: GrnResult) -> None:
    page = open_page(gene="CD79A").switch_page("pages/knockout.py").run()
    assert not page.exception
    assert gene_fields(page)["Genes to perturb"] == ["CD79A"]
    assert page.button(key="ko-run").label == "Knock out CD79A"
    assert "gene" not in page.query_params
    choose_genes(page, "ko-genes", ["MS4A1"])
    assert page.button(key="ko-run").label == "Knock out MS4A1"


def test_ways_between_genes_are_told_in_words(shown: AppTest, network: GrnResult) -> None:
    first = network.edges.iloc[0]
    shown.selectbox(key="grn-from").set_value(first["target"])
    shown.selectbox(key="grn-to").set_value(first["regulator"]).run()
    assert f"{first['target']} ← {first['regulator']}: 1 step, 1 against the arrow." in texts(shown).replace("\\", "")
    shown.toggle(key="grn-both-ways").set_value(False).run()
    assert f"No way leads from {first['target']} to {first['regulator']}" in shown.error[0].value.replace("\\", "")


def test_regulons_show_hits_against_chance_and_lead_to_the_network(shown: AppTest, network: GrnResult) -> None:
    page = tab(shown, "Regulons")
    assert not page.exception
    assert list(frame_with(page, "expected")["regulator"]) == list(network.regulons["regulator"])
    row = network.regulons.iloc[0]
    said = f"{row['hits']} of {row['known']} known targets hit, {row['expected']:.1f} expected by chance"
    assert said in texts(page).replace("\\", "")
    assert len(frame_with(page, "effect")) == row["edges"]
    page.session_state["grn-central"] = True
    page.run()
    assert {"betweenness", "pagerank"} <= set(frame_with(page, "betweenness"))
    page.button(key="grn-to-network").click().run()
    assert not page.exception
    assert row["regulator"] in [heading.value for heading in page.subheader]
    assert next(box for box in page.multiselect if box.key.startswith("grn-regulators-")).value == [row["regulator"]]


def test_a_module_is_a_heat_map_of_chosen_genes(shown: AppTest) -> None:
    page = tab(shown, "Module")
    assert len(page.get("plotly_chart")) == 1
    rows = next(box for box in page.multiselect if box.key.startswith("grn-module-rows-"))
    assert rows.value
    rows.set_value([]).run()
    assert "Choose at least one regulator and one target." in page.info[-1].value


def test_how_far_to_trust_it_shows_methods_heads_and_what_attention_is_not(shown: AppTest, network: GrnResult) -> None:
    page = tab(shown, "How far to trust it")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 2
    assert set(frame_with(page, "method")["method"]) == set(network.honesty["method"])
    assert list(frame_with(page, "used")["head"]) == [1, 2]
    assert "It has no sign: a strong edge may raise or lower its target, or neither." in texts(page)


def test_two_sets_are_compared_only_where_there_are_two(against: AppTest, compared: GrnResult) -> None:
    page = tab(against, "Compare sets")
    assert not page.exception
    clear = int((compared.contrast["q"] <= 0.05).sum())
    assert f"{clear} of {len(compared.contrast):,} edges differ" in texts(page)
    page.toggle(key="grn-sure").set_value(False).run()
    assert len(frame_with(page, "difference")) == len(compared.contrast)
    assert len(page.get("plotly_chart")) == 1
    commands = [code.value for code in page.code]
    asked = "--subset 'cell_type=CD4 T' --against 'half=half 1' -n 2000 --top 10 --no-panel"
    assert any(asked in text for text in commands)
    page = tab(page, "How far to trust it")
    assert any("was not asked for" in info.value for info in page.info)


def test_a_network_taken_off_the_list_comes_back(shown: AppTest) -> None:
    remove = next(button for button in shown.button if button.key.startswith("grn-remove-"))
    remove.click().run()
    assert "There is no network yet" in shown.info[0].value
    shown.button(key="grn-undo").click().run()
    show = next(button for button in shown.button if button.key.startswith("grn-show-"))
    show.click().run()
    assert "Network of all cells" in [heading.value for heading in shown.subheader]


def test_random_weights_are_called_so_in_red(
    app: AppTest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("random"), random_weights=True)
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(folder))
    app.query_params["data"] = "pbmc3k"
    app.run().switch_page("pages/grn.py").run()
    assert "Random weights" in app.error[0].value
