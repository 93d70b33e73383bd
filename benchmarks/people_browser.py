"""Somebody before a real browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from playwright.async_api import Browser, BrowserContext, Page, expect

from benchmarks.browser import IDLE, PICTURE
from benchmarks.people import PATIENCE, Person, Seen

_PATIENCE_MS = 1000 * PATIENCE


class BrowserPerson(Person):
    """One session in a browser profile of its own; parameters as of `Person`."""

    def __init__(self, address: str, number: int, seen: Seen, context: BrowserContext, page: Page) -> None:
        super().__init__(address, number, seen)
        self._context, self._page = context, page
        page.on("pageerror", lambda error: seen.errors.append(f"{self.name}: {error}"))
        page.on("console", self._console)

    @classmethod
    async def come(cls, browser: Browser, address: str, number: int, seen: Seen) -> BrowserPerson:
        """Open the browser."""
        context = await browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(_PATIENCE_MS)
        return cls(address, number, seen, context, await context.new_page())

    async def begin(self) -> None:
        """Open the file's map, and have it made unless it is there."""
        await self.open("embedding")
        button = self._page.locator(".st-key-embed button")
        await expect(button.or_(self._page.locator(PICTURE)).first).to_be_visible(timeout=_PATIENCE_MS)
        if await button.count():
            await self._reaction("work begun", button.click)
        await self._picture()

    async def leave(self) -> None:
        """Close the browser."""
        await self._context.close()

    async def open(self, page: str, **query: str) -> None:
        """Load a page by its address."""

        async def go() -> None:
            await self._page.goto(f"{self.address}/{page}?{urlencode(self.query | query)}", timeout=_PATIENCE_MS)
            await expect(self._page.locator("h1").first).to_be_visible(timeout=_PATIENCE_MS)

        await self._reaction("page opened by its address", go)

    async def to_the_map(self) -> None:
        """See the map, loading its page where another is open."""
        if "/embedding" not in self._page.url or not await self._page.locator(PICTURE).count():
            await self.open("embedding")
        await self._picture()

    async def colour(self, gene: str) -> None:
        """Colour the map by a gene, and see it named over the picture."""
        if not await self._page.get_by_role("combobox", name="Gene", exact=True).count():
            await self._choose("Colour by", "Gene …")
        await self._choose("Gene", gene)
        title = self._page.locator(".js-plotly-plot .gtitle").first
        await expect(title).to_contain_text(gene, timeout=_PATIENCE_MS)

    async def draw(self, name: str) -> None:
        """Draw around cells and save them as a set."""
        picture = self._page.locator(PICTURE).first
        await picture.scroll_into_view_if_needed()
        area = await picture.bounding_box()
        corners = [(0.02, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
        points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in corners]
        mouse = self._page.mouse
        await mouse.move(*points[0])
        await mouse.down()
        for point in points[1:]:
            await mouse.move(*point, steps=8)
        await self._reaction("drawn around cells", mouse.up)
        await self._page.get_by_label("Name", exact=True).fill(name, timeout=_PATIENCE_MS)
        await self._reaction("set saved", self._page.get_by_role("button", name="Save as cell set").click)

    async def walk(self, title: str) -> None:
        """Go to another page by the sidebar, and see its title."""
        link = self._page.get_by_test_id("stSidebarNavLink").filter(has_text=title)
        await self._reaction("walked to another page", link.click)
        await expect(self._page.locator("h1").first).to_have_text(title, timeout=_PATIENCE_MS)

    async def begin_knockout(self) -> bool:
        """Have the gene on the page knocked out; False where other work goes on or the result is there."""
        busy = self._page.get_by_test_id("stSidebar").get_by_role("button", name="Cancel", exact=True)
        button = self._page.locator(".st-key-ko-run button").first
        if await busy.count() or not await button.is_enabled(timeout=_PATIENCE_MS):
            return False
        await self._reaction("work begun", button.click)
        return True

    async def sees(self, text: str) -> bool:
        """Whether something is on the page, or comes to it within `PATIENCE`."""
        try:
            await expect(self._page.get_by_text(text).first).to_be_visible(timeout=_PATIENCE_MS)
        except AssertionError:
            return False
        return True

    async def complaint(self) -> str:
        """What the page says went wrong inside; "" for nothing."""
        body = await self._page.inner_text("body")
        wrong = "Traceback" in body or await self._page.get_by_test_id("stException").count()
        return "a stack trace on the page" if wrong else ""

    def _console(self, message: object) -> None:
        # After a deep link Streamlit's client looks for its server below each part of the path, nearest first.
        if message.type == "error" and "/_stcore/" not in (message.location or {}).get("url", ""):
            self.seen.errors.append(f"{self.name}: console: {message.text[:300]}")

    async def _reaction(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Act, and wait until the page has reacted."""

        async def reacted() -> None:
            await act()
            await self._page.wait_for_timeout(100)  # the click's way to the server
            await expect(self._page.locator(IDLE)).to_be_visible(timeout=_PATIENCE_MS)

        await self.timed(f"{what}, in the browser", reacted())

    async def _picture(self) -> None:
        await expect(self._page.locator(PICTURE).first).to_be_visible(timeout=_PATIENCE_MS)

    async def _choose(self, label: str, text: str) -> None:
        box = self._page.get_by_role("combobox", name=label, exact=True)
        await box.click()
        await self._page.keyboard.type(text)  # as people do: to clear the box first takes it seconds
        option = self._page.get_by_role("option", name=text, exact=True)
        await self._reaction("colour", option.click)
