"""Reports of results: pages that need no script and no network, and whose lines give the same numbers again."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import anndata
import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.engine_grn import GrnSettings, grn
from scdiva_core.engine_integration import IntegrateSettings, integrate, integration_map
from scdiva_core.engine_knockout import KnockoutSettings, knockout
from scdiva_core.engine_reconstruction import ReconstructionSettings, reconstruct
from scdiva_core.jobs import JobQueue
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.review_session import LabelSettings
from tests.tiny_checkpoint import write_tiny_checkpoint

HOSTILE = "<script src=http://evil.example/x>alert(1)</script>\"'{{ 7*7 }}"
FILE = "<img src=x onerror=alert(1)>{{ 7*7 }}\"'.h5ad"
PROJECT = "000000000000f00d"
NETWORK = GrnSettings(most_regulators=20, top=5, panel=False)
TOGETHER = IntegrateSettings("donor", "cell_type", finetune=False, seeds=1)
REBUILT = ReconstructionSettings(masks=(0.3,), most_cells=10, iterative_cells=0, group_key="cell_type")
KNOCKED = KnockoutSettings(("CD79A",), group_key="cell_type", n_null=20, expression=False)
WORK = (
    ("knockout", knockout, KNOCKED),
    ("grn", grn, NETWORK),
    ("integration", integrate, TOGETHER),
    ("reconstruct", reconstruct, REBUILT),
)
"""What is done before, by the name of its job."""


REPORTS = {
    "embedding": "embedding-report",
    "annotation": "labels-report",
    "knockout": "ko-report",
    "grn": "grn-report",
    "integration": "integration-report",
    "reconstruction": "rec-report",
}
"""Page -> key of its button."""

COARSE = ProjectionSettings(resolution=0.2)
BY_CLUSTER = replace(KNOCKED, group_key=None, n_null=5)
RANDOM = "Random weights: this picture means nothing."

Made = Callable[[str], "Page"]
Report = Callable[[str], "Page"]
Open = Callable[..., AppTest]


@dataclass
class Page(HTMLParser):
    """What a browser would make of a report."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)
    headings: set[int] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._inside = ""
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "code":
            self._inside = dict(attrs)["class"] or ""
            self.codes[self._inside] = ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = "cell"
            if tag == "th":
                self.headings.add(len(self.rows) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("code", "td", "th"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside == "cell":
            self.rows[-1][-1] += data
        elif self._inside:
            self.codes[self._inside] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, *columns: str) -> list[list[str]]:
        """Rows below the heading that begins with these columns."""
        first = next(place for place in self.headings if self.rows[place][: len(columns)] == list(columns))
        end = min({place for place in self.headings if place > first} | {len(self.rows)})
        return self.rows[first + 1 : end]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Make the report that a page offers, as its button does: on a thread that has no session."""
    offered: dict[str, Callable[[], str]] = {}
    show = st.download_button

    def spy(label: str, **options: object) -> bool:
        offered[str(options["key"])] = options["data"]
        return show(label, **options)

    monkeypatch.setattr(st, "download_button", spy)

    def make(key: str) -> Page:
        with ThreadPoolExecutor(1) as thread:
            return Page(thread.submit(offered[key]).result())

    return make


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with room for all genes of a cell."""
    folder = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_genes": 300}))
    return folder


@pytest.fixture(scope="module")
def hostile(files: Path) -> Path:
    """A few cells; whatever names there are are markup, script or template."""
    few = anndata.read_h5ad(files / "few.h5ad")
    few.obs_names = [f"{HOSTILE}{place}" for place in range(few.n_obs)]
    few.obs["cell_type"] = few.obs["cell_type"].cat.rename_categories({"B": HOSTILE})
    few.obs["donor"] = [f"<b>{place % 2}</b>" for place in range(few.n_obs)]
    few.write_h5ad(files / FILE)
    return files / FILE


@pytest.fixture(scope="module")
def worked(engine: Engine, reading: Path, hostile: Path) -> Engine:
    """The engine of that checkpoint, which has done everything that there are reports of."""
    found = Engine(reading, "cpu", engine.store)
    with found.open(hostile) as cells:
        for representation in ("X_scdiva", "X_pca"):
            found.project(cells, representation=representation, settings=ProjectionSettings())
        for function, make, settings in WORK:
            make(found, cells, settings)
            ask(found, hostile, function, settings.to_dict())
        for method in ("scdiva", "harmony"):
            integration_map(found, cells, TOGETHER, method)
    return found


def ask(engine: Engine, file: Path, function: str, settings: dict[str, object], **more: object) -> None:
    """Leave a job from which a page knows what was asked for; its result is there already."""
    read = {"path": str(file), "checkpoint": engine.checkpoint, "device": "cpu"}
    read |= {"matrix": None, "gene_column": None, "values": "auto"}
    queue = JobQueue(engine.store.root.parent / "jobs")
    payload = {**read, "settings": settings, "cells": None, "against": None, **more}
    queue.cancel(queue.submit(f"scdiva_core.engine_jobs:{function}", payload, title=function, owner=PROJECT).id)


@pytest.fixture
def open_page(app: AppTest, worked: Engine, reading: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open a page on the hostile file."""
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(reading))

    def run(page: str, **query: str) -> AppTest:
        labels = LabelSettings((), ("cell_type",)).to_text()
        app.query_params.update({"data": FILE, "project": PROJECT, "labels": labels, **query})
        app.run().switch_page(f"pages/{page}.py").run()
        assert not app.exception
        return app

    return run


@pytest.fixture(scope="module")
def read_before() -> dict[str, Page]:
    """Reports that a test has made, by page."""
    return {}


@pytest.fixture
def report(read_before: dict[str, Page], open_page: Open, made: Made) -> Report:
    """Return the report of a page, made once for all tests."""

    def get(page: str) -> Page:
        if page not in read_before:
            open_page(page)
            read_before[page] = made(REPORTS[page])
        return read_before[page]

    return get


@pytest.mark.parametrize("name", REPORTS)
def test_every_result_has_a_report_in_which_names_of_the_file_are_only_text(
    report: Report, worked: Engine, name: str
) -> None:
    found = report(name)
    assert not {"script", "link", "iframe", "form", "b"} & {tag for tag, _ in found.tags}
    assert not any(word.startswith("on") for _, attributes in found.tags for word in attributes)
    addresses = [value or "" for _, item in found.tags for word, value in item.items() if word in ("src", "href")]
    assert addresses
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert all(picture["alt"] for picture in found.named("img"))
    assert FILE in found.text
    if name not in ("grn", "integration"):  # neither tells a cell or a type by its name here
        assert HOSTILE in found.text
    assert worked.card().sha256 in found.text
    assert "What was asked" in found.text
    assert "Provisional checkpoint" in found.text
    assert "engine.open(" in found.codes["python"]


def test_verdicts_stand_beside_the_baseline_and_the_null(report: Report) -> None:
    embedding = report("embedding")
    shares = {row[0]: float(row[1]) for row in embedding.table("Method", "Agreement")}
    assert shares["By chance"] < shares["ScDiVa"] < shares["PCA"]
    assert "ScDiVa does not beat PCA here" in embedding.text
    assert "of 20 random genes expressed alike" in report("knockout").text
    assert "This is what the model expects; it is no experiment." in report("knockout").text
    assert "Attention is no proof of regulation." in report("grn").text
    assert {"PCA", "Harmony", "ScDiVa", "By chance"} <= {row[0] for row in report("integration").table("Method")}
    assert "worse than the population mean" in report("reconstruction").text
    assert "not reviewed by anybody" in report("annotation").text


def test_labels_stand_beside_trusted_ones_and_decisions_are_listed(open_page: Open, made: Made) -> None:
    page = open_page("annotation")
    page.session_state["truth-column"] = "cell_type"
    page.button(key="accept").click().run()
    assert not page.exception
    found = made("labels-report")
    shares = [row[0] for row in found.table("What", "Share of cells")]
    assert shares == ["Right", "Commonest type alone", "Called unknown"]
    assert "agreement with it proves little" in found.text
    decided = found.table("Time (UTC)", "Who", "What", "Cells")
    assert [row[1:3] for row in decided] == [["anonymous", "accepted"]]
    assert "as reviewed" in found.text


def test_the_lines_of_an_embedding_give_the_same_numbers(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report("embedding")
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))  # nothing is stored there
    again: dict[str, object] = {}
    exec(found.codes["python"], again)
    told = found.table("Cell", "scdiva_1", "scdiva_2", "pca_1", "pca_2", "leiden_scdiva", "leiden_pca")
    assert len(told) == 50
    picture, baseline = again["picture"], again["baseline"]
    for row, cells in enumerate(told):
        places = [f"{value:.3g}" for value in (*picture.coordinates[row], *baseline.coordinates[row])]
        assert cells[1:] == [*places, str(picture.leiden[row]), str(baseline.leiden[row])]


def test_the_lines_of_a_knockout_give_the_same_numbers(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report("knockout")
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    again: dict[str, object] = {}
    exec(found.codes["python"], again)
    groups = again["result"].groups
    told = {row[0]: row[3:5] for row in found.table("Group", "Cells", "Read it", "Shift", "Random genes")}
    numbers = groups.set_index("group")[["shift", "null_mean"]]
    assert told == {name: ["–" if np.isnan(x) else f"{x:.3g}" for x in row] for name, row in numbers.T.items()}
    assert len({row[1] for row in told.values()}) > 2


def test_the_lines_of_a_knockout_draw_the_map_as_it_was_drawn(open_page: Open, worked: Engine, hostile: Path) -> None:
    with worked.open(hostile) as cells:
        fine, coarse = (worked.project(cells, settings=settings) for settings in (ProjectionSettings(), COARSE))
        shown = knockout(worked, cells, BY_CLUSTER, projection=COARSE)
    assert len(set(coarse.leiden)) < len(set(fine.leiden))
    ask(worked, hostile, "knockout", BY_CLUSTER.to_dict(), projection=COARSE.to_dict())
    page = open_page("knockout", resolution="0.2")
    again: dict[str, object] = {}
    exec(next(code.value for code in page.code if "Engine(" in code.value), again)
    assert list(again["result"].groups["group"]) == list(shown.groups["group"])


def test_random_weights_are_a_banner_above_everything(
    open_page: Open,
    made: Made,
    worked: Engine,
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untrained = Engine(write_tiny_checkpoint(tmp_path, random_weights=True), "cpu", worked.store)
    with untrained.open(hostile) as cells:
        untrained.project(cells)
    monkeypatch.setenv("SCDIVA_CHECKPOINT", str(tmp_path))
    open_page("embedding")
    found = made("embedding-report")
    first = found.named("p")[0]
    assert first["class"] == "banner"
    assert found.text.index(RANDOM) < found.text.index("What came out")
