"""What a checkpoint that was fine-tuned on perturbations predicts of one: no other checkpoint draws this section."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import maps, resources, sets_panel, state, words
from pages._ui.annotation_work import group_columns
from pages._ui.cell_picker import Picker
from pages._ui.finetune_words import record_of
from pages._ui.gene_box import some_genes
from pages._ui.parts import table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.tasks.perturbation_model import MOST_CELLS, PerturbationModel

_DONE = {"knockout": "knocked out", "activation": "activated"}
_MOST_GENES = 3
_TABLE_PIXELS = 340
_CELLS_HELP = (
    f"Cells to which nothing was done: the prediction starts from them. At most {MOST_CELLS} are read, drawn at random "
    "where there are more."
)
_COLUMNS = {"symbol": "Gene", "before": "Before", "change": "Predicted change", "spread": "Spread over cells"}
_COLUMN_HELP = {
    "before": "Mean log1p expression of the unperturbed cells.",
    "change": "Mean over these cells, in log1p.",
    "spread": "Standard deviation of the predicted change over the cells: how much it depends on the cell. It is no "
    "error of the prediction.",
}


def section(choice: state.Choice, cells: H5adDataset, found: maps.Found, name: str) -> None:
    """Draw it; nothing where the checkpoint did not learn from perturbations.

    Parameters
    ----------
    choice, cells, found, name
        The open data set.
    """
    model = resources.engine().model
    if "perturbation" not in model.heads:
        return
    learned = PerturbationModel(model)
    done = _DONE[learned.kind]
    with st.container(border=True, key="ko-learned"):
        st.subheader("What this checkpoint learned to predict")
        st.markdown(words.as_text(record_of(model.card, "perturbation").get("words", "")))
        left, right = st.columns(2, vertical_alignment="top")
        with left:
            genes = some_genes(
                f"Genes that are {done}",
                cells.gene_symbols,
                key="ko-learned-genes",
                most=_MOST_GENES,
                placeholder="choose one to three",
                help_text="Any gene of the model's vocabulary; it need not be among those that were measured.",
            )
        with right:
            picker = Picker(cells, sets_panel.Sets(cells, found.maps), group_columns(cells))
            where, places = picker.pick("Unperturbed cells", prefix="ko-learned", help_text=_CELLS_HELP)
        if not genes or (places is not None and not len(places)):
            st.caption(
                f"Choose genes and unperturbed cells: the change of {len(learned.gene_ids):,} genes is predicted."
            )
            return
        places = np.arange(cells.n_obs) if places is None else places
        digest = hashlib.sha256(places.tobytes()).hexdigest()
        key, tables = (cells.sha256, str(choice), resources.checkpoint(), *genes, digest), state.gene_tables()
        if st.button("Predict", key="ko-learned-run", icon=":material/genetics:", disabled=key in tables):
            with st.spinner("Predicting …", show_time=True):
                tables[key] = _predicted(learned, cells, places, tuple(genes))
        if key in tables:
            _show(tables[key], f"{'+'.join(genes)} {done} in {where}", name)


def _predicted(
    learned: PerturbationModel, cells: H5adDataset, places: np.ndarray, genes: tuple[str, ...]
) -> pd.DataFrame:
    (found,) = learned.predict(cells, places, [genes])
    rows = found.table.sort_values("change", key=np.abs, ascending=False, ignore_index=True)
    rows.attrs = {"n_cells": found.n_cells, "measured": found.measured, "seen": list(found.seen)}
    return rows


def _show(rows: pd.DataFrame, title: str, name: str) -> None:
    st.markdown(f"**{words.as_text(title)}**")
    known = (
        "This very perturbation was measured in the file that it learned from: it is no test of the prediction."
        if rows.attrs["measured"]
        else "This perturbation was not measured there"
        + (f"; alone: {', '.join(map(words.as_text, rows.attrs['seen']))}." if rows.attrs["seen"] else ".")
    )
    st.caption(f"Mean of {words.number(rows.attrs['n_cells'])} cells; the largest change first. {known}")
    alt = "Predicted change of each gene"
    table(
        rows,
        _COLUMNS,
        f"{name}-{title}",
        key="ko-learned-table",
        alt=alt,
        help_texts=_COLUMN_HELP,
        height=_TABLE_PIXELS,
    )
