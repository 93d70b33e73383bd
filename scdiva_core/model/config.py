"""Sizes and reserved ids of one ScDiVa network, saved as ``config.json`` beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from scdiva_core.errors import CheckpointError

LatentPooling = Literal["anchor", "anchor+tokens"]

HEADS = ("latent", "annotation", "batch_integration", "perturbation", "batch_discriminator")

MAX_GENES = 65_536
"""Longest row that any checkpoint may ask for; no genome has so many genes."""

# Spellings found in the authors' two public architecture files, mapped to ours.
_PUBLISHED_NAMES = {
    "VOCAB_SIZE": "vocab_size",
    "num_genes": "vocab_size",
    "HIDDEN_DIM": "hidden_size",
    "N_LAYERS": "num_layers",
    "num_hidden_layers": "num_layers",
    "N_HEADS": "num_heads",
    "num_attention_heads": "num_heads",
    "D_HID": "intermediate_size",
    "DROPOUT": "dropout",
    "hidden_dropout_prob": "dropout",
    "MAX_GENE_LEN": "max_genes",
    "max_position_embeddings": "max_genes",
    "ROPE_THETA": "rope_theta",
    "PAD_TOKEN_ID": "pad_id",
    "MASK_TOKEN_ID": "mask_id",
    "PAD_FILL_GENE_ID": "pad_fill_id",
    "BOS_GENE_ID": "bos_id",
    "EOS_GENE_ID": "eos_id",
}


@dataclass(frozen=True)
class ScDiVaConfig:
    """Architecture of a ScDiVa network; the defaults are the published model.

    Parameters
    ----------
    vocab_size
        Number of token ids, reserved ones included.
    hidden_size, num_layers, num_heads, intermediate_size
        Width, depth, attention heads and SwiGLU width of the denoiser.
    value_head_size
        Hidden width of the value head; 512 whatever the network's width (published file).
    dropout
        Dropout rate on attention and residual branches, in training only.
    max_genes
        Longest gene sequence of a cell, without the anchor.
    rope_theta, norm_eps
        Base of the rotary embedding and epsilon of every RMSNorm.
    pad_id, mask_id, pad_fill_id, bos_id, eos_id
        Reserved token ids. Padding ids are never attended to; no reserved id is ever masked.
    heads
        Optional modules of this project, a subset of `HEADS`; empty for a published checkpoint.
    latent_dim, num_cell_types, num_batches
        Output sizes of the optional heads (128 and 100 are the model card's).
    latent_pooling
        What the latent head reads: the anchor's state, or beside it the gene tokens' mean state and the cell's
        projected expression (ours: at small widths the anchor alone loses what tells close types apart).
    """

    vocab_size: int = 41818
    hidden_size: int = 512
    num_layers: int = 12
    num_heads: int = 8
    intermediate_size: int = 2048
    value_head_size: int = 512
    dropout: float = 0.1
    max_genes: int = 1200
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    pad_id: int = 0
    mask_id: int = 1
    pad_fill_id: int = 41815
    bos_id: int = 41816
    eos_id: int = 41817
    heads: tuple[str, ...] = ("latent", "annotation", "batch_integration")
    latent_dim: int = 128
    latent_pooling: LatentPooling = "anchor"
    num_cell_types: int = 100
    num_batches: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "max_genes",
        ):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                msg = f"config: {name} must be a positive whole number, found {getattr(self, name)!r}."
                raise CheckpointError(msg)
        if self.max_genes > MAX_GENES:
            msg = f"config: max_genes is {self.max_genes:,}."
            raise CheckpointError(msg, f"At most {MAX_GENES:,} genes of a cell can be read.")
        for name in ("pad_id", "mask_id", "pad_fill_id", "bos_id", "eos_id"):
            if not isinstance(getattr(self, name), int) or not 0 <= getattr(self, name) < self.vocab_size:
                msg = f"config: {name} is {getattr(self, name)!r}, but there are {self.vocab_size:,} token ids."
                raise CheckpointError(msg, "Give the checkpoint's reserved ids in config.json.")
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            msg = f"config: {self.hidden_size} hidden units do not split into {self.num_heads} heads of even width."
            raise CheckpointError(msg, "Choose a hidden_size that is an even multiple of num_heads.")
        unknown = [head for head in self.heads if head not in HEADS]
        if unknown:
            msg = f"config: unknown heads {unknown}."
            raise CheckpointError(msg, f"Known heads: {', '.join(HEADS)}.")
        if self.latent_pooling not in get_args(LatentPooling):
            msg = f"config: latent_pooling is {self.latent_pooling!r}."
            raise CheckpointError(msg, f"Choose one of: {', '.join(get_args(LatentPooling))}.")
        needs_latent = {"annotation", "batch_integration", "batch_discriminator"} & set(self.heads)
        if needs_latent and "latent" not in self.heads:
            msg = f"config: heads {sorted(needs_latent)} read the latent, but the latent head is missing."
            raise CheckpointError(msg, "Add 'latent' to heads.")

    @property
    def reserved_ids(self) -> tuple[int, ...]:
        """Token ids that stand for no gene."""
        return (self.pad_id, self.mask_id, self.pad_fill_id, self.bos_id, self.eos_id)

    @property
    def padding_ids(self) -> tuple[int, int]:
        """Token ids that are never attended to."""
        return (self.pad_id, self.pad_fill_id)

    def to_file(self, path: Path) -> None:
        """Write the configuration as JSON."""
        path.write_text(json.dumps({"model_type": "scdiva", **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ScDiVaConfig:
        """Build from a JSON object in our spelling or either published one; other keys are ignored.

        Raises
        ------
        CheckpointError
            A value is out of range or of the wrong kind.
        """
        named = {_PUBLISHED_NAMES.get(key, key): value for key, value in values.items()}
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{key: value for key, value in named.items() if key in known})
        except TypeError as error:
            msg = f"config.json holds a value of the wrong kind: {error}."
            raise CheckpointError(msg) from error
