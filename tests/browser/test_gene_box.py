"""The fields that genes are chosen in, as a person uses them."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import PHONE, Visit

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
    expect(page.get_by_text("No gene of the file has this name.")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.type("LY")
    page.keyboard.press("Escape")
    expect(field).to_have_value("CD3D")
    page.keyboard.type("N")
    expect(page.get_by_role("option").first).to_have_attribute("data-symbol", re.compile("^N"))
    page.keyboard.press("Tab")
    expect(field).to_have_value("CD3D")
    expect(page.get_by_role("option")).to_have_count(0)
    expect(page.get_by_role("switch", name="Log scale")).to_be_focused()
    field.click()
    page.keyboard.type("NKG")
    expect(page.get_by_role("option").first).to_have_attribute("data-symbol", "NKG7")
    second = page.get_by_role("option").nth(1).get_attribute("data-symbol")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shows(page, second)
    page.keyboard.type("lyz")  # instead of the gene that is there, which is selected
    page.keyboard.press("Tab")  # a symbol that is typed to its end is chosen
    shows(page, "LYZ")


def test_what_is_asked_for_before_the_list_is_there_is_not_lost(visit: Begin) -> None:
    user, field = coloured(visit)
    held: list[Route] = []
    user.page.route("**/api/genes/*", lambda route: held.append(route))
    field.click()
    user.page.keyboard.type("LYZ")
    expect(user.page.get_by_text("Loading the genes …")).to_be_visible()
    user.page.keyboard.press("Enter")
    expect(field).to_have_value("LYZ")
    held.pop().continue_()
    expect(user.page.get_by_role("option").first).to_have_text("LYZ")
    user.page.keyboard.press("Enter")
    shows(user.page, "LYZ")


def test_a_list_that_cannot_be_loaded_is_told_and_asked_for_again(visit: Begin) -> None:
    user, field = coloured(visit)
    user.page.route("**/api/genes/*", lambda route: route.fulfill(status=404))
    field.click()
    expect(user.page.get_by_text("The list of genes cannot be loaded. Reload the page.")).to_be_visible()
    user.page.unroute("**/api/genes/*")
    user.page.keyboard.type("LYZ")
    expect(user.page.get_by_role("option").first).to_have_text("LYZ")
    user.problems.clear()  # the browser's own word on the 404


def test_the_help_is_there_for_finger_and_keyboard(visit: Begin) -> None:
    user, _ = coloured(visit)
    page = user.page
    page.get_by_role("button", name="Help for Gene", exact=True).focus()
    expect(page.get_by_role("tooltip").filter(has_text="Type a symbol")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip").filter(has_text="Type a symbol")).to_have_count(0)
    phone = visit(**PHONE)
    phone.open(_COLOURED)
    phone.picture()
    phone.page.get_by_role("button", name="Help for Gene", exact=True).tap()
    expect(phone.page.get_by_role("tooltip").filter(has_text="Type a symbol")).to_be_visible()


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
    expect(page.get_by_text("4 genes, but 3 at most.")).to_be_visible()
    page.keyboard.press("Enter")
    expect(field).to_have_value("lyz, PU.1, gnly")
    for _ in ", gnly":
        page.keyboard.press("Backspace")
    expect(page.get_by_text("Enter takes these 2 genes.")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-ko-run")).to_contain_text("Knock out CD79A and LYZ and SPI1")
    user.settled()
    remove = page.get_by_role("button", name="Remove LYZ")
    remove.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-ko-run")).to_contain_text("Knock out CD79A and SPI1")
    expect(field).to_be_focused()
    page.keyboard.type("notagene")
    page.keyboard.press("Enter")
    expect(page.get_by_text("no human gene is known by this name")).to_be_visible()
