"""Coordinates that a file brings along: embeddings stored in its ``obsm``."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from scdiva_core.data.hdf5 import Array, keys, open_hdf5, subgroup
from scdiva_core.errors import DataError


def obsm_widths(path: str | Path) -> dict[str, int]:
    """List the dense arrays of ``obsm`` and their numbers of columns.

    Parameters
    ----------
    path
        An ``.h5ad`` file.

    Returns
    -------
    dict
        Name -> columns; arrays that cannot be read are left out.

    Raises
    ------
    DataError
        The file is not HDF5 or damaged.
    """
    widths = {}
    with closing(open_hdf5(path)) as file:
        group = subgroup(file, "obsm")
        for name in keys(group) if group is not None else ():
            with suppress(DataError):
                widths[name] = Array(group, name, ndim=2).shape[1]
    return widths


def read_obsm(path: str | Path, name: str, *, columns: int | None = None) -> np.ndarray:
    """Read one dense array of ``obsm``.

    Parameters
    ----------
    path
        An ``.h5ad`` file.
    name
        Key in ``obsm``, for example ``"X_umap"``.
    columns
        Keep that many first columns; all when None.

    Returns
    -------
    ndarray
        float32 ``[n_obs, d]``, values as stored.

    Raises
    ------
    DataError
        There is no such array, it is no table of numbers, or it holds values that are not finite.
    """
    with closing(open_hdf5(path)) as file:
        group = subgroup(file, "obsm")
        if group is None:
            message = f"The file {Path(path).name!r} holds no embeddings."
            raise DataError(message, "Embed it on the Embedding page.")
        values = Array(group, name, ndim=2).read()[:, :columns].astype(np.float32)
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        message = f"obsm/{name} has {bad:,} cells with values that are not finite."
        raise DataError(message, "Choose another embedding.")
    return values
