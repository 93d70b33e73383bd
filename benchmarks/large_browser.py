"""What somebody in front of a browser waits for, where there are very many cells; a part of `benchmarks.large`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.browser import IDLE, PICTURE, PeakMemory, chromium, serving

_PATIENCE = 120_000  # ms
_DRAWN = "[class*=st-key-picture-] .js-plotly-plot"
_SETTLED = 3000  # ms that a page is left alone before somebody clicks
_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -0.9))


def look(time: Callable[..., object], folder: Path, many: str, few: str, genes: Sequence[str]) -> None:
    """Open the map, draw around cells, look closer, colour by genes.

    Parameters
    ----------
    time
        Called with what is done, the deed, and what makes a note of its result.
    folder
        Holds the files, and results below it as in a SCDIVA_HOME.
    many, few
        Names of the file and of a small one for comparison: what they share is the browser's and Streamlit's own.
    genes
        Symbols to colour by.
    """
    with serving(folder, folder) as (address, server), sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium())

        def visitor() -> _Visitor:
            return _Visitor(browser.new_page(viewport={"width": 1440, "height": 900}), address)

        with PeakMemory(server, children=True) as memory:
            one = visitor()
            time("browser: first page of a server that has just started", lambda: one.arrive("embedding", many))
            one.wait()
            for name, told in ((few, " of the small file"), (many, "")):
                one = visitor()
                time(f"browser: map{told} by its address, empty cache", lambda one=one, name=name: one.see(name))
                one = visitor()
                one.arrive("data", name)
                one.wait()
                time(f"browser: from the page Data to the first map{told}", one.walk)
                one.wait()
                one.choose("Colour by", "Gene …")
                one.wait()
                for gene in genes:
                    one.ask("Gene", gene)
                    time(f"browser: map{told} coloured by {gene}", lambda one=one, gene=gene: one.colour(gene))
                    one.wait()
            for turn, size in (("first", 0.2), ("second", 0.3)):
                one.draw(size)
                time(f"browser: {turn} lasso, until its cells are counted", one.lasso, str)
                one.wait()
            time("browser: zoom to the selection", one.zoom, str)
            one.wait()
            time("browser: whole picture again", one.whole)
        browser.close()
    time("browser: server and worker", lambda: memory.bytes, lambda held: f"{held / 1e9:.2f} GB at most")


class _Visitor:
    """Somebody with the app before them.

    Parameters
    ----------
    page
        In their browser.
    address
        Of the server.
    """

    def __init__(self, page: Page, address: str) -> None:
        self._page, self._address = page, address

    def wait(self) -> None:
        """Until the page has done what it was asked for, and a little longer."""
        self._page.wait_for_timeout(200)
        expect(self._page.locator(IDLE)).to_be_visible(timeout=_PATIENCE)
        self._page.wait_for_timeout(_SETTLED)

    def arrive(self, page: str, name: str) -> None:
        """Open a page by its address."""
        self._page.goto(f"{self._address}/{page}?data={name}", timeout=_PATIENCE)
        expect(self._page.locator("h1").first).to_be_visible(timeout=_PATIENCE)

    def see(self, name: str) -> None:
        """Open the map by its address."""
        self.arrive("embedding", name)
        self._picture()

    def walk(self) -> None:
        """Go to the map."""
        self._page.get_by_test_id("stSidebarNavLink").filter(has_text="Embedding").click()
        self._picture()

    def _picture(self) -> None:
        drawn = self._page.locator(f"{_DRAWN} image").or_(self._page.locator(f"{_DRAWN} canvas"))
        expect(drawn.first).to_be_visible(timeout=_PATIENCE)

    def draw(self, size: float) -> None:
        """Draw around the middle, so much of the picture to each side, all but the last moment."""
        picture = self._page.locator(PICTURE).first
        picture.scroll_into_view_if_needed()
        area = picture.bounding_box()
        points = [
            (area["x"] + (0.5 + x * size) * area["width"], area["y"] + (0.5 + y * size) * area["height"])
            for x, y in _CORNERS
        ]
        self._page.mouse.move(*points[0])
        self._page.mouse.down()
        for point in points[1:]:
            self._page.mouse.move(*point, steps=20)

    def lasso(self) -> str:
        """Let go; how many cells there are then, in the page's words."""
        before = self._page.get_by_text("cells selected").all_inner_texts()
        self._page.mouse.up()
        told = self._page.get_by_text("cells selected")
        if before:
            expect(told).not_to_have_text(before[0], timeout=_PATIENCE)
        expect(told).to_be_visible(timeout=_PATIENCE)
        return told.inner_text()

    def zoom(self) -> str:
        """Look closer; what the page says of the part."""
        self._page.get_by_role("button", name="Zoom to the selection").click()
        told = self._page.get_by_text("lie in this part")
        expect(told).to_be_visible(timeout=_PATIENCE)
        return told.inner_text().partition(".")[0]

    def whole(self) -> None:
        """Look at all again."""
        self._page.get_by_role("button", name="Whole picture").click()
        expect(self._page.get_by_text("lie in this part")).to_have_count(0, timeout=_PATIENCE)
        self._picture()

    def ask(self, label: str, text: str) -> None:
        """Look for an entry of a list by typing."""
        box = self._page.get_by_role("combobox", name=label, exact=True)
        box.click()
        self._page.keyboard.type(text)  # as people do: to clear the box first takes it seconds where entries are many
        expect(self._page.get_by_role("option", name=text, exact=True)).to_be_visible(timeout=_PATIENCE)

    def choose(self, label: str, text: str) -> None:
        """Take an entry of a list."""
        self.ask(label, text)
        self._page.get_by_role("option", name=text, exact=True).click()

    def colour(self, gene: str) -> None:
        """Take a gene that was asked for; until it is on the picture."""
        self._page.get_by_role("option", name=gene, exact=True).click()
        # Looks at every frame; `expect` looks again after a quarter and then half a second.
        named = "([title, gene]) => document.querySelector(title)?.textContent.includes(` ${gene},`)"
        self._page.wait_for_function(named, arg=[f"{_DRAWN} .gtitle", gene], timeout=_PATIENCE)
