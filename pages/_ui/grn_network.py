"""The picture of a network: filters, a click on a gene, ways between genes, and files to take home."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
import streamlit as st

from pages._ui import errors, export, frame, grn_filters, grn_gene, state, words
from pages._ui.annotation_export import table_download
from pages._ui.grn_filters import Drawn
from pages._ui.grn_parts import Shown, edge_table, focus
from pages._ui.grn_words import HELP
from pages._ui.parts import figure
from scdiva_core.figures.grn_network import network_figure
from scdiva_core.tasks.grn_export import to_gmt, to_graphml, to_json
from scdiva_core.tasks.grn_graph import path


def section(shown: Shown) -> None:
    """Draw the tab; a filter or a click runs it alone, not the whole page."""
    st.fragment(_content)(shown)


def _content(shown: Shown) -> None:
    filters = grn_filters.controls(shown)
    with errors.shown():
        drawn = grn_filters.drawn(shown, filters)
        gene, alone = _gene_control(shown, drawn)
        picture = drawn.around(gene) if alone else drawn
        _picture(shown, picture, gene)
        st.caption(
            f"{drawn.selection.says} Click a gene to see its edges; drag to move. Arrows lead to the target, "
            "a bar at the end says that it is lowered."
        )
        _take_home(shown, picture)
        if gene is not None:
            grn_gene.section(shown, drawn, gene)
        _way(shown, drawn)


def _gene_control(shown: Shown, drawn: Drawn) -> tuple[str | None, bool]:
    """The gene at hand, and whether only its neighbourhood is drawn; that only where it is in the picture."""
    edges = shown.result.edges
    with st.container(horizontal=True, vertical_alignment="bottom", key="grn-hand"):
        gene = st.selectbox(
            "Gene at hand",
            sorted({*edges["regulator"], *edges["target"]}),
            index=None,
            key=shown.gene_key,
            placeholder="none: click one, or type its name",
            help=HELP["gene"],
            on_change=state.clear_network_click,
            width=280,
            persist_state="session",
        )
        if gene is None:
            return None, False
        st.button("Show all", key="grn-clear", icon=":material/undo:", on_click=focus, args=(shown, None))
        if gene not in drawn.graph:
            st.caption("Not in the picture: loosen the filters to see it there.")
            return gene, False
        alone = st.toggle("Its neighbourhood alone", key="grn-alone", persist_state="session")
    return gene, alone


def _picture(shown: Shown, drawn: Drawn, gene: str | None) -> None:
    graph = drawn.graph
    key = f"grn-network-{state.network_round()}"

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        genes = [point["customdata"] for point in points if point.get("customdata")]
        if genes:
            st.session_state[shown.gene_key] = genes[0] if isinstance(genes[0], str) else genes[0][0]

    def draw(*, dark: bool, narrow: bool = False) -> go.Figure:
        return network_figure(graph, drawn.places, focus=gene, title=shown.title, dark=dark, narrow=narrow)

    figure(
        lambda dark: draw(dark=dark, narrow=frame.is_phone()),
        f"{shown.file}-network",
        key=key,
        paper=lambda: draw(dark=False),
        alt=f"{shown.title}: {graph.number_of_edges():,} edges between {len(graph):,} genes",
        on_select=clicked,
        selection_mode="points",
    )


def _take_home(shown: Shown, drawn: Drawn) -> None:
    files: tuple[tuple[str, str, str, Callable[[], bytes | str]], ...] = (
        ("GraphML", "application/xml", "For Cytoscape, Gephi and networkx.", lambda: to_graphml(drawn.graph)),
        ("GMT", "text/plain", "Regulons as gene sets, for enrichment tools.", lambda: to_gmt(drawn.selection.edges)),
        ("JSON", "application/json", "Nodes and links, for networkx and D3.", lambda: to_json(drawn.graph)),
    )
    with st.container(horizontal=True, vertical_alignment="center", key="grn-files"):
        st.caption("Edges in the picture:", width="content")
        for label, mime, help_text, make in files:
            st.download_button(
                label,
                data=make,
                file_name=f"{export.file_name(shown.file)}.{label.lower()}",
                mime=mime,
                key=f"grn-{label}",
                help=help_text,
                icon=":material/download:",
                on_click="ignore",
            )
        table_download("CSV", drawn.selection.edges, f"{shown.file}-shown", key="grn-shown-csv")
        table_download("All edges (CSV)", shown.result.edges, f"{shown.file}-all", key="grn-all-csv")


def _way(shown: Shown, drawn: Drawn) -> None:
    with st.expander("Way between two genes", icon=":material/route:"):
        genes = sorted(drawn.graph)
        start, end = st.columns(2)
        first = start.selectbox("From", genes, index=None, key="grn-from", placeholder="a gene of the picture")
        last = end.selectbox("To", genes, index=None, key="grn-to", placeholder="another one")
        against = st.toggle("Also against the arrows", value=True, key="grn-both-ways", help=HELP["against arrows"])
        if first is None or last is None or first == last:
            st.caption("Choose two genes of the picture.", help=HELP["path"])
            return
        with errors.shown():
            found = path(drawn.graph, first, last, directed=not against)
            st.markdown(f"**{words.as_text(found.words)}**", help=HELP["path"])
            steps = found.edges.reindex(columns=list(shown.result.edges))
            edge_table(steps, f"{shown.file}-way", key="grn-way", alt=f"Way from {first} to {last}")
