"""A report as a page: self-contained, without scripts, and no name of a file becomes markup."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.report.contents import Origin, Picture, Report, Section, Table, Text, choices
from scdiva_core.report.document import MOST_ROWS, as_html

HOSTILE = "</code><script src='https://evil.example/'>alert(1)</script>\"'{{ 7*7 }}{% raw %}"
NOON = datetime(2030, 1, 2, 12, 30, tzinfo=UTC)
ORIGIN = Origin(
    data_set="blood",
    data=(("SHA-256", "a" * 64),),
    checkpoint=(("Name", "small"),),
    machine=(("Threads", "3"),),
    versions=(("torch", "1.2.3"),),
    warning="",
    random_weights=False,
    python="engine = Engine('default')\n",
    command="python -m scdiva_core embed",
    why_no_command="no words",
    computed=NOON,
    written=NOON,
)


class Browser(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.words.append(data)

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self) -> str:
        return "".join(self.words)


def page(*items: Text | Picture | Table, title: str = "A result", origin: Origin = ORIGIN) -> Browser:
    return Browser(as_html(Report(title, choices({"seed": 7}), (Section("What came out", items),), origin)))


def bars() -> go.Figure:
    return go.Figure(go.Bar(x=["a", "b"], y=[1, 2]))


def test_a_report_says_where_it_comes_from_and_how_to_make_it_again() -> None:
    text = page(Text("It moved.")).text()
    for said in ("It moved.", "a" * 64, "small", "torch", "1.2.3", "engine = Engine('default')", "scdiva_core embed"):
        assert said in text
    assert "computed 2030-01-02 12:30 UTC" in " ".join(text.split())
    assert "Another number of threads" in text


def test_where_there_is_no_command_it_says_why() -> None:
    assert "no words" in page(origin=replace(ORIGIN, command=None)).text()
    assert "computed" not in page(origin=replace(ORIGIN, computed=None)).text()


def test_names_of_a_file_never_become_markup() -> None:
    plain = page(Text("x"), Table(pd.DataFrame({"x": ["x"]}), {"x": "x"}, "x"), Picture(bars(), "x", "x"), title="x")
    facts = ((HOSTILE, HOSTILE),)
    origin = replace(
        ORIGIN, data_set=HOSTILE, data=facts, checkpoint=facts, python=HOSTILE, command=HOSTILE, warning=HOSTILE
    )
    table = Table(pd.DataFrame({HOSTILE: [HOSTILE]}), {HOSTILE: HOSTILE}, HOSTILE)
    found = page(Text(HOSTILE), table, Picture(bars(), HOSTILE, HOSTILE), title=HOSTILE, origin=origin)
    assert set(found.names()) == set(plain.names())
    assert "script" not in found.names()
    assert found.of("img")[0]["alt"] == HOSTILE
    assert {name for _, attributes in found.tags for name in attributes} == {
        name for _, attributes in plain.tags for name in attributes
    }
    assert found.text().count(HOSTILE) >= 10
    assert "49" not in found.text().replace(HOSTILE, "")


def test_invisible_characters_are_seen() -> None:
    text = page(Text("a\u202eb\x00c\ud800d")).text()
    assert "a\ufffdb\ufffdc\ufffdd" in text
    assert as_html(Report("\udfff", (), (), ORIGIN)).encode()


def test_the_page_forbids_itself_scripts_and_the_network() -> None:
    found = page(Picture(bars(), "Two bars"))
    policies = [item["content"] for item in found.of("meta") if item.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    addresses = [value for _, item in found.tags for name, value in item.items() if name in ("src", "href", "action")]
    assert [address[:22] for address in addresses] == ["data:image/png;base64,"]
    assert not {"script", "link", "iframe", "object", "form"} & set(found.names())
    assert not any(name.startswith("on") for _, item in found.tags for name in item)


def test_figures_are_pictures_with_words_for_those_who_do_not_see_them() -> None:
    picture = page(Picture(bars().update_layout(height=300), "Two bars", "b is higher")).of("img")[0]
    assert (picture["alt"], picture["width"], picture["height"]) == ("Two bars", "960", "300")
    content = base64.b64decode(picture["src"].split(",")[1])
    assert content.startswith(b"\x89PNG")
    assert np.frombuffer(content[16:24], ">u4").tolist() == [1920, 600]


def test_headings_follow_one_another_without_a_gap() -> None:
    levels = [int(tag[1]) for tag in page(Text("x")).names() if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1


@pytest.mark.parametrize(("n_rows", "left_out"), [(MOST_ROWS, ""), (1234, "The first 50 of 1,234 rows; 1,184 are")])
def test_a_long_table_says_how_much_is_left_out(n_rows: int, left_out: str) -> None:
    found = page(Table(pd.DataFrame({"n": range(n_rows)}), {"n": "Cells"}, "Rows"))
    assert found.names().count("tr") == 1 + MOST_ROWS
    assert ("are left out" in found.text()) == bool(left_out)
    assert left_out in found.text()


def test_numbers_are_written_as_on_the_pages() -> None:
    rows = pd.DataFrame(
        {
            "p": [0.00012345, np.nan],
            "shift": [0.123456, 12345.678],
            "n": [1234, 5],
            "known": [True, False],
            "name": ["a", None],
            "kind": pd.Categorical(["x", None]),
        }
    )
    found = page(Table(rows, {name: name for name in rows}, "Numbers"))
    cells = re.findall(r"[^\n]+", found.text().split("kind")[1])[:2]
    assert cells == ["0.000120.1231,234yesax", "–1.23e+045no––"]


def test_random_weights_are_called_so_at_the_top_in_red() -> None:
    random = page(Text("x"), origin=replace(ORIGIN, warning="Random weights", random_weights=True))
    banner = random.names().index("p")
    assert random.tags[banner][1]["class"] == "banner"
    assert banner < random.names().index("h1")
    provisional = page(Text("x"), origin=replace(ORIGIN, warning="Provisional checkpoint"))
    assert "banner" not in [item.get("class") for item in provisional.of("p")]
    assert "Provisional checkpoint" in provisional.text()


def test_verdicts_and_warnings_are_set_off() -> None:
    found = page(Text("no better", "verdict"), Text("few cells", "warning"), Text("plain"))
    assert [item.get("class") for item in found.of("p")][1:4] == ["verdict", "warning", None]


def test_choices_are_told_in_words() -> None:
    asked = {"genes": ("A", "B"), "heads": (), "donor": None, "panel": False, "minutes": 5.0, "seed": 0}
    assert dict(choices(asked)) == {
        "genes": "A, B",
        "heads": "none",
        "donor": "not chosen",
        "panel": "no",
        "minutes": "5",
        "seed": "0",
    }
