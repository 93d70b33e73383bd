"""Choices of one pre-training run, small and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scdiva_core.errors import DataError


@dataclass(frozen=True)
class PretrainSettings:
    """How to pre-train; the published value where one is known, else our choice.

    Parameters
    ----------
    steps, batch_size
        Optimiser steps, and cells a step (published: 768).
    learning_rate, weight_decay, warmup_steps, clip
        AdamW with linear warm-up, cosine decay to a tenth, and gradient clipping by norm (AdamW is
        published, the numbers are ours).
    thinned_share
        Share of cells whose counts are thinned to a factor drawn from U(0.25, 1).
    visible_share
        Share of batches whose anchor is pooled from visible tokens only (ours; see `ScDiVaModel.forward`).
    expression_weight
        Weight of the expression decoded from the latent head (ours; 0 leaves it out).
    kl_weight
        Weight of the latent's KL divergence from a standard normal (ours).
    max_identity_targets
        Targets a batch whose identity is scored; None for all (see `denoising_loss`).
    initial_genes
        ``"svd"`` starts the gene embeddings from a truncated SVD of the corpus, ``"random"`` does not.
    precision
        ``"bf16"`` autocasts, ``"float32"`` does not, ``"auto"`` autocasts on CUDA only.
    seed
        Of all randomness; one seed, one result on one machine.
    validate_every, validation_cells, save_every
        Steps between validations and between resumable states, and how many held-out cells are scored.
    """

    steps: int = 1500
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    clip: float = 1.0
    thinned_share: float = 0.5
    visible_share: float = 0.5
    expression_weight: float = 10.0
    kl_weight: float = 1e-4
    max_identity_targets: int | None = 512
    initial_genes: Literal["svd", "random"] = "svd"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    seed: int = 0
    validate_every: int = 500
    validation_cells: int = 512
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "validation_cells", "save_every"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")
        for name in ("thinned_share", "visible_share"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose a share between 0 and 1.")
