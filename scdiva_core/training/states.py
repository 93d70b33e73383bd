"""What the latent head reads of many cells, and the standardisation of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.model.heads import LatentHead
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.batches import make_batch

_CELLS = 32


@torch.no_grad()
def pooled_states(
    model: ScDiVaModel,
    corpus: Corpus,
    cells: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    thinned_share: float,
) -> Tensor:
    """Run the layers over cells, nothing masked.

    Parameters
    ----------
    model
        With a latent head; put in evaluation mode.
    corpus
        Where the cells are.
    cells
        int ``[n]`` indices.
    rng
        Source of the thinning.
    thinned_share
        Share of the cells whose counts are thinned.

    Returns
    -------
    Tensor
        float32 ``[n, d]`` on the CPU, see `scdiva_core.model.heads.LatentHead.pooled`.
    """
    model.eval()
    tokenizer = Tokenizer(corpus.entropy, model.config.max_genes)
    states = []
    for start in range(0, len(cells), _CELLS):
        batch = make_batch(corpus, tokenizer, cells[start : start + _CELLS], rng, thinned_share=thinned_share)
        tokens = batch.tokens.to(model.device)
        hidden = model(tokens.gene_ids, tokens.values).hidden
        read = model.is_gene(tokens.gene_ids)
        states.append(model.heads["latent"].pooled(hidden.float(), tokens.gene_ids, tokens.values, read).float().cpu())
    return torch.cat(states)


@torch.no_grad()
def standardise(head: LatentHead, states: Tensor) -> None:
    """Set the head's centre and scale so that these states have mean 0 and deviation 1 a coordinate."""
    head.center.copy_(states.mean(dim=0))
    head.scale.copy_(1.0 / states.std(dim=0).clamp(min=1e-3))
