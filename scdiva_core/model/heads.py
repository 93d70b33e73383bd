"""Optional heads of this project, one class each; a published checkpoint carries none of them.

Widths are our choice: the paper names the heads but prints no sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scdiva_core.model.config import ScDiVaConfig


class LatentHead(nn.Module):
    """States of a cell to a Gaussian latent: ``mu`` and ``logvar``, each ``[B, latent]``.

    Both are linear maps: with ``latent_pooling="anchor"`` of the anchor's state, with ``"anchor+tokens"`` (ours) of
    three vectors of the network's width, namely the anchor's state, the mean state of the gene tokens, and the cell's
    expression projected on one learned vector for each gene, a path around the layers. A small MLP in their place told
    types no better apart, and was less sure on studies and protocols that it had not seen.
    """

    def __init__(self, config: ScDiVaConfig) -> None:
        super().__init__()
        self.reads_tokens = config.latent_pooling == "anchor+tokens"
        inputs = config.hidden_size
        if self.reads_tokens:
            self.gene_vectors = nn.Embedding(config.vocab_size, config.hidden_size)
            # Set from training cells, so that the three vectors weigh alike.
            self.register_buffer("center", torch.zeros(3 * config.hidden_size))
            self.register_buffer("scale", torch.ones(3 * config.hidden_size))
            inputs = 3 * config.hidden_size
        self.mu = nn.Linear(inputs, config.latent_dim)
        self.logvar = nn.Linear(inputs, config.latent_dim)
        self.reset()

    def reset(self) -> None:
        """Start with little noise (std 0.05): at unit noise the decoder learns the mean cell and no more."""
        nn.init.zeros_(self.logvar.weight)
        nn.init.constant_(self.logvar.bias, -6.0)

    def forward(self, hidden: Tensor, gene_ids: Tensor, values: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mu, logvar``; log-variances are clamped to [-10, 4] so that exp stays finite.

        Parameters
        ----------
        hidden
            ``[B, 1 + L, hidden]`` final states, the anchor's first.
        gene_ids, values
            ``[B, L]`` token ids and log1p expression.
        read
            bool ``[B, L]``, True for the gene tokens that may be read besides the anchor.
        """
        state = self.pooled(hidden, gene_ids, values, read)
        return self.from_pooled(state)

    def pooled(self, hidden: Tensor, gene_ids: Tensor, values: Tensor, read: Tensor) -> Tensor:
        """What the latent is computed from, ``[B, 3 x hidden]`` or ``[B, hidden]``; arguments as for `forward`."""
        anchor = hidden[:, 0]
        if not self.reads_tokens:
            return anchor
        weight = read.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden[:, 1:] * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return torch.cat([anchor, mean, self.projected(gene_ids, values * read).to(mean.dtype)], dim=-1)

    def projected(self, gene_ids: Tensor, values: Tensor) -> Tensor:
        """Sum of the genes' vectors, each times its value, ``[B, hidden]``; tokens of value 0 do not count."""
        vectors = self.gene_vectors.weight
        return F.embedding_bag(gene_ids, vectors, per_sample_weights=values.to(vectors), mode="sum")

    def from_pooled(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Latent of what `pooled` returned: ``mu, logvar``."""
        if self.reads_tokens:
            state = (state - self.center) * self.scale
        return self.mu(state), self.logvar(state).clamp(-10.0, 4.0)


class LatentMLP(nn.Module):
    """Latent ``[B, latent]`` to ``[B, outputs]`` through one hidden layer."""

    def __init__(self, config: ScDiVaConfig, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.latent_dim, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, outputs)

    def forward(self, latent: Tensor) -> Tensor:
        """Return logits or expression, unnormalised."""
        return self.out(F.gelu(self.dense(latent)))


class PerturbationHead(nn.Module):
    """A learned [PERT] vector added to the anchor, and a value regressor for perturbed cells."""

    def __init__(self, config: ScDiVaConfig) -> None:
        super().__init__()
        self.pert = nn.Parameter(torch.zeros(config.hidden_size))
        self.regressor = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.Linear(config.hidden_size, 1)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Predicted change of each gene token's log1p value: ``[B, L, hidden]`` to ``[B, L]``."""
        return self.regressor(tokens).squeeze(-1)


class _ReverseGradient(torch.autograd.Function):
    """Identity forward, gradient times ``-strength`` backward (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


class BatchDiscriminator(nn.Module):
    """Guesses the batch from the latent; its reversed gradient teaches the encoder to hide it."""

    def __init__(self, config: ScDiVaConfig) -> None:
        super().__init__()
        self.classifier = LatentMLP(config, config.num_batches)

    def forward(self, latent: Tensor, strength: float) -> Tensor:
        """Batch logits ``[B, num_batches]``; ``strength`` scales the reversed gradient."""
        return self.classifier(_ReverseGradient.apply(latent, strength))


def build_heads(config: ScDiVaConfig) -> nn.ModuleDict:
    """Make the heads that ``config.heads`` names."""
    makers = {
        "latent": lambda: LatentHead(config),
        "annotation": lambda: LatentMLP(config, config.num_cell_types),
        "batch_integration": lambda: LatentMLP(config, config.vocab_size),
        "perturbation": lambda: PerturbationHead(config),
        "batch_discriminator": lambda: BatchDiscriminator(config),
    }
    return nn.ModuleDict({name: makers[name]() for name in config.heads})
