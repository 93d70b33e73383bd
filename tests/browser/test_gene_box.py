"""The fields that genes are chosen in, as a person uses them."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visit

Begin = Callable[..., Visit]
_COLOURED = "/embedding?data=few.h5ad&colour=Gene+…"


def coloured(visit: Begin) -> tuple[Visit, Locator]:
    """The map of a few cells in the colours of a gene, and the field that says which."""
    user = visit()
    user.open("/embedding?data=few.h5ad")
    button = user.page.get_by_role("button", name="Embed 300 cells")
    if button.count():
        button.click()
    user.picture()
    user.open(_COLOURED)
    user.picture()
    return user, user.page.get_by_role("combobox", name="Gene", exact=True)


def shows(page: Page, gene: str) -> None:
    """Wait until the picture is called after a gene."""
    expect(page.locator(".js-plotly-plot .gtitle").first).to_contain_text(f" {gene},")


def test_a_gene_is_found_by_another_name_and_kept_in_the_link(visit: Begin) -> None:
    user, field = coloured(visit)
    page = user.page
    expect(field).to_have_value("CD3D")
    field.click()
    page.keyboard.type("cd20")
    expect(page.get_by_role("option").first).to_have_text("MS4A1CD20")
    page.keyboard.press("Enter")
    shows(page, "MS4A1")
    user.settled()
    assert "gene=MS4A1" in page.url
    page.reload()
    shows(page, "MS4A1")
    user.go("Model")
    user.go("Embedding")
    user.picture()
    expect(page.get_by_role("combobox", name="Gene", exact=True)).to_have_value("MS4A1")


def test_the_keyboard_walks_the_list_and_nothing_is_taken_unasked(visit: Begin) -> None:
    user, field = coloured(visit)
    page = user.page
    field.focus()
    expect(page.get_by_role("option")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option")).to_have_count(60)  # of thousands, until somebody goes on
    page.keyboard.press("Enter")
    expect(field).to_have_value("CD3D")
    field.click()
    page.keyboard.type("no such gene")
    expect(page.get_by_text("No gene of the file has this name.")).to_be_visible()
    page.keyboard.press("Enter")
    expect(field).to_have_value("CD3D")
    page.keyboard.type("LY")
    page.keyboard.press("Escape")
    expect(field).to_have_value("CD3D")
    page.keyboard.type("N")
    expect(page.get_by_role("option").first).to_have_attribute("data-symbol", re.compile("^N"))
    page.keyboard.press("Tab")
    expect(field).to_have_value("CD3D")
    expect(page.get_by_role("option")).to_have_count(0)
    field.click()
    page.keyboard.type("NKG")
    expect(page.get_by_role("option").first).to_have_attribute("data-symbol", "NKG7")
    second = page.get_by_role("option").nth(1).get_attribute("data-symbol")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shows(page, second)


def test_what_a_browser_makes_up_is_no_gene(visit: Begin) -> None:
    user, field = coloured(visit)
    for made_up in ("{}", "null", "[[1]]", "['<img src=x onerror=alert(1)>']", "['x'.repeat(3000)]", "[]"):
        user.page.evaluate(
            "sent => { const find = root => root.querySelector('.genes') ?? [...root.querySelectorAll('*')]"
            ".filter(each => each.shadowRoot).map(each => find(each.shadowRoot)).find(Boolean);"
            "find(document).box.report(eval(`(${sent})`)); }",
            made_up,
        )
        user.settled()
    shows(user.page, "CD3D")
    expect(field).to_have_value("CD3D")


def test_genes_to_perturb_are_added_pasted_and_removed(visit: Begin) -> None:
    user, _ = coloured(visit)
    page = user.page
    user.go("Knockout")
    field = page.get_by_role("combobox", name="Genes to perturb")
    field.click()
    page.keyboard.type("CD79A")
    page.get_by_role("option", name="CD79A", exact=True).click()
    expect(page.locator(".st-key-ko-run")).to_contain_text("Knock out CD79A")
    field.click()
    page.keyboard.type("lyz, PU.1, gnly")
    expect(page.get_by_text("Enter takes what you typed, 3 genes at most.")).to_be_visible()
    page.keyboard.press("Enter")
    expect(field).to_have_value("lyz, PU.1, gnly")  # four would be too many
    for _ in ", gnly":
        page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-ko-run")).to_contain_text("Knock out CD79A and LYZ and SPI1")
    user.settled()
    page.get_by_role("button", name="Remove lyz").click()
    expect(page.locator(".st-key-ko-run")).to_contain_text("Knock out CD79A and SPI1")
