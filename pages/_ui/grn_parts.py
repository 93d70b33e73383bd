"""What the parts of a network's page share: the result at hand, and edges as a table."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from pages._ui import maps, resources, state
from pages._ui.grn_words import COLUMN_HELP, EFFECTS, EVIDENCE
from pages._ui.grn_work import Asked
from pages._ui.parts import table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_grn import GrnResult

_FEW_ROWS, _TABLE_PIXELS = 9, 340


@dataclass(frozen=True)
class Shown:
    """A network on the page.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    item, result
        What was asked for, and what came of it.
    title
        Of its figures: whose network, with the warning of random weights.
    file
        What files of it are called.
    """

    choice: state.Choice
    cells: H5adDataset
    found: maps.Found
    item: Asked
    result: GrnResult
    title: str
    file: str

    @property
    def made_from(self) -> tuple[str, ...]:
        """What the network was made from, for caches."""
        return self.cells.sha256, str(self.choice), resources.checkpoint(), self.item.key

    @property
    def gene_key(self) -> str:
        """Key of the field with the gene at hand."""
        return f"grn-gene-{self.item.key}"

    @property
    def regulators_key(self) -> str:
        """Key of the field with the regulators that are drawn."""
        return f"grn-regulators-{self.item.key}"


def focus(shown: Shown, gene: str | None) -> None:
    """Take a gene to hand, or none; called by clicks, before the page runs again."""
    st.session_state[shown.gene_key] = gene
    state.clear_network_click()


def edge_table(edges: pd.DataFrame, name: str, *, key: str, alt: str) -> None:
    """Show edges with their evidence and offer them as CSV.

    Parameters
    ----------
    edges
        Columns of `scdiva_core.tasks.grn_evidence.EDGE_COLUMNS`.
    name
        File name without ending.
    key
        Unique on the page.
    alt
        Which edges they are.
    """
    rows = edges.assign(effect=edges["sign"].map(EFFECTS))
    columns = {"regulator": "Regulator", "target": "Target", **EVIDENCE}
    if rows["knockout"].isna().all():
        columns.pop("knockout")
    for column in ("regulator", "target"):
        if rows[column].nunique() == 1 and len(rows) > 1:
            columns.pop(column)  # the heading says it
            break
    height = _TABLE_PIXELS if len(rows) > _FEW_ROWS else None
    table(rows, columns, name, key=key, alt=alt, help_texts=COLUMN_HELP, height=height)
