"""Knockout: what the model expects of cells whose genes are removed, scaled or hidden, with its controls beside it."""

from __future__ import annotations

import streamlit as st

from pages._ui import (
    asked_list,
    datasets,
    errors,
    frame,
    knockout_compare,
    knockout_form,
    knockout_genes,
    knockout_learned,
    knockout_result,
    knockout_screen,
    knockout_work,
    maps,
    resources,
    state,
    words,
)
from pages._ui.embed_first import embed_first
from pages._ui.knockout_words import NO_EXPERIMENT
from scdiva_core.errors import ScDiVaError

frame.require("knockout")


def page() -> None:
    """Draw the page."""
    st.title("Knockout")
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
        f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · take genes away, turn them down or up, and see "
        f"where the cells go, beside random genes. {NO_EXPERIMENT}"
    )
    frame.banner()
    knockout_genes.take_from_link()
    found = maps.available(cells)
    with errors.shown():
        knockout_learned.section(choice, cells, found, name)
    if found.embedding is None:
        embed_first(choice, cells, done="perturbed")
        return
    asked = knockout_work.asked_before("knockout", choice, cells)
    where, deed = knockout_form.section(choice, cells, found, asked)
    asked_list.results(asked, prefix="ko")
    if asked.shown is not None:
        with errors.shown():
            knockout_result.section(choice, cells, found, asked.shown, name)
    with errors.shown():
        knockout_compare.side_by_side(asked, cells, name)
    screens = knockout_work.asked_before("screen", choice, cells)
    with errors.shown():
        knockout_screen.section(choice, cells, where, deed, screens, name)


page()
