"""The queue: how far the review is, undo and redo, and the items that are left, the most doubtful first."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import errors, state, words
from pages._ui.annotation_words import DONE, HELP, title
from pages._ui.annotation_work import Labelled
from pages._ui.review_log import ReviewLog, reviewer_control
from pages._ui.review_session import Session
from scdiva_core.annotations.events import Event
from scdiva_core.tasks.review_session import starting_labels

_TABLE_PIXELS = 420


def heading(session: Session) -> None:
    """Say how far the review is; undo, redo and the reviewer's name."""
    st.subheader("Review", help=HELP["queue"])
    decided = int((session.state.events > 0).sum())
    n_cells = session.cells.n_obs
    st.progress(
        decided / n_cells,
        text=f"{words.number(decided)} of {words.number(n_cells)} cells decided · "
        f"{words.number(len(session.open))} items left",
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="history-tools"):
        with st.container(width=260):
            reviewer_control(session.log, HELP["reviewer"])
        undone, applied = session.state.undone, session.state.applied
        st.button(
            "Undo",
            icon=":material/undo:",
            key="undo",
            shortcut="U",
            disabled=not applied,
            help=f"Take back: {event_words(applied[-1])}" if applied else "Nothing has been decided yet.",
            on_click=session.log.undo,
        )
        st.button(
            "Redo",
            icon=":material/redo:",
            key="redo",
            shortcut="Y",
            disabled=not undone,
            help=f"Make again: {event_words(undone[-1])}" if undone else "Nothing was taken back.",
            on_click=session.log.redo,
        )
    if applied:
        st.caption(f"Last decision: {event_words(applied[-1])}.")
    if problem := state.review_problem():
        errors.show(problem)


def table(session: Session) -> None:
    """List what is left; a click on a row brings that item up."""
    names = [session.label(one.item.label) for one in session.open]
    rows = pd.DataFrame(
        {
            "Cells": [len(one.cells) for one in session.open],
            "Cluster": [one.item.cluster for one in session.open],
            "Label": [label[1] if label else "unknown" for label in names],
            "Doubt": [one.item.doubt for one in session.open],
            "Why": ["skipped" if one.skipped else one.item.kind for one in session.open],
        }
    )
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        height=_TABLE_PIXELS,
        key=session.table_key,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "Cells": st.column_config.NumberColumn(width=50, format="localized"),
            "Cluster": st.column_config.NumberColumn(width=55, help=words.HELP["leiden"]),
            "Label": st.column_config.TextColumn(width=190),
            "Doubt": st.column_config.NumberColumn(width=50, format="%.2f", help=HELP["doubt"]),
            "Why": st.column_config.TextColumn(width=70, help=HELP["kinds"]),
        },
        alt="Items left to review, the most urgent first",
    )
    st.caption("Click the box at the left of a row to bring that item up; without a choice the first one is at hand.")


def another_review(log: ReviewLog, labelled: Labelled, chosen: str) -> None:
    """Say that the review in progress is one of other labels, and offer the ways out.

    Parameters
    ----------
    log
        Has begun a review that is none of these labels.
    labelled
        The labels on the page.
    chosen
        Source that a new review would start from.
    """
    begun, settings = log.begun, log.settings
    with st.container(border=True, key="another-review"):
        st.markdown("**The review that you have begun is one of other labels.**")
        st.caption(
            f"{words.as_text(begun.who)} began it on {begun.time[:10]} with {words.as_text(title(begun.source))}. "
            "Its decisions are kept in the log, whatever you choose here."
        )
        with st.container(horizontal=True):
            if settings is not None and settings != labelled.settings:
                st.button(
                    "Go back to it",
                    key="go-back",
                    icon=":material/arrow_back:",
                    on_click=state.set_label_settings,
                    args=(log.data_sha256, settings),
                    kwargs={"compute": True},
                )
            else:
                st.caption("The checkpoint or the file is read in another way than then, so it cannot go on here.")
            begin_button(log, labelled, chosen)


def begin_button(log: ReviewLog, labelled: Labelled, source: str) -> None:
    """Offer a new review of a source's labels.

    Parameters
    ----------
    log
        Gets the entry.
    labelled
        All labels.
    source
        Whose labels it starts from.
    """
    st.button(
        f"Begin a new review of: {words.as_text(title(source))}",
        key="begin-anew",
        icon=":material/restart_alt:",
        help="Decisions made so far stay in the log but no longer count, and cannot be undone one by one.",
        on_click=lambda: log.begin(starting_labels(labelled.annotated.labels(source))[0], labelled.settings),
    )


def event_words(event: Event) -> str:
    """Say what a decision was, for Markdown.

    Parameters
    ----------
    event
        A ``label`` entry.
    """
    size = int(event.mask().sum())
    cells = "1 cell" if size == 1 else f"{words.number(size)} cells"
    name = f" as {words.as_text(event.label_name)}" if event.label_name else ""
    return f"{cells} {DONE[event.action]}{name}"
