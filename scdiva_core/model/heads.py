"""Optional heads of this project, one class each; a published checkpoint carries none of them.

Widths are our choice: the paper names the heads but prints no sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scdiva_core.model.config import ScDiVaConfig


class LatentHead(nn.Module):
    """Anchor state ``[B, hidden]`` to a Gaussian latent: ``mu`` and ``logvar``, each ``[B, latent]``."""

    def __init__(self, config: ScDiVaConfig) -> None:
        super().__init__()
        self.mu = nn.Linear(config.hidden_size, config.latent_dim)
        self.logvar = nn.Linear(config.hidden_size, config.latent_dim)
        self.reset()

    def reset(self) -> None:
        """Start with little noise (std 0.05): at unit noise the decoder learns the mean cell and no more."""
        nn.init.zeros_(self.logvar.weight)
        nn.init.constant_(self.logvar.bias, -6.0)

    def forward(self, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``mu, logvar``; log-variances are clamped to [-10, 4] so that exp stays finite."""
        return self.mu(anchor), self.logvar(anchor).clamp(-10.0, 4.0)


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
        """Predicted log1p value of each gene token: ``[B, L, hidden]`` to ``[B, L]``."""
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
