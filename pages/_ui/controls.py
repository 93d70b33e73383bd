"""Controls above the picture: colours, scale, filter, appearance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import streamlit as st

from pages._ui import maps, resources, state, view, words
from pages._ui.gene_box import leave_url, one_gene
from scdiva_core.data.h5ad import H5adDataset

GENE = "gene"
SETS = "sets"
_LABELS_FIRST = ("cell_type", "celltype", "cell type", "cell_ontology_class", "annotation", "label", "labels")
_BRIGHTEST_FIRST = ("CD3D", "LYZ", "MS4A1", "NKG7", "EPCAM", "INS", "ACTB")

# Colours of a data set's columns while it is open: every rerun of a page asks for all of them.
_columns: WeakKeyDictionary[H5adDataset, dict[str, view.Colouring | None]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Source:
    """Everything that cells can be coloured by, besides genes.

    Parameters
    ----------
    cells
        The open data set.
    clusters
        Name -> int ``[n_cells]``, Leiden clusters of each representation.
    sets
        Name -> bool ``[n_cells]``, the user's cell sets.
    """

    cells: H5adDataset
    clusters: Mapping[str, np.ndarray]
    sets: Mapping[str, np.ndarray]

    def options(self) -> list[str]:
        """Keys of the choices, the likely label column first."""
        columns = [column.name for column in self.cells.preflight.obs_columns]
        columns.sort(key=lambda name: name.lower() not in _LABELS_FIRST)  # stable: else the file's order
        options = [f"obs:{name}" for name in columns]
        options += [f"leiden:{name}" for name in self.clusters]
        return [*options, GENE, *([SETS] if self.sets else [])]

    def categories(self) -> dict[str, view.Categories]:
        """All groupings: columns of obs with few enough values, and clusters."""
        found = {name: self.colouring(name) for name in self.options() if name not in (GENE, SETS)}
        return {name: item for name, item in found.items() if isinstance(item, view.Categories)}

    def colouring(self, option: str) -> view.Colouring | None:
        """Colours of one choice; None where a column names cells and not groups."""
        kind, _, name = option.partition(":")
        if kind == "obs":
            known = _columns.setdefault(self.cells, {})
            if name not in known:
                known[name] = view.column_colouring(self.cells.obs[name], name)
            return known[name]
        if kind == "leiden":
            codes = self.clusters[name]
            return view.Categories(option_label(option), codes, tuple(map(str, range(codes.max() + 1))))
        return view.set_colouring(self.sets, self.cells.n_obs)


def option_label(option: str) -> str:
    """What a choice is called."""
    kind, _, name = option.partition(":")
    if kind == "obs":
        return name
    if kind == "leiden":
        return f"Leiden clusters ({maps.title(name)})"
    return "Gene …" if kind == GENE else "My cell sets"


def colour_controls(source: Source) -> view.Colouring | None:
    """Let the user choose colours; None (with a word why) when the choice has none."""
    option = st.selectbox(
        "Colour by",
        source.options(),
        format_func=option_label,
        key="colour",
        bind="query-params",
        width=210,
        help=f"Columns of obs ({words.HELP['obs']}), clusters, a gene, or your cell sets. {words.HELP['leiden']}",
    )
    if option == GENE:
        return _gene(source)
    leave_url(GENE)
    colouring = source.colouring(option)
    if isinstance(colouring, view.Numbers) and st.toggle(
        "Log scale", key="number_log", help=words.HELP["log"], persist_state="session"
    ):
        colouring = view.logarithm(colouring)
    return colouring


def _gene(source: Source) -> view.Numbers:
    symbols = source.cells.gene_symbols
    symbol = one_gene(
        "Gene",
        symbols,
        next((gene for gene in _BRIGHTEST_FIRST if gene in symbols), min(symbols)),
        key=GENE,
        help_text="Type a symbol, an older name, an alias or an Ensembl id. Genes of the file that the model knows.",
        width=150,
        in_url=True,
    )
    values = resources.gene_values(state.choice(), symbol)
    if st.toggle("Log scale", value=True, key="gene_log", help=words.HELP["linear"], persist_state="session"):
        return view.Numbers(f"{symbol}, log1p of counts per 10k", values)
    return view.Numbers(f"{symbol}, counts per 10k", np.expm1(values))


def filter_control(source: Source) -> np.ndarray | None:
    """Let the user keep some groups and dim all other cells; bool ``[n_cells]``, None without a filter."""
    active = st.session_state.get("filter_values")
    label = f"Filter ({len(active)})" if active else "Filter"
    with st.popover(label, icon=":material/filter_alt:", help="Keep some groups in colour and dim all other cells."):
        groups = source.categories()
        if not groups:
            st.caption("This data set has no groups yet.")
            return None
        name = st.selectbox(
            "Groups of", list(groups), format_func=option_label, key="filter_column", persist_state="session"
        )
        chosen = st.multiselect(
            "Show only",
            groups[name].names,
            key="filter_values",
            placeholder="all of them",
            persist_state="session",
        )
    if not chosen:
        return None
    wanted = [groups[name].names.index(value) for value in chosen]
    return np.isin(groups[name].codes, wanted)


def appearance_control() -> tuple[float, bool]:
    """Let the user change point size and names on the picture."""
    with st.popover("Look", icon=":material/tune:", help="Size of the points, names on the picture."):
        factor = st.slider(
            "Point size",
            0.5,
            3.0,
            1.0,
            0.25,
            key="point_size",
            help="1 fits the number of cells.",
            persist_state="session",
        )
        names = st.toggle("Names on the picture", key="names_on_picture", persist_state="session")
    return factor, names
