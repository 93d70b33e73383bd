"""The published ScDiVa denoiser, tensor for tensor, and the optional heads around it.

What is unusual here, all of it from the authors' architecture file (golden values in the tests):

* a token is gene embedding + value embedding; values are raw scalars through a small MLP, not bins;
* gene and value share one mask, replaced by two learned vectors;
* the sequence begins with the [LAT] anchor, an MLP of the mean token, computed from *clean* tokens, so
  that masked content reaches the denoiser through it; ``anchor_from="visible"`` (ours) shuts that path;
* rotary positions are ranks in the serialised order, 0 for the anchor; there is no time embedding;
* the identity head is not tied to the gene embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.heads import build_heads
from scdiva_core.model.layers import AnchorEncoder, Block, RMSNorm, RotaryTable

if TYPE_CHECKING:
    from scdiva_core.data.vocabulary import GeneVocabulary


@dataclass(frozen=True)
class CellLabels:
    """Meaning of an annotation head's outputs, in their order.

    Attributes
    ----------
    ids, names
        Cell Ontology id and name of each output.
    temperature
        Divide logits by it before the softmax; fitted on held-out cells.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    temperature: float = 1.0


AnchorSource = Literal["clean", "visible"]
OnAttention = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class DenoiserOutput:
    """Hidden states of one forward pass.

    Attributes
    ----------
    hidden
        float ``[B, 1 + L, hidden]`` after the final norm; position 0 is the anchor.
    anchor
        float ``[B, hidden]`` the anchor before the first layer.
    """

    hidden: Tensor
    anchor: Tensor

    @property
    def cells(self) -> Tensor:
        """Anchor state of each cell, ``[B, hidden]``."""
        return self.hidden[:, 0]

    @property
    def tokens(self) -> Tensor:
        """State of each gene token, ``[B, L, hidden]``."""
        return self.hidden[:, 1:]


class ScDiVaModel(nn.Module):
    """ScDiVa denoiser with the heads that its configuration names; weights are random until loaded.

    Parameters
    ----------
    config
        Architecture. Use `from_pretrained` for trained weights.

    Attributes
    ----------
    vocabulary
        Gene vocabulary of the checkpoint; None for a network made from a configuration alone.
    tokenizer
        Serialises dense rows; plain expression sorting until a checkpoint brings its entropies.
    sha256
        Digest of the weights file; None while the weights are random.
    card_text
        The README.md beside the weights; empty where there is none.
    labels
        What the annotation head's outputs mean; None where the checkpoint does not say.
    compiled
        Whether `compile_layers` was called.
    """

    def __init__(self, config: ScDiVaConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary: GeneVocabulary | None = None
        self.tokenizer = Tokenizer.unweighted(config.vocab_size, config.max_genes)
        self.has_entropy = False
        self.sha256: str | None = None
        self.card: dict[str, Any] = {}
        self.card_text = ""
        self.labels: CellLabels | None = None
        self.compiled = False
        width = config.hidden_size
        self.gene_mask_emb = nn.Parameter(torch.zeros(width))
        self.value_mask_emb = nn.Parameter(torch.zeros(width))
        self.gene_embedding = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_id)
        self.value_encoder = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width))
        self.input_proj = nn.Linear(width, width, bias=False)
        self.latent_encoder = AnchorEncoder(width)
        self.layers = nn.ModuleList(
            Block(width, config.num_heads, config.intermediate_size, config.dropout, config.norm_eps)
            for _ in range(config.num_layers)
        )
        self.final_norm = RMSNorm(width, config.norm_eps)
        self.gene_head = nn.Linear(width, config.vocab_size, bias=False)
        self.value_head = nn.Sequential(
            nn.Linear(width, config.value_head_size), nn.ReLU(), nn.Linear(config.value_head_size, 1)
        )
        self.rotary = rotary_table(config)
        self.heads = build_heads(config)
        self.apply(initialise_weights)
        if "latent" in self.heads:
            self.heads["latent"].reset()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.gene_embedding.weight.device

    def count_parameters(self, *, heads: bool = False) -> int:
        """Count the denoiser's parameters, or all of them with ``heads=True``."""
        return sum(p.numel() for name, p in self.named_parameters() if heads or not name.startswith("heads."))

    def compile_layers(self) -> None:
        """Have torch compile the layers at their first use, once for rows of any number and length.

        For very many cells: it takes up to a minute, and changes results by rounding. On two CPU cores it gained 2 to
        7 % at the published size and nothing at a small one (``make bench``); on a GPU it has not been timed. Needs a
        C++ compiler and, on CUDA, Triton.
        """
        for layer in self.layers:
            layer.compile(dynamic=True)
        self.compiled = True

    def forward(
        self,
        gene_ids: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None = None,
        anchor_from: AnchorSource = "clean",
        perturbed: Tensor | None = None,
        on_attention: OnAttention | None = None,
    ) -> DenoiserOutput:
        """Denoise token rows.

        Parameters
        ----------
        gene_ids
            int64 ``[B, L]``, L at most ``max_genes``; padding ids are not attended to.
        values
            float32 ``[B, L]`` log1p expression.
        mask
            bool ``[B, L]``, True where gene and value are replaced by the mask vectors.
        anchor_from
            ``"clean"`` pools all tokens as published, ``"visible"`` only those not masked.
        perturbed
            bool ``[B]``, True where the [PERT] vector is added to the anchor (perturbation head).
        on_attention
            Called with each layer's index and weights ``[B, heads, 1 + L, 1 + L]``; the fused attention
            kernel is used whenever this is None.

        Raises
        ------
        DataError
            Rows are longer than ``max_genes``.
        """
        if gene_ids.shape[1] > self.config.max_genes:
            msg = f"Rows of {gene_ids.shape[1]} genes, but this model takes at most {self.config.max_genes}."
            raise DataError(msg, "Serialise the cells with this model's tokenizer.")
        real = self.is_gene(gene_ids)
        gene = self.gene_embedding(gene_ids)
        value = self.value_encoder(values.unsqueeze(-1).to(gene.dtype))
        tokens = gene + value
        pooled = real if mask is None or anchor_from == "clean" else real & ~mask
        anchor = self.latent_encoder(tokens, pooled)
        if perturbed is not None:
            anchor = anchor + self._head("perturbation").pert * perturbed.unsqueeze(-1).to(anchor.dtype)
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(-1), self.gene_mask_emb + self.value_mask_emb, tokens)
        # The residual stream keeps the weights' precision under autocast; only the branches are rounded.
        x = torch.cat([anchor.unsqueeze(1), self.input_proj(tokens)], dim=1).to(self.gene_mask_emb.dtype)
        key_mask = None
        if not bool(real.all()):
            key_mask = nn.functional.pad(real, (1, 0), value=True)[:, None, None]
        rotary = self.rotary(x.shape[1])
        for index, layer in enumerate(self.layers):
            on_weights = None if on_attention is None else partial(on_attention, index)
            x = layer(x, rotary, key_mask, on_weights)
        return DenoiserOutput(self.final_norm(x), anchor)

    def is_gene(self, gene_ids: Tensor) -> Tensor:
        """Where token ids are not padding: bool of their shape."""
        return (gene_ids != self.config.pad_id) & (gene_ids != self.config.pad_fill_id)

    def gene_logits(self, tokens: Tensor) -> Tensor:
        """Identity logits ``[..., vocab_size]`` of token states ``[..., hidden]``."""
        return self.gene_head(tokens)

    def gene_values(self, tokens: Tensor) -> Tensor:
        """Predicted log1p value of token states ``[..., hidden]``."""
        return self.value_head(tokens).squeeze(-1)

    def tokenize(self, x: Tensor | TokenBatch) -> TokenBatch:
        """Serialise the model card's dense ``[B, vocab_size]`` rows; a `TokenBatch` passes through.

        Raises
        ------
        DataError
            The dense matrix has another width than the vocabulary, or values that are not finite.
        """
        if isinstance(x, TokenBatch):
            return x
        if x.ndim != 2 or x.shape[1] != self.config.vocab_size:
            msg = f"Expected a [cells, {self.config.vocab_size}] matrix, found {list(x.shape)}."
            raise DataError(msg, "Put each gene in the column of its vocabulary id, or pass a TokenBatch.")
        if not bool(torch.isfinite(x).all()):
            msg = f"{int((~torch.isfinite(x)).sum()):,} values are NaN or infinite."
            raise DataError(msg, "Replace them before encoding.")
        rows = self.tokenizer.serialize_dense(x.detach().float().cpu().numpy(), self.config.reserved_ids)
        return rows.batch(slice(None), pad_id=self.config.pad_id)

    def encode(self, x: Tensor | TokenBatch, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Embed cells from dense rows ``[B, vocab_size]`` or a `TokenBatch`.

        Parameters
        ----------
        x
            Cells.
        mask
            bool ``[B, L]`` over the tokens of a `TokenBatch`: True where a token keeps its place, but gene and value
            are hidden. The anchor is then pooled from the others, and the latent reads neither state nor value there.

        Returns
        -------
        dict
            ``latent``, ``mu``, ``logvar``, each ``[B, latent_dim]``; ``latent`` equals ``mu``, without
            noise. A checkpoint without the latent head gives the anchor state ``[B, hidden]`` as both, and
            zeros as ``logvar``, as the authors' later file does.
        """
        batch = self.tokenize(x).to(self.device)
        read = self.is_gene(batch.gene_ids)
        if mask is not None:
            mask = mask.to(self.device)
            read = read & ~mask
        output = self(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
        if "latent" not in self.heads:
            return {"latent": output.cells, "mu": output.cells, "logvar": torch.zeros_like(output.cells)}
        mu, logvar = self.heads["latent"](output.hidden, batch.gene_ids, batch.values, read)
        return {"latent": mu, "mu": mu, "logvar": logvar}

    def predict(self, x: Tensor | TokenBatch, task: str = "annotation") -> Tensor:
        """Run a task head on the latent.

        Parameters
        ----------
        x
            Dense rows or a `TokenBatch`.
        task
            ``"annotation"``: logits ``[B, num_cell_types]``; ``"batch_integration"``: expression
            ``[B, vocab_size]``.

        Raises
        ------
        CheckpointError
            The checkpoint has no such head.
        """
        if task not in ("annotation", "batch_integration"):
            msg = f"Unknown task {task!r}."
            raise CheckpointError(msg, "Choose 'annotation' or 'batch_integration'.")
        head = self._head(task)
        return head(self.encode(x)["latent"])

    def _head(self, name: str) -> nn.Module:
        if name not in self.heads:
            msg = f"This checkpoint has no {name} head (it has: {', '.join(self.heads) or 'none'})."
            raise CheckpointError(msg, "Fine-tune it for this task, or open another checkpoint.")
        return self.heads[name]

    @classmethod
    def from_pretrained(cls, source: str | Path) -> ScDiVaModel:
        """Load a checkpoint; see `scdiva_core.model.checkpoint.load_pretrained`."""
        from scdiva_core.model.checkpoint import load_pretrained

        return load_pretrained(source)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a checkpoint; see `scdiva_core.model.checkpoint.save_pretrained`."""
        from scdiva_core.model.checkpoint import save_pretrained

        save_pretrained(self, directory)


def rotary_table(config: ScDiVaConfig) -> RotaryTable:
    """Positions of the anchor and of the longest row that a network of this configuration takes."""
    return RotaryTable(config.hidden_size // config.num_heads, config.max_genes + 1, config.rope_theta)


def initialise_weights(module: nn.Module) -> None:
    """Draw normal weights, std 1 / sqrt(inputs) for linear maps and 0.02 for embeddings; padding stays zero.

    Our choice: at small widths the usual 0.02 everywhere leaves the anchor almost silent for thousands of cells.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
