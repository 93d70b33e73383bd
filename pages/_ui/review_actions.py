"""Deciding on the item at hand: accept, relabel, split, reject, skip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import errors, sets_panel, words
from pages._ui.annotation_words import HELP, title
from pages._ui.review_session import PART, REASON, SEARCH, WHOLE, Label, Session
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.tasks.annotation import cluster_votes
from scdiva_core.tasks.review_session import FEWEST_TO_SPLIT, OpenItem, sub_clusters

_DRAWN, _SET, _CLUSTERS = "those drawn around", "a cell set", "sub-clusters"


def decide(session: Session, current: OpenItem, sets: sets_panel.Sets, drawn: sets_panel.Selection) -> None:
    """Draw the buttons.

    Parameters
    ----------
    session
        The review.
    current
        The item at hand.
    sets, drawn
        Cell sets, and what is drawn around on the picture, to split by.
    """
    mask, label = current.mask(session.cells.n_obs), session.label(current.item.label)
    with st.container(border=True, key="decision"):
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Accept",
                icon=":material/check:",
                type="primary",
                key="accept",
                shortcut="A",
                disabled=label is None,
                help=f"Keep {words.as_text(label[1])}." if label else "Unknown is no label: relabel or reject instead.",
                on_click=session.decide,
                args=(mask, "accept", label),
            )
            st.button(
                "Reject",
                icon=":material/block:",
                key="reject",
                shortcut="X",
                help="These cells have no label that can be trusted: they become unknown.",
                on_click=session.decide,
                args=(mask, "reject"),
            )
            st.button(
                "Skip",
                icon=":material/skip_next:",
                key="skip",
                shortcut="S",
                help="Decide later: the item goes to the end of the queue.",
                on_click=session.decide,
                args=(mask, "skip"),
            )
        st.text_input("Reason", key=REASON, placeholder="optional", help=HELP["reason"], max_chars=500)
        new = _new_label(session, current)
        with errors.shown():
            part = _part(session, current, sets, drawn)
            _relabel_button(session, mask, new, part)


def _new_label(session: Session, current: OpenItem) -> Label | None:
    search, choose = st.columns(2)
    typed = search.text_input(
        "Another cell type", key=SEARCH, placeholder="search, for example: Treg", help=HELP["relabel"], type="search"
    )
    options = _found(typed) if typed.strip() else _in_use(session, current)
    return choose.selectbox(
        "New label",
        options,
        index=0 if typed.strip() else None,
        format_func=_label_words,
        key=f"new-label-{typed.strip()}",
        placeholder="choose",
    )


def _found(typed: str) -> list[Label]:
    """Terms that are called so or alike, then the text itself as it is."""
    ontology, text = cell_ontology(), " ".join(typed.split())
    hits = [(term, ontology.name(term)) for term in ontology.search(text)]
    return [*hits, *([("", text)] if text.casefold() not in [name.casefold() for _, name in hits] else [])]


def _in_use(session: Session, current: OpenItem) -> list[Label]:
    """Candidates first, then all labels that a source may give or somebody has given, by name."""
    first = [session.label(code) for code, _ in current.item.candidates if code != current.item.label]
    used = {*zip(session.review.ids, session.review.names, strict=True)}
    used |= {(event.label_id, event.label_name) for event in session.state.applied if event.label_name}
    return list(dict.fromkeys([*first, *sorted(used, key=lambda label: (label[1].casefold(), label))]))


def _label_words(label: Label) -> str:
    term, name = label
    return f"{name} ({term})" if term else f"{name} (your own words)"


def _part(session: Session, current: OpenItem, sets: sets_panel.Sets, drawn: sets_panel.Selection) -> np.ndarray | None:
    """Cells of the item that get the new label, bool ``[n_cells]``; None for all of them."""
    ways = [WHOLE, _DRAWN, *([_SET] if len(sets.sets) else [])]
    ways += [_CLUSTERS] if len(current.cells) >= FEWEST_TO_SPLIT else []
    way = st.radio("Give it to", ways, key=PART, horizontal=True, help=HELP["part"])
    mask = current.mask(session.cells.n_obs)
    if way == WHOLE:
        return None
    if way == _DRAWN:
        recipe = drawn.recipe()
        if recipe is None:
            st.caption("Draw around cells in the picture above.")
            return np.zeros_like(mask)
        return mask & sets.select(recipe)
    if way == _SET:
        name = st.selectbox("Cell set", list(sets.masks), key="part-set")
        return mask & sets.masks[name]
    return _by_clusters(session, current)


def _by_clusters(session: Session, current: OpenItem) -> np.ndarray:
    resolution = st.slider("Resolution", 0.1, 3.0, 1.0, 0.1, key="sub-resolution", help=words.HELP["resolution"])
    codes = _sub_clusters((session.labelled.key, current.cells.tobytes(), resolution), session.embedding[current.cells])
    everywhere = np.full(session.cells.n_obs, np.nan)
    everywhere[current.cells] = codes
    votes = {"Cells": np.bincount(codes)}
    for source, calls in session.labelled.annotated.calls.items():
        table = cluster_votes(calls, everywhere)
        votes[title(source)] = [
            f"{name or 'unknown'} ({words.percent(share, 0)})"
            for name, share in zip(table["name"], table["purity"], strict=True)
        ]
    st.dataframe(pd.DataFrame(votes).rename_axis("Sub-cluster"), width="stretch", key="sub-clusters")
    chosen = st.multiselect("Sub-clusters", range(codes.max() + 1), key="part-clusters", placeholder="choose")
    return np.isin(everywhere, chosen)


@st.cache_data(show_spinner="Clustering these cells …", scope="session", max_entries=16)
def _sub_clusters(key: Sequence[object], _vectors: np.ndarray) -> np.ndarray:
    return sub_clusters(_vectors, key[-1])


def _relabel_button(session: Session, mask: np.ndarray, new: Label | None, part: np.ndarray | None) -> None:
    chosen = mask if part is None else part
    size = int(chosen.sum())
    cells = "1 cell" if size == 1 else f"{words.number(size)} cells"
    st.button(
        f"{'Relabel' if part is None else 'Split off'} {cells}",
        icon=":material/edit:" if part is None else ":material/call_split:",
        key="relabel" if part is None else "split",
        shortcut="L",
        disabled=new is None or not size,
        help="Choose a new label first." if new is None else f"They become {words.as_text(new[1])}.",
        on_click=session.decide,
        args=(chosen, "relabel" if part is None else "split", new),
    )
