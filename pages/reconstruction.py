"""Reconstruction: what the model infers of genes that are hidden from it, beside simple methods; denoised values."""

from __future__ import annotations

import streamlit as st

from pages._ui import (
    asked_list,
    datasets,
    errors,
    frame,
    maps,
    reconstruction_denoised,
    reconstruction_form,
    reconstruction_result,
    reconstruction_work,
    resources,
    state,
    words,
)
from scdiva_core.errors import ScDiVaError

frame.require("reconstruction")


def page() -> None:
    """Draw the page."""
    st.title("Reconstruction")
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
        f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · part of each cell's genes is hidden from the "
        "model, which rebuilds them from the rest: how much does it know, and is it more than simple methods know?"
    )
    frame.banner()
    found = maps.available(cells)
    asked = reconstruction_work.asked_before(choice, cells)
    with errors.shown():
        reconstruction_form.section(choice, cells, found, asked)
    asked_list.results(asked, prefix="rec")
    if asked.shown is None:
        st.info(
            "Nothing has been rebuilt yet. Choose cells and what is hidden above, then press **Hide and rebuild**. You "
            "will see how many hidden genes and values the model gets right, beside the population mean and kNN "
            "imputation, and how much of it is only leak.",
            icon=":material/healing:",
        )
        reconstruction_denoised.beside(choice, cells, found, name)
        return
    with errors.shown():
        reconstruction_result.section(choice, cells, found, asked.shown, name)


page()
