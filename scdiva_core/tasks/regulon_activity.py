"""How active each regulator is in each cell, judged by its known targets."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.regulons import regulons
from scdiva_core.errors import DataError
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

LEAST_TARGETS = 5
"""Known targets that the cells must express for a regulator to be judged (decoupler's default)."""

_CHUNK_CELLS = 1000  # dense, in float64, beside a table of all regulators' targets: about 0.5 GB


def regulon_activity(
    dataset: H5adDataset,
    cells: ArrayLike | None = None,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Fit each cell's expression by the signs of each regulator's known targets: decoupler's ULM over CollecTRI.

    The univariate linear model of Badia-i-Mompel 2022; the activity is the t value of its slope: above 0 where what the
    regulator raises is high and what it lowers is low. It says nothing about the regulator's own expression, and
    regulators that share targets are active together. Compare cells for one regulator, not regulators in one cell.

    Parameters
    ----------
    dataset
        Open file, read twice in chunks: for the genes that any of the cells expresses, which are all that counts, and
        for the fit. A millisecond or two a cell.
    cells
        Places in the file; all cells where None.
    progress, cancelled
        Called once a chunk of the file.

    Returns
    -------
    DataFrame
        float32, a row for each of the cells in the file's order, indexed by name; a column for each regulator with
        `LEAST_TARGETS` targets among the genes, by symbol, the complexes of CollecTRI included. NaN in cells that
        express nothing.

    Raises
    ------
    DataError
        No cell, places outside the file, or no regulator with enough targets.
    Cancelled
        The user stopped.
    """
    chosen = np.zeros(dataset.n_obs, bool)
    places = np.arange(dataset.n_obs) if cells is None else np.asarray(cells, np.int64)
    if not len(places) or places.min() < 0 or places.max() >= dataset.n_obs:
        found = f"cells {places.min()} to {places.max()}" if len(places) else "no cells"
        msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
        raise DataError(msg, "Choose a cell set of this file.")
    chosen[places] = True
    expressed = _expressed(dataset, chosen, progress, cancelled)
    symbols = np.array(dataset.gene_symbols, object)[expressed]
    net = regulons().table.rename(columns={"regulator": "source", "sign": "weight"})
    most = net.loc[net["target"].isin(symbols), "source"].value_counts().max()
    if not most >= LEAST_TARGETS:  # NaN where there is none at all
        msg = f"No regulator has {LEAST_TARGETS} known targets among the {len(symbols):,} genes of these cells."
        raise DataError(msg, "Choose a file with more genes.")
    parts = []
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(dataset.n_obs + start, 2 * dataset.n_obs, "Fitting regulons")
        wanted = block[chosen[start : start + block.shape[0]]]
        if wanted.shape[0]:
            parts.append(_activity(wanted[:, expressed], symbols, net))
    progress(2 * dataset.n_obs, 2 * dataset.n_obs, "Fitting regulons")
    return pd.concat(parts).set_axis(pd.Index(dataset.obs_names[chosen]))


def _expressed(
    dataset: H5adDataset, chosen: NDArray[np.bool_], progress: Progress, cancelled: IsCancelled
) -> NDArray[np.int64]:
    """Columns of the genes that one of the cells expresses, each symbol once."""
    counts = np.zeros(len(dataset.gene_ids), np.int64)
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        progress(start, 2 * dataset.n_obs, "Reading cells")
        counts += block[chosen[start : start + block.shape[0]]].getnnz(axis=0)
    columns = np.flatnonzero(counts)
    return columns[~pd.Index(dataset.gene_symbols)[columns].duplicated()]


def _activity(block: sp.csr_matrix, symbols: NDArray[np.object_], net: pd.DataFrame) -> pd.DataFrame:
    import decoupler  # seconds to import

    filled = np.flatnonzero(block.getnnz(axis=1))
    names = pd.RangeIndex(len(filled)).astype(str)
    part = anndata.AnnData(block[filled], obs=pd.DataFrame(index=names), var=pd.DataFrame(index=symbols))
    decoupler.mt.ulm(part, net, tmin=LEAST_TARGETS, empty=False)
    found: pd.DataFrame = part.obsm["score_ulm"]
    return found.astype(np.float32).set_axis(filled).reindex(range(block.shape[0]))
