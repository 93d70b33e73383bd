"""The item at hand: what its cells may be, and the evidence: markers, genes, batches."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import errors, export, frame, resources, state, words
from pages._ui.annotation_export import table_download
from pages._ui.annotation_words import HELP, KINDS
from pages._ui.annotation_work import group_columns
from pages._ui.review_session import Label, Session
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.figures.annotation import composition, dot_plot, volcano
from scdiva_core.model.markers import MARKERS_FILE, MarkerTable
from scdiva_core.tasks.differential import differential_genes, marker_profile, pseudobulk_genes
from scdiva_core.tasks.relabelled import composition_table
from scdiva_core.tasks.review_session import OpenItem

_MOST_AT_ONCE = 20_000  # cells of a file that is read for every item without being asked
_GENES_SHOWN = 7
_THESE = "these cells"
_CELLS = "cells, as if independent"


def heading(session: Session, current: OpenItem) -> None:
    """Say which cells are at hand."""
    label, item = session.label(current.item.label), current.item
    size = len(current.cells)
    count = "1 cell" if size == 1 else f"{words.number(size)} cells"
    st.markdown(f"#### {count} of cluster {item.cluster}: {words.as_text(label[1] if label else 'unknown')}")
    parts = [KINDS[item.kind], f"doubt {item.doubt:.2f}"]
    if size < item.size:
        parts.append(f"{words.number(item.size - size)} of {words.number(item.size)} cells are decided already")
    if current.skipped:
        parts.append("skipped before")
    st.caption(" · ".join(parts), help=HELP["doubt"])


def candidates(session: Session, current: OpenItem) -> None:
    """List what the cells may be, each with a button that decides so."""
    st.markdown("**Candidates**", help=HELP["candidates"])
    mask = current.mask(session.cells.n_obs)
    if not current.item.candidates:
        st.caption("No source proposes anything for these cells.")
    for place, (code, share) in enumerate(current.item.candidates):
        label = session.label(code)
        same = code == current.item.label
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.progress(
                min(max(share, 0.0), 1.0),
                text=f"{words.as_text(label[1])} · {words.percent(share, 0)}{' · the label now' if same else ''}",
            )
            st.button(
                "Choose",
                key=f"choose-{place}",
                shortcut=str(place + 1),
                help="Accept the label." if same else f"Relabel these cells as {words.as_text(label[1])}.",
                on_click=session.decide,
                args=(mask, "accept" if same else "relabel", label),
            )


def evidence(session: Session, current: OpenItem, name: str) -> None:
    """Show markers, differential genes and batches of the item at hand."""
    # Only what is looked at is computed.
    markers, genes, batches = st.tabs(
        ["Marker genes", "Differential genes", "Batches"], key="evidence", on_change="rerun"
    )
    if markers.open:
        with markers, errors.shown():
            _markers(session, current)
    if genes.open:
        with genes, errors.shown():
            _genes(session, current, name)
    if batches.open:
        with batches, errors.shown():
            _batches(session, current)


def _markers(session: Session, current: OpenItem) -> None:
    table = _marker_table(str(resources.engine().folder))
    if table is None:
        st.caption("This checkpoint brings no table of marker genes.")
        return
    proposed = [session.label(code) for code, _ in current.item.candidates]
    known = [label for label in proposed if label[0] in table.names][:2]
    if not known:
        st.caption("The checkpoint's table has no marker genes for any of the candidates.")
        return
    best, rival = known[0], known[1] if len(known) > 1 else None
    positive, negative = _chosen(table, best, rival)
    if session.cells.n_obs > _MOST_AT_ONCE and not st.toggle(
        "Read the marker genes", key="read-markers", help="The whole file is read for each item: some seconds."
    ):
        return
    groups = _groups(session, current, [label for label in (best, rival) if label])
    digest = hashlib.sha256(current.cells.tobytes()).hexdigest()
    profile = _profile((*session.labelled.key, session.source, digest), session.cells, positive + negative, groups)
    drawn = dot_plot(profile, positive, negative, dark=frame.is_dark())
    st.plotly_chart(
        drawn,
        theme=None,
        key="marker-dots",
        config=export.plotly_config("markers"),
        alt=f"Dot plot of marker genes of {best[1]}",
    )
    against = f" and those of {words.as_text(rival[1])}" if rival else ""
    st.caption(
        f"Left, genes that speak for {words.as_text(best[1])}; right, genes that speak against it: those it lacks"
        f"{against}. The other rows are the other cells with these labels.",
        help=HELP["markers"],
    )
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: dot_plot(profile, positive, negative),
            "markers",
            key="figure-markers",
            size=(960, drawn.layout.height),
        )


@st.cache_resource(show_spinner=False, max_entries=2)
def _marker_table(folder: str) -> MarkerTable | None:
    path = resources.engine().folder / MARKERS_FILE
    return MarkerTable.load(path) if path.is_file() else None


def _chosen(table: MarkerTable, best: Label, rival: Label | None) -> tuple[list[str], list[str]]:
    """Genes for and against the best candidate, at most twice `_GENES_SHOWN`."""
    positive = [marker.symbol for marker in table.of(best[0], "positive")]
    lacking = [marker.symbol for marker in table.of(best[0], "negative")]
    others = [marker.symbol for marker in table.of(rival[0], "positive")] if rival else []
    others = [symbol for symbol in others if symbol not in positive]
    half = (_GENES_SHOWN + 1) // 2
    negative = list(dict.fromkeys([*others[:half], *lacking[:half], *others[half:]]))
    return positive[:_GENES_SHOWN], negative[:_GENES_SHOWN]


def _groups(session: Session, current: OpenItem, labels: list[Label]) -> np.ndarray:
    """Name of each cell's row in the dot plot; None for cells in none."""
    groups = np.full(session.cells.n_obs, None, object)
    for label in labels:
        groups[session.state.names == label[1]] = f"other cells: {label[1]}"
    groups[current.cells] = _THESE
    return groups


@st.cache_data(show_spinner="Reading marker genes …", scope="session", max_entries=32)
def _profile(key: tuple[str, ...], _cells: H5adDataset, symbols: list[str], _groups: np.ndarray) -> pd.DataFrame:
    table = marker_profile(_cells, symbols, _groups)
    first = table["group"] == _THESE
    return pd.concat([table[first], table[~first]], ignore_index=True)


def _genes(session: Session, current: OpenItem, name: str) -> None:
    inside = current.mask(session.cells.n_obs)
    backgrounds = _backgrounds(session, current, inside)
    left, right = st.columns(2)
    against = left.selectbox("Compared with", list(backgrounds), key="gene-background")
    column = right.selectbox(
        "Replicates",
        [_CELLS, *group_columns(session.cells)],
        format_func=lambda option: option if option == _CELLS else f"donors: {option}",
        key="gene-donors",
        help=HELP["donors"],
    )
    digest = hashlib.sha256(np.packbits(inside).tobytes() + np.packbits(backgrounds[against]).tobytes()).hexdigest()
    key, tables = (*session.labelled.key[:3], digest, column), state.gene_tables()
    if st.button("Find genes", icon=":material/genetics:", key="find-genes", disabled=key in tables):
        tables[key] = _compared(session.cells, inside, backgrounds[against], column)
    table = tables.get(key)
    if table is None:
        st.caption("Which genes set these cells apart? All genes are compared; it takes some seconds.")
        return
    st.markdown(f":material/info: {words.as_text(table.attrs['words'])}")
    what = f"{_THESE} against {against}"
    drawn = volcano(table, title=what, dark=frame.is_dark())
    st.plotly_chart(
        drawn,
        theme=None,
        key="volcano",
        config=export.plotly_config(f"{name}-genes"),
        alt=f"Volcano plot of {len(table):,} genes, {what}",
    )
    small = st.column_config.NumberColumn(format="scientific")
    st.dataframe(
        table, hide_index=True, height=260, width="stretch", key="genes", column_config={"p": small, "q": small}
    )
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: volcano(table, title=what),
            f"{name}-genes",
            key="figure-genes",
            size=(960, drawn.layout.height),
        )
        table_download("All genes (CSV)", table, f"{name}-genes", key="genes-csv")


def _backgrounds(session: Session, current: OpenItem, inside: np.ndarray) -> dict[str, np.ndarray]:
    """What the cells can be compared with, by name; no empty ones."""
    found = {
        "all other cells": ~inside,
        "the rest of the cluster": (session.clusters == current.item.cluster) & ~inside,
    }
    for code, _ in current.item.candidates:
        label = session.label(code)
        found[f"other cells: {label[1]}"] = (session.state.names == label[1]) & ~inside
    return {name: mask for name, mask in found.items() if mask.any()}


def _compared(cells: H5adDataset, inside: np.ndarray, outside: np.ndarray, column: str) -> pd.DataFrame:
    bar = st.progress(0.0, text="reading")

    def progress(done: int, total: int, message: str) -> None:
        bar.progress(min(done / max(total, 1), 1.0), text=words.as_text(message))

    try:
        if column == _CELLS:
            return differential_genes(cells, inside, outside, progress=progress)
        return pseudobulk_genes(cells, inside, outside, cells.obs[column], progress=progress)
    finally:
        bar.empty()


def _batches(session: Session, current: OpenItem) -> None:
    columns = group_columns(session.cells)
    if not columns:
        st.caption("The file has no column (obs) that could name batches, donors or conditions.")
        return
    column = st.selectbox("Batch", columns, key="batch-column", help="Donor, sample, condition: any column of obs.")
    groups = np.full(session.cells.n_obs, "all other cells", object)
    groups[current.cells] = _THESE
    counts = composition_table(groups, session.cells.obs[column])
    rows = [group for group in (_THESE, "all other cells") if group in counts.index]
    drawn = composition(counts.loc[rows], dark=frame.is_dark())
    st.plotly_chart(
        drawn,
        theme=None,
        key="composition",
        config=export.plotly_config("composition"),
        alt=f"Share of each value of {column} among these cells and all others",
    )
    st.caption("A set of cells from one batch alone is more often an artefact than a type.")
    with st.container(horizontal=True):
        export.figure_downloads(
            lambda: composition(counts.loc[rows]),
            f"composition-{column}",
            key="figure-composition",
            size=(960, drawn.layout.height),
        )
