"""Which cells, groups and donors a perturbation is looked at in, and which genes these cells express."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import maps, resources, sets_panel, state
from pages._ui.annotation_work import group_columns
from pages._ui.cell_picker import ALL, Picker
from pages._ui.knockout_words import HELP
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.tasks.knockout_genes import gene_table

_DEFAULT_MOST = 500


@dataclass(frozen=True, eq=False)
class Where:
    """Cells to perturb, and what they are told apart by.

    Parameters
    ----------
    cells
        int64, places of the cells in the file, ascending; None for all.
    name
        What the set is called.
    n_cells
        How many they are.
    group_key, donor_key
        Columns of obs; None for clusters and for no donors.
    groups
        ``[n_obs]`` name of each cell's group.
    most_cells
        Cells that are drawn of a larger set.
    """

    cells: np.ndarray | None
    name: str
    n_cells: int
    group_key: str | None
    donor_key: str | None
    groups: np.ndarray
    most_cells: int

    @property
    def digest(self) -> str:
        """What tells the set from others."""
        return "" if self.cells is None else hashlib.sha256(self.cells.tobytes()).hexdigest()


def controls(cells: H5adDataset, found: maps.Found) -> Where:
    """Let the user choose.

    Parameters
    ----------
    cells, found
        The open data set and what has been computed of it.
    """
    columns = group_columns(cells)
    which, by, donors, most = st.columns([3, 2, 2, 2], vertical_alignment="top")
    with which:
        sets = sets_panel.Sets(cells, found.maps)
        name, places = Picker(cells, sets, columns).pick("Cells", prefix="ko", help_text=HELP["cells"])
    group_key = by.selectbox(
        "Groups",
        [*columns, None],
        format_func=lambda column: "Leiden clusters" if column is None else column,
        key="ko-groups",
        help=HELP["groups"],
        persist_state="session",
    )
    donor_key = donors.selectbox(
        "Donors (optional)",
        [column for column in columns if column != group_key],
        index=None,
        placeholder="no donor column",
        key="ko-donors",
        help=HELP["donors"],
        persist_state="session",
    )
    most_cells = most.number_input(
        "Cells at most", 50, 20_000, _DEFAULT_MOST, 50, key="ko-most", help=HELP["most"], persist_state="session"
    )
    clusters = np.array([f"cluster {code}" for code in found.clusters["X_scdiva"]], dtype=object)
    groups = clusters if group_key is None else cells.obs[group_key].astype(object).to_numpy()
    n_cells = cells.n_obs if places is None else len(places)
    return Where(places, name, n_cells, group_key, donor_key, groups, most_cells)


def everywhere(cells: H5adDataset, where: Where) -> Where:
    """All cells of the file, grouped alike."""
    return replace(where, cells=None, name=ALL, n_cells=cells.n_obs)


def detection(choice: state.Choice, cells: H5adDataset, where: Where) -> pd.DataFrame:
    """Which share of the chosen cells, and of each group of them, expresses each gene.

    Parameters
    ----------
    choice, cells
        The open data set.
    where
        Which cells and groups; there must be a cell.

    Returns
    -------
    DataFrame
        Of `scdiva_core.tasks.knockout_genes.gene_table`.
    """
    grouped = where.group_key or f"clusters {state.settings()}"
    return _detection(
        (cells.sha256, str(choice), resources.engine().vocabulary.sha256, grouped, where.digest), cells, where
    )


@st.cache_resource(show_spinner="Counting the cells that express each gene …", scope="session", max_entries=6)
def _detection(key: tuple[str, ...], _cells: H5adDataset, _where: Where) -> pd.DataFrame:
    return gene_table(_cells, _where.groups, _where.cells)
