"""Many genes perturbed one at a time: which, the job, and the table as it fills."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import knockout_work, resources, state, words
from pages._ui.annotation_export import table_download
from pages._ui.asked_list import AskedList
from pages._ui.knockout_cells import Where
from pages._ui.knockout_form import Deed
from pages._ui.knockout_genes import take_alone
from pages._ui.knockout_list import Asked
from pages._ui.knockout_result import code, waiting
from pages._ui.knockout_words import HELP, NO_EXPERIMENT
from pages._ui.parts import NO_NUMBER, column_config, figure
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_knockout import ScreenSettings
from scdiva_core.figures.perturbation_bars import SIGNIFICANT, screen_chart
from scdiva_core.tasks.knockout_genes import Kind, parse_gene_list, screen_genes

_KINDS = {"regulators": "Transcription factors", "variable": "Variable genes", "pasted": "A list of mine"}
_DEFAULT_MOST = 100
_KEPT = "Genes that are done are kept; starting again goes on from there."
_POLL_SECONDS = 2.0
_TABLE_PIXELS, _FEW_ROWS = 360, 9
_COLUMNS = {
    "gene": "Gene",
    "effect": "Shift",
    "z": "z",
    "p": "p",
    "q": "q",
    "direction": "Towards",
    "n_read": "Read it",
    "detection": "Read by",
    "top_moved": "Predicted to move most",
    "refused": "Refused, because",
}
_HELP = {
    "effect": HELP["shift"],
    "z": "Standard deviations of the random genes' shifts (logarithms) that the gene lies above their mean.",
    "q": HELP["q"],
    "direction": "Group whose middle the reading cells come closer to most.",
    "detection": "Share of the cells that read the gene.",
    "top_moved": "For the first genes: those whose predicted log1p expression changes most.",
}


def section(choice: state.Choice, cells: H5adDataset, where: Where, deed: Deed, asked: AskedList, name: str) -> None:
    """Draw the form, and the screen that is shown.

    Parameters
    ----------
    choice, cells
        The open data set.
    where, deed
        Cells and what is done to each gene, as chosen for a single perturbation.
    asked
        Screens of the session.
    name
        Of the data set.
    """
    st.subheader("Screen many genes", help=HELP["screen"])
    which = "all " if where.cells is None else ""
    cells_words = f"{which}{words.number(where.n_cells)} cells"
    cells_words += "" if where.cells is None else f" ({words.as_text(where.name)})"
    st.caption(f"Each gene alone, {deed.words}, in {cells_words}, groups by {where.group_key or 'Leiden cluster'}.")
    genes = _genes(choice, cells, where)
    settings = None
    if genes and where.n_cells:
        settings = ScreenSettings(
            genes=genes,
            mode=deed.mode,
            factor=deed.factor,
            group_key=where.group_key,
            cells=where.name,
            most_cells=where.most_cells,
        )
    st.button(
        f"Screen {words.number(len(genes))} genes",
        key="ko-screen",
        type="primary",
        icon=":material/biotech:",
        disabled=settings is None,
        on_click=_begin,
        args=(choice, cells, asked, None if settings is None else Asked(settings, where.cells)),
    )
    if asked.shown is not None:
        _shown(choice, cells, asked.shown, name)


def _begin(choice: state.Choice, cells: H5adDataset, asked: AskedList, item: Asked) -> None:
    asked.show(item)
    if knockout_work.screened(cells, item) is None:
        knockout_work.submit("screen", choice, item, f"Screen {item.title}")


def _genes(choice: state.Choice, cells: H5adDataset, where: Where) -> tuple[str, ...]:
    """Symbols to screen."""
    kind = st.segmented_control(
        "Genes to screen",
        list(_KINDS),
        default="regulators",
        required=True,
        format_func=_KINDS.get,
        key="ko-screen-kind",
        wrap=True,
        help=f"{HELP['regulators']} {HELP['variable']}",
        persist_state="session",
    )
    if kind == "pasted":
        return _pasted(cells)
    most = st.number_input(
        "Genes at most", 5, 2000, _DEFAULT_MOST, 5, key="ko-screen-most", width=200, persist_state="session"
    )
    if not where.n_cells:
        return ()
    found = _listed(
        (cells.sha256, str(choice), resources.engine().vocabulary.sha256, where.digest, kind), cells, where, kind
    )
    if not found:
        st.info("Too few of these cells express such a gene. Choose more cells.", icon=":material/info:")
    elif len(found) > most:
        st.caption(f"The first {most:,} of {len(found):,}. {HELP[kind]}")
    else:
        st.caption(f"{len(found):,} genes. {HELP[kind]}")
    return found[:most]


@st.cache_data(show_spinner="Looking for genes to screen …", scope="session", max_entries=16)
def _listed(key: tuple[str, ...], _cells: H5adDataset, _where: Where, _kind: Kind) -> tuple[str, ...]:
    return screen_genes(_cells, _kind, _where.cells, most=2000)


def _pasted(cells: H5adDataset) -> tuple[str, ...]:
    text = st.text_area(
        "Genes",
        key="ko-screen-text",
        height=100,
        placeholder="SPI1, CEBPA, GATA1 …",
        help=HELP["pasted"],
        persist_state="session",
    )
    if not text.strip():
        st.caption("Paste genes, then press Ctrl+Enter.")
        return ()
    found, unknown = _parsed(text, (cells.sha256, resources.engine().vocabulary.sha256), cells)
    renamed = [f"{given} is {symbol}" for symbol, given in found.items() if given.casefold() != symbol.casefold()]
    st.caption(
        f"{len(found):,} genes of this file found" + (f"; {words.as_text('; '.join(renamed))}." if renamed else ".")
    )
    if unknown:
        with st.expander(f"{len(unknown):,} not found", icon=":material/error:", expanded=len(unknown) <= 10):
            lost = pd.DataFrame({"name": list(unknown), "why": list(unknown.values())})
            st.dataframe(lost, hide_index=True, width="stretch", key="ko-screen-unknown")
    return tuple(found)


@st.cache_data(show_spinner=False, scope="session", max_entries=8)
def _parsed(text: str, key: tuple[str, ...], _cells: H5adDataset) -> tuple[dict[str, str], dict[str, str]]:
    return parse_gene_list(text, _cells)


def _shown(choice: state.Choice, cells: H5adDataset, item: Asked, name: str) -> None:
    rows = knockout_work.screened(cells, item)
    if rows is not None:
        st.markdown(f"**{words.as_text(item.title)}** · {words.as_text(item.how)}")
        _words(rows)
        _chart(rows, item, name)
        _table(rows, done=True)
        table_download("Table (CSV)", rows, f"{name}-screen", key="ko-screen-csv")
        code(choice, cells, item)
        return
    waiting("screen", choice, item, kept=_KEPT)
    job = knockout_work.job("screen", choice, item)
    active = job is not None and job.active
    st.fragment(_so_far, run_every=_POLL_SECONDS if active else None)(cells, item)


def _so_far(cells: H5adDataset, item: Asked) -> None:
    rows = knockout_work.screened_so_far(cells, item)
    if rows is not None and len(rows):
        st.caption(f"{len(rows):,} of {len(item.settings.genes):,} genes so far. z, p and q come at the end.")
        _table(rows, done=False)


def _words(rows: pd.DataFrame) -> None:
    tested = rows["q"].notna()
    clear = int((rows["q"] <= SIGNIFICANT).sum())
    refused = int((rows["refused"].fillna("") != "").sum())
    said = f"{clear:,} of {int(tested.sum()):,} tested genes shift the cells more than random genes do "
    said += f"(q ≤ {SIGNIFICANT:g})."
    if refused:
        said += f" {refused:,} {'was' if refused == 1 else 'were'} refused; the table says why."
    st.markdown(f"{said} {NO_EXPERIMENT}")


def _chart(rows: pd.DataFrame, item: Asked, name: str) -> None:
    drawn = rows.rename(columns={"gene": "symbol"})
    figure(
        lambda dark: screen_chart(drawn, title=item.title, dark=dark),
        f"{name}-screen",
        key="ko-screen-chart",
        alt=f"Shift of each gene against the share of cells that read it: {item.title}",
    )


def _table(rows: pd.DataFrame, *, done: bool) -> None:
    empty = () if done else ("z", "p", "q", "detection", "top_moved")
    columns = {column: label for column, label in _COLUMNS.items() if column not in empty}
    if not (rows["refused"].fillna("") != "").any():
        columns.pop("refused")
    key = f"ko-screen-table-{state.gene_round()}-{done}"

    def clicked() -> None:
        if places := st.session_state[key]["selection"]["rows"]:
            take_alone(rows["gene"].iloc[places[0]])

    st.dataframe(
        rows,
        hide_index=True,
        placeholder=NO_NUMBER,
        width="stretch",
        height=_TABLE_PIXELS if len(rows) > _FEW_ROWS else "auto",
        key=key,
        alt="Genes of the screen",
        column_order=list(columns),
        column_config={
            **column_config(rows, columns, _HELP),
            "gene": st.column_config.TextColumn("Gene", pinned=True),
            "detection": st.column_config.NumberColumn("Read by", format="percent", help=_HELP["detection"]),
        },
        on_select=clicked if done else "ignore",
        **({"selection_mode": "single-row"} if done else {}),
    )
    if done:
        st.caption("Click the box at the left of a row to put that gene into the form above.")
