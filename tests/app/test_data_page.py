"""The Data page: demos, open by path, preflight, quality."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from tests.app.conftest import PBMC, texts


@pytest.fixture
def page(app: AppTest) -> AppTest:
    return app.run().switch_page("pages/data.py").run()


def open_path(page: AppTest, path: str) -> AppTest:
    page.text_input[0].set_value(path)
    return next(button for button in page.button if button.label == "Open" and button.form_id).click().run()


def test_the_preflight_says_what_is_in_the_file(page: AppTest) -> None:
    found = texts(page)
    for fact in ("**2,700**", "**16,634**", "**raw counts**", "**gene symbols**"):
        assert fact in found
    assert "16,634 of 16,634 (100 %)" in page.get("progress")[0].proto.text
    assert list(page.dataframe[0].value["obs column"]) == ["cell_type"]


def test_quality_is_measured_as_scanpy_does(page: AppTest) -> None:
    counts = anndata.read_h5ad(PBMC)
    totals = np.asarray(counts.X.sum(axis=1)).ravel()
    genes = np.asarray((counts.X > 0).sum(axis=1)).ravel()
    mitochondrial = np.asarray(counts[:, counts.var_names.str.startswith("MT-")].X.sum(axis=1)).ravel()
    found = texts(page)
    assert f"median {np.median(totals):,.4g} ·" in found
    assert f"median {np.median(genes):,.4g} ·" in found
    assert f"median {np.median(100 * mitochondrial / totals):,.4g} ·" in found
    assert len(page.get("plotly_chart")) == 3


def test_another_demo_is_opened_with_a_click(page: AppTest) -> None:
    page.button(key="demo-bone_marrow").click().run()
    assert "**Bone marrow**" in [element.value for element in page.sidebar.markdown]
    assert page.query_params["data"] == "bone_marrow"
    assert page.button(key="demo-bone_marrow").disabled


def test_a_file_below_the_data_root_is_opened_by_path(page: AppTest) -> None:
    open_path(page, "few.h5ad")
    assert not page.error
    assert "**few\\.h5ad**" in [element.value for element in page.sidebar.markdown]
    assert page.button(key="embed").label == "Embed 150 cells"


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("text.h5ad", "is not an HDF5 file", "Write it with anndata"),
        ("../secret.h5ad", "leads out of the data folder", "below the data folder"),
        ("absent.h5ad", "There is no file", "Check the spelling"),
    ],
)
def test_a_bad_choice_is_explained_and_the_open_file_stays(page: AppTest, path: str, message: str, hint: str) -> None:
    open_path(page, path)
    said = page.error[0].value.replace("\\", "")
    assert message in said
    assert hint in said
    assert not page.exception
    assert "**PBMC 3k**" in [element.value for element in page.sidebar.markdown]
    page.button(key="demo-kang2018").click().run()
    assert not page.error


def test_counts_can_be_read_as_log_values(page: AppTest) -> None:
    select = next(box for box in page.selectbox if box.label == "Read its values")
    select.set_value("log1p").run()
    assert page.query_params["values"] == "log1p"
    assert not page.exception


def test_a_link_to_something_that_is_gone_says_so(app: AppTest) -> None:
    app.query_params["data"] = "f" * 64
    app.run().switch_page("pages/data.py").run()
    assert not app.exception
    assert "There is no upload" in app.error[0].value
    assert app.main.children[2].type == "error", "on a phone what stands below the demos is off the screen"
    app.button(key="demo-pbmc3k").click().run()
    assert not app.error
