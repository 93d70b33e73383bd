"""Annotation: name the cells, look at the labels, review them in order of doubt, take them home."""

from __future__ import annotations

import streamlit as st

from pages._ui import (
    annotation_export,
    annotation_map,
    annotation_work,
    datasets,
    errors,
    frame,
    maps,
    resources,
    review_actions,
    review_item,
    review_queue,
    sets_panel,
    state,
    words,
)
from pages._ui.annotation_words import REVIEW
from pages._ui.embed_first import embed_first
from pages._ui.review_log import ReviewLog
from pages._ui.review_session import Session, in_progress
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import ScDiVaError

frame.require("annotation")


def page() -> None:
    """Draw the page."""
    st.title("Annotation")
    choice = state.choice()
    try:
        cells = resources.dataset(choice)
    except ScDiVaError as error:
        errors.show(error)
        st.markdown("No data set is open.")
        st.page_link("pages/data.py", label="Choose one on the page Data", icon=":material/folder_open:")
        return
    name = datasets.display_name(choice, resources.project())
    st.caption(
        f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · from a proposed label to one that you would "
        "publish, with every decision kept."
    )
    note = frame.banner()
    found = maps.available(cells)
    if found.embedding is None:
        embed_first(choice, cells, done="named")
        return
    log = ReviewLog(cells)
    labelled = annotation_work.labels(choice, cells, log)
    if labelled is not None:
        _labelled(cells, found, log, labelled, name, note)


def _labelled(
    cells: H5adDataset,
    found: maps.Found,
    log: ReviewLog,
    labelled: annotation_work.Labelled,
    name: str,
    note: str,
) -> None:
    begun = in_progress(log, labelled)
    shown = annotation_map.source_control(labelled, begun=begun)
    session = None
    if begun or log.begun is None:
        source = log.begun.source if begun else shown
        session = Session(cells, labelled, log, source, found.embedding, found.clusters["X_scdiva"])
    drawn = annotation_map.picture(cells, found, labelled, shown, session, name=name, note=note)
    annotation_map.truth(cells, labelled, session.source if shown == REVIEW else shown)
    if session is None:
        review_queue.another_review(log, labelled, shown)
        return
    _review(session, sets_panel.Sets(cells, found.maps), drawn, name)
    annotation_export.old_against_new(session, name)
    annotation_export.decisions(session)
    annotation_export.take_home(session, name)
    if begun:
        with st.expander("Begin anew", icon=":material/restart_alt:"):
            review_queue.begin_button(log, labelled, session.source if shown == REVIEW else shown)


def _review(session: Session, sets: sets_panel.Sets, drawn: sets_panel.Selection, name: str) -> None:
    review_queue.heading(session)
    current = session.current
    if current is None:
        st.success("Every cell has been decided on.", icon=":material/check_circle:")
        return
    queue, item = st.columns([5, 6], gap="medium")
    with queue:
        review_queue.table(session)
    with item:
        review_item.heading(session, current)
        review_item.candidates(session, current)
        review_actions.decide(session, current, sets, drawn)
    review_item.evidence(session, current, name)


page()
