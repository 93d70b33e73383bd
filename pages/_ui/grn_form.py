"""Which network: of which cells, how attention is read, what else is measured; how long it takes, and the button."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from pages._ui import cell_picker, errors, grn_work, maps, resources, sets_panel, state, words
from pages._ui.annotation_work import group_columns
from pages._ui.asked_list import AskedList
from pages._ui.grn_words import DIRECTIONS, HELP, head_name
from pages._ui.grn_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_grn import GrnSettings, attention_choice
from scdiva_core.errors import ScDiVaError
from scdiva_core.tasks.grn_attention import Head

_PLAIN = GrnSettings()
_MOST_KNOCKOUTS = 20
_READING_CLASH = "Both sets are the same cells. Choose other cells to compare with."


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, asked: AskedList[Asked]) -> None:
    """Draw the form.

    Parameters
    ----------
    choice, cells, found
        The open data set and what has been computed of it.
    asked
        Networks of the session; a click on the button adds one.
    """
    with st.container(border=True, key="grn-form"):
        st.subheader("Whose network?")
        item = _chosen(cells, found)
        if item is None:
            return
        try:
            seconds = grn_work.seconds(cells, item)
        except ScDiVaError as error:
            errors.show(error)
            return
        _run(choice, cells, item, seconds, asked)


def _chosen(cells: H5adDataset, found: maps.Found) -> Asked | None:
    """What the fields say; None (with a word why) where they say no cells."""
    picker = cell_picker.Picker(cells, sets_panel.Sets(cells, found.maps), group_columns(cells))
    first, second, most, each = st.columns([3, 3, 2, 2], vertical_alignment="top")
    with first:
        name, places = picker.pick("Cells", prefix="grn", help_text=HELP["cells"])
    with second:
        rival, others = picker.pick("Compare with", prefix="grn-against", help_text=HELP["against"], optional=True)
    most_cells = most.number_input(
        "Cells at most", 50, 20_000, _PLAIN.most_cells, 50, key="grn-most", help=HELP["most"], persist_state="session"
    )
    top = each.number_input(
        "Targets each", 5, 100, _PLAIN.top, 5, key="grn-top", help=HELP["top"], persist_state="session"
    )
    with st.expander("How attention is read, and what is measured beside it", icon=":material/tune:"):
        settings = _reading(GrnSettings(cells=name, most_cells=int(most_cells), top=int(top)))
    for chosen in (places, others):
        if chosen is not None and not len(chosen):
            st.info("No cell is chosen. Choose at least one value of the column.", icon=":material/info:")
            return None
    if others is None:
        return Asked(settings, places, None)
    if places is not None and places.tolist() == others.tolist():
        st.info(_READING_CLASH, icon=":material/info:")
        return None
    return Asked(replace(settings, against=rival), places, others)


def _reading(plain: GrnSettings) -> GrnSettings:
    """Heads, direction, knockouts and the comparison with other methods."""
    chosen = attention_choice(resources.engine())
    config = resources.engine().model.config
    every = [(layer, head) for layer in range(config.num_layers) for head in range(config.num_heads)]
    left, right = st.columns(2, vertical_alignment="top")
    heads: list[Head] = left.multiselect(
        "Layers and heads",
        every,
        format_func=lambda head: head_name(*head),
        key=f"grn-heads-{config.num_layers}-{config.num_heads}",
        placeholder="the checkpoint's choice",
        help=HELP["heads"],
        persist_state="session",
    )
    direction = right.selectbox(
        "Direction",
        list(DIRECTIONS),
        format_func=DIRECTIONS.get,
        key="grn-direction",
        help=HELP["direction"],
        persist_state="session",
    )
    st.caption(_choice_words(len(every), chosen.heads, chosen.direction, chosen.chosen_on))
    left, right = st.columns(2, vertical_alignment="center")
    panel = left.toggle(
        "Compare with other methods", value=True, key="grn-panel", help=HELP["panel"], persist_state="session"
    )
    knockout = right.number_input(
        "Also predict knockouts of the N strongest regulators",
        0,
        _MOST_KNOCKOUTS,
        0,
        key="grn-knockout",
        help=HELP["knockout"],
        persist_state="session",
    )
    return replace(plain, heads=tuple(sorted(heads)), direction=direction or None, panel=panel, knockout=int(knockout))


def _choice_words(n_heads: int, heads: tuple[Head, ...] | None, direction: str, chosen_on: str) -> str:
    """What the checkpoint's choice is."""
    told = f"all {n_heads} heads" if heads is None else "; ".join(head_name(*head) for head in heads)
    why = f"chosen on {words.as_text(chosen_on)}" if chosen_on else "nothing was chosen for it yet"
    return f"The checkpoint's choice: {told}, {DIRECTIONS[direction].lower()} ({why})."


def _run(choice: state.Choice, cells: H5adDataset, item: Asked, seconds: float, asked: AskedList[Asked]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Make the network",
            key="grn-run",
            type="primary",
            icon=":material/hub:",
            on_click=_begin,
            args=(choice, cells, asked, item),
        )
        if seconds == 0:
            st.caption("Computed before: shown at once.")
            return
        told = f"About {words.duration(seconds)} on this machine"
        if item.settings.knockout:
            without = replace(item, settings=replace(item.settings, knockout=0))
            part = seconds - grn_work.seconds(cells, without)
            told += f", {words.duration(part)} of it for the knockouts"
        st.caption(f"{told}; you can leave the page meanwhile.", help=HELP["time"])


def _begin(choice: state.Choice, cells: H5adDataset, asked: AskedList[Asked], item: Asked) -> None:
    asked.show(item)
    if grn_work.result(cells, item) is None:
        grn_work.submit(choice, item)
