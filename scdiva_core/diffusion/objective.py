"""Dual denoising loss: which gene, and how much of it, at the masked positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.diffusion.corruption import Corruption
from scdiva_core.model.network import AnchorSource, DenoiserOutput, ScDiVaModel

VALUE_WEIGHT = 10.0
"""Weight of the value term (published lambda)."""


@dataclass(frozen=True)
class DenoisingLoss:
    """Loss terms of one batch, each a scalar tensor, and the pass that gave them.

    Attributes
    ----------
    identity
        Mean cross-entropy over the target positions, in nats.
    value
        Mean squared error of the log1p value over the target positions.
    output
        The forward pass, for heads that read it too.
    """

    identity: Tensor
    value: Tensor
    output: DenoiserOutput

    @property
    def total(self) -> Tensor:
        """``identity + 10 value``, without a 1/t weight, as published."""
        return self.identity + VALUE_WEIGHT * self.value


def denoising_loss(
    model: ScDiVaModel,
    batch: TokenBatch,
    corruption: Corruption,
    *,
    anchor_from: AnchorSource = "clean",
    max_identity_targets: int | None = None,
    scored: Tensor | None = None,
) -> DenoisingLoss:
    """Run the denoiser on corrupted tokens and score the targets.

    Parameters
    ----------
    model, batch, corruption
        On one device.
    anchor_from
        As in `ScDiVaModel.forward`.
    max_identity_targets
        Score identities at the first so many targets of a random order only (our choice, for a small
        machine: the softmax over the vocabulary is most of the cost); None scores all. The estimate stays
        unbiased.
    scored
        int64 numbers of the targets whose identity is scored, counted row by row; drawn when None.

    Returns
    -------
    DenoisingLoss
        Both terms are 0 when nothing is masked, identity also when nothing is scored.
    """
    output = model(batch.gene_ids, batch.values, mask=corruption.replaced, anchor_from=anchor_from)
    states = output.tokens[corruption.targets]
    if not len(states):
        nothing = output.hidden.sum() * 0.0
        return DenoisingLoss(nothing, nothing, output)
    ids = batch.gene_ids[corruption.targets]
    value = F.mse_loss(model.gene_values(states).float(), batch.values[corruption.targets])
    if scored is None and max_identity_targets is not None and len(states) > max_identity_targets:
        scored = torch.randperm(len(states), device=states.device)[:max_identity_targets]
    if scored is not None:
        states, ids = states[scored], ids[scored]
    if not len(states):
        return DenoisingLoss(states.sum() * 0.0, value, output)
    identity = F.cross_entropy(model.gene_logits(states).float(), ids)
    return DenoisingLoss(identity, value, output)
