"""The Model page of a checkpoint that brings a card and an evaluation, as a browser draws it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from scdiva_core.model.checkpoint import file_sha256
from tests.browser.conftest import PHONE, Visit, serving
from tests.small_evaluation import small_evaluation
from tests.tiny_checkpoint import write_tiny_checkpoint

Begin = Callable[..., Visit]


README = """# A card

![A map](https://example.org/map.png) It costs $5 or $6. <img src="https://example.org/b.png" alt="Two">
<b>Not bold</b>, [![a badge](https://example.org/c.svg)](https://example.org/).

Title
=====

| set | a long heading of a column | another long heading | and a third one | and the last of them |
|---|---|---|---|---|
| blood | **0.9** | 0.8 | 0.7 | 0.6 |
"""


@pytest.fixture(scope="module")
def server(home: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of its own: the other one's checkpoint has neither card nor evaluation."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("described"))
    (checkpoint / "README.md").write_text(README, encoding="utf-8")
    content = small_evaluation(file_sha256(checkpoint / "model.safetensors"))
    (checkpoint / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(checkpoint, home, files, log) as address:
        yield address


def open_page(visit: Begin, **options: object) -> Page:
    user = visit(**options)
    user.open("/model?data=bone_marrow")
    expect(user.page.locator(".st-key-evaluation .js-plotly-plot")).to_be_visible()
    return user.page


def test_the_card_is_rendered_and_loads_nothing(visit: Begin) -> None:
    user = visit()
    asked: list[str] = []
    user.page.on("request", lambda request: asked.append(request.url))
    user.open("/model?data=bone_marrow")
    card = user.page.locator(".st-key-card-text")
    expect(card.locator("h3")).to_have_text(["A card", "Title"])
    expect(card.get_by_text("A map It costs $5 or $6. Two")).to_be_visible()
    expect(card.get_by_text("<b>Not bold</b>")).to_be_visible()
    expect(card.locator("td strong")).to_have_text("0.9")
    expect(card.locator("img, .katex")).to_have_count(0)
    expect(user.page.locator("h1")).to_have_count(1)
    assert [url for url in asked if not url.startswith(user.address) and "://" in url] == []


def test_numbers_are_chosen_read_and_taken_home(visit: Begin, tmp_path: Path) -> None:
    page = open_page(visit)
    evaluation = page.locator(".st-key-evaluation")
    expect(evaluation.get_by_text("level on none, below on 1 (Blood, <b>3k</b>)")).to_be_visible()
    expect(evaluation.locator("table strong")).to_have_text(["0.920 ± 0.010", "0.960 ± 0.010", *["0.930 ± 0.010"] * 2])
    evaluation.get_by_role("radio", name="Studies pooled").click()
    expect(evaluation.locator("table tbody tr")).to_have_count(1)
    expect(evaluation.locator("table strong")).to_have_text("0.900")
    with page.expect_download() as download:
        evaluation.get_by_role("button", name="All numbers (CSV)").click()
    download.value.save_as(tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table["group"]) == {"classification", "annotation", "mixing"}
    assert table.loc[table["set"] == "(mean)", "value"].max() == pytest.approx(0.93)
    with page.expect_download() as download:
        evaluation.get_by_role("button", name="All numbers (JSON)").click()
    download.value.save_as(tmp_path / "table.json")
    assert json.loads((tmp_path / "table.json").read_text())["settings"]["seeds"] == 2


def test_on_a_phone_the_page_is_no_wider_than_the_screen(visit: Begin) -> None:
    page = open_page(visit, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for key in ("evaluation", "card-text"):
        wide = page.locator(f".st-key-{key} table")
        frame = page.locator(f".st-key-{key}").bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= 390
        assert wide.evaluate(SCROLLS), f"the table of {key} is cut off"


SCROLLS = """table => {
    for (let box = table; box; box = box.parentElement)
        if (box.scrollWidth > box.clientWidth + 1) return ['auto', 'scroll'].includes(getComputedStyle(box).overflowX);
    return true;
}"""
