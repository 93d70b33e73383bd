"""What became of the labels: old against new, the decisions, and files to take home."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import downloads, errors, export, frame, maps, report_annotation, reports, state, words
from pages._ui.annotation_words import DONE, HELP, title
from pages._ui.annotation_work import group_columns
from pages._ui.review_session import Session
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.figures.annotation import alluvial
from scdiva_core.tasks.annotation_export import annotation_table, cell_annotation_schema, write_annotation
from scdiva_core.tasks.label_truth import label_meanings
from scdiva_core.tasks.relabelled import NO_LABEL, confusion, texts

_STARTING = "the labels that the review started from"
_LONGEST_TITLE = 200
_MOST_AT_ONCE = 20_000  # cells that are compared without being asked


def old_against_new(session: Session, name: str) -> None:
    """Compare the labels as they are with a column of the file, or with those that the review started from."""
    place = st.expander(
        "Old labels against new ones",
        expanded=session.cells.n_obs <= _MOST_AT_ONCE,
        icon=":material/compare_arrows:",
        key="old-new",
        on_change="rerun",
    )
    if place.open:  # counting many cells takes a while, and is done again after each decision
        with place:
            _compared(session, name)


def _compared(session: Session, name: str) -> None:
    old_name = st.selectbox(
        "Old labels",
        [*group_columns(session.cells), _STARTING],
        key="old-labels",
        format_func=lambda option: option if option == _STARTING else f"your column {option}",
    )
    new = session.state.names
    old = session.starting.cell_names if old_name == _STARTING else session.cells.obs[old_name]
    if old_name == _STARTING and np.array_equal(old, new):
        st.caption("Nothing has been changed yet. Decide on an item above, or compare with a column of your file.")
        return
    before = texts(old).fillna(NO_LABEL).tolist()
    if old_name != _STARTING:
        meanings = label_meanings(before, cell_ontology())
        before = [cell_ontology().name(meanings[label]) if label in meanings else label for label in before]
        st.caption("Labels of your column go by their Cell Ontology name here, where they mean a term.")
    flow, counts = st.tabs(["Flow", "Table"])
    drawn = alluvial(before, list(new), dark=frame.is_dark())
    flow.plotly_chart(
        drawn,
        theme=None,
        key="alluvial",
        config=export.plotly_config(f"{name}-old-new"),
        alt="Flow of cells from old labels on the left to new ones on the right",
    )
    with flow, st.container(horizontal=True):
        export.figure_downloads(
            lambda: alluvial(before, list(new)),
            f"{name}-old-new",
            key="figure-alluvial",
            size=(960, drawn.layout.height),
        )
    with counts:
        table = confusion(before, new)
        st.dataframe(table, width="stretch", key="confusion")
        table_download("Table (CSV)", table.reset_index(), f"{name}-old-new", key="confusion-csv")


def decisions(session: Session) -> None:
    """List the decisions in effect, the latest first."""
    applied = session.state.applied
    if not applied:
        return
    with st.expander(f"Decisions ({len(applied)})", icon=":material/history:"):
        rows = [
            (event.time[:19].replace("T", " "), event.who, DONE[event.action], event.label_name, event.why)
            for event in reversed(applied)
        ]
        sizes = [int(event.mask().sum()) for event in reversed(applied)]
        table = pd.DataFrame(rows, columns=["Time (UTC)", "Who", "What", "Label", "Reason"])
        table.insert(3, "Cells", sizes)
        st.dataframe(table, hide_index=True, width="stretch", key="decisions")
        table_download("Table (CSV)", table, "decisions", key="decisions-csv")
        st.caption("Nothing is ever deleted from the log: undone decisions stay in it too, and go into the exports.")


def take_home(session: Session, name: str) -> None:
    """Offer the labels as a new .h5ad, as a table, and as Cell Annotation Schema."""
    annotation, cells, author = session.annotation, session.cells, session.log.who
    with st.container(border=True, key="labels-home"):
        st.subheader("Take it home")
        what = "as reviewed" if session.log.begun is not None else "not reviewed yet"
        st.caption(
            f"Labels of {words.as_text(title(session.source))}, {what}. Your own file is never written to.",
        )
        with st.container(horizontal=True):
            _h5ad(session, name)
            st.download_button(
                "Table (CSV)",
                data=lambda: as_csv(annotation_table(cells.obs_names, annotation), "cell"),
                file_name=f"{export.file_name(name, 'labels')}.csv",
                mime="text/csv",
                icon=":material/table:",
                key="labels-csv",
                help="One row a cell: label, Cell Ontology id, confidence, source, who decided, when and why.",
                on_click="ignore",
            )
            st.download_button(
                "Cell annotation (JSON)",
                data=lambda: json.dumps(
                    cell_annotation_schema(cells.obs_names, annotation, author=author, title=name[:_LONGEST_TITLE])
                ),
                file_name=f"{export.file_name(name, 'cas')}.json",
                mime="application/json",
                icon=":material/data_object:",
                key="labels-cas",
                help=HELP["schema"],
                on_click="ignore",
            )
            _report(session, name)


def _report(session: Session, name: str) -> None:
    choice, drawn = state.choice(), maps.computed(session.cells).get("ScDiVa")
    column = st.session_state.get("truth-column")
    truth = column if column in session.cells.obs else None
    labels = report_annotation.Labels(session, drawn, truth)
    reports.button(
        lambda origin: report_annotation.report(origin, labels),
        session.cells,
        name,
        python=report_annotation.as_python(choice, session),
        command=report_annotation.command_line(choice, session),
        why_none=report_annotation.NO_COMMAND,
        job=None,
        file=f"{name}-labels",
        key="labels-report",
    )


def _h5ad(session: Session, name: str) -> None:
    """Write the file when asked, then offer it: it may be large and is streamed from disk."""
    if not st.button(
        "Prepare .h5ad",
        icon=":material/deployed_code:",
        key="prepare-labels",
        help="A copy of your file with label, ontology id, confidence and source as columns of obs, the log, and the "
        "Cell Annotation Schema.",
    ):
        return
    with errors.shown(), st.spinner("Writing the file …"):
        done = write_annotation(
            session.cells,
            downloads.new_export(f"{export.file_name(Path(name).stem)}-labels.h5ad"),
            session.annotation,
            author=session.log.who,
            title=name[:_LONGEST_TITLE],
        )
        label = f"Download .h5ad ({words.size(done.stat().st_size)})"
        st.link_button(label, downloads.address(done), type="primary", icon=":material/download:")


def table_download(label: str, table: pd.DataFrame, name: str, *, key: str) -> None:
    """Offer a table without its index as CSV; text that a spreadsheet would take for a formula is kept as text.

    Parameters
    ----------
    label
        On the button.
    table
        What to write.
    name
        File name without ending.
    key
        Unique on the page.
    """
    st.download_button(
        label,
        data=lambda: as_csv(table),
        file_name=f"{export.file_name(name)}.csv",
        mime="text/csv",
        icon=":material/table:",
        key=key,
        on_click="ignore",
    )
