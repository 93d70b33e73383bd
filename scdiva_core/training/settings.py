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
    thinned_share, biased_share, panel_share
        Shares of cells that are changed, see `scdiva_core.training.augmentation.Augmentation`.
    visible_share
        Share of batches whose anchor is pooled from visible tokens only (ours; see `ScDiVaModel.forward`).
    short_share
        Share of batches serialised to half of the token budget, so that short rows stay familiar (ours).
    balance
        How evenly data sets and labels are drawn; see `scdiva_core.data.corpus.CellDraws`.
    expression_weight
        Weight of the expression decoded from the latent head (ours; 0 leaves it out).
    annotation_weight, label_smoothing
        Weight of the cell type read from the latent, and the share of probability kept from the truth (ours; a
        weight of 0, or a corpus without labels, leaves it out).
    alignment_weight
        Weight, in the heads' last lesson, of the distance between cells of one type from different studies (ours); its
        batches alone are large enough.
    kl_weight
        Weight of the latent's KL divergence from a standard normal (ours).
    max_identity_targets
        Targets a batch whose identity is scored; None for all (see `denoising_loss`).
    finish_cells, finish_steps, finish_learning_rate
        Cells and steps of the heads' last lesson, see `scdiva_core.training.finish`; 0 steps leave it out (ours).
    initial_genes
        ``"svd"`` starts the gene embeddings from a truncated SVD of the corpus, ``"random"`` does not.
    precision
        ``"bf16"`` autocasts, ``"float32"`` does not, ``"auto"`` autocasts on CUDA only.
    seed
        Of all randomness; one seed, one result on one machine.
    validate_every, validation_cells, save_every
        Steps between validations and between resumable states, and how many held-out cells are scored.
    """

    steps: int = 2600
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    clip: float = 1.0
    thinned_share: float = 0.5
    biased_share: float = 0.25
    panel_share: float = 0.25
    visible_share: float = 0.5
    short_share: float = 0.5
    balance: float = 0.5
    expression_weight: float = 10.0
    annotation_weight: float = 4.0
    label_smoothing: float = 0.05
    alignment_weight: float = 0.5
    kl_weight: float = 1e-4
    max_identity_targets: int | None = 256
    finish_cells: int = 24_000
    finish_steps: int = 1000
    finish_learning_rate: float = 2e-3
    initial_genes: Literal["svd", "random"] = "svd"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    seed: int = 0
    validate_every: int = 500
    validation_cells: int = 512
    save_every: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "validation_cells", "save_every", "finish_cells"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")
        if self.finish_steps < 0:
            msg = f"finish_steps is {self.finish_steps}."
            raise DataError(msg, "Choose 0 to leave the heads' last lesson out, or more.")
        for name in (
            "thinned_share",
            "biased_share",
            "panel_share",
            "visible_share",
            "short_share",
            "balance",
            "label_smoothing",
        ):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose a share between 0 and 1.")
