"""What a user does, in the running app."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import anndata
from playwright.sync_api import expect

from tests.browser.conftest import Visit

Begin = Callable[..., Visit]


def test_a_deep_link_to_a_fresh_server_lands_on_its_page(visit: Begin) -> None:
    user = visit()
    user.open("/model")
    expect(user.page.locator("h1")).to_have_text("Model")
    expect(user.page.get_by_test_id("stSidebarNavLink")).to_have_count(9)
    expect(user.page.get_by_text("tiny test model").first).to_be_visible()


def test_the_first_start_embeds_the_demo_and_shows_it(visit: Begin) -> None:
    user = visit()
    user.open()
    expect(user.page.locator("h1")).to_have_text("Embedding")
    user.picture()
    expect(user.page.get_by_text("Provisional checkpoint").first).to_be_visible()
    expect(user.page.get_by_text("done in")).to_be_visible()
    expect(user.page.get_by_text("By chance")).to_be_visible()


def test_upload_embed_select_name_download_and_open_again(visit: Begin, files: Path, tmp_path: Path) -> None:
    user = visit()
    page = user.page
    user.open("/data")
    page.get_by_role("tab", name="Upload").click()
    page.locator("input[type=file]").set_input_files(files / "few.h5ad")
    expect(page.get_by_test_id("stSidebar").get_by_text("few.h5ad")).to_be_visible()
    user.settled()
    page.get_by_role("button", name="Embed 300 cells").click()
    user.picture()

    user.lasso()
    expect(page.get_by_text(re.compile(r"^\d+ of 300 cells selected$"))).to_be_visible()
    selected = int(page.get_by_text("cells selected").inner_text().split()[0])
    assert 0 < selected < 300
    page.get_by_label("Name", exact=True).fill("lower <b>left</b>")
    page.get_by_role("button", name="Save as cell set").click()
    expect(page.get_by_text(f"{selected} cells · drawn on the ScDiVa map")).to_be_visible()
    expect(page.get_by_text("lower <b>left</b>", exact=True)).to_be_visible()

    page.get_by_role("button", name="Prepare .h5ad").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download .h5ad").click()
    result = tmp_path / download.value.suggested_filename
    download.value.save_as(result)
    assert result.name == "few-scdiva.h5ad"
    cells = anndata.read_h5ad(result)
    assert cells.obsm["X_scdiva"].shape == (300, 16)
    assert cells.obs["set: lower <b>left<-b>"].sum() == selected

    user.go("Data")
    page.get_by_role("tab", name="Upload").click()
    page.locator("input[type=file]").set_input_files(result)
    expect(page.get_by_test_id("stSidebar").get_by_text("few-scdiva.h5ad")).to_be_visible()
    user.go("Embedding")
    user.picture()
    page.get_by_text("In the file: umap_scdiva").click()
    expect(page.locator(".js-plotly-plot .gtitle").first).to_contain_text("umap_scdiva of the file")


def test_a_reload_keeps_data_set_colours_and_cell_sets(visit: Begin) -> None:
    user = visit()
    page = user.page
    user.open()
    user.picture()
    user.lasso()
    page.get_by_label("Name", exact=True).fill("kept")
    page.get_by_role("button", name="Save as cell set").click()
    expect(page.get_by_text("kept", exact=True)).to_be_visible()
    page.get_by_role("combobox", name="Colour by").click()
    page.get_by_role("option", name="Gene …").click()
    expect(page.locator(".js-plotly-plot .gtitle").first).to_contain_text("CD3D")
    page.reload()
    user.picture()
    expect(page.locator(".js-plotly-plot .gtitle").first).to_contain_text("CD3D")
    expect(page.get_by_text("kept", exact=True)).to_be_visible()


def test_a_second_session_sees_the_shared_result_and_nothing_private(visit: Begin) -> None:
    first, second = visit(), visit()
    for user in (first, second):
        user.open()
        user.picture()
    projects = {re.search(r"project=(\w{16})", user.page.url)[1] for user in (first, second)}
    assert len(projects) == 2
    first.lasso()
    first.page.get_by_label("Name", exact=True).fill("mine")
    first.page.get_by_role("button", name="Save as cell set").click()
    expect(first.page.get_by_text("mine", exact=True)).to_be_visible()
    second.page.reload()
    second.picture()
    expect(second.page.get_by_text("mine", exact=True)).to_have_count(0)


def test_a_bad_file_is_explained_and_the_open_one_stays(visit: Begin, files: Path) -> None:
    user = visit()
    page = user.page
    user.open("/data")
    page.get_by_role("tab", name="Upload").click()
    page.locator("input[type=file]").set_input_files(files / "text.h5ad")
    alert = page.get_by_role("alert").filter(has_text="is not an .h5ad file")
    expect(alert).to_contain_text("Save the data with AnnData.write_h5ad")
    page.get_by_role("tab", name="Open a file").click()
    page.get_by_role("textbox", name="Path of an .h5ad file").fill("text.h5ad")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Open").click()
    error = page.get_by_test_id("stAlert").filter(has_text="is not an HDF5 file")
    expect(error).to_contain_text("Write it with anndata")
    expect(page.get_by_test_id("stSidebar").get_by_text("PBMC 3k", exact=True)).to_be_visible()
    expect(page.get_by_text("Quality of the cells")).to_be_visible()


def test_figures_and_table_are_downloaded(visit: Begin, tmp_path: Path) -> None:
    user = visit()
    page = user.page
    user.open()
    user.picture()
    for label, start in (
        ("PNG", b"\x89PNG"),
        ("SVG", b"<?xml"),
        ("HTML", b"<!doctype html>"),
        ("Table (CSV)", b"cell,"),
    ):
        with page.expect_download() as download:
            page.get_by_role("button", name=label, exact=True).click()
        target = tmp_path / download.value.suggested_filename
        download.value.save_as(target)
        assert target.read_bytes().startswith(start)
    assert "<script src" not in (tmp_path / "PBMC-3k-ScDiVa.html").read_text(encoding="utf-8")


def test_nothing_sticks_out_on_a_phone(visit: Begin) -> None:
    user = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    user.open("/data")
    for title in ("Data", "Embedding", "Annotation", "Knockout", "Model"):
        # The sidebar is put away on a phone, so that nothing there can be tapped yet.
        user.page.get_by_test_id("stSidebarNavLink").filter(has_text=title).evaluate("link => link.click()")
        expect(user.page.locator("h1").first).to_have_text(title)
        user.settled()
        assert user.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
