"""How far to trust a network: beside other methods, layer by layer, and in words."""

from __future__ import annotations

import numpy as np
import streamlit as st

from pages._ui import words
from pages._ui.grn_parts import Shown
from pages._ui.grn_words import DIRECTIONS, HELP, WHAT_IT_IS, head_name
from pages._ui.parts import figure, table
from scdiva_core.figures.grn_panels import head_agreement, honesty_intervals


def section(shown: Shown) -> None:
    """Draw the tab."""
    result = shown.result
    if result.summary["verdict"]:
        st.markdown(f"**{words.as_text(result.summary['verdict'])}**", help=f"{HELP['auprc']} {HELP['epr']}")
    elif shown.item.settings.panel:
        st.info("The reference knows none of these pairs, so nothing can be compared.", icon=":material/info:")
    else:
        st.info(
            "The comparison with other methods was not asked for. Switch it on above and make the network again.",
            icon=":material/info:",
        )
    if result.honesty is not None:
        _methods(shown)
    if result.heads is not None:
        _heads(shown)
    st.markdown(_read(shown))
    st.markdown(WHAT_IT_IS)


def _methods(shown: Shown) -> None:
    rows = shown.result.honesty
    figure(
        lambda dark: honesty_intervals(rows, title=shown.title, dark=dark),
        f"{shown.file}-methods",
        key="grn-honesty",
        alt="How much better than chance each method finds known edges, with intervals",
    )
    with st.expander("As a table"):
        columns = {"method": "Method"}
        for measure, label in (("auprc", "AUPRC ratio"), ("epr", "Early precision ratio")):
            columns |= {f"{measure}_ratio": label, f"{measure}_low": "from", f"{measure}_high": "to"}
        columns |= {"n_pairs": "Pairs", "n_true": "Known"}
        table(
            rows,
            columns,
            f"{shown.file}-methods",
            key="grn-honesty-table",
            alt="Methods with their ratios over chance",
            help_texts={"auprc_ratio": HELP["auprc"], "epr_ratio": HELP["epr"]},
        )


def _heads(shown: Shown) -> None:
    rows = shown.result.heads
    ratios = np.full((rows["layer"].max() + 1, rows["head"].max() + 1), np.nan)
    ratios[rows["layer"], rows["head"]] = rows["auprc_ratio"]
    used = rows[rows["used"]]
    chosen = [] if len(used) == len(rows) else list(zip(used["layer"], used["head"], strict=True))
    st.markdown("**Which layers and heads agree with known regulation?**", help=HELP["heads"])
    figure(
        lambda dark: head_agreement(ratios, chosen=chosen, title=shown.title, dark=dark),
        f"{shown.file}-heads",
        key="grn-heads-map",
        alt="Agreement of each layer and head with known regulons, 1 for chance",
    )
    st.caption(
        "Picking the best head here and then judging by the same edges would flatter it: a choice should be made on "
        "other cells."
    )
    with st.expander("As a table"):
        named = rows.assign(layer=rows["layer"] + 1, head=rows["head"] + 1)
        columns = {"layer": "Layer", "head": "Head", "auprc_ratio": "AUPRC ratio", "epr_ratio": "Early precision ratio"}
        table(
            named,
            {**columns, "used": "In use"},
            f"{shown.file}-heads",
            key="grn-heads-table",
            alt="Layers and heads with their ratios over chance",
            help_texts={"auprc_ratio": HELP["auprc"], "epr_ratio": HELP["epr"]},
        )


def _read(shown: Shown) -> str:
    """Which attention was read, in a sentence."""
    summary = shown.result.summary
    used, heads = summary["heads"], shown.result.heads
    every = heads is not None and len(used) == len(heads)
    told = "all heads" if every else "; ".join(head_name(*head) for head in used)
    why = f", chosen on {words.as_text(summary['chosen_on'])}" if summary["chosen_on"] else ""
    centred = " Each gene's own mean was taken off." if summary["centred"] else ""
    direction = DIRECTIONS[summary["direction"]].lower()
    return f"**What was read here.** {told[0].upper()}{told[1:]}{why}; {direction}.{centred}"
