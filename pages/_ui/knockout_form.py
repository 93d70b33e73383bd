"""What if: which genes, what is done to them, in which cells; how long it takes, and the button."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from pages._ui import errors, knockout_cells, knockout_work, maps, state, words
from pages._ui.asked_list import AskedList
from pages._ui.knockout_cells import Where
from pages._ui.knockout_genes import chosen_genes, refusal
from pages._ui.knockout_list import Asked
from pages._ui.knockout_words import ACTIONS, FACTORS, HELP
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_knockout import KnockoutSettings
from scdiva_core.errors import ScDiVaError
from scdiva_core.tasks.perturbation import Mode


@dataclass(frozen=True)
class Deed:
    """What is done to genes.

    Parameters
    ----------
    name
        On the button: "Knock out".
    words
        In a sentence: "knocked out".
    mode, factor
        As for `scdiva_core.tasks.perturbation.Perturbation`.
    """

    name: str
    words: str
    mode: Mode
    factor: float


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, asked: AskedList) -> tuple[Where, Deed]:
    """Draw the form.

    Parameters
    ----------
    choice, cells, found
        The open data set and what has been computed of it.
    asked
        Perturbations of the session; a click on the button adds one.

    Returns
    -------
    tuple of Where and Deed
        What was chosen besides the genes.
    """
    with st.container(border=True, key="what-if"):
        st.subheader("What if …")
        genes_place, deed_place = st.container(), st.container()
        where = knockout_cells.controls(cells, found)
        with deed_place:
            deed = _deed()
        if not where.n_cells:
            with genes_place:
                st.info("No cell is chosen. Choose at least one value of the column below.", icon=":material/info:")
            return where, deed
        with genes_place:
            genes = _genes(choice, cells, where)
        _run(choice, cells, where, deed, genes, asked)
    return where, deed


def _deed() -> Deed:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        action = st.segmented_control(
            "What is done",
            list(ACTIONS),
            default="out",
            required=True,
            format_func=lambda action: ACTIONS[action][0],
            key="ko-action",
            wrap=True,
            help=HELP["action"],
            persist_state="session",
        )
        name, mode = ACTIONS[action]
        factor = 0.0
        if action in FACTORS:
            factor = st.selectbox(
                "Factor",
                FACTORS[action],
                format_func=lambda factor: f"× {factor:g}",
                key=f"ko-factor-{action}",
                help=HELP["factor"],
                width=120,
                persist_state="session",
            )
    done = {"knockout": "knocked out", "mask": "hidden"}.get(mode, f"× {factor:g}")
    return Deed(name, done, mode, factor)


def _genes(choice: state.Choice, cells: H5adDataset, where: Where) -> tuple[str, ...]:
    """Chosen genes; none where one is refused, and the page says why."""
    table = knockout_cells.detection(choice, cells, where)
    genes = chosen_genes(cells, table)
    everywhere = table
    if where.cells is not None:
        everywhere = knockout_cells.detection(choice, cells, knockout_cells.everywhere(cells, where))
    if (refused := refusal(table, everywhere, genes, where.name)) is not None:
        errors.show(refused)
        return ()
    return genes


def _run(
    choice: state.Choice, cells: H5adDataset, where: Where, deed: Deed, genes: tuple[str, ...], asked: AskedList
) -> None:
    expression = st.toggle(
        "Predict the expression of all other genes",
        key="ko-expression",
        help=HELP["expression"],
        persist_state="session",
    )
    item, seconds = None, None
    if genes:
        settings = KnockoutSettings(
            genes=genes,
            mode=deed.mode,
            factor=deed.factor,
            group_key=where.group_key,
            donor_key=where.donor_key,
            cells=where.name,
            most_cells=where.most_cells,
            expression=expression,
        )
        item = Asked(settings, where.cells)
        try:
            seconds = knockout_work.seconds(cells, item)
        except ScDiVaError as error:
            errors.show(error)
            item = None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            f"{deed.name} {words.as_text(' and '.join(genes))}" if genes else f"{deed.name} …",
            key="ko-run",
            type="primary",
            icon=":material/genetics:",
            disabled=item is None,
            on_click=_begin,
            args=(choice, cells, asked, item),
        )
        if seconds == 0:
            st.caption("Computed before: shown at once.")
        elif seconds is not None:
            st.caption(
                f"About {words.duration(seconds)} on this machine; you can leave the page meanwhile.", help=HELP["time"]
            )
        else:
            st.caption("Choose one to three genes that these cells express.")


def _begin(choice: state.Choice, cells: H5adDataset, asked: AskedList, item: Asked) -> None:
    asked.show(item)
    if knockout_work.result(cells, item) is None:
        knockout_work.submit("knockout", choice, item, item.title)
