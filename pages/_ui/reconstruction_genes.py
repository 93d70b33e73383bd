"""What is rebuilt well and what is not: one cell gene by gene, genes over all cells, and cell types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import words
from pages._ui.parts import figure, table
from pages._ui.reconstruction_parts import Shown, choose_measure
from pages._ui.reconstruction_words import HELP, MEASURES
from scdiva_core.engine_reconstruction_result import MEAN, NAMED, NEIGHBOURS, ONE_PASS, ONE_PASS_LEAKING, RANDOM, RANK
from scdiva_core.figures.reconstruction import gene_errors, profile_scatter, type_bars

_TABLE_PIXELS = 340
_BY_NAME = (NAMED, MEAN, NEIGHBOURS)
_BY_PLACE = (ONE_PASS, ONE_PASS_LEAKING, RANK, RANDOM)
_OF_NAMES = ("identity", "l_dist", "bleu")


def one_cell(shown: Shown) -> None:
    """Draw the tab with one cell's true and rebuilt values."""
    profiles = shown.result.profiles
    groups = dict(zip(profiles["cell"], profiles["group"], strict=True))
    cell = st.selectbox(
        "Cell",
        list(groups),
        format_func=lambda name: f"{groups[name]} · {name}" if groups[name] else name,
        key=f"rec-cell-{shown.item.key}",
        help=HELP["cell"],
    )
    profile = profiles[profiles["cell"] == cell]
    title = f"{shown.title}: {groups[cell] or cell}"
    figure(
        lambda dark: profile_scatter(profile, title=title, dark=dark),
        f"{shown.file}-{cell}",
        key=f"rec-profile-{cell}",
        alt=f"True against rebuilt values of the hidden genes of {cell}",
    )
    best = st.segmented_control(
        "Genes in the table",
        [False, True],
        default=False,
        required=True,
        format_func={False: "Worst first", True: "Best first"}.get,
        key="rec-best",
    )
    rows = _errors(profile).sort_values("error", key=np.abs, ascending=best, kind="stable", ignore_index=True)
    if rows.empty:
        return
    table(
        rows,
        {
            "symbol": "Gene",
            "place": "Rank",
            "value": "True",
            "named_value": "ScDiVa, gene named",
            "error": "Error",
            "mean_value": "Population mean",
            "neighbour_value": "kNN imputation",
            "rebuilt_symbol": "Named at its place",
            "rebuilt_value": "Value at its place",
        },
        f"{shown.file}-{cell}",
        key="rec-cell-table",
        alt=f"Hidden genes of {cell}, true and rebuilt",
        help_texts={
            "place": "Among the cell's genes in the order in which the model reads them, 1 first.",
            "error": "Rebuilt less true, the gene named.",
            "mean_value": HELP["population"],
            "neighbour_value": HELP["neighbours"],
            "rebuilt_symbol": "Gene that the model puts at the hidden place, from visible genes only.",
            "rebuilt_value": "Value that it puts there; the place tells its rank.",
        },
        height=_TABLE_PIXELS,
    )
    st.caption(f"Values are log1p of counts per 10,000. {HELP['cell']}")


def _errors(profile: pd.DataFrame) -> pd.DataFrame:
    """Hidden genes of a cell, with how far the value of each is off."""
    hidden = profile[profile["hidden"]].drop(columns="hidden")
    return hidden.assign(error=hidden["named_value"] - hidden["value"])


def genes_and_types(shown: Shown) -> None:
    """Draw the tab with errors gene by gene and type by type."""
    _genes(shown)
    _types(shown)


def _genes(shown: Shown) -> None:
    result = shown.result
    st.markdown(
        f"**Gene by gene**, {words.percent(result.summary['mask'], 0)} of the cells' genes hidden",
        help=HELP["gene errors"],
    )
    theirs = st.segmented_control(
        "Compare ScDiVa with", [MEAN, NEIGHBOURS], default=MEAN, required=True, key="rec-theirs"
    )
    rows = result.genes
    figure(
        lambda dark: gene_errors(rows, NAMED, theirs, title=shown.title, dark=dark),
        f"{shown.file}-genes-{theirs}",
        key=f"rec-genes-{theirs}",
        alt=f"Error of each gene by the model against that by {theirs}",
    )
    if rows.empty:
        return
    named = {NAMED: "ScDiVa", MEAN: "mean", NEIGHBOURS: "kNN"}
    columns = {"symbol": "Gene", "n": "Hidden in", "mean": "Mean value"}
    columns |= {f"mse: {method}": f"MSE {name}" for method, name in named.items()}
    columns |= {f"spearman: {method}": f"Spearman {name}" for method, name in named.items() if method != MEAN}
    columns |= {f"identity: {ONE_PASS}": "Named rightly"}
    table(
        rows,
        columns,
        f"{shown.file}-genes",
        key="rec-genes-table",
        alt="Errors of each gene, those hidden most often first",
        help_texts={
            "n": "Cells in which it was hidden; genes hidden in fewer than 5 are left out.",
            f"spearman: {NAMED}": "Rank correlation over the cells in which it was hidden. The population mean has "
            "none: it says the same of every cell.",
            f"identity: {ONE_PASS}": "Share of its places where the model names it, from visible genes only.",
        },
        height=_TABLE_PIXELS,
    )


def _types(shown: Shown) -> None:
    st.markdown("**Type by type**")
    types = shown.result.types
    if types is None:
        st.info("No column with cell types was chosen. Choose one above and rebuild again.", icon=":material/info:")
        return
    masks = sorted(set(types["mask"]))
    mask = masks[0]
    if len(masks) > 1:
        mask = st.segmented_control(
            "Hidden",
            masks,
            default=min(masks, key=lambda share: abs(share - shown.result.summary["mask"])),
            required=True,
            format_func=lambda share: words.percent(share, 0),
            key=f"rec-type-mask-{len(masks)}",
            wrap=True,
        )
    measure = choose_measure("rec-type-measure", first="mse")
    methods = _BY_PLACE if measure in _OF_NAMES else _BY_NAME
    drawn = types[types["mask"] == mask]
    title = f"{shown.title}, {words.percent(mask, 0)} hidden"
    figure(
        lambda dark: type_bars(drawn, measure, methods, title=title, dark=dark),
        f"{shown.file}-types-{measure}",
        key=f"rec-types-{measure}-{mask}",
        alt=f"{MEASURES[measure]} of the cells of each type",
    )
    with st.expander("As a table"):
        table(
            types,
            {"group": "Type", "mask": "Hidden", "method": "Method", "n": "Cells", **MEASURES},
            f"{shown.file}-types",
            key="rec-types-table",
            alt="Every measure of every method for each type",
            height=_TABLE_PIXELS,
        )
