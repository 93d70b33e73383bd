"""What the latent is trained on beside the denoising loss: the cell's expression, and its type.

All of it is our choice; the paper trains the anchor through the denoiser alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.genes import LEAST_DEVIATION

OTHER_GENES = 0.1
"""Weight of the error of genes that are not variable: what varies little is mostly sampling noise."""

MOST_TYPES = 6
"""Types below a coarse label at most for its cells to count as of one type with others below it."""

FEWEST_MATES = 3
"""Cells of its type that a cell must meet in a batch, in its own study and in others, to be aligned."""


@dataclass(frozen=True)
class LatentLosses:
    """Loss terms that read the latent, each a scalar tensor; 0 where there is nothing to score.

    Attributes
    ----------
    expression
        Squared error of the decoded full-depth expression, gene-wise standardised, mostly of variable genes; 1 for
        the mean cell.
    annotation
        Cross-entropy of the cell type over labelled cells, in nats.
    divergence
        KL divergence of the latent from a standard normal, in nats a cell.
    alignment
        Squared distance between the mean latents of a type in one study and in all others, in units of its spread
        within the study.
    """

    expression: Tensor
    annotation: Tensor
    divergence: Tensor
    alignment: Tensor


class LatentObjective(nn.Module):
    """Scores a batch's latents; its own weights serve in training only.

    Each technical batch has an offset for every gene, added to what is decoded, so that the latent need not carry what
    a whole batch has in common (as a batch covariate in scVI, Lopez 2018).

    Parameters
    ----------
    corpus
        Brings the spread of each gene, the batches and the labels.
    variable
        Token ids of the variable genes; the error of all others counts little.
    label_smoothing
        Share of probability kept from the true type.
    """

    def __init__(self, corpus: Corpus, variable: NDArray[np.int64], label_smoothing: float) -> None:
        super().__init__()
        self.smoothing = label_smoothing
        self.offsets = nn.Embedding.from_pretrained(torch.zeros(corpus.n_batches, len(corpus.vocabulary)), freeze=False)
        weight = np.full(len(corpus.vocabulary), OTHER_GENES, np.float32)
        weight[variable] = 1.0
        weight /= np.maximum(corpus.gene_std, LEAST_DEVIATION) ** 2
        self.register_buffer("weight", torch.from_numpy(weight / np.mean(weight * corpus.gene_std**2)))
        self.register_buffer("members", torch.from_numpy(corpus.members))
        study_of = np.zeros(corpus.n_batches, np.int64)
        study_of[corpus.batch_of] = corpus.dataset_of
        self.register_buffer("study_of", torch.from_numpy(study_of))

    def forward(
        self,
        model: ScDiVaModel,
        mu: Tensor,
        logvar: Tensor,
        *,
        expression: Tensor,
        labels: Tensor,
        batch_of: Tensor,
        importance: Tensor,
        noise: Tensor | None = None,
    ) -> LatentLosses:
        """Score latents.

        Parameters
        ----------
        model
            Brings the heads.
        mu, logvar
            float32 ``[B, latent]``; a latent is drawn from them in training.
        expression
            float32 ``[B, vocab_size]`` log1p expression at full depth.
        labels, batch_of
            int64 ``[B]``, numbered as in the corpus; a label of -1 is none.
        importance
            float32 ``[B]`` weight of each cell.
        noise
            float32 ``[B, latent]`` standard normal numbers that latents are drawn with in training; drawn when None.
        """
        if model.training:
            latent = mu + (torch.randn_like(mu) if noise is None else noise) * (0.5 * logvar).exp()
        else:
            latent = mu
        importance = importance / importance.mean()
        divergence = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)
        return LatentLosses(
            self._expression(model, latent, expression, batch_of, importance),
            self._annotation(model, latent, labels, importance),
            divergence.mean(),
            self._alignment(mu, labels, self.study_of[batch_of]),
        )

    def is_known(self, labels: Tensor) -> Tensor:
        """Which labels, int64 ``[B]``, say something of the cell type: bool ``[B]``."""
        return (labels >= 0) & self.members[labels.clamp(min=0)].any(dim=1)

    def _expression(
        self, model: ScDiVaModel, latent: Tensor, expression: Tensor, batch_of: Tensor, importance: Tensor
    ) -> Tensor:
        """Squared error of what the decoder and the batch's offset say together."""
        if "batch_integration" not in model.heads:
            return latent.sum() * 0.0
        decoded = model.heads["batch_integration"](latent).float() + self.offsets(batch_of)
        error = ((decoded - expression).square() * self.weight).mean(dim=1)
        return (error * importance).mean()

    def _annotation(self, model: ScDiVaModel, latent: Tensor, labels: Tensor, importance: Tensor) -> Tensor:
        """Cross-entropy; a coarse label asks only that the types below it be probable together."""
        nothing = latent.sum() * 0.0
        if "annotation" not in model.heads or not self.members.numel():
            return nothing
        known = self.is_known(labels)
        if not bool(known.any()):
            return nothing
        logits = model.heads["annotation"](latent[known]).float()
        log_probability = logits.log_softmax(dim=-1)
        outside = ~self.members[labels[known]]
        right = log_probability.masked_fill(outside, float("-inf")).logsumexp(dim=-1)
        loss = (1 - self.smoothing) * right + self.smoothing * log_probability.mean(dim=-1)
        return -(loss * importance[known]).sum() / importance[known].sum().clamp(min=1e-6)

    def _alignment(self, mu: Tensor, labels: Tensor, studies: Tensor) -> Tensor:
        """How far apart studies put their cells of one type; as a class-wise domain distance (Long 2013), ours."""
        if not self.members.numel():
            return mu.sum() * 0.0
        types = self.members[labels.clamp(min=0)] & (labels >= 0)[:, None]
        types = types & (types.sum(dim=1, keepdim=True) <= MOST_TYPES)
        alike = (types.float() @ types.float().T) > 0
        own_study = studies[:, None] == studies[None]
        own, others = (alike & own_study).float(), (alike & ~own_study).float()
        met = (own.sum(dim=1) >= FEWEST_MATES) & (others.sum(dim=1) >= FEWEST_MATES)
        if not bool(met.any()):
            return mu.sum() * 0.0
        own_mean, others_mean = (w[met] @ mu / w[met].sum(dim=1, keepdim=True) for w in (own, others))
        # Not differentiated: a wider type would be as good as a nearer one.
        spread = (mu[met] - own_mean).square().sum(dim=1).mean().detach()
        return (others_mean - own_mean).square().sum(dim=1).mean() / spread.clamp(min=1e-6)


@torch.no_grad()
def fitted_temperature(logits: Tensor, labels: Tensor, *, most: float = 4.0) -> float:
    """Temperature that makes held-out probabilities honest (Guo 2017): least cross-entropy on a grid.

    Parameters
    ----------
    logits
        float ``[n, n_classes]``.
    labels
        int64 ``[n]`` true class of each.
    most
        Highest temperature tried.

    Returns
    -------
    float
        Between 0.25 and ``most``.
    """
    grid = torch.logspace(-2, math.log2(most), 161, base=2.0)
    losses = [nn.functional.cross_entropy(logits.float() / value, labels) for value in grid]
    return round(float(grid[int(torch.stack(losses).argmin())]), 4)
