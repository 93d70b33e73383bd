"""Which pictures of the open data set there are: computed, and brought along by the file."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import streamlit as st

from pages._ui import resources, saved_embeddings, state, view, words
from pages._ui.saved_list import slug
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.obsm import obsm_widths, read_obsm
from scdiva_core.engine_saved import SavedEmbedding
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings

SAVED, INTEGRATED = "saved: ", "integration: "
"""What the names of representations begin with that are saved by name, and that are drawn on the page Integration."""

_UMAP = ("UMAP 1", "UMAP 2")


@dataclass
class Found:
    """What has been computed of a data set with the running checkpoint, and what its file brings along.

    Parameters
    ----------
    maps
        Name -> cells on a plane.
    projections
        Those of them that were computed here.
    clusters
        Representation -> int ``[n_cells]``.
    saved
        Name -> embedding that the user saved, whatever checkpoint made it; its map is among `maps`.
    embedding, pca
        The representations themselves, float ``[n_cells, d]``; None when not computed.
    """

    maps: dict[str, view.CellMap] = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    clusters: dict[str, np.ndarray] = field(default_factory=dict)
    saved: dict[str, SavedEmbedding] = field(default_factory=dict)
    embedding: np.ndarray | None = None
    pca: np.ndarray | None = None


def available(cells: H5adDataset) -> Found:
    """Look up what can be shown without computing anything."""
    engine, found = resources.engine(), Found()
    for name, projection in computed(cells).items():
        found.projections.append(projection)
        found.maps[name] = view.CellMap(name, projection.representation, projection.coordinates, _UMAP)
        found.clusters[projection.representation] = projection.leiden
    found.embedding = engine.stored_embedding(cells) if "ScDiVa" in found.maps else None
    found.pca = engine.stored_components(cells, state.settings())
    for name, item in saved_embeddings.stored(cells).items():
        projection, representation = item.projection, f"{SAVED}{name}"
        note = str(item.about.get("note", ""))
        found.saved[name] = item
        found.maps[name] = view.CellMap(name, representation, projection.coordinates, _UMAP, note)
        found.clusters[representation] = projection.leiden
    found.maps |= _in_file(cells)
    return found


def title(representation: str) -> str:
    """What a representation of a recipe or of clusters is called; itself where it is the file's own."""
    named = {"X_scdiva": "ScDiVa", "X_pca": "PCA"}.get(representation, representation)
    return named.removeprefix(SAVED).removeprefix(INTEGRATED)


def column_name(representation: str) -> str:
    """What columns of a table made of a representation begin with."""
    if representation.startswith(SAVED):
        return slug(representation.removeprefix(SAVED))
    return representation.removeprefix("X_")


def computed(cells: H5adDataset) -> dict[str, Projection]:
    """Return the maps that a job has finished, the model's before PCA's."""
    engine, settings = resources.engine(), state.settings()
    looked_up = {
        name: engine.stored_projection(cells, representation=representation, settings=settings)
        for name, representation in (("ScDiVa", "X_scdiva"), ("PCA", "X_pca"))
    }
    return {name: projection for name, projection in looked_up.items() if projection is not None}


def _in_file(cells: H5adDataset) -> dict[str, view.CellMap]:
    found = {}
    for name, width in obsm_widths(cells.path).items():
        if width in (2, 3):
            short = name.removeprefix("X_")
            xy = read_obsm(cells.path, name, columns=2)
            found[f"In the file: {short}"] = view.CellMap(
                f"{short} of the file", name, xy, (f"{short} 1", f"{short} 2")
            )
    return found


def settings_control() -> None:
    """Let the user change UMAP and Leiden; the embedding itself is not computed again."""
    now = state.settings()
    with (
        st.popover("Map", icon=":material/settings:", help="How the embedding is drawn and clustered."),
        st.form("projection", border=False),
    ):
        neighbours = st.number_input("Neighbours", 2, 200, now.n_neighbors, help=words.HELP["neighbours"])
        min_dist = st.number_input(
            "Least distance", 0.0, 1.0, now.min_dist, 0.05, help="How tightly UMAP packs points."
        )
        resolution = st.number_input(
            "Leiden resolution", 0.01, 10.0, now.resolution, 0.1, help=words.HELP["resolution"]
        )
        n_pcs = st.number_input("Components of PCA", 2, 200, now.n_pcs, help=words.HELP["pca"])
        seed = st.number_input("Seed", 0, 2**31 - 1, now.seed, help=words.HELP["seed"])
        if st.form_submit_button("Draw again", type="primary"):
            wanted = ProjectionSettings(neighbours, min_dist, resolution, n_pcs, seed)
            state.set_settings(wanted)
            st.rerun()
