"""How long a cell takes on this machine."""

from __future__ import annotations

import threading
import time

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import TokenBudget

_STEPS = 8  # lengths that are timed, as shares of the longest cell
_SECONDS = 0.5
_CELLS = 16


class Speed:
    """Seconds that a cell takes, timed once for each of a few lengths: whoever asks next is told at once.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    """

    def __init__(self, model: ScDiVaModel) -> None:
        self._model = model
        self._seconds: dict[int, float] = {}
        self._timing = threading.Lock()

    def seconds(self, genes_per_cell: float) -> float:
        """Return the seconds for one cell of so many detected genes.

        Safe to call from many threads: one measures, the others wait for its figure.
        """
        genes = self._model.vocabulary.gene_ids[: self._model.config.max_genes]
        length = float(np.clip(genes_per_cell, 1, len(genes)))
        step = max(-(-len(genes) // _STEPS), 1)
        timed = min(-(-int(np.ceil(length)) // step) * step, len(genes))
        with self._timing:
            if timed not in self._seconds:
                self._seconds[timed] = _seconds(self._model, genes[:timed])
            return self._seconds[timed] * length / timed


@torch.inference_mode()
def _seconds(model: ScDiVaModel, gene_ids: NDArray[np.int64]) -> float:
    """Time batches for half a second; the best one counts: a busy moment says nothing of the machine."""
    n_cells = min(TokenBudget(model).cells(len(gene_ids)), _CELLS)
    ids = torch.from_numpy(np.tile(gene_ids, (n_cells, 1)))
    batch = TokenBatch(ids, torch.ones(ids.shape), torch.full((n_cells,), len(gene_ids)))
    model.encode(batch)
    best, deadline = float("inf"), time.perf_counter() + _SECONDS
    while True:
        began = time.perf_counter()
        model.encode(batch)["latent"].cpu()  # waits for the device
        ended = time.perf_counter()
        best = min(best, ended - began)
        if ended > deadline:
            return best / n_cells
