"""Denoised expression of a file behind one call: computed once, kept, and found again."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.baselines.reconstruction import Population
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import look
from scdiva_core.engine_reconstruction_making import FIT_CELLS, MOST_POPULATION
from scdiva_core.errors import DataError
from scdiva_core.tasks.cell_sample import read_cells
from scdiva_core.tasks.denoising import FOLDS, denoised_values
from scdiva_core.tasks.embedding import CHUNK_CELLS
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.reconstruction import Levels, can_decode, fit_levels, random_mask

_FORMAT = 1  # part of every key: raise it when the same file gets other values


def denoise(
    engine: Engine,
    dataset: H5adDataset,
    *,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> sp.csr_matrix:
    """Predict the value of every token of every cell while it is hidden, or fetch what was predicted before.

    The file is cut in halves at random, and what a value is scaled with comes from the other half, so that no cell's
    own value reaches its prediction.

    Parameters
    ----------
    engine
        Its model predicts.
    dataset
        Opened by this engine.
    seed
        Of the halves and of the parts of each cell's tokens.
    progress
        One bar over all cells.
    cancelled
        Asked once a batch.

    Returns
    -------
    csr_matrix
        float32 ``[n_obs, n_genes]``, log1p of counts per 10,000, columns as ``dataset.gene_ids``. Only tokens are
        stored: genes that the cell expresses and that the model reads.

    Raises
    ------
    DataError
        The file has fewer than two cells, or a half without a gene that the model knows.
    Cancelled
        The user stopped; nothing of it is kept.
    """
    found = stored_denoised(engine, dataset, seed=seed)
    if found is None:
        with engine._computing:
            found = _made(engine, dataset, seed, progress, cancelled)
        arrays = {"values": found.data, "columns": found.indices, "indptr": found.indptr}
        engine.store.put(_key(engine, dataset, seed), arrays, engine._meta("denoised", dataset))
    return found


def stored_denoised(engine: Engine, dataset: H5adDataset, *, seed: int = 0) -> sp.csr_matrix | None:
    """What `denoise` would return, if it was computed before; else None."""
    entry = engine.store.get(_key(engine, dataset, seed))
    if entry is None:
        return None
    parts = tuple(np.array(entry.arrays[name]) for name in ("values", "columns", "indptr"))
    return sp.csr_matrix(parts, (dataset.n_obs, len(dataset.gene_ids)))


def estimate_denoise_seconds(engine: Engine, dataset: H5adDataset, *, seed: int = 0) -> float:
    """Seconds that `denoise` will take, typical for two cores; 0 when it was computed before.

    The first call for a file times the network for half a second.
    """
    if stored_denoised(engine, dataset, seed=seed) is not None:
        return 0.0
    return (FOLDS * dataset.n_obs + 2 * FIT_CELLS) * look(engine, dataset).seconds


def _key(engine: Engine, dataset: H5adDataset, seed: int) -> str:
    return engine._key("denoised", dataset, format=_FORMAT, seed=seed, folds=FOLDS)


def _made(engine: Engine, dataset: H5adDataset, seed: int, progress: Progress, cancelled: IsCancelled) -> sp.csr_matrix:
    if dataset.n_obs < 2:
        msg = "The file has 1 cell; there is no other to learn levels from."
        raise DataError(msg, "Choose a file of more cells.")
    rng = np.random.default_rng(seed)
    half = rng.permutation(dataset.n_obs) % 2
    tokenizer = engine._tokenizer(dataset)
    levels = _levels(engine, dataset, half, rng, cancelled) if can_decode(engine.model) else (None, None)
    parts = []
    for start, block in dataset.chunks(CHUNK_CELLS):
        rows = tokenizer.serialize(block.indptr, block.indices, block.data, dataset.gene_ids)
        values = np.empty(len(rows.gene_ids), np.float32)
        own = half[start : start + len(rows)]
        for side in (0, 1):
            chosen = np.flatnonzero(own == side)
            told = _part(progress, start + side * len(rows) / 2, len(rows) / 2, dataset.n_obs)
            asked = (engine.model, rows.take(chosen), levels[side], rng)
            made = denoised_values(*asked, progress=told, cancelled=cancelled)
            values[np.repeat(own == side, rows.lengths)] = made
        parts.append(_matrix(TokenRows(rows.indptr, rows.gene_ids, values), dataset.gene_ids))
    return sp.vstack(parts, format="csr", dtype=np.float32)


def _part(progress: Progress, begun: float, size: float, n_obs: int) -> Progress:
    """Report a part of the cells as cells of the file."""
    return lambda done, total, message: progress(round(begun + size * done / total), n_obs, message)


def _levels(
    engine: Engine, dataset: H5adDataset, half: NDArray[np.int64], rng: np.random.Generator, cancelled: IsCancelled
) -> tuple[Levels, ...]:
    """Levels for the cells of either half, from cells of the other."""
    drawn = [rng.permutation(np.flatnonzero(half != side))[:MOST_POPULATION] for side in (0, 1)]
    tokenizer = engine._tokenizer(dataset)
    sample = read_cells(tokenizer, dataset, np.concatenate(drawn), engine.vocabulary, cancelled=cancelled)
    found = []
    for cells in drawn:
        rows = sample.rows.take(np.searchsorted(sample.cells, np.sort(cells)))
        population = Population(rows, engine.model.config.vocab_size)
        few = rows.take(np.sort(rng.permutation(len(rows))[:FIT_CELLS]))
        hidden = random_mask(few, 1 / FOLDS, rng)
        found.append(fit_levels(engine.model, few, hidden, population.means, cancelled=cancelled))
    return tuple(found)


def _matrix(rows: TokenRows, gene_ids: NDArray[np.int64]) -> sp.csr_matrix:
    shape = (len(rows), len(gene_ids))
    matrix = sp.csr_matrix((rows.values, np.searchsorted(gene_ids, rows.gene_ids), rows.indptr), shape)
    matrix.sort_indices()
    return matrix
