"""What integration is worth: tables and bars of all methods, and types of one batch alone."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import frame, words
from pages._ui.integration_parts import Shown, title
from pages._ui.integration_words import BARS, HELP, MEASURE_HELP, MEASURES
from pages._ui.parts import figure, table
from scdiva_core.figures.integration import metric_bars
from scdiva_core.tasks.integration import APART, METHODS, apart_in_words

_CHANCE = "By chance"


def section(shown: Shown) -> None:
    """Draw the tab with measures, those of the cells that only judged first."""
    result, chance = shown.result, shown.result.summary["chance"]
    if result.judged is not None:
        n_cells = int(result.judged["n_cells"].iloc[0])
        st.markdown(f"**{words.number(n_cells)} cells that only judged**", help=HELP["judged"])
        _measures(shown, result.judged, chance["judged"], "judged")
        with st.expander("All cells"):
            st.caption(HELP["all cells"])
            _measures(shown, result.table, chance["table"], "all")
        return
    _measures(shown, result.table, chance["table"], "all")


def _measures(shown: Shown, rows: pd.DataFrame, chance: dict[str, float], which: str) -> None:
    note = frame.weights_note()
    figure(
        lambda dark: metric_bars(
            rows,
            METHODS,
            measures=BARS,
            highlighted=[name for name in METHODS if name.startswith("scdiva")],
            chance=chance,
            note=note,
            dark=dark,
        ),
        f"{shown.file}-{which}",
        key=f"integration-bars-{which}",
        alt="Bars of each method: types held together and batches mixed",
    )
    st.caption(f"Dotted: by chance. {HELP['chance']}")
    there = {name: label for name, label in MEASURES.items() if name in rows}
    named = rows.assign(method=[title(name) for name in rows["method"]])
    table(
        pd.concat([named, pd.DataFrame([{"method": _CHANCE, **chance}])], ignore_index=True),
        {"method": "Method", **there},
        f"{shown.file}-{which}",
        key=f"integration-table-{which}",
        alt="Methods with all measures",
        help_texts={**MEASURE_HELP, "method": "All measures are 0 to 1, higher is better."},
    )


def apart_section(shown: Shown) -> None:
    """Draw the tab with types that only one batch has."""
    found = shown.result.apart
    if not len(found):
        st.info(apart_in_words(found, shown.best_of_ours), icon=":material/info:")
        return
    told = [f"**{title(method)}**: {words.as_text(apart_in_words(found, method))}" for method in shown.methods]
    st.markdown("\n".join(f"- {line}" for line in told), help=HELP["apart"])
    index = ["label", "batch", "n_cells"]
    rows = found.pivot_table(index=index, columns="method", values="purity", observed=True).reset_index()
    columns = {"label": "Type", "batch": "Batch", "n_cells": "Cells"}
    methods = {method: title(method) for method in shown.methods}
    table(
        rows,
        {**columns, **methods},
        f"{shown.file}-apart",
        key="integration-apart",
        alt="Purity of the clusters of types that only one batch has, by method",
        help_texts={method: f"Purity; from {APART:g} on the type keeps its own cluster." for method in methods},
    )
