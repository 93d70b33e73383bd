"""Cards: what is known of a file and of a checkpoint, in words and numbers."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import resources, state, words
from scdiva_core.data.preflight import Preflight

_VALUES = {
    "counts": "raw counts",
    "log1p": "log1p values",
    "normalised": "normalised values",
    "scaled": "scaled values",
    "unknown": "not recognised",
}
_READ_AS = {"auto": "as recognised", "counts": "as raw counts", "log1p": "as log1p values"}
_IDS = {
    "symbols": "gene symbols",
    "ensembl": "Ensembl ids",
    "mixed": "symbols and Ensembl ids",
    "unknown": "unknown",
}
# Least share of known genes, badge, its colour.
_LEVELS = (
    (0.8, "good", "green"),
    (0.5, "fair", "blue"),
    (0.2, "low: results will be weaker", "orange"),
    (0.0, "too few: the file is refused", "red"),
)


def preflight_card(choice: state.Choice, found: Preflight) -> None:
    """Show what is in a file and how it will be read."""
    _numbers(found)
    _genes_known(found)
    _reading(choice, found)
    for warning in found.warnings:
        st.markdown(f":orange[:material/warning:] {words.as_text(warning)}")
    _annotations(found)


def _numbers(found: Preflight) -> None:
    seconds = resources.estimate_seconds(found)
    facts = (
        ("Cells", words.number(found.n_obs), "cells"),
        ("Genes", words.number(found.n_vars), "genes"),
        ("Values", _VALUES[found.value_kind], "values"),
        ("Gene names", _IDS[found.gene_kind], "gene ids"),
        ("Memory", words.size(found.estimated_memory_bytes), "memory"),
        ("Time to embed", f"about {words.duration(seconds)}", "time"),
    )
    with st.container(horizontal=True, gap="large"):
        for label, value, topic in facts:
            with st.container(width="content", gap=None):
                st.caption(label, help=words.HELP[topic])
                st.markdown(f"**{value}**")


def _genes_known(found: Preflight) -> None:
    if found.share_known is None:
        return
    level, colour = next((text, colour) for least, text, colour in _LEVELS if found.share_known >= least)
    text = (
        f"Genes known to the model: {words.number(found.genes_known)} of {words.number(found.n_vars)} "
        f"({words.percent(found.share_known, 0)})  :{colour}-badge[{level}]"
    )
    st.progress(min(found.share_known, 1.0), text=text)


def _reading(choice: state.Choice, found: Preflight) -> None:
    left, right = st.columns(2)
    names = [info.name for info in found.matrices]
    matrix = left.selectbox(
        "Matrix",
        names,
        index=names.index(found.recommended),
        format_func=lambda name: f"{name} ({_VALUES[found.kinds[name]]})",
        help=words.HELP["matrix"],
        key=f"matrix-{choice}",
    )
    values = right.selectbox(
        "Read its values",
        list(_READ_AS),
        index=list(_READ_AS).index(choice.values),
        format_func=lambda kind: _READ_AS[kind] if kind != "auto" else f"as recognised: {_VALUES[found.value_kind]}",
        help=words.HELP["values"],
        key=f"values-{choice}",
    )
    st.caption(f"{words.as_text(found.recommended)}: {words.as_text(found.value_reason)}.")
    wanted = matrix if matrix != found.recommended else choice.matrix
    if (wanted, values) != (choice.matrix, choice.values):
        state.read_as(matrix=wanted, values=values)
        st.rerun()


def _annotations(found: Preflight) -> None:
    if not found.obs_columns:
        st.caption("The file holds no annotations of its cells (obs columns).", help=words.HELP["obs"])
        return
    with st.expander(f"Annotations of the cells ({len(found.obs_columns)})", icon=":material/table:"):
        rows = [(column.name, column.kind, column.n_unique) for column in found.obs_columns]
        table = pd.DataFrame(rows, columns=["obs column", "kind", "categories"])
        st.dataframe(table, hide_index=True, width="stretch")
        if found.obsm:
            st.caption(f"Embeddings in the file: {words.as_text(', '.join(found.obsm))}")
