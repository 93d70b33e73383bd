"""What integration did: first in words, then as pictures, measures, over-correction and training, and to be kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from pages._ui import (
    code_lines,
    integration_keep,
    integration_maps,
    integration_measures,
    integration_training,
    integration_work,
    jobs_panel,
    maps,
    report_integration,
    reports,
    state,
    words,
)
from pages._ui.integration_parts import Shown
from pages._ui.integration_words import HELP
from pages._ui.integration_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.jobs import Job

_KEPT = "The embedding is kept. Once the training has begun, the best so far is kept too."
_NO_COMMAND = "The command line reads a file's matrix as it recognises it."


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, item: Asked, name: str) -> None:
    """Draw the result, or how far it is, or why there is none.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    item
        What was asked for.
    name
        Of the data set.
    """
    result, job = integration_work.result(choice, cells, item), integration_work.job(choice, item)
    if result is None:
        if job is not None and job.active:
            integration_training.progress_card(job, cells, item)
        else:
            submit = partial(integration_work.submit, choice, item)
            jobs_panel.waiting(job, item.title, submit, kept=_KEPT, key="integration")
        return
    shown = Shown(choice, cells, found, item, result, f"{name}-{item.title}")
    st.subheader(words.as_text(item.title))
    _in_words(shown)
    _report(shown, job, name)
    draw: dict[str, Callable[[Shown], None]] = {
        "Before and after": integration_maps.section,
        "Measures": integration_measures.section,
    }
    if result.apart is not None:
        draw["Types apart"] = integration_measures.apart_section
    if result.curve:
        draw["Training"] = integration_training.section
    for tab, content in zip(st.tabs(list(draw), key="integration-tabs", on_change="rerun"), draw.values(), strict=True):
        if tab.open:  # all figures at once would be slow to draw and to send
            with tab:
                content(shown)
    integration_keep.section(shown)
    code_lines.show(
        integration_work.as_python(choice, item),
        integration_work.command_line(choice, item),
        why_none=_NO_COMMAND,
    )


def _report(shown: Shown, job: Job | None, name: str) -> None:
    cells, item = shown.cells, shown.item
    drawn = {method: integration_work.drawn(cells, item, method) for method in shown.methods}
    reports.button(
        lambda origin: report_integration.report(origin, shown.result, item.title, cells, drawn),
        cells,
        name,
        python=integration_work.as_python(shown.choice, item),
        command=integration_work.command_line(shown.choice, item),
        why_none=_NO_COMMAND,
        job=job,
        file=shown.file,
        key="integration-report",
    )


def _in_words(shown: Shown) -> None:
    summary = shown.result.summary
    with st.container(border=True, key="integration-caption"):
        st.markdown(words.as_text(summary["verdict"]))
        if summary["apart"]:
            st.markdown(words.as_text(summary["apart"]), help=HELP["apart"])
        if summary["taught"]:
            st.markdown(words.as_text(summary["taught"]), help=HELP["taught"])
        for warning in summary["warnings"]:
            st.markdown(f":material/info: {words.as_text(warning)}")
