"""Fine-tune: teach a copy of the model what a file says of its cells, and keep it as a checkpoint of one's own."""

from __future__ import annotations

import streamlit as st

from pages._ui import datasets, errors, finetune_form, finetune_list, finetune_running, frame, resources, state, words
from pages._ui.finetune_words import WHAT_FOR
from scdiva_core.errors import ScDiVaError

frame.require("finetune")


def page() -> None:
    """Draw the page."""
    st.title("Fine-tune")
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
    with errors.shown():
        finetune_running.section()
    with errors.shown():
        finetune_form.section(choice, cells)
    with errors.shown():
        finetune_list.section()


page()
