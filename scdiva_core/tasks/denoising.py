"""Values of all tokens, each predicted while it is hidden, and the layer of a new file that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import write_elem
from numpy.typing import NDArray

from scdiva_core.data.frames import Table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.hdf5 import subgroup
from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.export import check_cells, write_copy, write_record
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.reconstruction import Levels, named_values

FOLDS = 5
"""Parts of a cell's tokens, one of which is hidden at a time, as for predicted expression."""

LAYER = "scdiva_denoised"
"""Layer of the new file."""

MEANING = (
    "log1p of counts per 10,000, predicted for each gene that the model reads in the cell while its own value, and "
    "those of a fifth of the cell's genes, were hidden; nothing else is filled in: a gene without expression in a "
    "cell, and one beyond the genes that the model reads, stays 0"
)
"""What the layer holds, for whoever opens the file."""


def denoised_values(
    model: ScDiVaModel,
    rows: TokenRows,
    levels: Levels | None,
    rng: np.random.Generator,
    *,
    folds: int = FOLDS,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float32]:
    """Predict every token's value from the cell's other tokens, a part of them at a time.

    Parameters
    ----------
    model
        In evaluation mode.
    rows
        Cells.
    levels
        Of other cells of the file; see `scdiva_core.tasks.reconstruction.named_values`.
    rng
        Deals each cell's tokens out to the parts.
    folds
        Parts; at least 2.
    progress, cancelled
        Called once a part; asked once a batch.

    Returns
    -------
    ndarray
        float32 ``[n_tokens]``, log1p, never below 0. The one token of a cell that has no other is predicted from an
        empty cell.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    part = np.empty(len(rows.gene_ids), np.int64)
    for start, length in zip(rows.indptr, rows.lengths, strict=False):
        part[start : start + length] = rng.permutation(length) % folds
    values = np.zeros(len(rows.gene_ids), np.float32)
    for fold in range(folds):
        progress(fold, folds, "Denoising cells")
        hidden = part == fold
        values[hidden] = named_values(model, rows, hidden, levels, cancelled=cancelled)
    progress(folds, folds, "Denoising cells")
    return values


def write_denoised(
    dataset: H5adDataset, path: str | Path, values: sp.csr_matrix, provenance: Mapping[str, Any]
) -> Path:
    """Copy the input and add the predicted values as ``layers["scdiva_denoised"]``, with their meaning in ``uns``.

    Parameters
    ----------
    dataset
        The open input, whose bytes are never touched.
    path
        The new file.
    values
        float32 ``[n_obs, n_genes]``, columns as ``dataset.gene_ids``; what is not stored stays 0.
    provenance
        Plain values, as `Engine.provenance` gives them.

    Returns
    -------
    Path
        The new file. The layer is sparse and has the columns of ``X``. A gene that several columns name is written to
        the first of them; genes that ``raw`` has and ``X`` lacks are left out.

    Raises
    ------
    DataError
        The values are of other cells, ``path`` is the input itself, or the copy cannot be written.
    """
    check_cells(dataset, values.shape[0])

    def add(file: h5py.File) -> None:
        if subgroup(file, "layers") is None:
            write_elem(file, "layers", {})
        write_elem(file["layers"], LAYER, _over_columns(file, dataset, values))
        write_record(file, {**provenance, "denoised": {"layer": LAYER, "meaning": MEANING}})

    return write_copy(dataset, path, add)


def _over_columns(file: h5py.File, dataset: H5adDataset, values: sp.csr_matrix) -> sp.csr_matrix:
    """The same values over the columns of ``X``."""
    names = Table.open(file, "var").index()
    ids, first = np.unique(dataset.genes.ids, return_index=True)
    columns = first[np.searchsorted(ids, dataset.gene_ids)]
    if dataset.preflight.recommended == "raw/X":
        place = {name: column for column, name in enumerate(names)}
        raw = Table.open(file["raw"], "var").index()
        columns = np.array([place.get(name, -1) for name in raw[columns]], np.int64)
    kept = np.flatnonzero(columns >= 0)
    onto = sp.csr_matrix((np.ones(len(kept), np.float32), (kept, columns[kept])), (len(columns), len(names)))
    found = (values @ onto).tocsr()
    found.sort_indices()
    return found
