"""Building blocks of the denoiser: RMSNorm, SwiGLU, rotary attention, pre-norm block, anchor encoder.

Source: the authors' published architecture file. Module names are those of its state dict.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CPU_ROWS = 512


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned gain, over the last dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x [..., width]``."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward network without biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x [..., width]`` to the same shape."""
        gate = self.gate_proj(x)
        gate = F.silu(gate) if torch.is_grad_enabled() else F.silu(gate, inplace=True)
        return self.down_proj(gate * self.up_proj(x))


class RotaryTable(nn.Module):
    """Cosines and sines of the rotary embedding; position 0 is the anchor, i the gene of rank i."""

    def __init__(self, head_width: int, positions: int, theta: float) -> None:
        super().__init__()
        inverse = theta ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), inverse).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each ``[length, 1, head_width]``."""
        return self.cos[:length, None], self.sin[:length, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding, halves rotated, to ``x [B, L, heads, head_width]``."""
    cos, sin, half = cos.to(x.dtype), sin.to(x.dtype), x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    if torch.is_grad_enabled():
        return x * cos + torch.cat([-high, low], dim=-1) * sin
    out = x * cos
    out[..., :half].addcmul_(high, sin[..., :half], value=-1)
    out[..., half:].addcmul_(low, sin[..., half:])
    return out


class Attention(nn.Module):
    """Bidirectional multi-head attention with rotary positions and no biases."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        key_mask: Tensor | None,
        on_weights: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Attend over ``x [B, L, width]``.

        Parameters
        ----------
        x
            Normalised hidden states.
        rotary
            Output of `RotaryTable`.
        key_mask
            Bool ``[B, 1, 1, L]``, True where a key may be attended to; None when all may.
        on_weights
            Called with the weights ``[B, heads, L, L]``; only then are they formed at all.
        """
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q = rotate(self.q_proj(x).view(shape), *rotary).transpose(1, 2)
        k = rotate(self.k_proj(x).view(shape), *rotary).transpose(1, 2)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if on_weights is None:
            dropout = self.dropout if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask, dropout_p=dropout)
        else:
            scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5
            if key_mask is not None:
                scores = scores.masked_fill(~key_mask, torch.finfo(scores.dtype).min)
            weights = scores.softmax(dim=-1)
            on_weights(weights)
            out = weights @ v
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm transformer layer: attention, then SwiGLU, each with a residual branch."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width, eps)
        self.attn = Attention(width, heads, dropout)
        self.norm2 = RMSNorm(width, eps)
        self.mlp = SwiGLU(width, inner)
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        key_mask: Tensor | None,
        on_weights: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Map ``x [B, L, width]`` to the same shape; arguments as in `Attention`."""
        x = x + self.drop(self.attn(self.norm1(x), rotary, key_mask, on_weights))
        # The compiler would make code anew for each number of slices.
        whole = x.device.type != "cpu" or torch.compiler.is_compiling()
        if whole or self.training or torch.is_grad_enabled():
            return x + self.drop(self.mlp(self.norm2(x)))
        # The wide intermediate of a slice stays in cache; whole, it costs a quarter of the layer's time.
        for piece in x.flatten(0, -2).split(_CPU_ROWS):
            piece += self.mlp(self.norm2(piece))
        return x


class AnchorEncoder(nn.Module):
    """The [LAT] anchor: an MLP of the mean token embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """Pool ``tokens [B, L, width]`` where ``pooled [B, L]`` is True (zeros if nowhere) to ``[B, width]``."""
        weight = pooled.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return self.mlp(mean)
