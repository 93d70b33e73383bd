"""Results written where scverse users look, into a new ``.h5ad``; the input's bytes are never touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from scdiva_core.data.cellsets import CellSet
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.hdf5 import subgroup
from scdiva_core.errors import DataError
from scdiva_core.tasks.neighbors import Projection

_VERSIONED = ("torch", "anndata", "scanpy", "umap-learn", "igraph")


def write_result(
    dataset: H5adDataset,
    path: str | Path,
    *,
    embedding: NDArray[np.float32],
    provenance: Mapping[str, Any],
    projections: Iterable[Projection] = (),
    cell_sets: Iterable[CellSet] = (),
    embeddings: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> Path:
    """Copy the input and add the results to the copy.

    The copy gains ``obsm["X_scdiva"]``; for each map, as ``X_scdiva`` or ``X_pca``, ``obsm["X_umap_scdiva"]`` or
    ``["X_umap_pca"]`` and the clusters as categories in ``obs["leiden_scdiva"]`` or ``["leiden_pca"]``; the further
    embeddings under their names in ``obsm``; for each cell set a bool column
    ``obs["set: <name>"]``; and ``uns["scdiva"]`` with the provenance and the recipes, as JSON. Columns that
    were there under these names are replaced, everything else is kept as it was.

    Parameters
    ----------
    dataset
        The open input.
    path
        The new file; replaced in one step when it is there already.
    embedding
        float32 ``[n_obs, d]``.
    provenance
        Plain values, as `Engine.provenance` gives them.
    projections, cell_sets, embeddings
        What else to write; embeddings by their names, ``X_`` before them.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    DataError
        ``path`` is the input itself, the disk is full, or the copy cannot be written.
    """
    maps, sets = tuple(projections), tuple(cell_sets)
    check_cells(dataset, len(embedding), *(len(item.leiden) for item in maps), *(len(item.mask) for item in sets))
    check_cells(dataset, *map(len, embeddings.values()))
    arrays = {**embeddings, "X_scdiva": embedding}
    return write_copy(dataset, path, lambda file: _add(file, dataset, arrays, provenance, maps, sets))


def check_cells(dataset: H5adDataset, *sizes: int) -> None:
    """Make sure that results are of the data set's cells.

    Parameters
    ----------
    dataset
        The open input.
    sizes
        Number of cells of each result.

    Raises
    ------
    DataError
        One of them differs.
    """
    for size in sizes:
        if size != dataset.n_obs:
            msg = f"The results are of {size:,} cells, but the file has {dataset.n_obs:,}."
            raise DataError(msg, "Compute them again on this file.")


def write_copy(dataset: H5adDataset, path: str | Path, add: Callable[[h5py.File], None]) -> Path:
    """Copy the input and let something be added to the copy before it takes its name.

    Parameters
    ----------
    dataset
        The open input.
    path
        The new file; replaced in one step when it is there already, and not touched when anything fails.
    add
        Called with the copy, open for writing.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    DataError
        ``path`` is the input itself, the disk is full, or the copy cannot be written.
    """
    target = checked_target(dataset.path, path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dataset.path, partial)
        with h5py.File(partial, "r+") as file:
            add(file)
        os.replace(partial, target)
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py raises any of them on a full disk
        msg = f"{target} cannot be written: {getattr(error, 'strerror', None) or error}."
        raise DataError(msg, "Choose another folder, or free some disk space.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return target


def checked_target(source: Path, path: str | Path) -> Path:
    """Make sure that a result would not go onto its own input; worth asking before hours of work.

    Raises
    ------
    DataError
        ``path`` is ``source``, perhaps through a link.
    """
    target = Path(path).expanduser()
    if target.exists() and target.samefile(source):
        msg = f"{target.name} is the input file, which is never changed."
        raise DataError(msg, "Choose another name for the result.")
    return target


def _add(
    file: h5py.File,
    dataset: H5adDataset,
    embeddings: Mapping[str, NDArray[np.float32]],
    provenance: Mapping[str, Any],
    projections: tuple[Projection, ...],
    cell_sets: tuple[CellSet, ...],
) -> None:
    arrays = {name: np.asarray(vectors) for name, vectors in embeddings.items()}
    columns: dict[str, Any] = {}
    for projection in projections:
        arrays[f"X_umap_{projection.representation.removeprefix('X_')}"] = np.asarray(projection.coordinates)
        clusters = pd.Series(projection.leiden)
        names = [str(cluster) for cluster in sorted(clusters.unique())]
        columns[f"leiden_{projection.representation.removeprefix('X_')}"] = pd.Categorical(
            clusters.astype(str), categories=names
        )
    for item in cell_sets:
        column = f"set: {item.name.replace('/', '-')}"
        while column in columns:
            column += " (2)"
        columns[column] = item.mask
    if "obsm" not in file:
        write_elem(file, "obsm", {})
    for name, array in arrays.items():
        write_elem(file["obsm"], name, array)
    write_columns(file["obs"], columns, list(dataset.obs))
    record = {
        **provenance,
        "settings": {item.representation: item.settings.to_dict() for item in projections},
        "sketched": {item.representation: item.sketched for item in projections},
        "cell_sets": {item.name: item.recipe for item in cell_sets},
        "versions": {name: version(name) for name in _VERSIONED},
    }
    write_record(file, record)


def write_record(file: h5py.File, record: Mapping[str, Any]) -> None:
    """Add entries to ``uns["scdiva"]``, each as JSON; those of other names stay.

    Parameters
    ----------
    file
        Open for writing.
    record
        Plain values that `json.dumps` takes.
    """
    if subgroup(file, "uns") is None:
        write_elem(file, "uns", {})
    if subgroup(file["uns"], "scdiva") is None:
        write_elem(file["uns"], "scdiva", {})
    for name, value in record.items():
        write_elem(file["uns/scdiva"], name, json.dumps(value))


def write_columns(obs: h5py.Group, columns: Mapping[str, Any], known: list[str]) -> None:
    """Add columns to the table on disk and list them in its order; one of the same name is replaced.

    Parameters
    ----------
    obs
        The table, open for writing.
    columns
        Name to values, as anndata writes them.
    known
        Columns that were there, in order, for a table that does not list its own.
    """
    order = [name.decode() if isinstance(name, bytes) else str(name) for name in obs.attrs.get("column-order", known)]
    for name, values in columns.items():
        write_elem(obs, name, values)
        if name not in order:
            order.append(name)
    obs.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
