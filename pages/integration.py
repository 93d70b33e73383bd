"""Integration: several files or batches brought together, compared before and after, and kept as an embedding."""

from __future__ import annotations

import streamlit as st

from pages._ui import (
    asked_list,
    datasets,
    errors,
    frame,
    integration_form,
    integration_result,
    integration_work,
    join_files,
    maps,
    resources,
    state,
    words,
)
from pages._ui.annotation_work import group_columns
from pages._ui.integration_words import WHAT_FOR
from scdiva_core.errors import ScDiVaError

frame.require("integration")


def page() -> None:
    """Draw the page."""
    st.title("Integration")
    choice = state.choice()
    try:
        cells = resources.dataset(choice)
    except ScDiVaError as error:
        errors.show(error)
        st.markdown("No data set is open.")
        st.page_link("pages/data.py", label="Choose one on the page Data", icon=":material/folder_open:")
        return
    name = datasets.display_name(choice, resources.project())
    st.caption(f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · {WHAT_FOR}")
    frame.banner()
    batched = bool(integration_form.batch_columns(cells, group_columns(cells)))
    with errors.shown():
        join_files.section(expanded=not batched)
    asked = integration_work.asked_before(choice, cells)
    with errors.shown():
        integration_form.section(choice, cells, asked)
    asked_list.results(asked, prefix="integration")
    if asked.shown is None and batched:
        st.info(
            "Nothing has been integrated with this checkpoint yet. Choose the column of batches above, then press "
            "**Integrate**. You see each method's picture before and after, with numbers, and whether a type that only "
            "one batch has was mixed away.",
            icon=":material/join:",
        )
    if asked.shown is None:
        return
    with errors.shown():
        integration_result.section(choice, cells, maps.available(cells), asked.shown, name)


page()
