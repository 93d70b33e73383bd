"""Quality of the cells: counts, genes and mitochondrial share, under scanpy's names."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdiva_core.data.h5ad import H5adDataset

MITOCHONDRIAL_PREFIX = "MT-"


def quality_metrics(dataset: H5adDataset, *, max_cells: int = 20_000, seed: int = 0) -> pd.DataFrame:
    """Measure cells on the genes that the model knows.

    Parameters
    ----------
    dataset
        Open file.
    max_cells
        Above so many cells a random subset is measured.
    seed
        Chooses the subset.

    Returns
    -------
    DataFrame
        Indexed by cell name, in file order: ``n_genes_by_counts``, ``pct_counts_mt`` (percent; missing where the
        data set has no mitochondrial gene) and, where the matrix holds counts, ``total_counts``.
        ``attrs["sampled"]`` is True for a subset.
    """
    sampled = dataset.n_obs > max_cells
    chosen = np.ones(dataset.n_obs, bool)
    if sampled:
        chosen[:] = False
        chosen[np.random.default_rng(seed).choice(dataset.n_obs, max_cells, replace=False)] = True
    mitochondrial = np.array([symbol.startswith(MITOCHONDRIAL_PREFIX) for symbol in dataset.gene_symbols])
    counted = dataset.value_kind == "counts"
    pieces = []
    for start, block in dataset.count_chunks() if counted else dataset.chunks():
        part = block[chosen[start : start + block.shape[0]]]
        # Shares are of molecules; log values are taken back to a linear scale first.
        linear = part if counted else part.expm1()
        total = np.asarray(linear.sum(axis=1)).ravel()
        genes = np.asarray((part > 0).sum(axis=1)).ravel()
        mt = np.asarray(linear[:, mitochondrial].sum(axis=1)).ravel()
        pieces.append(np.column_stack([total, genes, 100 * mt / np.maximum(total, 1e-9)]))
    values = np.concatenate(pieces) if pieces else np.empty((0, 3))
    table = pd.DataFrame(
        {"n_genes_by_counts": values[:, 1].astype(int), "pct_counts_mt": values[:, 2]},
        index=pd.Index(dataset.obs_names[chosen]),
    )
    if counted:
        table.insert(0, "total_counts", values[:, 0])
    if not mitochondrial.any():
        table["pct_counts_mt"] = np.nan
    table.attrs["sampled"] = sampled
    return table
