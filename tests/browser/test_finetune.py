"""From labels to a checkpoint of one's own in the running app: live curves, stop, use it, and a reload keeps it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from scdiva_core.jobs import JobQueue
from tests.browser.conftest import Visit

NAME = "blood types"
LABELS = ("B", "CD14 Monocytes", "CD4 T", "CD8 T", "Dendritic", "FCGR3A Monocytes", "Megakaryocytes", "NK")
"""As the first demo spells them."""


@contextmanager
def held_in_its_second_round(home: Path, project: str) -> Iterator[None]:
    """Let a training wait there: on a quick machine it would be over before a browser has drawn its curve."""
    jobs, deadline = JobQueue(home / "jobs"), time.monotonic() + 90
    while not any("round 2" in job.message for job in jobs.jobs(project)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (training,) = jobs.jobs(project)
    os.kill(training.worker_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(training.worker_pid, signal.SIGCONT)


def test_a_checkpoint_is_trained_stopped_used_and_kept(visit: Callable[..., Visit], home: Path) -> None:
    mine = visit()
    page = mine.page
    mine.open("/finetune?data=pbmc3k")
    link = _query(page)
    page.get_by_role("textbox", name="Name of the checkpoint").fill(NAME)
    page.keyboard.press("Enter")
    mine.settled()
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    live = page.locator("[class*=st-key-finetune-live-curve] .js-plotly-plot")
    with held_in_its_second_round(home, link["project"]):
        expect(live.first).to_be_visible(timeout=90_000)  # while it is drawn anew there are two
        expect(page.get_by_text("macro-F1").first).to_be_visible()
        page.get_by_role("button", name="Stop and keep the best so far").click()
    expect(page.get_by_text(f"{NAME} is ready.")).to_be_visible(timeout=60_000)
    mine.settled()
    page.get_by_role("button", name="Use it", exact=True).click()
    expect(page.get_by_text("in use", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile("checkpoint=annotation-[0-9a-f]{12}"))
    link = _query(page)

    # A deep link to another file is as good as a reload: nothing but the URL says what is chosen.
    mine.open(f"/annotation?data=few.h5ad&project={link['project']}&checkpoint={link['checkpoint']}")
    chosen = page.get_by_test_id("stSidebar").get_by_role("combobox")
    expect(chosen).to_have_value(NAME)
    page.get_by_role("button", name="Embed 300 cells").click()
    page.get_by_role("button", name="Name 300 cells").click(timeout=90_000)
    item = page.get_by_role("heading", name=" of cluster ").first
    expect(item).to_have_text(re.compile(f"cells? of cluster [0-9]+: ({'|'.join(LABELS)})$"), timeout=60_000)
    mine.settled()
    mine.go("Model")
    expect(page.locator("h3").first).to_have_text(NAME)
    expect(page.get_by_text(f"Cell types that it can name ({len(LABELS)})")).to_be_visible()
    page.reload()
    mine.settled()
    expect(page.locator("h3").first).to_have_text(NAME)
    chosen.click()
    page.get_by_role("option", name="The server's own").click()
    expect(page.locator("h3").first).to_have_text("tiny test model")
    assert "checkpoint=" not in page.url


def _query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
