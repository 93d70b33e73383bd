"""Which cells are rebuilt, what of them is hidden, how long it takes, and the button."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from pages._ui import cell_picker, errors, maps, reconstruction_work, resources, sets_panel, state, words
from pages._ui.annotation_work import group_columns
from pages._ui.asked_list import AskedList
from pages._ui.reconstruction_words import HELP, HIDINGS
from pages._ui.reconstruction_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_reconstruction import ReconstructionSettings
from scdiva_core.errors import ScDiVaError
from scdiva_core.tasks.knockout_genes import parse_gene_list

_PLAIN = ReconstructionSettings()
_SHARES = tuple(range(15, 100, 5))
_FIRST_SHARES = (15, 30, 50, 80)
_LONG_SECONDS = 300
_FOUND_TOLD = 20
_NO_TYPES = ""


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, asked: AskedList[Asked]) -> None:
    """Draw the form.

    Parameters
    ----------
    choice, cells, found
        The open data set and what has been computed of it.
    asked
        Reconstructions of the session; a click on the button adds one.
    """
    with st.container(border=True, key="rec-form"):
        st.subheader("What is hidden, and in which cells?")
        item = _chosen(cells, found)
        if item is None:
            return
        try:
            seconds = reconstruction_work.seconds(cells, item)
        except ScDiVaError as error:
            errors.show(error)
            return
        _run(choice, cells, item, seconds, asked)


def _chosen(cells: H5adDataset, found: maps.Found) -> Asked | None:
    """What the fields say; None (with a word why) where they say no cells or nothing to hide."""
    columns = group_columns(cells)
    picker = cell_picker.Picker(cells, sets_panel.Sets(cells, found.maps), columns)
    first, second, third = st.columns([3, 3, 2], vertical_alignment="top")
    with first:
        name, places = picker.pick("Cells", prefix="rec", help_text=HELP["cells"])
    group_key = second.selectbox(
        "Cell types (for errors type by type)",
        [*columns, _NO_TYPES],
        format_func=lambda column: column or "no types",
        key="rec-types",
        help=HELP["types"],
        persist_state="session",
    )
    most_cells = third.number_input(
        "Cells at most", 10, 2000, _PLAIN.most_cells, 10, key="rec-most", help=HELP["most"], persist_state="session"
    )
    hiding = st.segmented_control(
        "What is hidden",
        list(HIDINGS),
        default="share",
        required=True,
        format_func=HIDINGS.get,
        key="rec-hiding",
        help=HELP["hidden"],
        persist_state="session",
    )
    settings = ReconstructionSettings(cells=name, most_cells=int(most_cells), group_key=group_key or None)
    hidden = _shares() if hiding == "share" else _genes(cells)
    with st.expander("How cells are rebuilt step by step", icon=":material/tune:"):
        settings = _iterative(settings)
    if places is not None and not len(places):
        st.info("No cell is chosen. Choose at least one value of the column.", icon=":material/info:")
        return None
    return None if hidden is None else Asked(replace(settings, **hidden), places)


def _shares() -> dict[str, tuple[float, ...]] | None:
    shares = st.multiselect(
        "Share of each cell's genes",
        _SHARES,
        default=_FIRST_SHARES,
        format_func=lambda share: f"{share} %",
        key="rec-shares",
        placeholder="choose at least one",
        help=HELP["shares"],
        persist_state="session",
    )
    if not shares:
        st.info("Nothing is hidden. Choose at least one share.", icon=":material/info:")
        return None
    return {"masks": tuple(share / 100 for share in sorted(shares))}


def _genes(cells: H5adDataset) -> dict[str, tuple[str, ...]] | None:
    """Genes of the list that file and model know; says which others it names, and why they are left out."""
    text = st.text_area(
        "Genes",
        key="rec-genes",
        placeholder="for example: CD3D, MS4A1, LYZ",
        height=80,
        help=HELP["genes"],
        persist_state="session",
    )
    if not text.strip():
        st.info("No gene is named. Type or paste some.", icon=":material/info:")
        return None
    genes, unknown = _parsed(text, (cells.sha256, resources.engine().vocabulary.sha256), cells)
    if unknown:
        told = "; ".join(f"**{words.as_text(name)}**: {words.as_text(why)}" for name, why in unknown.items())
        st.warning(f"{words.count(len(unknown), 'name')} left out. {told}.", icon=":material/search_off:")
    if not genes:
        st.info("No gene is left. Name genes that this file has and that the model knows.", icon=":material/info:")
        return None
    named = [name if name == symbol else f"{name} → {symbol}" for symbol, name in genes.items()]
    more = f" and {words.number(len(named) - _FOUND_TOLD)} more" if len(named) > _FOUND_TOLD else ""
    st.caption(f"{words.count(len(named), 'gene')} found: {words.as_text(', '.join(named[:_FOUND_TOLD]))}{more}.")
    return {"genes": tuple(genes)}


@st.cache_data(show_spinner=False, scope="session", max_entries=16)
def _parsed(text: str, key: tuple[str, ...], _cells: H5adDataset) -> tuple[dict[str, str], dict[str, str]]:
    return parse_gene_list(text, _cells)


def _iterative(plain: ReconstructionSettings) -> ReconstructionSettings:
    left, right = st.columns(2, vertical_alignment="top")
    n_cells = left.number_input(
        "Cells rebuilt step by step",
        0,
        500,
        plain.iterative_cells,
        key="rec-iterative",
        help=HELP["iterative"],
        persist_state="session",
    )
    steps = right.number_input(
        "Steps", 2, 64, plain.steps, key="rec-steps", help=HELP["steps"], persist_state="session"
    )
    return replace(plain, iterative_cells=int(n_cells), steps=int(steps))


def _run(choice: state.Choice, cells: H5adDataset, item: Asked, seconds: float, asked: AskedList[Asked]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Hide and rebuild",
            key="rec-run",
            type="primary",
            icon=":material/healing:",
            on_click=_begin,
            args=(choice, cells, asked, item),
        )
        if seconds == 0:
            st.caption("Computed before: shown at once.")
            return
        faster = " Fewer cells, shares or cells step by step take less." if seconds > _LONG_SECONDS else ""
        st.caption(
            f"About {words.duration(seconds)} on this machine; you can leave the page meanwhile.{faster}",
            help=HELP["time"],
        )


def _begin(choice: state.Choice, cells: H5adDataset, asked: AskedList[Asked], item: Asked) -> None:
    asked.show(item)
    if reconstruction_work.result(cells, item) is None:
        reconstruction_work.submit(choice, item)
