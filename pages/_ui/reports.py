"""The button that offers a result as one HTML page; the page is made when it is pressed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import streamlit as st

from pages._ui import export, frame, resources
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.jobs import Job
from scdiva_core.report import machine
from scdiva_core.report.contents import Origin, Report
from scdiva_core.report.document import as_html

Build = Callable[[Origin], Report]


def button(
    build: Build,
    cells: H5adDataset,
    name: str,
    *,
    python: str,
    command: str | None,
    why_none: str,
    job: Job | None,
    file: str,
    key: str,
) -> None:
    """Offer a report.

    Parameters
    ----------
    build
        Makes its content; called on a thread without a page when the button is pressed.
    cells, name
        The open data set.
    python, command, why_none
        As for `pages._ui.code_lines.show`.
    job
        That computed the result, if it is known.
    file
        File name without ending.
    key
        Unique on the page.
    """
    # Read here: the thread that makes the report has no session.
    card, note = resources.engine().card(), frame.weights_note()
    done = job is not None and job.state == "done" and job.finished is not None
    computed = datetime.fromtimestamp(job.finished, UTC) if done else None

    def make() -> str:
        return as_html(
            build(
                Origin(
                    data_set=name,
                    data=machine.data_facts(cells),
                    checkpoint=machine.checkpoint_facts(card),
                    machine=machine.machine(card.device),
                    versions=machine.versions(),
                    warning=note,
                    random_weights=card.random_weights,
                    python=python,
                    command=command,
                    why_no_command=why_none,
                    computed=computed,
                    written=datetime.now(UTC),
                )
            )
        )

    st.download_button(
        "Report (HTML)",
        data=make,
        file_name=f"{export.file_name(file, 'report')}.html",
        mime="text/html",
        icon=":material/description:",
        key=key,
        help="One page for your notes, without scripts, that needs no network: what was asked, what came out, figures, "
        "tables, versions, and the lines that make it again.",
        on_click="ignore",
    )
