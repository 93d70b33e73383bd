"""Fields to choose genes in: search by any name, whole lists without sending them with every run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from pages._ui import words
from pages._ui.gene_lists import GeneList, gene_list

_HERE = Path(__file__).parent
_LONGEST = 2000  # characters of a pasted list
_component = st.components.v2.component(
    "scdiva_gene_box",
    html=(_HERE / "gene_box.html").read_text(encoding="utf-8"),
    css=(_HERE / "gene_box.css").read_text(encoding="utf-8"),
    js=(_HERE / "gene_box.js").read_text(encoding="utf-8"),
)


def one_gene(
    label: str,
    symbols: tuple[str, ...],
    first: str,
    *,
    key: str,
    help_text: str,
    width: int | str = "stretch",
    in_url: bool = False,
) -> str:
    """Let the user choose a gene; it is kept in ``st.session_state[key]``.

    Parameters
    ----------
    label
        Above the field.
    symbols
        To choose from, in any order.
    first
        The one before any is chosen, and where the chosen one is not among `symbols`.
    key
        Of the session's state, and with `in_url` of the page's address, which leaves `first` out.
    help_text
        What the question mark says.
    width
        As in streamlit.
    in_url
        Whether a link to the page names the gene.
    """
    genes = gene_list(symbols)
    if in_url and key not in st.session_state:
        _take_from_url(key, genes)
    asked = st.session_state.get(key)
    symbol = asked if asked in genes.symbols else first
    _box(label, genes, [symbol], key, width, {"most": 1, "free": False, "placeholder": "", "help": help_text})
    if in_url and symbol != first:
        st.query_params[key] = symbol
    elif in_url:
        leave_url(key)
    return symbol


def _take_from_url(key: str, genes: GeneList) -> None:
    """Keep the gene that a link names, as a walk to another page empties the address; say when it is not there."""
    linked = st.query_params.pop(key, None)
    if linked in genes.symbols:
        st.session_state[key] = linked
    elif linked:
        name = words.as_text(linked[:40])
        st.toast(
            f"The link names {name}, which is no gene of this file that the model knows.", icon=":material/link_off:"
        )


def leave_url(key: str) -> None:
    """Take a gene that was chosen out of the page's address, where its field is not drawn."""
    if key in st.session_state:  # else it may be meant for another page
        st.query_params.pop(key, None)


def some_genes(
    label: str,
    symbols: tuple[str, ...],
    *,
    key: str,
    most: int,
    placeholder: str,
    help_text: str,
) -> list[str]:
    """Let the user choose genes, or type what is none of them; kept in ``st.session_state[key]``.

    Parameters
    ----------
    label
        Above the field.
    symbols
        To choose from, in any order.
    key
        Of the session's state.
    most
        Genes at most.
    placeholder
        In the empty field.
    help_text
        What the question mark says.
    """
    chosen = st.session_state.get(key, [])
    told = {"most": most, "free": True, "placeholder": placeholder, "help": help_text}
    _box(label, gene_list(symbols), chosen, key, "stretch", told)
    return chosen


def _box(label: str, genes: GeneList, chosen: list[str], key: str, width: int | str, told: dict[str, object]) -> None:
    data = {"label": label, "address": genes.address, "chosen": chosen, **told}
    _component(key=f"{key}-box", data=data, width=width, on_chosen_change=partial(_keep, key, told["most"]))


def _keep(key: str, most: int) -> None:
    """Take over what a browser sent, which may be anything."""
    sent = st.session_state[f"{key}-box"].get("chosen")
    if not isinstance(sent, list):
        return
    names = [name for name in sent if isinstance(name, str) and 0 < len(name) <= _LONGEST]
    names = list(dict.fromkeys(names))[:most]
    if most > 1:
        st.session_state[key] = names
    elif names:
        st.session_state[key] = names[0]
