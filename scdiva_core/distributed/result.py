"""What becomes of finished vectors: an AnnData store in zarr, or an entry among the engine's results."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import zarr
from anndata.io import write_elem

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.distributed.embedding import ClusterEmbedding, recipe
from scdiva_core.distributed.vectors import is_finished
from scdiva_core.engine import Engine
from scdiva_core.store_entry import disk_errors
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings

_VERSIONED = ("torch", "anndata", "scanpy", "umap-learn", "igraph", "distributed", "zarr")


def finished_store(engine: Engine, dataset: H5adDataset, target: Path, settings: ProjectionSettings | None) -> bool:
    """Whether the store is there already, made of the same cells, checkpoint and settings.

    Parameters
    ----------
    engine, dataset
        What it must be made of.
    target
        The store.
    settings
        Of its map; None for none.

    Raises
    ------
    StoreError
        Something else is there under its name.
    """
    return is_finished(target, recipe(engine, dataset) | _map(settings))


def write_store(
    engine: Engine,
    dataset: H5adDataset,
    made: ClusterEmbedding,
    target: Path,
    projection: Projection | None,
) -> Path:
    """Make the vectors an AnnData store without expression, which `anndata.read_zarr` opens.

    It holds the cells' table as ``obs``, ``obsm["X_scdiva"]``, the provenance as JSON in ``uns["scdiva"]`` and, with
    a map, ``obsm["X_umap_scdiva"]`` and ``obs["leiden_scdiva"]``.

    Parameters
    ----------
    engine, dataset
        What it is made of.
    made
        The finished vectors; their folder is gone afterwards.
    target
        The store; it must not be there yet.
    projection
        The map; None for none.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    group = zarr.open_group(made.vectors.result, mode="r+")
    obs = dataset.obs.copy()
    with disk_errors(target):
        if projection is not None:
            clusters = pd.Series(projection.leiden)
            names = [str(cluster) for cluster in sorted(clusters.unique())]
            obs["leiden_scdiva"] = pd.Categorical(clusters.astype(str), categories=names)
            write_elem(group["obsm"], "X_umap_scdiva", projection.coordinates)
        settings = None if projection is None else projection.settings
        record = {
            **cluster_provenance(engine, dataset, made),
            "settings": {} if settings is None else {"X_scdiva": settings.to_dict()},
            "versions": {name: version(name) for name in _VERSIONED},
        }
        write_elem(group, "obs", obs)
        write_elem(group, "uns", {"scdiva": {name: json.dumps(value) for name, value in record.items()}})
        group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        made.vectors.finish(target, _map(settings))
    return target


def keep_embedding(engine: Engine, dataset: H5adDataset, made: ClusterEmbedding) -> None:
    """Put finished vectors among the engine's results, where every other command finds them.

    Left out where the workers' arithmetic is not the engine's: bfloat16 on CUDA, float32 elsewhere.
    """
    if (made.device == "cuda") == (engine.device.type == "cuda"):
        values = {"values": made.vectors.values()}
        engine.store.put(engine._key("embedding", dataset), values, engine._meta("embedding", dataset))


def cluster_provenance(engine: Engine, dataset: H5adDataset, made: ClusterEmbedding) -> dict[str, Any]:
    """Say what the result was made from, as `Engine.provenance` does, and on what the workers computed."""
    dtype = "bfloat16 autocast" if made.device == "cuda" else "float32"
    return {**engine.provenance(dataset), "device": f"dask workers, {made.device}", "dtype": dtype}


def _map(settings: ProjectionSettings | None) -> dict[str, Any]:
    return {"map": None if settings is None else settings.to_dict()}
