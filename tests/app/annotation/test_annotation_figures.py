"""Every figure of the page can be taken home: three buttons each, and files that are made without a page."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui import export
from scdiva_core.figures.palette import LIGHT
from scdiva_core.figures.static import render
from tests.app.annotation.conftest import largest

Offers = dict[str, tuple[Callable[[], go.Figure], tuple[int, int]]]


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> Offers:
    """What the page offers, by key; filled while it runs."""
    found: Offers = {}
    offer = export.figure_downloads

    def listen(figure: Callable[[], go.Figure], name: str, *, key: str, size: tuple[int, int]) -> None:
        found[key] = (figure, size)
        offer(figure, name, key=key, size=size)

    monkeypatch.setattr(export, "figure_downloads", listen)
    return found


def made(offers: Offers, key: str) -> str:
    """SVG of a figure as it is made when its button is pressed: on a thread that has no page."""
    figure, (width, height) = offers[key]
    with ThreadPoolExecutor(1) as threads:
        drawn = threads.submit(figure).result()
        assert drawn.layout.paper_bgcolor == LIGHT.background
        return threads.submit(render, drawn, "svg", width=width, height=height, dpi=50).result().decode()


def test_every_figure_of_the_page_is_offered_as_png_svg_and_html(offers: Offers, labelled: AppTest) -> None:
    labelled.session_state["truth"] = True
    largest(labelled)
    labelled.selectbox(key="truth-column").set_value("cell_type").run()
    assert "confidence" not in made(offers, "figure-labels")
    assert "stated probability" in made(offers, "figure-reliability")
    assert "positive markers" in made(offers, "figure-markers")
    labels = [button.label for button in labelled.get("download_button")]
    assert labels.count("PNG") == labels.count("SVG") == labels.count("HTML") == 4

    labelled.session_state["evidence"] = "Differential genes"
    labelled.run()
    labelled.button(key="find-genes").click().run()
    assert "log2 fold change" in made(offers, "figure-genes")

    labelled.session_state["evidence"] = "Batches"
    labelled.run()
    labelled.selectbox(key="batch-column").set_value("donor").run()
    assert not labelled.exception
    assert "share of the cells" in made(offers, "figure-composition")


def test_the_map_at_home_shows_what_is_shown_on_the_page(offers: Offers, labelled: AppTest) -> None:
    labelled.segmented_control(key="label-colour").set_value("confidence").run()
    assert not labelled.exception
    assert "few.h5ad: confidence" in made(offers, "figure-labels")
