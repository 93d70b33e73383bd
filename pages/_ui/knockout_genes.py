"""Choose genes: search by any name, see which cells express them, and be told why one cannot be perturbed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import resources, state, words
from pages._ui.gene_box import some_genes
from pages._ui.knockout_words import HELP
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError, ScDiVaError
from scdiva_core.tasks.knockout_genes import DETECTION_IN, find_genes, parse_gene_list
from scdiva_core.tasks.perturbation import MOST_GENES

GENES = "ko-genes"
"""Key of the chosen genes in the session's state."""

LINKED = "gene"
"""Parameter of a link to the page Knockout: the gene to choose."""

_MATCHES = 8


def chosen_genes(cells: H5adDataset, table: pd.DataFrame) -> tuple[str, ...]:
    """Let the user search and choose; say what was typed and is no gene of the file.

    Parameters
    ----------
    cells
        The open data set.
    table
        Of `scdiva_core.tasks.knockout_genes.gene_table`, for the cells at hand.

    Returns
    -------
    tuple of str
        Symbols of the file, at most three.
    """
    search, pick = st.columns([2, 3], vertical_alignment="top")
    text = search.text_input(
        "Find a gene", key="ko-find", placeholder="for example: PU.1 or SPI", help=HELP["find"], persist_state="session"
    )
    with pick:
        typed = some_genes(
            "Genes to perturb",
            cells.gene_symbols,
            key=GENES,
            most=MOST_GENES,
            placeholder="choose one to three",
            help_text=HELP["genes"],
        )
    found, unknown = _resolved(tuple(typed), cells)
    for name, why in unknown.items():
        st.error(f"**{words.as_text(name)}**: {words.as_text(why)}. Search for it above.", icon=":material/error:")
    if text.strip():
        _matches(table, text)
    if found:
        st.caption("Share of the cells that express them:")  # and room for the table's buttons, which cover a field
        _table(table[table["symbol"].isin(found)], found, key="ko-detection", alt="Cells that express the chosen genes")
    return tuple(found)


def take(symbol: str) -> None:
    """Put a gene among the chosen ones; called by clicks, before the page runs again."""
    now = [gene for gene in st.session_state.get(GENES, []) if gene != symbol]
    st.session_state[GENES] = [*now[-(MOST_GENES - 1) :], symbol]
    state.clear_gene_rows()


def take_alone(symbol: str) -> None:
    """Choose a gene instead of all others."""
    st.session_state[GENES] = [symbol]
    state.clear_gene_rows()


def take_from_link() -> None:
    """Choose the gene that a link to the page names, once: the address forgets it."""
    if symbol := st.query_params.pop(LINKED, None):
        take_alone(symbol)


def refusal(table: pd.DataFrame, everywhere: pd.DataFrame, genes: tuple[str, ...], where: str) -> ScDiVaError | None:
    """Why the chosen genes cannot be perturbed in the chosen cells; None when they can.

    Parameters
    ----------
    table
        Detection among the chosen cells.
    everywhere
        Detection among all cells of the file.
    genes
        Symbols.
    where
        Name of the cell set.
    """
    n_cells, n_all = table.attrs["cells"], everywhere.attrs["cells"]
    for gene in genes:
        if table.loc[table["symbol"] == gene, "detection"].max() > 0:
            continue
        row = everywhere.loc[everywhere["symbol"] == gene].iloc[0]
        counted = f"{round(row['detection'] * n_all):,} of {n_all:,} cells of the file express it"
        set_words = f"0 of {n_cells:,} cells" + (f" ({where})" if n_cells < n_all else "")
        msg = f"{set_words} express {gene}, so nothing can be done to it there: every cell shifts by exactly 0."
        sizes = pd.Series(everywhere.attrs["sizes"], dtype=float)
        inside = sizes * row[[f"{DETECTION_IN}{name}" for name in sizes.index]].astype(float).to_numpy()
        if inside.empty or not inside.max() > 0:
            return DataError(msg, f"Choose another gene; {counted}.")
        share = words.percent(inside.max() / sizes[inside.idxmax()], 0)
        where_most = f"most of them in {inside.idxmax()} ({share} of these)"
        return DataError(msg, f"Choose other cells or another gene; {counted}, {where_most}.")
    return None


@st.cache_data(show_spinner=False, scope="session", max_entries=64)
def _named(typed: str, key: tuple[str, ...], _cells: H5adDataset) -> tuple[dict[str, str], dict[str, str]]:
    return parse_gene_list(typed, _cells)


def _resolved(typed: tuple[str, ...], cells: H5adDataset) -> tuple[list[str], dict[str, str]]:
    """Symbols of what was chosen or typed, and of the rest why it is no gene of the file."""
    known, found, unknown = set(cells.gene_symbols), [], {}
    for name in typed:
        if name in known:
            found.append(name)
            continue
        symbols, others = _named(name, (cells.sha256, resources.engine().vocabulary.sha256), cells)
        for symbol in symbols:
            st.caption(f"{words.as_text(name)} is **{words.as_text(symbol)}** in this file.")
        found += symbols
        unknown |= others
    return list(dict.fromkeys(found))[:MOST_GENES], unknown


def _matches(table: pd.DataFrame, text: str) -> None:
    rows = find_genes(table, text)
    if rows.empty:
        st.info(
            f"No gene of this file that the model knows is called {words.as_text(text)}, or has a name that begins so.",
            icon=":material/search_off:",
        )
        return
    shown = rows.head(_MATCHES)
    key = f"ko-matches-{state.gene_round()}"

    def clicked() -> None:
        if places := st.session_state[key]["selection"]["rows"]:
            take(shown["symbol"].iloc[places[0]])

    _table(shown, list(shown["symbol"]), key=key, alt="Genes that match the search", on_select=clicked)
    more = f" {words.number(len(rows) - len(shown))} more match." if len(rows) > len(shown) else ""
    st.caption(f"Click the box at the left of a row to take that gene.{more}")


def _table(rows: pd.DataFrame, order: list[str], *, key: str, alt: str, **options: object) -> None:
    """Detection of some genes, in all cells and by group."""
    sizes = rows.attrs.get("sizes", {})
    shown = rows.drop_duplicates("symbol").set_index("symbol").loc[order].reset_index()
    shown = shown.drop(columns="mean")
    if "found_as" in shown and not shown["found_as"].any():
        shown = shown.drop(columns="found_as")
    names = {name: name.removeprefix(DETECTION_IN) for name in shown if name.startswith(DETECTION_IN)}
    shown[["detection", *names]] *= 100
    percent = {
        name: st.column_config.NumberColumn(
            "All these cells" if name == "detection" else names[name],
            format="%.0f %%",
            help=HELP["detection"] if name == "detection" else f"{sizes.get(names[name], 0):,} cells",
        )
        for name in ("detection", *names)
    }
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        key=key,
        alt=alt,
        column_order=["symbol", *(["found_as"] if "found_as" in shown else []), "detection", *names],
        column_config={
            "symbol": st.column_config.TextColumn("Gene", pinned=True),
            "found_as": st.column_config.TextColumn("Found as"),
            **percent,
        },
        **({"selection_mode": "single-row"} if options else {}),
        **options,
    )
