"""Forward process: which tokens are hidden, and how counts are thinned before that.

Source: the authors' architecture file for the mask; the thinning's distribution is our choice, since the paper
names depth-robust corruption without printing it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.model.config import ScDiVaConfig

KEPT_SHARE = 0.1
"""Share of targets that keep their gene and value, yet count in the loss (published)."""


@dataclass(frozen=True)
class Corruption:
    """One draw of the forward process.

    Attributes
    ----------
    targets
        bool ``[B, L]`` tokens that count in the loss.
    replaced
        bool ``[B, L]`` the targets whose gene and value are hidden; pass it to the model as ``mask``.
    t
        float32 ``[B]`` time of each cell, its expected masked share.
    """

    targets: Tensor
    replaced: Tensor
    t: Tensor

    def part(self, rows: slice) -> Corruption:
        """The draw of some rows alone."""
        return Corruption(self.targets[rows], self.replaced[rows], self.t[rows])


def corrupt(
    batch: TokenBatch, config: ScDiVaConfig, generator: torch.Generator, *, t: float | None = None
) -> Corruption:
    """Mask each gene token with probability t, gene and value together.

    Parameters
    ----------
    batch
        Token rows, on the CPU or on the generator's device.
    config
        Names the reserved ids, which are never masked.
    generator
        Source of all randomness.
    t
        Masked share for every cell; drawn from U(0, 1) a cell when None.
    """
    ids, device = batch.gene_ids, batch.gene_ids.device
    rows = ids.shape[0]
    if t is None:
        times = torch.rand(rows, generator=generator, device=device).clamp(min=1e-6)
    else:
        times = torch.full((rows,), t, device=device)
    reserved = torch.tensor(config.reserved_ids, device=device)
    maskable = ~torch.isin(ids, reserved)
    targets = (torch.rand(ids.shape, generator=generator, device=device) < times[:, None]) & maskable
    kept = torch.rand(ids.shape, generator=generator, device=device) < KEPT_SHARE
    return Corruption(targets, targets & ~kept, times)


def thin_counts(
    counts: NDArray[np.integer], factors: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Lower the sequencing depth: each molecule survives with its cell's probability.

    Parameters
    ----------
    counts
        int ``[nnz]`` raw counts.
    factors
        float ``[nnz]`` survival probability of each entry's cell, in (0, 1].
    rng
        Source of all randomness.

    Returns
    -------
    ndarray
        int64 ``[nnz]``; entries may become 0.
    """
    return rng.binomial(counts.astype(np.int64), factors)
