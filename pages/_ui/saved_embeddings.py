"""Embeddings that the user saved by name: kept in the project, drawn on every page, renamed and deleted with undo."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages._ui import errors, resources, state, words
from pages._ui.saved_list import Named, SavedList
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_saved import SavedEmbedding, saved_embedding
from scdiva_core.errors import ScDiVaError


def listed(cells: H5adDataset) -> SavedList:
    """Names of the saved embeddings of the open data set."""
    return state.saved_embeddings(cells.sha256, lambda: _read(cells))


def _read(cells: H5adDataset) -> SavedList:
    entries = resources.project().saved_embeddings(cells.sha256)
    of_file = [name.removeprefix("X_") for name in cells.preflight.obsm]
    return SavedList([Named(**entry) for entry in entries], of_file)


def stored(cells: H5adDataset) -> dict[str, SavedEmbedding]:
    """Saved embeddings by name, in the order they were saved; those gone from the store are left out."""
    found = {item.name: saved_embedding(resources.engine().store, cells, item.key) for item in listed(cells)}
    return {name: item for name, item in found.items() if item is not None}


def change(cells: H5adDataset, action: Callable[[], object]) -> bool:
    """Change the list and keep the change; False (and a message on the next run) where that is not possible."""
    try:
        names = listed(cells)
        action()

        def joined(stored: list[dict[str, str]]) -> list[dict[str, str]]:
            names.catch_up([Named(**entry) for entry in stored])
            return [{"name": item.name, "key": item.key} for item in names]

        resources.project().change_embeddings(cells.sha256, joined)
    except ScDiVaError as error:
        state.set_saving_problem(error)
        return False
    state.set_saving_problem(None)
    return True


def panel(cells: H5adDataset) -> None:
    """List what was saved, with buttons to rename, delete and undo."""
    names, there = listed(cells), stored(cells)
    if problem := state.saving_problem():
        errors.show(problem)
    for item in names:
        with st.container(border=True, gap="xxsmall", key=f"saved-{item.key[:12]}-{item.name}"):
            with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
                st.markdown(f"**{words.as_text(item.name)}**", width="content")
                with st.popover("Edit", icon=":material/more_horiz:", help="Rename or delete it.", type="tertiary"):
                    _edit(cells, names, item)
            if item.name in there:
                st.caption(words.as_text(there[item.name].about.get("words", "")))
            else:
                st.caption("Its vectors are no longer stored. Save it again, or delete it.")
    if names.can_undo:
        st.button(
            "Undo",
            icon=":material/undo:",
            key="undo-saved",
            type="tertiary",
            help="Take back the last change of the saved embeddings.",
            on_click=change,
            args=(cells, names.undo),
        )


def _edit(cells: H5adDataset, names: SavedList, item: Named) -> None:
    with st.form(f"rename-saved-{item.name}", border=False):
        new = st.text_input("New name", value=item.name, key=f"new-saved-name-{item.name}")
        if st.form_submit_button("Rename", icon=":material/edit:"):
            change(cells, lambda: names.rename(item.name, new))
            st.rerun()
    st.button(
        "Delete",
        icon=":material/delete:",
        key=f"delete-saved-{item.name}",
        help="Undo brings it back.",
        on_click=change,
        args=(cells, lambda: names.remove(item.name)),
    )
