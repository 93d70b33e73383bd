"""Model: the checkpoint that is running, in facts that were counted, numbers that were measured, and its own card."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import datasets, errors, frame, model_card, resources, state, words
from scdiva_core.engine import ModelCard

frame.require("model")


def page() -> None:
    """Draw the page."""
    st.title("Model")
    with st.spinner("Loading the model …"):
        engine = resources.engine()
        card = engine.card()
    frame.banner()
    _identity(card)
    with errors.shown():
        _overlap(state.choice())
    model_card.evaluation(card)
    model_card.cell_types(engine.model.labels)
    _training(card)
    model_card.card_text(card)
    with st.expander("Use another checkpoint", icon=":material/swap_horiz:"):
        st.markdown(
            "Checkpoints that you have fine-tuned are chosen in the sidebar, for this session and its link alone. For "
            "everybody: set `SCDIVA_CHECKPOINT` to a folder, a weights file or a hub id (`owner/name`) and start the "
            "app again. A gene vocabulary must lie beside the weights. Missing weights are an error: nothing is ever "
            "filled in with random numbers."
        )
        st.code("SCDIVA_CHECKPOINT=path/to/checkpoint make run", language="bash")
        st.page_link("pages/finetune.py", label="Make one of your own on the page Fine-tune", icon=":material/tune:")


def _identity(card: ModelCard) -> None:
    with st.container(border=True, key="card"):
        st.subheader(words.as_text(card.name))
        st.markdown(words.as_text(card.description))
        facts = (
            ("Parameters", words.number(card.parameters_total), words.HELP["parameters"]),
            (
                "of these the denoiser",
                words.number(card.parameters),
                "The published network, without our heads.",
            ),
            ("Genes", words.number(card.vocabulary_size), "Genes in the model's vocabulary."),
            (
                "Genes a cell",
                words.number(card.max_genes),
                "At most this many genes of a cell are read, the most telling first.",
            ),
            (
                "Layers × width",
                f"{card.layers} × {card.hidden_size}",
                f"With {card.attention_heads} attention heads a layer.",
            ),
            ("Device", card.device, "Where it runs: cpu, cuda (NVIDIA) or mps (Apple)."),
            ("Number type", card.dtype, "Precision of the weights in memory."),
            ("Seed", str(card.seed), words.HELP["seed"]),
        )
        for row in (facts[:4], facts[4:]):
            for column, (label, value, help_text) in zip(st.columns(4), row, strict=True):
                column.metric(label, value, help=help_text)
        st.caption("SHA-256 of the weights", help=words.HELP["sha256"])
        st.code(card.sha256, language=None, wrap_lines=True)


def _overlap(choice: state.Choice) -> None:
    found = resources.preflight(choice)
    with st.container(border=True, key="overlap"):
        name = words.as_text(datasets.display_name(choice, resources.project()))
        st.markdown(f"**Genes of {name} that this model knows**", help=words.HELP["overlap"])
        known, share = found.genes_known, found.share_known
        st.progress(share, text=f"{words.number(known)} of {words.number(found.n_vars)} ({words.percent(share)})")
        st.caption("Genes without a token cannot reach the model; PCA is given the same genes, for a fair comparison.")


_TRAINED_ON = {
    "name": "Data set",
    "n_cells": "Cells",
    "labelled_cells": "of these labelled",
    "validation_cells": "of these held out (whole donors)",
}


def _training(card: ModelCard) -> None:
    training = dict(card.training)
    with st.container(border=True, key="training"):
        st.markdown("**What it was trained on**")
        sets = training.pop("datasets", None) or training.pop("data", None)
        if not sets and not training:
            st.caption("The checkpoint's card does not say.")
        if isinstance(sets, list) and sets:
            st.dataframe(pd.DataFrame(sets).rename(columns=_TRAINED_ON), hide_index=True, width="stretch")
        if training:
            rows = [row for name, value in training.items() for row in _rows(name, value)]
            st.dataframe(pd.DataFrame(rows, columns=["", "value"]), hide_index=True, width="stretch")


def _rows(name: str, value: object) -> list[tuple[str, str]]:
    """Name and value as text; a table within the record gives a row for each of its own."""
    if isinstance(value, dict):
        # What a run says of its validation repeats the word in every name.
        return [row for key, inner in value.items() for row in _rows(f"{name}: {key.removeprefix(f'{name}_')}", inner)]
    return [(name.replace("_", " "), _plain(value))]


def _plain(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    return str(value)


page()
