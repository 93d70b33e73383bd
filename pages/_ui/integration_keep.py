"""What is kept of an integration: its vectors as an embedding by name, and the fine-tuned checkpoint."""

from __future__ import annotations

import streamlit as st

from pages._ui import checkpoints, integration_work, resources, saved_embeddings, state, words
from pages._ui.integration_parts import Shown, note, title
from pages._ui.integration_words import HELP
from scdiva_core.engine_saved import save_embedding
from scdiva_core.model.checkpoint import read_card


def section(shown: Shown) -> None:
    """Draw what can be kept, and what was."""
    with st.container(border=True, key="integration-keep"):
        st.subheader("Use it on every page")
        left, right = st.columns(2, gap="large")
        with left:
            _save(shown)
        with right:
            _checkpoint(shown)


def _save(shown: Shown) -> None:
    st.markdown("**Save as an embedding**", help=HELP["save"])
    drawn = [name for name in shown.methods if integration_work.drawn(shown.cells, shown.item, name) is not None]
    if not drawn:
        st.caption("Its map has to be drawn first.")
    else:
        first = drawn.index(shown.best_of_ours) if shown.best_of_ours in drawn else 0
        with st.form(f"save-embedding-{shown.item.key}", border=False, clear_on_submit=True):
            # Maps come one after the other: when ours is drawn, it is offered and not what was there first.
            key = f"save-method-{drawn[first]}"
            method = st.selectbox("Vectors of", drawn, index=first, format_func=title, key=key)
            name = st.text_input("Name", placeholder="for example: by donor", key="save-name")
            if st.form_submit_button("Save as an embedding", icon=":material/bookmark_add:"):
                _keep(shown, method, name)
                st.rerun()
    saved_embeddings.panel(shown.cells)
    if len(saved_embeddings.listed(shown.cells)):
        st.page_link(
            "pages/embedding.py",
            label="Look at it on the page Embedding",
            icon=":material/bubble_chart:",
            query_params=state.url(),
        )


def _keep(shown: Shown, method: str, name: str) -> None:
    """Put the vectors into the store, then their name on the list."""
    cells, settings = shown.cells, shown.item.settings
    projection = integration_work.drawn(cells, shown.item, method)
    about = {
        "words": f"{title(method)}, integrated by {settings.batch_key}",
        "note": note(method),
        "method": method,
        "settings": settings.to_dict(),
        "provenance": resources.engine().provenance(cells),
    }

    def add() -> None:
        key = save_embedding(resources.engine().store, cells, shown.result.vectors[method], projection, about)
        saved_embeddings.listed(cells).add(name, key)

    saved_embeddings.change(cells, add)


def _checkpoint(shown: Shown) -> None:
    st.markdown("**Use the fine-tuned checkpoint**", help=HELP["checkpoint"])
    folder = shown.result.checkpoint
    if not shown.item.settings.finetune:
        st.caption("The model was not fine-tuned. Switch it on above and integrate again to get a checkpoint.")
        return
    if folder is None:
        st.caption("This checkpoint was deleted. Its vectors are still here and can be saved as an embedding.")
        return
    name = str(read_card(folder).get("name") or folder.name)
    st.caption(
        f"{words.as_text(name)}. Every page then computes with it, also on other files; it names no cell types. The "
        "sidebar leads back."
    )
    st.button(
        "Use this checkpoint",
        key="integration-use",
        icon=":material/neurology:",
        on_click=_use,
        args=(folder.name, name),
    )


def _use(checkpoint_id: str, name: str) -> None:
    checkpoints.remember(checkpoint_id, name, "integration")
    checkpoints.use(checkpoint_id)
