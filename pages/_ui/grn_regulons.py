"""Regulators of a network: how well their targets are known, the targets of one, and who is central."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import words
from pages._ui.annotation_export import table_download
from pages._ui.grn_parts import Shown, edge_table, focus
from pages._ui.grn_words import HELP
from pages._ui.parts import NO_NUMBER, column_config, table
from scdiva_core.tasks.grn_graph import centralities, graph, regulon

_COLUMNS = {
    "regulator": "Regulator",
    "share": "Read by",
    "edges": "Edges",
    "stable": "Stable",
    "known": "Known targets",
    "hits": "Hits",
    "expected": "Expected",
    "p": "p",
    "q": "q",
}
_HELP = {
    "share": HELP["share"],
    "stable": HELP["stable"],
    "known": HELP["known targets"],
    "hits": HELP["hits"],
    "expected": HELP["expected"],
    "p": HELP["p"],
    "q": HELP["q"],
}
_TABLE_PIXELS = 320


def section(shown: Shown) -> None:
    """Draw the tab."""
    rows = shown.result.regulons
    st.markdown("**Do the edges of a regulator hit its known targets more often than chance?**", help=HELP["p"])
    event = st.dataframe(
        rows,
        hide_index=True,
        placeholder=NO_NUMBER,
        width="stretch",
        height=_TABLE_PIXELS if len(rows) > 8 else "auto",
        key=f"grn-regulons-{shown.item.key}",
        alt="Regulators with their known targets, hits and p",
        column_order=list(_COLUMNS),
        column_config={
            **column_config(rows, _COLUMNS, _HELP),
            "regulator": st.column_config.TextColumn("Regulator", pinned=True),
            "share": st.column_config.NumberColumn("Read by", format="percent", help=_HELP["share"]),
        },
        on_select="rerun",
        selection_mode="single-row",
    )
    table_download("Table (CSV)", rows, f"{shown.file}-regulons", key="grn-regulons-csv")
    picked = event["selection"]["rows"]
    chosen = rows.iloc[picked[0] if picked else 0]
    if not picked:
        st.caption("Click the box at the left of a row to see the targets of that regulator.")
    _one(shown, chosen)
    place = st.expander("Who is central?", icon=":material/share:", key="grn-central", on_change="rerun")
    if place.open:  # takes seconds in a large network
        with place:
            _central(shown)


def _one(shown: Shown, row: pd.Series) -> None:
    name = str(row["regulator"])
    with st.container(border=True, key="grn-regulon"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{words.as_text(name)}**: {_in_words(row)}", width="stretch")
            if row["edges"]:
                st.button(
                    "Show in the network",
                    key="grn-to-network",
                    icon=":material/hub:",
                    on_click=_to_network,
                    args=(shown, name),
                )
        if row["edges"]:
            edges = regulon(shown.result.edges, name)
            edge_table(edges, f"{shown.file}-{name}", key="grn-regulon-edges", alt=f"Targets of {name}")


def _in_words(row: pd.Series) -> str:
    targets = f"{words.count(row['edges'], 'target')}, {words.number(row['stable'])} of them stable"
    if not row["known"]:
        return f"{targets}; the reference knows no target of it among these genes."
    hits = f"{words.number(row['hits'])} of {words.number(row['known'])} known targets"
    return f"{targets}; {hits} hit, {row['expected']:.1f} expected by chance (p = {row['p']:.2g})."


def _to_network(shown: Shown, name: str) -> None:
    st.session_state[shown.regulators_key] = [name]
    focus(shown, name)
    st.session_state["grn-tabs"] = "Network"


def _central(shown: Shown) -> None:
    rows = _centralities(shown.made_from, shown.result.edges)
    columns = {
        "gene": "Gene",
        "regulator": "Regulator",
        "out_degree": "Targets",
        "in_degree": "Regulators",
        "betweenness": "Betweenness",
        "pagerank": "PageRank",
        "eigenvector": "Eigenvector",
    }
    table(
        rows,
        columns,
        f"{shown.file}-centralities",
        key="grn-centralities",
        alt="How central each gene is",
        help_texts={name: HELP[name] for name in ("betweenness", "pagerank", "eigenvector")},
        height=_TABLE_PIXELS,
    )
    st.caption(
        f"Of all {words.number(len(shown.result.edges))} edges. Each regulator has at most "
        f"{shown.item.settings.top} targets by construction; how many regulators a gene has is what varies."
    )


@st.cache_data(show_spinner="Measuring who is central …", scope="session", max_entries=4)
def _centralities(key: tuple[str, ...], _edges: pd.DataFrame) -> pd.DataFrame:
    return centralities(graph(_edges))
