"""What all pages share: the guard, the sidebar, the first data set, and where errors end up."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages._ui import checkpoints, datasets, errors, jobs_panel, resources, state, words
from scdiva_core.errors import ScDiVaError
from scdiva_core.tasks.neighbors import ProjectionSettings

PAGES = {
    "data": ("Data", ":material/folder_open:"),
    "embedding": ("Embedding", ":material/bubble_chart:"),
    "annotation": ("Annotation", ":material/label:"),
    "knockout": ("Knockout", ":material/genetics:"),
    "grn": ("GRN", ":material/hub:"),
    "integration": ("Integration", ":material/join:"),
    "reconstruction": ("Reconstruction", ":material/healing:"),
    "finetune": ("Fine-tune", ":material/tune:"),
    "model": ("Model", ":material/neurology:"),
}
"""Files in pages/, in the order of the navigation: title and icon."""

RANDOM = "Random weights: this picture means nothing"
"""Warning of weights that were never trained."""

_WANTED = "page"
_FIRST = state.Choice(datasets.DEMOS[0].name)


def require(page: str) -> None:
    """Go to `app.py` when a page runs without it, as the first request to a fresh server may, and come back.

    Parameters
    ----------
    page
        Name of the page's file without ending.
    """
    if not state.framed():
        st.switch_page("app.py", query_params={**st.query_params.to_dict(), _WANTED: page})


def begin() -> None:
    """Restore the session from the URL; without a data set, open the first demo and embed it at once."""
    state.begin()
    with errors.shown():
        checkpoints.check()
    if state.choice() is None:
        state.choose(_FIRST)
        with errors.shown():
            _embed_first()
    state.write_url()


def _embed_first() -> None:
    """Begin before the engine is loaded here, unless an earlier start has left the result."""
    settings = ProjectionSettings()
    if resources.has_results():
        cells = resources.dataset(_FIRST)
        if resources.engine().stored_projection(cells, representation="X_pca", settings=settings) is not None:
            return
    jobs_panel.submit_embedding(_FIRST, settings)


def is_dark() -> bool:
    """Whether the page is dark; figures follow it on screen, never on paper."""
    return st.context.theme.type == "dark"


def is_phone() -> bool:
    """Whether the browser says that it is a phone's; the server is not told how wide the page is."""
    return "Mobi" in (st.context.headers.get("User-Agent") or "")


def start() -> None:
    """Lead the bare address to the picture, and a deep link that came too early to its page."""
    wanted = st.query_params.get(_WANTED)
    page = wanted if wanted in PAGES else "embedding"
    others = {name: value for name, value in st.query_params.to_dict().items() if name != _WANTED}
    st.switch_page(f"pages/{page}.py", query_params={**others, **state.url()})


def run(page: StreamlitPage) -> None:
    """Draw the sidebar and a page; what a page cannot handle becomes a message."""
    with st.sidebar:
        _sidebar()
    errors.show_kept()
    with errors.shown(), state.frame():
        page.run()


def banner() -> str:
    """Warn of weights that mean nothing or little, on the page; the same words go into every figure."""
    note = weights_note()
    if not note:
        return note
    if resources.engine().card().random_weights:
        st.error(f"**{note}.** Choose a trained checkpoint (SCDIVA_CHECKPOINT).", icon=":material/warning:")
    else:
        st.markdown(
            f":yellow-badge[:material/science: {note}] {words.HELP['provisional']} "
            "Compare with PCA before you believe a picture."
        )
    return note


def weights_note() -> str:
    """Warning that must travel with every picture; empty for a trained checkpoint."""
    card = resources.engine().card()
    if card.random_weights:
        return RANDOM
    return "Provisional checkpoint" if card.provisional else ""


def _sidebar() -> None:
    for label, draw in (("Data set", _data_set), ("Model", _model), ("Jobs", jobs_panel.sidebar_jobs)):
        with st.container(gap="xxsmall", key=f"sidebar-{label}"):
            st.markdown(f":small[:gray[{label}]]")
            with errors.shown():
                draw()
        st.space("xsmall")


def _data_set() -> None:
    choice = state.choice()
    st.markdown(f"**{words.as_text(datasets.display_name(choice, resources.project()))}**")
    try:
        found = resources.preflight(choice)
    except ScDiVaError as error:
        st.caption(f"cannot be read: {words.as_text(error.message)}")
        return
    st.caption(f"{words.number(found.n_obs)} cells × {words.number(found.n_vars)} genes")


def _model() -> None:
    checkpoints.control()
    card = resources.engine().card()
    if card.name != checkpoints.current_name():  # the field says it
        st.markdown(f"**{words.as_text(card.name)}**")
    st.caption(f"{words.number(card.parameters_total)} parameters · {card.device} · `{card.sha256[:8]}`")
    if card.random_weights:
        st.badge("random weights", icon=":material/warning:", color="red")
    elif card.provisional:
        st.badge("provisional", icon=":material/science:", color="yellow", help=words.HELP["provisional"])
