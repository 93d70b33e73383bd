"""GRN: which genes the model connects with which regulators, what speaks for each edge, and how far to trust it."""

from __future__ import annotations

import streamlit as st

from pages._ui import asked_list, datasets, errors, frame, grn_form, grn_result, grn_work, maps, resources, state, words
from pages._ui.grn_words import NO_PROOF
from scdiva_core.errors import ScDiVaError

frame.require("grn")


def page() -> None:
    """Draw the page."""
    st.title("GRN")
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
        f"{words.as_text(name)} · {words.number(cells.n_obs)} cells · gene regulatory network: which genes the model "
        f"reads together with which regulators, and what else speaks for each edge. {NO_PROOF}"
    )
    frame.banner()
    found = maps.available(cells)
    asked = grn_work.asked_before(choice, cells)
    with errors.shown():
        grn_form.section(choice, cells, found, asked)
    asked_list.results(asked, prefix="grn")
    if asked.shown is None:
        st.info(
            "There is no network yet. Choose cells of one kind above, for example one cell type, then press **Make the "
            "network**. It shows which edges stay when cells are drawn anew, which are known, and whether attention "
            "finds known edges better than simple methods do.",
            icon=":material/hub:",
        )
        return
    with errors.shown():
        grn_result.section(choice, cells, found, asked.shown, name)


page()
