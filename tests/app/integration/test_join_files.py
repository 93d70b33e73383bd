"""Several files put together on the page: their overlap, what is refused, the job, and the new file."""

from __future__ import annotations

import re

from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from tests.app.integration.conftest import Open
from tests.app.integration.test_integration_page import field, frame_with, plain
from tests.app.knockout.test_knockout_page import finish_jobs


def choose(page: AppTest, *paths: str) -> AppTest:
    """Add files by path, then choose them."""
    for path in paths:
        page.text_input(key="join-path-text").set_value(path)
        next(button for button in page.button if button.label == "Add").click().run()
    return page.multiselect(key="join-files").set_value(list(paths)).run()


def test_two_files_become_one_that_is_opened_with_its_batches(open_page: Open, engine: Engine, project: str) -> None:
    page = choose(open_page(), "north.h5ad", "south.h5ad")
    assert not page.exception
    rows = frame_with(page, "n_genes")
    assert rows["name"].tolist() == ["north", "south"]
    assert rows["n_cells"].tolist() == [70, 80]
    assert re.search(r"9\d genes are missing from some file: there a zero means not measured", plain(page))
    page.button(key="join-run").click().run()
    assert finish_jobs(engine, project) == ["done"]
    page.run()
    assert not page.exception
    assert "north + south" in plain(page)
    assert field(page, "selectbox", "integration-batch").value == "file"
    assert "2 batches: south 80 cells, north 70 cells." in plain(page)
    # A session that did not wait for it finds it on the list.
    again = open_page()
    assert "Joined before: north + south" in plain(again)
    field(again, "button", "open-joined-").click().run()
    assert field(again, "selectbox", "integration-batch").value == "file"


def test_what_cannot_be_joined_is_refused_in_words(open_page: Open) -> None:
    page = choose(open_page(), "left.h5ad", "right.h5ad")
    assert "Only 10 genes are in all 2 files, 3% of the 299 of left" in page.error[0].value.replace("\\", "")
    assert "join-run" not in [button.key for button in page.button]
    page.multiselect(key="join-files").set_value(["left.h5ad"]).run()
    assert "Choose two files or more." in [info.value for info in page.info]
    page.text_input(key="join-path-text").set_value("../../etc/passwd")
    next(button for button in page.button if button.label == "Add").click().run()
    assert page.error
    assert "../../etc/passwd" not in page.multiselect(key="join-files").options


def test_a_column_that_is_there_already_is_told_after_the_job(open_page: Open, engine: Engine, project: str) -> None:
    page = choose(open_page(), "north.h5ad", "south.h5ad")
    page.text_input(key="join-column").set_value("donor").run()
    page.button(key="join-run").click().run()
    assert finish_jobs(engine, project) == ["failed"]
    page.run()
    assert "has a column 'donor' already" in page.error[0].value.replace("\\", "")
