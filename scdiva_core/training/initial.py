"""What an untrained network starts from: gene vectors of the corpus, and a decoder that says the mean cell."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from scdiva_core.data.corpus import CellDraws, Corpus
from scdiva_core.model.heads import LatentMLP
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.genes import gene_vectors
from scdiva_core.training.states import pooled_states, standardise

_SAMPLE_CELLS = 512


@torch.no_grad()
def initialise(model: ScDiVaModel, corpus: Corpus, *, genes: Literal["svd", "random"], seed: int) -> None:
    """Set a fresh network's gene vectors and decoder, in place.

    Parameters
    ----------
    model
        As its constructor left it; its vocabulary has the corpus' size.
    corpus
        Prepared corpus.
    genes
        ``"svd"`` takes gene vectors that already tell cells apart (see `scdiva_core.training.genes`), ``"random"``
        leaves those of the constructor.
    seed
        Of the SVD.
    """
    if genes == "svd":
        vectors = gene_vectors(corpus, model.config.hidden_size, seed=seed)
        seen = vectors.loadings.abs().sum(dim=1) > 0
        embedding = vectors.loadings / vectors.loadings[seen].std(dim=0).clamp(min=1e-6)
        often = torch.from_numpy(corpus.gene_mean)
        model.gene_embedding.weight.copy_(embedding - (often @ embedding) / often.sum())
        model.gene_embedding.weight[~seen] = 0
        model.gene_head.weight.copy_(embedding * 0.02)
        if "latent" in model.heads and model.heads["latent"].reads_tokens:
            model.heads["latent"].gene_vectors.weight.copy_(vectors.projection)
    model.value_encoder[2].weight.mul_(0.1)
    if "latent" in model.heads and model.heads["latent"].reads_tokens:
        cells = CellDraws(corpus, _SAMPLE_CELLS, seed, 0.5).batch(0)
        states = pooled_states(model, corpus, cells, np.random.default_rng(seed), Augmentation(thinned_share=0.5))
        standardise(model.heads["latent"], states.pooled)
    if "batch_integration" in model.heads:
        start_from_mean_cell(model.heads["batch_integration"], corpus)


@torch.no_grad()
def start_from_mean_cell(decoder: LatentMLP, corpus: Corpus) -> None:
    """Let a decoder say the corpus' mean cell of every latent, in place.

    Parameters
    ----------
    decoder
        Of latents to log1p expression.
    corpus
        Brings the mean cell.
    """
    # A random decoder's first lesson would be to silence the latent that it reads.
    decoder.out.weight.zero_()
    decoder.out.bias.copy_(torch.from_numpy(corpus.gene_mean))
