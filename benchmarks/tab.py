"""A browser's tab without its drawing: speaks Streamlit's protocol with the app, as its page does.

To the server it is a session like any other: it sends what widgets hold, gets everything that would be drawn, and looks
again at what renews itself. Twenty browsers cannot be had on two cores, since drawing without a graphics card takes all
of them; twenty of these can.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

_EARLY = ForwardMsg.ScriptFinishedStatus.FINISHED_EARLY_FOR_RERUN


@dataclass(frozen=True)
class Drawn:
    """One element on the page.

    Attributes
    ----------
    kind
        Streamlit's name of it: ``button``, ``selectbox``, ``markdown``.
    proto
        Its message.
    run
        The run of the script that drew it.
    fragment
        The part of the page that it belongs to and that runs by itself; "" for the page.
    """

    kind: str
    proto: Any
    run: str
    fragment: str


class Tab:
    """One tab; use it in an async with statement. Loading a page anew is a new tab, as it is a new session there.

    Parameters
    ----------
    address
        Of the server: ``http://localhost:8501``.
    page
        Its name in the address: ``embedding``.
    query
        What follows it there.
    """

    def __init__(self, address: str, page: str, query: dict[str, str]) -> None:
        self._server = address
        self._address = address.replace("http", "ws", 1) + "/_stcore/stream"
        self._page, self._query, self._script = page, urlencode(query), ""
        self._elements: dict[tuple[int, ...], Drawn] = {}
        self._states: dict[str, WidgetState] = {}
        self._pages: dict[str, str] = {}
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._running, self._gone, self._ended = False, False, asyncio.Condition()
        self._run = ""
        self._whole = ""  # the run of the whole page that has not ended
        self._begun: set[str] = set()  # runs since something was last asked for
        self._done: list[frozenset[str]] = []  # of those that have ended, which parts of the page they drew
        self._connection: ClientConnection
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Tab:
        self._connection = await connect(self._address, subprotocols=["streamlit"], max_size=None, open_timeout=60)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_polls()
        self._reader.cancel()
        await self._connection.close()

    # What somebody does ---------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Run the page for the first time."""
        await self._reaction("", self._ask)

    async def walk(self, title: str) -> None:
        """Go to another page by its link in the sidebar."""
        self._script, self._query, self._page = self._pages[title], "", ""
        await self._reaction("", self._ask)

    async def click(self, *, label: str = "", key: str = "") -> None:
        """Press a button, of a form too."""
        found = self.element("button", label=label, key=key)
        await self._act(found, trigger_value=True)

    async def choose(self, label: str, option: str) -> None:
        """Choose from a list."""
        found = self.element("selectbox", label=label)
        if option not in found.proto.options:
            msg = f"{label!r} offers no {option!r}"
            raise LookupError(msg)
        await self._act(found, string_value=option)

    async def choose_gene(self, label: str, symbol: str) -> None:
        """Choose in a field of genes, whose list the browser fetches and keeps."""
        field, told = self.gene_fields()[label]
        if symbol not in await asyncio.to_thread(_genes, self._server + told["address"]):
            msg = f"{label!r} offers no {symbol!r}"
            raise LookupError(msg)
        sent = json.dumps([{"event": "chosen", "value": [symbol]}])
        await self._act(field, _answer(field), json_trigger_value=sent)

    def fill(self, label: str, text: str) -> None:
        """Write into a field of a form, which is sent with the form."""
        field = self.element("text_input", label=label)
        self._hold(field, field.proto.id, string_value=text)

    async def lasso(self, key: str, x: list[float], y: list[float]) -> None:
        """Draw around points of a picture."""
        shape = {"xref": "x", "yref": "y", "x": x, "y": y}
        drawn = {"selection": {"points": [], "point_indices": [], "box": [], "lasso": [shape]}}
        await self._act(self.element("plotly_chart", key=key), string_value=json.dumps(drawn))

    # What somebody sees ---------------------------------------------------------------------------------------------

    def elements(self, kind: str) -> list[Drawn]:
        """All of one kind, in the page's order."""
        return [drawn for _, drawn in sorted(self._elements.items()) if drawn.kind == kind]

    def element(self, kind: str, *, label: str = "", key: str = "") -> Drawn:
        """Look one up by what it says, or by the beginning of its key.

        Raises
        ------
        LookupError
            There is none.
        """
        for drawn in self.elements(kind):
            of_key = drawn.proto.id.split("-", 2)[-1] if key else ""
            if (label and drawn.proto.label == label) or (key and of_key.startswith(key)):
                return drawn
        msg = f"no {kind} {label or key!r} on the page, which says: {self.text()[:400]}"
        raise LookupError(msg)

    def gene_fields(self) -> dict[str, tuple[Drawn, dict[str, Any]]]:
        """Label of each field of genes -> the field, and what the page tells it."""
        fields = ((drawn, json.loads(drawn.proto.json or "{}")) for drawn in self.elements("bidi_component"))
        return {told["label"]: (drawn, told) for drawn, told in fields if "label" in told}

    def text(self) -> str:
        """Everything that is written on the page."""
        said = [drawn.proto.body for kind in ("heading", "markdown", "alert") for drawn in self.elements(kind)]
        said += [drawn.proto.text for drawn in self.elements("progress")]
        return "\n".join(said)

    def figures(self) -> list[dict[str, Any]]:
        """Plotly's figures."""
        return [json.loads(drawn.proto.spec) for drawn in self.elements("plotly_chart")]

    async def until(self, seen: Callable[[], bool], seconds: float) -> bool:
        """Wait until the page, which may renew itself, shows something; False where it never does."""
        try:
            async with asyncio.timeout(seconds):
                await self._wait(seen)
        except TimeoutError:
            return False
        return True

    # The protocol ---------------------------------------------------------------------------------------------------

    async def _act(self, drawn: Drawn, widget: str = "", **value: Any) -> None:
        """Change a widget, and wait until its part of the page has been drawn again."""
        widget = widget or drawn.proto.id
        self._hold(drawn, widget, **value)
        try:
            await self._reaction(drawn.fragment, lambda: self._ask(drawn.fragment))
        finally:
            if value.keys() & {"trigger_value", "json_trigger_value"}:
                self._states.pop(widget, None)

    def _hold(self, drawn: Drawn, widget: str, **value: Any) -> None:
        if getattr(drawn.proto, "disabled", False):
            msg = f"{drawn.proto.label!r} cannot be used now"
            raise LookupError(msg)
        self._states[widget] = WidgetState(id=widget, **value)

    async def _reaction(self, fragment: str, ask: Callable[[], Any]) -> None:
        """Ask, and wait for a run that began afterwards, of this part or of the whole page, to end."""
        self._begun.clear()
        self._done.clear()
        await ask()
        await self._wait(lambda: any(not parts or fragment in parts for parts in self._done))

    async def _wait(self, until: Callable[[], bool]) -> None:
        """Wait for something while no script runs."""
        async with self._ended:
            await self._ended.wait_for(lambda: self._gone or (not self._running and until()))
        if self._gone:
            msg = "the server closed the connection"
            raise ConnectionError(msg)

    async def _ask(self, fragment: str = "", *, again: bool = False) -> None:
        there = {getattr(drawn.proto, "id", "") for drawn in self._elements.values()}
        there |= {_answer(drawn) for drawn in self.elements("bidi_component")}
        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.page_script_hash, state.page_name = self._query, self._script, self._page
        state.fragment_id, state.is_auto_rerun = fragment, again
        state.widget_states.widgets.extend(held for name, held in self._states.items() if name in there)
        self._page = ""
        await self._connection.send(message.SerializeToString())

    async def _read(self) -> None:
        try:
            async for data in self._connection:
                message = ForwardMsg.FromString(data)
                async with self._ended:
                    getattr(self, f"_on_{message.WhichOneof('type')}", lambda _: None)(message)
                    self._ended.notify_all()
        finally:
            async with self._ended:
                self._gone = True
                self._ended.notify_all()

    def _on_new_session(self, message: ForwardMsg) -> None:
        self._script, self._run = message.new_session.page_script_hash, message.metadata.run.script_run_id
        # A busy server may forget to say that a run has ended, when a part of the page is asked for just then.
        if message.metadata.run.fragment_ids and self._whole in self._begun:
            self._done.append(frozenset())
        self._begun.add(self._run)
        self._whole = ""
        if not message.metadata.run.fragment_ids:
            self._whole = self._run
            self._stop_polls()

    def _on_navigation(self, message: ForwardMsg) -> None:
        self._pages = {page.page_name: page.page_script_hash for page in message.navigation.app_pages}
        # The page that is drawn need not be the one that was asked for.
        self._script = message.navigation.page_script_hash

    def _on_page_info_changed(self, message: ForwardMsg) -> None:
        self._query = message.page_info_changed.query_string

    def _on_session_status_changed(self, message: ForwardMsg) -> None:
        self._running = message.session_status_changed.script_is_running

    def _on_script_finished(self, message: ForwardMsg) -> None:
        if message.metadata.run.script_run_id == self._whole:
            self._whole = ""
        if message.script_finished == _EARLY:
            return
        run = message.metadata.run
        if run.script_run_id in self._begun:
            self._done.append(frozenset(run.fragment_ids))
        # What this run did not draw again is gone from the page, or from those parts of it that ran.
        self._elements = {
            path: drawn
            for path, drawn in self._elements.items()
            if drawn.run == run.script_run_id or (run.fragment_ids and drawn.fragment not in run.fragment_ids)
        }

    def _on_auto_rerun(self, message: ForwardMsg) -> None:
        renewed = message.auto_rerun
        self._stop_polls([renewed.fragment_id])
        self._polls[renewed.fragment_id] = asyncio.create_task(self._poll(renewed.fragment_id, renewed.interval))

    def _on_stop_auto_rerun(self, message: ForwardMsg) -> None:
        self._stop_polls(message.stop_auto_rerun.fragment_ids)

    def _on_delta(self, message: ForwardMsg) -> None:
        path, delta = tuple(message.metadata.delta_path), message.delta
        if delta.WhichOneof("type") != "new_element":
            return
        kind = delta.new_element.WhichOneof("type")
        proto = getattr(delta.new_element, kind)
        if getattr(proto, "set_value", False):  # the app has changed it
            self._states.pop(proto.id, None)
        self._elements[path] = Drawn(kind, proto, self._run, delta.fragment_id)

    async def _poll(self, fragment: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._ask(fragment, again=True)

    def _stop_polls(self, fragments: Iterable[str] | None = None) -> None:
        for fragment in list(self._polls) if fragments is None else fragments:
            if (task := self._polls.pop(fragment, None)) is not None:
                task.cancel()


def _answer(component: Drawn) -> str:
    """Id under which a component of our own tells what somebody did."""
    return _make_trigger_id(component.proto.id, "events")


@lru_cache(maxsize=64)
def _genes(address: str) -> frozenset[str]:
    """Symbols of a list, fetched once as browsers do."""
    with urlopen(address, timeout=60) as reply:
        return frozenset(line.partition("\t")[0] for line in gzip.decompress(reply.read()).decode().split("\n"))
