"""Cells rebuilt in the running app: from the button to the tabs, and the denoised file; then on a phone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Visit, serving
from tests.tiny_checkpoint import write_tiny_checkpoint

Begin = Callable[..., Visit]


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of its own: the other one's checkpoint reads too few genes of a cell."""
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("reading"))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "max_genes": 120}))
    anndata.read_h5ad(files / "few.h5ad")[::5].copy().write_h5ad(files / "rebuild.h5ad")
    home = tmp_path_factory.mktemp("home")
    with serving(checkpoint, home, files, home / "server.log") as address:
        yield address


def test_rebuild_genes_of_a_list_look_at_a_cell_and_take_the_denoised_file_home(visit: Begin, tmp_path: Path) -> None:
    user = visit()
    page = user.page
    user.open("/reconstruction?data=rebuild.h5ad")
    expect(page.get_by_text("Nothing has been rebuilt yet.")).to_be_visible()
    page.get_by_text("Genes of a list").click()
    user.settled()
    genes = page.locator(".st-key-rec-genes textarea")
    genes.fill("RPL13, MALAT1 NOSUCHGENE")
    genes.press("Control+Enter")
    expect(page.get_by_text("2 genes found: RPL13, MALAT1.")).to_be_visible()
    expect(page.get_by_text("1 name left out. NOSUCHGENE: no human gene is known by this name")).to_be_visible()
    user.settled()
    page.get_by_role("button", name="Hide and rebuild").click()
    expect(page.locator(".st-key-rec-caption")).to_be_visible(timeout=120_000)
    user.settled()
    expect(page.get_by_role("heading", name="Imputation of RPL13, MALAT1 in all cells")).to_be_visible()
    expect(page.get_by_text("from visible genes only: ScDiVa is").first).to_be_visible()

    page.get_by_role("tab", name="Denoised layer").click()
    page.get_by_role("button", name="Denoise all 60 cells").click()
    page.get_by_role("button", name="Prepare .h5ad").click(timeout=120_000)
    link = page.get_by_role("link", name="Download .h5ad")
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "denoised.h5ad")
    assert anndata.read_h5ad(tmp_path / "denoised.h5ad").layers["scdiva_denoised"].nnz > 0
    user.settled()

    phone = visit(**PHONE)
    phone.open(page.url.removeprefix(user.address))
    expect(phone.page.locator(".st-key-rec-caption")).to_be_visible(timeout=60_000)
    for tab in ("Table", "One cell", "Genes and types", "Denoised layer", "Mask curve"):
        phone.page.get_by_role("tab", name=tab).click()
        phone.settled()
        assert phone.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
