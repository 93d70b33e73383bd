"""What the latent head reads of many cells, and the standardisation of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.model.heads import LatentHead
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.batches import make_batch

_CELLS = 32


@dataclass(frozen=True)
class CellStates:
    """What a latent head reads of cells.

    Attributes
    ----------
    pooled
        float32 ``[n, d]`` on the CPU, see `scdiva_core.model.heads.LatentHead.pooled`.
    tokens
        The cells as they were read, padded to the longest.
    """

    pooled: Tensor
    tokens: TokenBatch


@torch.no_grad()
def pooled_states(
    model: ScDiVaModel,
    corpus: Corpus,
    cells: NDArray[np.integer],
    rng: np.random.Generator,
    augmentation: Augmentation | None = None,
) -> CellStates:
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
        Source of the changes.
    augmentation
        Changes a share of the cells.
    """
    model.eval()
    tokenizer = Tokenizer(corpus.entropy, model.config.max_genes)
    states, read_tokens = [], []
    for start in range(0, len(cells), _CELLS):
        batch = make_batch(corpus, tokenizer, cells[start : start + _CELLS], rng, augmentation)
        tokens = batch.tokens.to(model.device)
        hidden = model(tokens.gene_ids, tokens.values).hidden
        read = model.is_gene(tokens.gene_ids)
        read_tokens.append(batch.tokens)
        states.append(model.heads["latent"].pooled(hidden.float(), tokens.gene_ids, tokens.values, read).float().cpu())
    return CellStates(torch.cat(states), _together(read_tokens))


def _together(batches: list[TokenBatch]) -> TokenBatch:
    """Batches of unlike width as one."""
    width = max(batch.values.shape[1] for batch in batches)
    gene_ids = torch.cat([pad(batch.gene_ids, (0, width - batch.gene_ids.shape[1])) for batch in batches])
    values = torch.cat([pad(batch.values, (0, width - batch.values.shape[1])) for batch in batches])
    return TokenBatch(gene_ids, values, torch.cat([batch.lengths for batch in batches]))


@torch.no_grad()
def standardise(head: LatentHead, states: Tensor) -> None:
    """Set the head's centre and scale so that these states have mean 0 and deviation 1 a coordinate."""
    head.center.copy_(states.mean(dim=0))
    head.scale.copy_(1.0 / states.std(dim=0).clamp(min=1e-3))
