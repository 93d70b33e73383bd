"""What all pages share: frame, URL, sidebar."""

from __future__ import annotations

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from pages._ui import resources
from pages._ui.frame import PAGES
from scdiva_core.engine import Engine
from tests.app.conftest import ROOT, texts


def test_the_bare_address_leads_to_the_picture_of_the_first_demo(app: AppTest) -> None:
    app.run()
    assert app.title[0].value == "Embedding"
    assert "PBMC 3k · 2,700 cells" in texts(app)
    assert app.selectbox(key="colour").value == "obs:cell_type"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_with_sidebar_and_without_errors(app: AppTest, name: str) -> None:
    app.run().switch_page(f"pages/{name}.py").run()
    assert not app.exception
    assert not app.error
    assert app.title[0].value == PAGES[name][0]
    sidebar = [element.value for element in [*app.sidebar.markdown, *app.sidebar.caption]]
    assert "**PBMC 3k**" in sidebar
    assert "2,700 cells × 16,634 genes" in sidebar
    assert "**tiny test model**" in sidebar


@pytest.mark.parametrize("name", PAGES)
def test_the_url_of_every_page_holds_data_set_and_project(app: AppTest, name: str) -> None:
    app.query_params["data"] = "bone_marrow"
    app.query_params["project"] = "0123456789abcdef"
    app.run().switch_page(f"pages/{name}.py").run()
    assert app.query_params["data"] == "bone_marrow"
    assert app.query_params["project"] == "0123456789abcdef"
    assert "**Bone marrow**" in texts(app)


def test_a_project_name_that_is_none_is_replaced(app: AppTest) -> None:
    app.query_params["project"] = "../../etc"
    app.run()
    assert len(app.query_params["project"]) == 16
    int(app.query_params["project"], 16)


def test_settings_of_a_link_are_taken_and_nonsense_is_not(app: AppTest) -> None:
    app.query_params.update({"data": "pbmc3k", "n_neighbors": "30", "min_dist": "many", "seed": "3"})
    app.run()
    assert app.query_params["n_neighbors"] == "30"
    assert app.query_params["seed"] == "3"
    assert "min_dist" not in app.query_params
    assert "have not been embedded with this checkpoint yet" not in texts(app) or app.button(key="embed")


def test_a_provisional_checkpoint_says_so_on_every_page(app: AppTest) -> None:
    for name in PAGES:
        app.run().switch_page(f"pages/{name}.py").run()
        assert "rovisional" in texts(app)


def test_random_weights_are_called_so_in_red(
    app: AppTest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny_checkpoint import write_tiny_checkpoint

    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("random"), random_weights=True)
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(folder))
    app.run().switch_page("pages/model.py").run()
    assert "Random weights: this picture means nothing" in app.error[0].value


def test_missing_weights_are_a_message_and_no_traceback(
    app: AppTest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(tmp_path_factory.mktemp("empty")))
    app.query_params["data"] = "pbmc3k"
    app.run()
    assert not app.exception
    assert app.error
    st.cache_resource.clear()


def test_two_sessions_share_one_engine(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Engine] = []

    class Counted(Engine):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            loaded.append(self)

    monkeypatch.setattr(resources, "Engine", Counted)
    st.cache_resource.clear()
    app.run()
    second = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert "**tiny test model**" in texts(second)
    assert app.session_state is not second.session_state
    assert len(loaded) == 1
    st.cache_resource.clear()
