"""Knocking out a gene, in the running app."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visit, serving
from tests.tiny_checkpoint import write_tiny_checkpoint

Begin = Callable[..., Visit]


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of its own: the other one's checkpoint reads too few genes of a cell."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "max_genes": 120}))
    home = tmp_path_factory.mktemp("home")
    with serving(checkpoint, home, files, home / "server.log") as address:
        yield address


def take_by_keyboard(user: Visit, gene: str) -> None:
    """Type a gene into the field of those to perturb."""
    page = user.page
    page.locator(".st-key-ko-genes-box input").focus()
    page.keyboard.type(gene)
    expect(page.get_by_role("option")).to_have_count(1)  # until then Enter would take another one
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-ko-run")).to_contain_text(f"Knock out {gene}")
    page.keyboard.press("Escape")
    user.settled()


def take_from_search(user: Visit, name: str, gene: str) -> None:
    """Search by another name, and click the first row of what is found."""
    page = user.page
    page.locator(".st-key-ko-find input").fill(name)
    page.locator(".st-key-ko-find input").press("Enter")
    rows = page.locator("[class*=st-key-ko-matches-] canvas").first
    expect(rows).to_be_visible()
    user.settled()
    area = rows.bounding_box()
    page.mouse.click(area["x"] + 17, area["y"] + 52)  # the box at the left of the first row
    expect(page.get_by_role("button", name=re.compile(f"Knock out .*{gene}"))).to_be_visible()
    user.settled()


def knock_out(user: Visit, gene: str) -> None:
    """Begin without predicted expression, and wait for the result."""
    page = user.page
    page.get_by_text("Predict the expression of all other genes").click()
    user.settled()
    page.get_by_role("button", name=f"Knock out {gene}").click()
    expect(page.locator(".st-key-ko-caption")).to_be_visible(timeout=120_000)
    user.settled()


def saved(page: Page, label: str, place: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator(place).get_by_role("button", name=label, exact=True).click()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def test_knock_out_a_gene_see_the_bars_and_take_the_table_home(visit: Begin, tmp_path: Path) -> None:
    user = visit()
    page = user.page
    user.open("/knockout?data=few.h5ad")
    page.get_by_role("button", name="Embed 300 cells").click()
    expect(page.locator(".st-key-ko-genes-box input")).to_be_visible(timeout=90_000)
    user.settled()
    take_by_keyboard(user, "CD79A")
    take_from_search(user, "CD20", "CD79A and MS4A1")
    page.locator(".st-key-ko-genes-box input").focus()
    page.keyboard.press("Backspace")
    expect(page.get_by_role("button", name="Knock out CD79A", exact=True)).to_be_visible()
    user.settled()
    knock_out(user, "CD79A")
    expect(page.locator(".st-key-ko-caption")).to_contain_text("of 300 cells (all)")
    expect(page.locator(".st-key-ko-caption")).to_contain_text("it is no experiment")
    page.get_by_role("tab", name="Cell types").click()
    bars = page.locator(".st-key-ko-bars .gtitle")
    expect(bars).to_contain_text("CD79A knocked out")
    user.settled()
    table = saved(page, "Table (CSV)", ".st-key-ko-groups-table-csv", tmp_path)
    assert table.name == "few-CD79A-knocked-out-cell-types.csv"
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    assert header.startswith("group,n_cells,n_read,shift,null_mean")
    assert len(rows) == 8
    html = saved(page, "HTML", ".st-key-ko-bars-downloads", tmp_path)
    assert "CD79A knocked out" in html.read_text(encoding="utf-8")

    page.reload()
    expect(page.locator(".st-key-ko-caption")).to_contain_text("CD79A knocked out", timeout=60_000)
    phone = visit(**PHONE)
    phone.open(page.url.removeprefix(user.address))
    expect(phone.page.locator(".st-key-ko-caption")).to_be_visible(timeout=60_000)
    for tab in ("Map", "Cell types", "Directions", "Controls"):
        phone.page.get_by_role("tab", name=tab).click()
        phone.settled()
        assert phone.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
