"""The page Reconstruction: what it asks for, a result in words and tabs, genes of a list, and the denoised layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction import ReconstructionResult, reconstruct
from scdiva_core.engine_reconstruction_denoising import stored_denoised
from scdiva_core.engine_reconstruction_result import MEAN, NAMED, NEIGHBOURS, ONE_PASS, ONE_PASS_LEAKING, RANK
from tests.app.conftest import choose_genes, texts
from tests.app.knockout.test_knockout_page import finish_jobs
from tests.app.reconstruction.conftest import ASKED, Open, ask
from tests.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture
def shown(open_page: Open, rebuilt: ReconstructionResult) -> AppTest:
    """The page with all cells rebuilt, which was done before."""
    return ask(open_page()).button(key="rec-run").click().run()


def tab(page: AppTest, name: str) -> AppTest:
    page.session_state["rec-tabs"] = name
    return page.run()


def frame_with(page: AppTest, *columns: str) -> pd.DataFrame:
    return next(frame.value for frame in page.dataframe if set(columns) <= set(frame.value))


def plain(page: AppTest) -> str:
    return texts(page).replace("\\", "")


def named(page: AppTest, text: str) -> AppTest:
    """Ask for genes of a list."""
    page.segmented_control(key="rec-hiding").set_value("genes").run()
    return page.text_area(key="rec-genes").set_value(text).run()


def test_a_file_that_is_gone_leads_to_the_data_page(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/reconstruction.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert [link.value for link in app.page_link] == ["Choose one on the page Data"]


def test_the_empty_page_says_what_to_do_and_what_it_costs(open_page: Open) -> None:
    page = open_page()
    assert not page.exception
    assert "Nothing has been rebuilt yet." in page.info[0].value
    assert page.multiselect(key="rec-shares").value == [15, 30, 50, 80]
    assert "on this machine; you can leave the page meanwhile." in texts(page)
    page.multiselect(key="rec-shares").set_value([]).run()
    assert "Choose at least one share." in page.info[0].value
    page.multiselect(key="rec-shares").set_value([95]).run()
    page.selectbox(key="rec-cells").set_value("category").run()
    assert "Choose at least one value of the column." in page.info[0].value
    assert "rec-run" not in [button.key for button in page.button]


def test_names_that_are_no_genes_are_told_and_left_out(open_page: Open) -> None:
    page = named(open_page(), "")
    assert "Type or paste some." in page.info[0].value
    page = named(page, "NOSUCHGENE")
    assert "1 name left out" in page.warning[0].value
    assert "No gene is left." in page.info[0].value
    page = named(page, "ltb; NOSUCHGENE\nENSG00000167526")
    assert "**NOSUCHGENE**: no human gene is known by this name" in page.warning[0].value
    assert "2 genes found: ltb → LTB, ENSG00000167526 → RPL13." in plain(page)
    assert page.button(key="rec-run").label == "Hide and rebuild"


def test_a_reconstruction_runs_as_a_job_and_is_found_again_in_another_session(
    open_page: Open, made: Engine, project: str
) -> None:
    page = open_page()
    page.selectbox(key="rec-cells").set_value("category").run()
    page.multiselect(key="rec-values-cell_type").set_value(["CD4 T"]).run()
    page.multiselect(key="rec-shares").set_value([50])
    page.number_input(key="rec-iterative").set_value(0)
    page.number_input(key="rec-most").set_value(10).run()
    page.button(key="rec-run").click().run()
    assert "You can leave this page or close the browser: the work goes on." in texts(page)
    assert finish_jobs(made, project) == ["done"]
    again = open_page()
    assert not again.exception
    assert "Reconstruction of cell\\_type=CD4 T" in [heading.value for heading in again.subheader]
    assert len(again.get("plotly_chart")) == 1, "one share is drawn too"
    (python,) = (code.value for code in again.code if "ReconstructionSettings(" in code.value)
    command = next(code.value for code in again.code if "scdiva_core reconstruct" in code.value)
    assert "--masks 50 --group cell_type --subset 'cell_type=CD4 T' -n 10 --iterative-cells 0" in command
    made_again: dict[str, ReconstructionResult] = {}
    exec(python, made_again)
    assert made_again["result"].n_rebuilt == 10
    assert made_again["result"].summary["caption"] in plain(again)
    remove = next(button for button in again.button if button.key.startswith("rec-remove-"))
    remove.click().run()
    assert "Nothing has been rebuilt yet" in again.info[0].value
    again.button(key="rec-undo").click().run()
    assert any(button.key.startswith("rec-show-") for button in again.button)


def test_the_verdict_names_the_honest_figures_first_and_then_the_leak(
    shown: AppTest, rebuilt: ReconstructionResult
) -> None:
    assert not shown.exception
    told = texts(shown)
    rows = rebuilt.comparisons.set_index(["ours", "theirs", "measure"])
    named_rows = [rows.loc[(NAMED, other, "mse")] for other in (MEAN, NEIGHBOURS)]
    identity, leak = rows.loc[(ONE_PASS, RANK, "identity")], rows.loc[(ONE_PASS_LEAKING, ONE_PASS, "identity")]
    wanted = [
        "from visible genes only: ScDiVa is ",
        f"Squared error of log1p values {named_rows[0]['ours_mean']:.3f}; "
        f"population mean {named_rows[0]['theirs_mean']:.3f}",
        f"kNN imputation {named_rows[1]['theirs_mean']:.3f}",
        f"Named rightly {100 * identity['ours_mean']:.1f} %, by rank alone {100 * identity['theirs_mean']:.1f} %",
        "With the published anchor hidden genes leak to the model",
        f"So {100 * leak['ours_mean']:.1f} % are named rightly",
    ]
    places = [told.find(part) for part in wanted]
    assert min(places) >= 0, wanted[int(np.argmin(places))]
    assert places == sorted(places)
    for warning in rebuilt.summary["warnings"]:
        assert warning in plain(shown)


def test_the_curve_shows_each_measure_and_both_questions(shown: AppTest) -> None:
    assert [tab.label for tab in shown.tabs] == ["Mask curve", "Table", "One cell", "Genes and types", "Denoised layer"]
    assert len(shown.get("plotly_chart")) == 1
    assert "Share of the hidden places of a cell where the right gene is named" in texts(shown)
    assert "rec-question" not in [control.key for control in shown.segmented_control]
    shown.segmented_control(key="rec-measure").set_value("mse").run()
    assert shown.segmented_control(key="rec-question").value == "gene"
    for told in ("place", "both"):
        shown.segmented_control(key="rec-question").set_value(told).run()
        assert not shown.exception
        assert len(shown.get("plotly_chart")) == 1


def test_tables_hold_all_numbers(shown: AppTest, rebuilt: ReconstructionResult) -> None:
    page = tab(shown, "Table")
    assert not page.exception
    pd.testing.assert_frame_equal(frame_with(page, "bleu")[list(rebuilt.table)], rebuilt.table)
    assert set(frame_with(page, "bleu")["sees"]) == {"visible genes only", "hidden genes too (leak)"}
    assert len(frame_with(page, "ours", "theirs")) == len(rebuilt.comparisons)


def test_one_cell_is_shown_gene_by_gene(shown: AppTest, rebuilt: ReconstructionResult) -> None:
    page = tab(shown, "One cell")
    cell = rebuilt.profiles["cell"].iloc[-1]
    next(box for box in page.selectbox if box.key.startswith("rec-cell-")).set_value(cell).run()
    assert not page.exception
    own = rebuilt.profiles[(rebuilt.profiles["cell"] == cell) & rebuilt.profiles["hidden"]]
    off = (own["named_value"] - own["value"]).abs().sort_values(ascending=False)
    rows = frame_with(page, "error")
    np.testing.assert_allclose(rows["error"].abs(), off)
    page.segmented_control(key="rec-best").set_value(True).run()
    np.testing.assert_allclose(frame_with(page, "error")["error"].abs(), off[::-1])
    assert len(page.get("plotly_chart")) == 1


def test_genes_and_types_are_compared_with_simple_methods(shown: AppTest, rebuilt: ReconstructionResult) -> None:
    page = tab(shown, "Genes and types")
    assert not page.exception
    assert len(page.get("plotly_chart")) == 2
    assert frame_with(page, "symbol", "mean")["symbol"].tolist() == rebuilt.genes["symbol"].tolist()
    assert len(frame_with(page, "group", "bleu")) == len(rebuilt.types)
    page.segmented_control(key="rec-theirs").set_value(NEIGHBOURS)
    page.segmented_control(key="rec-type-measure").set_value("identity").run()
    assert not page.exception


def test_genes_of_a_list_are_imputed(open_page: Open, imputed: ReconstructionResult) -> None:
    page = named(open_page(), "RPL13, LTB, IL10")
    page.selectbox(key="rec-types").set_value("")
    page.number_input(key="rec-most").set_value(60)
    page.number_input(key="rec-iterative").set_value(0).run()
    page.button(key="rec-run").click().run()
    assert not page.exception
    assert "Imputation of RPL13, LTB, IL10 in all cells" in [heading.value for heading in page.subheader]
    assert "IL10" not in set(imputed.genes["symbol"])
    assert "without a number of their own: IL10." in plain(page)
    assert any("--genes RPL13,LTB,IL10 -n 60" in code.value for code in page.code)
    assert page.segmented_control(key="rec-measure").value == "mse"
    page = tab(page, "Genes and types")
    assert not page.exception
    assert any("No column with cell types was chosen." in info.value for info in page.info)


def test_a_denoised_gene_is_shown_beside_the_measured_one_and_taken_home(
    shown: AppTest, made: Engine, cells: Path
) -> None:
    page = tab(shown, "Denoised layer")
    assert not page.exception
    assert "do not test them" in page.warning[0].value
    choose_genes(page, "rec-denoised-gene", "LTB")
    assert len(page.get("plotly_chart")) == 2
    with made.open(cells) as dataset:
        values = stored_denoised(made, dataset)
        seen = values[:, dataset.gene_symbols.index("LTB")].nnz
    assert f"The model reads LTB in {seen} cells" in texts(page)
    page.button(key="rec-h5ad").click().run()
    assert not page.exception
    link = next(item.proto.url for item in page.get("link_button"))
    token, name = link.split("/")[-2:]
    assert name == "hidden-denoised.h5ad"
    written = anndata.read_h5ad(made.store.root.parent / "exports" / token / name)
    assert written.layers["scdiva_denoised"].nnz == values.nnz


def test_a_file_is_denoised_without_a_reconstruction_and_without_maps(
    open_page: Open, made: Engine, bare: Path, project: str
) -> None:
    page = open_page(data="bare.h5ad")
    page.session_state["rec-denoised-beside"] = True
    page.run()
    assert "has not been denoised" in texts(page)
    page.button(key="rec-denoise").click().run()
    assert finish_jobs(made, project) == ["done"]
    page.run()
    assert not page.exception
    assert len(page.get("plotly_chart")) == 1
    assert "Embed the cells" in texts(page)


def test_random_weights_are_called_so_in_red_in_figures_and_in_file_names(
    app: AppTest, bare: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("random"), random_weights=True)
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(folder))
    found = Engine(folder, "cpu", engine.store)
    with found.open(bare) as dataset:
        reconstruct(found, dataset, replace(ASKED, iterative_cells=0, group_key=None))
    app.query_params["data"] = "bare.h5ad"
    app.run().switch_page("pages/reconstruction.py").run()
    assert "Random weights" in app.error[0].value
    page = ask(app)
    page.selectbox(key="rec-types").set_value("")
    page.number_input(key="rec-iterative").set_value(0).run()
    page.button(key="rec-run").click().run()
    assert "These weights are random; what they rebuild means nothing." in plain(page)
    assert "Random weights: this picture means nothing" in page.get("plotly_chart")[0].proto.spec
