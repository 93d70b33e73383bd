"""Which edges of a network are drawn: filters above the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import networkx as nx
import pandas as pd
import streamlit as st

from pages._ui.grn_parts import Shown
from pages._ui.grn_words import EVIDENCE, HELP
from scdiva_core.tasks.grn_graph import MOST_NODES, SIGNED, Selection, ego, graph, layout, select

_EACH, _GENES = 5, 80
_STEPS = {"attention": 0.05, "stability": 0.05, "cells": 10.0, "spearman": 0.05, "partial": 0.005, "knockout": 0.005}
_HELP = {"attention": "attention", "stability": "stability", "cells": "shared", "spearman": "spearman"}
_HELP |= {"partial": "partial", "knockout": "knocked"}


@dataclass(frozen=True)
class Filters:
    """What is drawn.

    Parameters
    ----------
    regulators
        Symbols; all when empty.
    each, genes
        Targets of each regulator, and genes, at most.
    minimum
        Least number by column of evidence.
    known_only
        Only edges of the reference.
    """

    regulators: tuple[str, ...]
    each: int
    genes: int
    minimum: tuple[tuple[str, float], ...]
    known_only: bool

    def select(self, edges: pd.DataFrame) -> Selection:
        """Pick the edges."""
        return select(
            edges,
            regulators=self.regulators,
            per_regulator=self.each,
            minimum=dict(self.minimum),
            known_only=self.known_only,
            most_nodes=self.genes,
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture's content.

    Parameters
    ----------
    selection
        The edges.
    graph
        Of them.
    places
        ``x`` and ``y`` by gene.
    """

    selection: Selection
    graph: nx.DiGraph
    places: pd.DataFrame

    def around(self, gene: str) -> Drawn:
        """The gene's neighbourhood alone."""
        edges = self.selection.edges
        kept = ego(self.graph, gene)
        pairs = zip(edges["regulator"], edges["target"], strict=True)
        inside = edges[[kept.has_edge(*pair) for pair in pairs]].reset_index(drop=True)
        return Drawn(replace(self.selection, edges=inside), kept, layout(kept))


def controls(shown: Shown) -> Filters:
    """Let the user choose."""
    edges = shown.result.edges
    which, each, genes = st.columns([4, 2, 2], vertical_alignment="top")
    regulators = which.multiselect(
        "Regulators",
        sorted(edges["regulator"].unique()),
        key=shown.regulators_key,
        placeholder="all; choose some to see only these",
        help=HELP["regulators"],
        persist_state="session",
    )
    top = shown.item.settings.top
    targets = each.slider(
        "Targets each", 1, top, min(_EACH, top), key=f"grn-each-{top}", help=HELP["each"], persist_state="session"
    )
    most = genes.slider(
        "Genes at most", 20, MOST_NODES, _GENES, 10, key="grn-nodes", help=HELP["genes"], persist_state="session"
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        known_only = st.toggle("Known edges only", key="grn-known", help=HELP["known only"], persist_state="session")
        minimum = _thresholds(edges)
    return Filters(tuple(regulators), targets, most, minimum, known_only)


def _thresholds(edges: pd.DataFrame) -> tuple[tuple[str, float], ...]:
    """Least evidence, by column; what stands at 0 asks for nothing."""
    offered = [column for column in _STEPS if not edges[column].isna().all()]
    asked = [column for column in offered if st.session_state.get(f"grn-least-{column}")]
    title = f"Least evidence ({len(asked)})" if asked else "Least evidence"
    with st.popover(title, icon=":material/filter_alt:"):
        for column in offered:
            label = f"Size of {EVIDENCE[column]}" if column in SIGNED else EVIDENCE[column]
            st.number_input(
                label,
                0.0,
                step=_STEPS[column],
                format="%.0f" if column == "cells" else "%.3g",
                key=f"grn-least-{column}",
                help=HELP[_HELP[column]],
                persist_state="session",
            )
    return tuple((column, st.session_state[f"grn-least-{column}"]) for column in asked)


def drawn(shown: Shown, filters: Filters) -> Drawn:
    """Edges that the filters leave, and places for their genes; kept, so that a change of focus moves nothing."""
    return _drawn((shown.made_from, filters), shown.result.edges)


@st.cache_data(show_spinner=False, scope="session", max_entries=16)
def _drawn(key: tuple[tuple[str, ...], Filters], _edges: pd.DataFrame) -> Drawn:
    selection = key[1].select(_edges)
    made = graph(selection.edges)
    return Drawn(selection, made, layout(made))
