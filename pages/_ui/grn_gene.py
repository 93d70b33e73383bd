"""The gene at hand: its edges with their evidence, where it is high among the cells, and the way to its knockout."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from pages._ui import errors, frame, grn_work, jobs_panel, resources, state, view, words
from pages._ui.grn_filters import Drawn
from pages._ui.grn_parts import Shown, edge_table
from pages._ui.grn_words import HELP
from pages._ui.knockout_genes import LINKED
from pages._ui.parts import figure
from scdiva_core.figures.scatter import Canvas

_MAP_PIXELS = 420
_KEPT = "Nothing of it is kept."


def section(shown: Shown, drawn: Drawn, gene: str) -> None:
    """Draw it.

    Parameters
    ----------
    shown, drawn
        The network, and what of it is in the picture.
    gene
        Symbol.
    """
    with st.container(border=True, key="grn-at-hand"):
        evidence, cells = st.columns([5, 4], gap="medium")
        with evidence:
            _edges(shown, drawn, gene)
        with cells, errors.shown():
            _on_the_map(shown, gene)


def _edges(shown: Shown, drawn: Drawn, gene: str) -> None:
    edges = shown.result.edges
    own = edges[(edges["regulator"] == gene) | (edges["target"] == gene)].reset_index(drop=True)
    out = int((own["regulator"] == gene).sum())
    known = int((own["known"] != "").sum())
    picture = drawn.graph.degree(gene) if gene in drawn.graph else 0
    st.subheader(words.as_text(gene))
    st.markdown(
        f"{words.count(out, 'target')}, {words.count(len(own) - out, 'regulator')}. Of these edges "
        f"{words.number(known)} known, {words.number(picture)} in the picture."
    )
    if st.button(
        f"Knock out {words.as_text(gene)}",
        key="grn-knock-out",
        icon=":material/genetics:",
        help="Opens the page Knockout with this gene filled in.",
    ):
        st.switch_page("pages/knockout.py", query_params={**state.url(), LINKED: gene})
    edge_table(own, f"{shown.file}-{gene}", key="grn-gene-edges", alt=f"Edges of {gene} with their evidence")


def _on_the_map(shown: Shown, gene: str) -> None:
    if not shown.found.maps:
        st.info("Embed the cells (page Embedding) to see the gene on their map.", icon=":material/info:")
        return
    activity = grn_work.activity(shown.cells)
    has_regulon = gene in set(shown.result.regulators) if activity is None else gene in activity
    ways = ["Expression", *(["Regulon activity"] if has_regulon else [])]
    way = st.segmented_control(
        "Colour the cells by", ways, default=ways[0], required=True, key="grn-colour", help=HELP["activity"]
    )
    if way == "Expression":
        _map(shown, view.Numbers(f"{gene} (log1p)", resources.gene_values(shown.choice, gene)), f"{gene} expression")
    elif activity is None:
        _judge(shown)
    else:
        values = activity[gene].to_numpy(np.float64)
        _map(shown, view.Numbers(f"{gene} activity", values), f"{gene} regulon activity")


def _map(shown: Shown, colouring: view.Numbers, title: str) -> None:
    shape = next(iter(shown.found.maps.values()))
    names = shown.cells.obs_names

    def draw(*, dark: bool, narrow: bool = False) -> go.Figure:
        canvas = Canvas(title=title, axes=shape.axes, height=_MAP_PIXELS, dark=dark, narrow=narrow)
        return view.draw(shape, colouring, names, shown=None, canvas=canvas, names_on_picture=False)

    figure(
        lambda dark: draw(dark=dark, narrow=frame.is_phone()),
        f"{shown.file}-{title}",
        key="grn-map",
        paper=lambda: draw(dark=False),
        alt=f"Map of the cells coloured by {title}",
    )


def _judge(shown: Shown) -> None:
    """Offer the activity of all regulators, which takes a job."""
    job = grn_work.activity_job(shown.choice)
    if job is not None and job.active:
        jobs_panel.progress_card(job, ready=lambda: False, kept=_KEPT)
        return
    if job is not None and job.state == "failed":
        errors.show_failure(job)
    st.markdown("The activity of the regulators has not been computed for these cells.", help=HELP["activity"])
    if st.button("Compute it for all regulators", key="grn-activity", icon=":material/bolt:"):
        grn_work.submit_activity(shown.choice)
        st.rerun()  # the whole page, so that the sidebar follows the job
