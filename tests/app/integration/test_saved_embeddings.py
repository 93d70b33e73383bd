"""A saved embedding: on every page, by its name, in files that are taken home, and gone and back."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import anndata
import numpy as np
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_integration import IntegrationResult
from tests.app.integration.conftest import Open
from tests.app.integration.test_integration_page import plain


def save(page: AppTest, name: str, method: str | None = None) -> AppTest:
    """Fill in the form and send it."""
    if method is not None:
        next(box for box in page.selectbox if box.label == "Vectors of").set_value(method)
    page.text_input(key="save-name").set_value(name)
    return next(button for button in page.button if button.label == "Save as an embedding").click().run()


def pictures(page: AppTest) -> list[str]:
    return list(next(item for item in page.get("button_group") if item.key == "picture").options)


def test_it_is_a_further_picture_with_clusters_on_every_page(
    shown: AppTest, open_page: Open, integrated: IntegrationResult
) -> None:
    page = save(shown, "by donor", "harmony")
    assert not page.exception
    assert "Harmony, integrated by donor" in plain(page)
    page = open_page("embedding")
    assert "by donor" in pictures(page)
    assert "Leiden clusters (by donor)" in page.selectbox(key="colour").options
    next(item for item in page.get("button_group") if item.key == "picture").set_value("by donor").run()
    page.selectbox(key="colour").set_value("leiden:saved: by donor").run()
    assert not page.exception
    assert "donors.h5ad: by donor, Leiden clusters (by donor)" in page.get("plotly_chart")[0].proto.spec
    page = open_page("annotation")
    assert not page.exception


def test_it_goes_into_the_file_and_the_table(
    shown: AppTest, open_page: Open, integrated: IntegrationResult, engine: Engine, cells: Path
) -> None:
    save(shown, "Donors, mixed!", "harmony")
    page = open_page("embedding")
    page = page.button(key="prepare-h5ad").click().run()
    assert not page.exception
    link = next(item for item in page.get("link_button") if "Download" in item.proto.label)
    token, name = unquote(link.proto.url).split("/")[-2:]
    made = anndata.read_h5ad(engine.store.root.parent / "exports" / token / name)
    np.testing.assert_array_equal(made.obsm["X_donors_mixed"], integrated.vectors["harmony"])
    assert made.obsm["X_umap_donors_mixed"].shape == (made.n_obs, 2)
    assert made.obs["leiden_donors_mixed"].nunique() > 1


def test_names_are_checked_changed_and_given_back(shown: AppTest) -> None:
    page = save(shown, "PCA")
    assert "There is a picture 'PCA' already." in page.error[0].value.replace("\\", "")
    page = save(page, "first")
    assert not page.error
    page.text_input(key="new-saved-name-first").set_value("second")
    next(button for button in page.button if button.label == "Rename").click().run()
    assert "second" in plain(page)
    page.button(key="delete-saved-second").click().run()
    assert "delete-saved-second" not in [button.key for button in page.button]
    page.button(key="undo-saved").click().run()
    assert "delete-saved-second" in [button.key for button in page.button]


def test_it_is_independent_of_the_checkpoint(shown: AppTest, integrated: IntegrationResult, tuned: Engine) -> None:
    page = save(shown, "kept", "scdiva")
    page = page.button(key="integration-use").click().run()
    assert integrated.checkpoint.name in str(page.query_params["checkpoint"])
    page.switch_page("pages/embedding.py").run()
    assert not page.exception
    assert pictures(page) == ["ScDiVa", "kept"]
    next(item for item in page.get("button_group") if item.key == "picture").set_value("kept").run()
    assert "donors.h5ad: kept, " in page.get("plotly_chart")[0].proto.spec
    assert "Provisional checkpoint" in page.get("plotly_chart")[0].proto.spec, "the warning goes with it"
