"""What a page shows that needs the embedding while there is none: a card that begins it."""

from __future__ import annotations

import streamlit as st

from pages._ui import errors, jobs_panel, maps, resources, state, words
from scdiva_core.data.h5ad import H5adDataset


def embed_first(choice: state.Choice, cells: H5adDataset, *, done: str) -> None:
    """Offer the embedding, which clusters, groups and the picture come from; it runs as a job.

    Parameters
    ----------
    choice, cells
        The open data set.
    done
        What cannot be done with the cells before, as in "The cells have to be embedded before they can be named".
    """
    settings = state.settings()
    job = jobs_panel.embedding_job(choice, settings)
    if job is not None and job.active:
        jobs_panel.progress_card(job, ready=lambda: "ScDiVa" in maps.computed(cells))
        return
    with st.container(border=True, key="embed-first"):
        if job is not None and job.state == "failed":
            errors.show_failure(job)
        st.markdown(f"**The cells have to be embedded before they can be {done}.**")
        st.caption(
            f"About {words.duration(resources.estimate_seconds(cells.preflight))} on this machine, plus UMAP and "
            "Leiden. Then come back here.",
            help=words.HELP["time"],
        )
        st.button(
            f"Embed {words.number(cells.n_obs)} cells",
            type="primary",
            icon=":material/bubble_chart:",
            key="embed",
            on_click=errors.kept(jobs_panel.submit_embedding),
            args=(choice, settings),
        )
