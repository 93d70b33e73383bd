"""How well each method rebuilds cells: by what was hidden, and as tables of all numbers."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import frame
from pages._ui.parts import figure, table
from pages._ui.reconstruction_parts import Shown, choose_measure
from pages._ui.reconstruction_words import HELP, MEASURE_HELP, MEASURES, QUESTIONS, with_words
from scdiva_core.figures.reconstruction import mask_curve, method_dots

_TABLE_PIXELS = 380


def curve(shown: Shown) -> None:
    """Draw the tab with the measures by what was hidden."""
    rows = shown.result.table
    measure = choose_measure("rec-measure", first="mse" if shown.item.settings.genes else "identity")
    asked = set(rows.loc[np.isfinite(rows[measure]), "told"])
    question = "both"
    if len(asked) > 1:
        question = st.segmented_control(
            "What is asked",
            list(QUESTIONS),
            default="gene",
            required=True,
            format_func=QUESTIONS.get,
            key="rec-question",
            help=HELP["question"],
        )
    told = None if question == "both" else question

    def draw(*, dark: bool, narrow: bool = False) -> go.Figure:
        options = {"told": told, "title": shown.title, "dark": dark}
        if rows["mask"].nunique() == 1:
            return method_dots(rows, measure, **options)
        return mask_curve(rows, measure, narrow=narrow, **options)

    figure(
        lambda dark: draw(dark=dark, narrow=frame.is_phone()),
        f"{shown.file}-{measure}",
        key=f"rec-curve-{measure}-{question}",
        paper=lambda: draw(dark=False),
        alt=f"{MEASURES[measure]} of each method by the share of the genes that was hidden",
    )
    st.caption(
        f"Clean anchor: {HELP['leak']} Random: genes and values drawn from other cells, the level of chance.",
        help=HELP["question"],
    )


def tables(shown: Shown) -> None:
    """Draw the tab with all numbers."""
    st.markdown("**All methods, all measures.** Means over cells.", help=HELP["interval"])
    columns = {"mask": "Hidden", "method": "Method", "asked": "Asked", "sees": "Sees", "n": "Cells", **MEASURES}
    table(
        with_words(shown.result.table),
        columns,
        f"{shown.file}-table",
        key="rec-table",
        alt="Every measure of every method at every share hidden",
        help_texts={
            **MEASURE_HELP,
            "mask": "Share of the cells' genes that was hidden.",
            "method": f"Population mean: {HELP['population']} kNN imputation: {HELP['neighbours']} Rank alone: what is "
            "usual at this rank in other cells. Random: the level of chance.",
            "asked": HELP["question"],
            "sees": HELP["leak"],
        },
        height=_TABLE_PIXELS,
    )
    st.caption("The CSV has the 95 % intervals too, under _low and _high.")
    st.markdown("**Who is better than whom, on the same cells,** all shares together.", help=HELP["gain"])
    compared = shown.result.comparisons
    table(
        compared.assign(measure=compared["measure"].map(MEASURES)),
        {
            "ours": "This",
            "theirs": "against",
            "measure": "Measure",
            "word": "is",
            "ours_mean": "This has",
            "theirs_mean": "the other",
            "difference": "Gain",
            "low": "from",
            "high": "to",
            "n": "Cells",
        },
        f"{shown.file}-comparisons",
        key="rec-comparisons",
        alt="Differences between methods with intervals",
        help_texts={"difference": HELP["gain"], "low": HELP["interval"], "high": HELP["interval"]},
    )
