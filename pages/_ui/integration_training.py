"""The fine-tuning while it goes on, with its curve and a button that keeps the best so far, and when it is over."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import frame, integration_work, jobs_panel, resources, words
from pages._ui.integration_parts import Shown
from pages._ui.integration_words import HELP, LOSSES, SCORES
from pages._ui.integration_work import Asked
from pages._ui.parts import figure, table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.figures.training_curve import training_curve
from scdiva_core.jobs import Job

_COLUMNS = {"round": "Round", "seconds": "Seconds", "cells_seen": "Cells seen", **LOSSES, **SCORES}


def progress_card(job: Job, cells: H5adDataset, item: Asked) -> None:
    """Show how far it is, with the curve of the training; runs the page again when there is a result.

    Parameters
    ----------
    job
        Waits or runs.
    cells, item
        What is integrated.
    """
    st.fragment(_progress, run_every=jobs_panel.poll_seconds([job]))(job.id, cells, item)


def _progress(job_id: str, cells: H5adDataset, item: Asked) -> None:
    job = resources.queue().get(job_id)
    if integration_work.is_there(cells, item):
        st.rerun()
    curve = integration_work.curve(cells, item) if item.settings.finetune and job.state == "running" else []
    with st.container(border=True, key="integration-progress"):
        st.markdown(f"**{words.as_text(job.title)}**")
        st.progress(job.progress, text=jobs_panel.progress_text(job))
        _stop_button(job, trains=bool(curve))
        if curve:
            _curve(curve, key="integration-live")
        st.caption("You can leave this page or close the browser: the work goes on.")


def _stop_button(job: Job, *, trains: bool) -> None:
    """Cancel; while it trains, keep the best so far; nothing once the training is over and all is kept in any case."""
    keeps = trains and job.allowed_s > 0
    if keeps and not job.message.startswith("Fine-tuning"):
        return
    st.button(
        "Stop and keep the best so far" if keeps else "Cancel",
        key=f"stop-{job.id}",
        icon=":material/stop:" if keeps else ":material/close:",
        disabled=not job.active or job.cancel_requested is not None,
        help="Ends the training; what is best so far is embedded, measured and drawn."
        if keeps
        else "Stops within two seconds. The embedding is kept.",
        on_click=resources.queue().cancel,
        args=(job.id,),
    )


def section(shown: Shown) -> None:
    """Draw the tab."""
    curve, note = list(shown.result.curve), frame.weights_note()
    st.caption(HELP["curve"])
    best = max(range(len(curve)), key=lambda number: curve[number]["score"])
    figure(
        lambda dark: training_curve(curve, LOSSES, SCORES, best=best, note=note, dark=dark),
        f"{shown.file}-training",
        key="integration-curve",
        alt="Losses and scores of each round of the fine-tuning",
    )
    with st.expander("As a table"):
        table(
            pd.DataFrame(curve),
            _COLUMNS,
            f"{shown.file}-training",
            key="integration-curve-table",
            alt="Rounds of the fine-tuning",
        )


def _curve(curve: list[dict], *, key: str) -> None:
    best = max(range(len(curve)), key=lambda number: curve[number]["score"])
    drawn = training_curve(curve, LOSSES, SCORES, best=best, note=frame.weights_note(), dark=frame.is_dark())
    st.plotly_chart(
        drawn,
        theme=None,
        key=key,
        config={"displayModeBar": False},
        alt=f"Losses and scores of {len(curve)} rounds so far",
    )
