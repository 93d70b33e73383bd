"""The network of one cell type, in the running app: a click on a gene, files to take home, the way to Knockout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx as nx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visit, serving
from tests.tiny_checkpoint import write_tiny_checkpoint

Begin = Callable[..., Visit]

NETWORK = "[class*=st-key-grn-network-] .js-plotly-plot"
PLACE = """(plot, gene) => {
    const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;
    for (const trace of plot._fullData) {
        const at = Array.from(trace.customdata || []).indexOf(gene);
        if (at >= 0) {
            const x = xaxis._offset + xaxis.d2p(trace.x[at]), y = yaxis._offset + yaxis.d2p(trace.y[at]);
            return [box.left + x, box.top + y];
        }
    }
}"""


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of its own: the other one's checkpoint reads too few genes of a cell."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "max_genes": 300}))
    home = tmp_path_factory.mktemp("home")
    with serving(checkpoint, home, files, home / "server.log") as address:
        yield address


def choose(user: Visit, key: str, option: str) -> None:
    """Take an option of a field."""
    page = user.page
    page.locator(f".st-key-{key} input").click()
    page.get_by_role("option", name=option, exact=True).click()
    page.keyboard.press("Escape")
    user.settled()


def make_network(user: Visit) -> None:
    """Ask for the network of the T cells, without the comparison of methods, and wait for it."""
    page = user.page
    choose(user, "grn-cells", "Cells of a category …")
    choose(user, "grn-values-cell_type", "CD4 T")
    page.get_by_text("How attention is read, and what is measured beside it").click()
    page.get_by_text("Compare with other methods").click()
    user.settled()
    page.get_by_role("button", name="Make the network").click()
    expect(page.locator(".st-key-grn-caption")).to_be_visible(timeout=120_000)
    user.settled()


def click(user: Visit, gene: str) -> None:
    """Click a gene of the picture."""
    plot = user.page.locator(NETWORK)
    plot.scroll_into_view_if_needed()
    user.settled()
    x, y = plot.evaluate(PLACE, gene)
    user.page.mouse.move(x, y)
    user.page.mouse.click(x, y)
    expect(user.page.locator(".st-key-grn-at-hand h3").first).to_have_text(gene)
    user.settled()


def saved(page: Page, label: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator(".st-key-grn-files").get_by_role("button", name=label, exact=True).click()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def test_make_a_network_click_a_gene_take_it_home_and_knock_it_out(visit: Begin, tmp_path: Path) -> None:
    user = visit()
    page = user.page
    user.open("/grn?data=few.h5ad")
    expect(page.get_by_text("There is no network yet.")).to_be_visible()
    make_network(user)
    expect(page.get_by_role("heading", name="Network of cell_type=CD4 T")).to_be_visible()

    file = saved(page, "GraphML", tmp_path)
    assert file.name == "few-Network-of-cell-type-CD4-T.graphml"
    graph = nx.read_graphml(file)
    regulator = max((gene for gene, node in graph.nodes.items() if node["regulator"]), key=graph.out_degree)
    assert graph.out_degree(regulator) == 5
    assert all({"attention", "stability", "cells"} <= set(edge) for edge in graph.edges.values())

    click(user, regulator)
    edges = page.locator(".st-key-grn-at-hand").get_by_test_id("stDataFrame")
    edges.scroll_into_view_if_needed()
    expect(edges.locator("canvas").first).to_be_visible()
    target = next(graph.successors(regulator))
    click(user, target)
    around = nx.ego_graph(graph, target, undirected=True)
    page.get_by_text("Its neighbourhood alone").click()
    expect(page.get_by_role("figure", name=f"{len(around)} genes")).to_be_visible()
    user.settled()
    assert set(nx.read_graphml(saved(page, "GraphML", tmp_path))) == set(around)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".st-key-grn-at-hand")).to_have_count(0)
    user.settled()

    click(user, regulator)
    page.get_by_role("button", name=f"Knock out {regulator}").click()
    expect(page.locator("h1").first).to_have_text("Knockout")
    user.settled()
    user.go("GRN")

    phone = visit(**PHONE)
    phone.open(page.url.removeprefix(user.address))
    expect(phone.page.locator(".st-key-grn-caption")).to_be_visible(timeout=60_000)
    for tab in ("Regulons", "Module", "How far to trust it", "Network"):
        phone.page.get_by_role("tab", name=tab).click()
        phone.settled()
        assert phone.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
