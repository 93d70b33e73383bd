"""Embeddings that a user keeps by name: vectors and their map in the result store, whatever checkpoint is open."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings

_TASK = "saved-embedding"


@dataclass(frozen=True, eq=False)
class SavedEmbedding:
    """Vectors of all cells of a file, with the map and clusters that were made of them.

    Attributes
    ----------
    key
        Names it in the store; of its content, so that the same vectors are kept once.
    vectors
        float32 ``[n_obs, d]``.
    projection
        Its map and Leiden clusters, as they were when it was saved.
    about
        Plain values: what made it.
    """

    key: str
    vectors: NDArray[np.float32]
    projection: Projection
    about: dict[str, Any]


def save_embedding(
    store: ResultStore,
    dataset: H5adDataset,
    vectors: NDArray[np.float32],
    projection: Projection,
    about: Mapping[str, Any],
) -> str:
    """Keep an embedding of a file and return its key.

    Parameters
    ----------
    store
        Where it is kept.
    dataset
        The open file.
    vectors
        float32 ``[n_obs, d]``, rows in the file's order.
    projection
        Of these vectors.
    about
        Plain values for `SavedEmbedding.about`; they do not count for the key.

    Raises
    ------
    DataError
        The vectors or the map are of another number of cells, or not finite.
    StoreError
        The disk is full.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    for size in (len(vectors), len(projection.coordinates)):
        if size != dataset.n_obs:
            msg = f"The embedding has {size:,} cells, the file {dataset.n_obs:,}."
            raise DataError(msg, "Compute it again on this file.")
    if not np.isfinite(vectors).all():
        msg = f"{int((~np.isfinite(vectors)).any(axis=1).sum()):,} cells have values that are not finite."
        raise DataError(msg, "Compute the embedding again.")
    content = hashlib.sha256(vectors.tobytes() + np.ascontiguousarray(projection.coordinates).tobytes()).hexdigest()
    settings = projection.settings.to_dict()
    key = store.key(_TASK, dataset.sha256, "", {"content": content, "settings": settings})
    arrays = {"vectors": vectors, "coordinates": projection.coordinates, "leiden": projection.leiden}
    notes = {"task": _TASK, "data_sha256": dataset.sha256, "settings": settings, "about": dict(about)}
    notes["sketched"] = projection.sketched
    store.put(key, arrays, notes)
    return key


def saved_embedding(store: ResultStore, dataset: H5adDataset, key: str) -> SavedEmbedding | None:
    """Fetch an embedding, its arrays mapped from disk; None where it is gone or of another file."""
    entry = store.get(key)
    if entry is None or entry.meta.get("task") != _TASK or entry.meta.get("data_sha256") != dataset.sha256:
        return None
    arrays, settings = entry.arrays, ProjectionSettings(**entry.meta["settings"])
    sketched = entry.meta.get("sketched")
    projection = Projection(arrays["coordinates"], arrays["leiden"], "saved", settings, sketched)
    return SavedEmbedding(key, arrays["vectors"], projection, dict(entry.meta["about"]))
