"""Two files put together, integrated, compared with a lasso, and kept as an embedding, in the running app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PBMC, PHONE, Visit

Begin = Callable[..., Visit]

PICTURE = "[class*=st-key-picture-integration-{side}]"
MARKED = """([selector, n]) => {
    const plot = document.querySelector(selector + ' .js-plotly-plot');
    const coloured = plot._fullData.filter(trace => trace.name !== 'filtered out');
    return coloured.reduce((sum, trace) => sum + trace.x.length, 0) === n;
}"""
"""Whether just so many cells of a picture are in colour."""


@pytest.fixture(scope="session")
def two_files(files: Path) -> tuple[str, str]:
    """Different cells of one donor in two files; the first lacks some genes, the second all B cells."""
    cells = anndata.read_h5ad(PBMC)
    second = cells[4::18]
    cells[::18, :-300].copy().write_h5ad(files / "north.h5ad")
    second[(second.obs["cell_type"] != "B").to_numpy()].copy().write_h5ad(files / "south.h5ad")
    return "north.h5ad", "south.h5ad"


def put_together(user: Visit, names: tuple[str, str]) -> None:
    """Add two files by path, choose them, look at their overlap, and wait for the new file."""
    page = user.page
    for name in names:
        page.locator(".st-key-join-path-text input").fill(name)
        page.get_by_role("button", name="Add", exact=True).click()
        user.settled()
    page.locator(".st-key-join-files input").click()
    for name in names:
        page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")
    expect(page.get_by_text("genes are missing from some file")).to_be_visible()
    page.get_by_role("button", name="Put them together").click()
    expect(page.get_by_test_id("stSidebar").get_by_text("north + south", exact=True)).to_be_visible(timeout=120_000)
    user.settled()


def lasso(page: Page, side: str) -> None:
    """Draw around the lower left half of one of the two pictures."""
    picture = page.locator(f"{PICTURE.format(side=side)} .nsewdrag").first
    picture.scroll_into_view_if_needed()
    area = picture.bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
    points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=10)
    page.mouse.up()


def test_two_files_are_joined_integrated_compared_and_kept(visit: Begin, two_files: tuple[str, str]) -> None:
    user = visit()
    page = user.page
    user.open("/integration?data=few.h5ad")
    put_together(user, two_files)
    page.get_by_role("button", name="Integrate", exact=True).click()
    expect(page.locator(".st-key-integration-caption")).to_be_visible(timeout=300_000)
    expect(page.locator(PICTURE.format(side="right")).locator(".nsewdrag").first).to_be_visible(timeout=120_000)
    user.settled()

    told = page.get_by_text("marked in both pictures")
    before = ""
    for side in ("left", "right"):
        lasso(page, side)
        expect(told).to_be_visible()
        expect(told).not_to_have_text(before)
        user.settled()
        before = told.inner_text()
        for each in ("left", "right"):
            page.wait_for_function(MARKED, arg=[PICTURE.format(side=each), int(before.split()[0])])
    page.get_by_placeholder("for example: naive T").fill("lower half")
    page.get_by_role("button", name="Save as cell set").click()
    expect(page.get_by_text("drawn on the ScDiVa, fine-tuned, by file map")).to_be_visible()

    page.get_by_role("tab", name="Types apart").click()
    expect(page.get_by_text("types that only one batch has keep their own cluster").first).to_be_visible()
    page.locator(".st-key-save-name input").fill("both files")
    page.get_by_role("button", name="Save as an embedding").click()
    expect(page.get_by_text("ScDiVa, fine-tuned, integrated by file")).to_be_visible()
    user.settled()
    address = page.url.removeprefix(user.address)
    page.get_by_role("link", name="Look at it on the page Embedding").click()
    expect(page.locator("h1").first).to_have_text("Embedding")
    expect(page.locator(".gtitle").first).to_contain_text("north + south: both files", timeout=60_000)
    expect(page.get_by_text("lower half")).to_be_visible()
    user.settled()

    phone = visit(**PHONE)
    phone.open(address)
    expect(phone.page.locator(".st-key-integration-caption")).to_be_visible(timeout=60_000)
    for tab in ("Measures", "Training", "Before and after"):
        phone.page.get_by_role("tab", name=tab).click()
        phone.settled()
        assert phone.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
