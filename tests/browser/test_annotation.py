"""Naming, reviewing and exporting cells, in the running app."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest
from playwright.sync_api import Locator, Page, expect

from scdiva_core.tasks.annotation_export import read_annotation
from tests.browser.conftest import PHONE, Visit, serving
from tests.naming_checkpoint import write_naming_checkpoint

Begin = Callable[..., Visit]


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of its own: the other one's checkpoint names no cell types."""
    checkpoint = write_naming_checkpoint(tmp_path_factory.mktemp("naming"), tmp_path_factory.mktemp("work"))
    home = tmp_path_factory.mktemp("home")
    with serving(checkpoint, home, files, home / "server.log") as address:
        yield address


def with_names(user: Visit) -> Visit:
    """Have three hundred cells named in a session, unless another one did."""
    user.open("/annotation?data=few.h5ad")
    embed = user.page.get_by_role("button", name="Embed 300 cells")
    name = user.page.get_by_role("button", name="Name 300 cells")
    named = user.page.get_by_text("0 of 300 cells decided")
    expect(embed.or_(name).or_(named).first).to_be_visible(timeout=60_000)
    if embed.is_visible():
        embed.click()
        name.click(timeout=90_000)
    expect(named).to_be_visible(timeout=60_000)
    user.settled()
    return user


@pytest.fixture
def named(visit: Begin) -> Visit:
    """A session that has three hundred cells named."""
    return with_names(visit())


def decided(page: Page) -> int:
    text = page.get_by_text(re.compile(r"^[\d,]+ of 300 cells decided")).inner_text()
    return int(text.split()[0].replace(",", ""))


def button(page: Page, key: str) -> Locator:
    """A button by its key; Streamlit hides a copy behind it to measure its label."""
    return page.locator(f".st-key-{key} button").first


def press(user: Visit, key: str, cells: int) -> None:
    """Use a shortcut and wait until so many cells are decided."""
    user.page.keyboard.press(key)
    expect(user.page.get_by_text(f"{cells:,} of 300 cells decided")).to_be_visible()
    user.settled()


def size_at_hand(page: Page) -> int:
    heading = page.locator("h4").filter(has_text="of cluster").inner_text()
    return int(heading.split()[0].replace(",", ""))


def test_name_accept_relabel_undo_and_take_home(named: Visit, tmp_path: Path) -> None:
    page = named.page
    page.locator(".st-key-reviewer input").fill("Ada Lovelace")
    page.locator(".st-key-reviewer input").press("Enter")
    named.settled()
    while button(page, "accept").is_disabled():
        button(page, "skip").click()
        named.settled()
    first = size_at_hand(page)
    button(page, "accept").click()
    expect(page.get_by_text(f"{first:,} of 300 cells decided")).to_be_visible()
    named.settled()

    second = size_at_hand(page)
    page.locator(".st-key-label-search input").fill("NK T cell")
    page.locator(".st-key-label-search input").press("Enter")
    relabel = button(page, "relabel")
    expect(relabel).to_be_enabled()
    named.settled()
    relabel.click()
    expect(page.get_by_text(f"{first + second:,} of 300 cells decided")).to_be_visible()
    named.settled()
    button(page, "undo").click()
    expect(page.get_by_text(f"{first:,} of 300 cells decided")).to_be_visible()
    named.settled()

    page.reload()
    named.settled()
    expect(page.get_by_text(f"{first:,} of 300 cells decided")).to_be_visible(timeout=60_000)
    button(page, "redo").click()
    expect(page.get_by_text(f"{first + second:,} of 300 cells decided")).to_be_visible()
    named.settled()

    page.get_by_role("button", name="Prepare .h5ad").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download .h5ad").click()
    download.value.save_as(tmp_path / "labels.h5ad")
    annotation = read_annotation(tmp_path / "labels.h5ad")
    assert [event.who for event in annotation.state.applied][-1] == "Ada Lovelace"
    assert (annotation.state.events > 0).sum() == first + second
    assert anndata.read_h5ad(tmp_path / "labels.h5ad").obs["scdiva_label"].notna().all()
    for name, start in (("Table (CSV)", b"cell,scdiva_label"), ("Cell annotation (JSON)", b"{")):
        with page.expect_download() as download:
            page.locator(".st-key-labels-home").get_by_role("button", name=name).click()
        download.value.save_as(tmp_path / "file")
        assert (tmp_path / "file").read_bytes().startswith(start)
    assert json.loads((tmp_path / "file").read_bytes())["author_name"] == "Ada Lovelace"


def test_keys_decide_and_letters_typed_in_a_field_do_not(named: Visit) -> None:
    page = named.page
    first = size_at_hand(page)
    press(named, "x", first)
    press(named, "u", 0)
    press(named, "y", first)
    second = size_at_hand(page)
    page.locator(".st-key-reason input").click()
    page.keyboard.type("axsuy12")
    page.keyboard.press("Enter")
    named.settled()
    assert decided(page) == first
    page.locator("h1").click()
    press(named, "1", first + second)


def test_cells_that_are_drawn_around_are_split_off(named: Visit) -> None:
    page = named.page
    page.get_by_text("those drawn around").click()
    expect(page.get_by_text("Draw around cells in the picture above.")).to_be_visible()
    page.locator(".st-key-picture-labels, [class*=st-key-picture-labels]").first.scroll_into_view_if_needed()
    area = page.locator("[class*=st-key-picture-] .nsewdrag").first
    expect(area).to_be_visible()
    box = area.bounding_box()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.02)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=10)
    page.mouse.up()
    size = size_at_hand(page)
    expect(button(page, "split")).to_contain_text(f"Split off {size:,} cell")
    page.locator(".st-key-label-search input").fill("drawn")
    page.locator(".st-key-label-search input").press("Enter")
    expect(button(page, "split")).to_be_enabled()
    named.settled()
    button(page, "split").click()
    expect(page.get_by_text(f"{size:,} of 300 cells decided")).to_be_visible()


def test_nothing_sticks_out_on_a_phone(visit: Begin) -> None:
    user = with_names(visit(**PHONE))
    assert user.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
