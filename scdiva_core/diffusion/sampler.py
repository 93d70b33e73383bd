"""Reverse process: fill masked positions over a few steps, the surest first.

The paper prints no sampler that we know of; confidence-ordered unmasking follows LLaDA (arXiv 2502.09992,
low-confidence remasking) and is our choice, as is the rule that a cell holds a gene at most once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.errors import DataError
from scdiva_core.model.network import AnchorSource, ScDiVaModel


@torch.inference_mode()
def sample(
    model: ScDiVaModel,
    batch: TokenBatch,
    mask: Tensor,
    *,
    steps: int = 8,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    anchor_from: AnchorSource = "visible",
) -> TokenBatch:
    """Rebuild the masked tokens of a batch.

    Parameters
    ----------
    model
        In evaluation mode.
    batch
        Token rows on the model's device; what stands at masked positions is not read with
        ``anchor_from="visible"``.
    mask
        bool ``[B, L]`` positions to rebuild.
    steps
        Forward passes over which they are committed, in equal shares; a few more where two positions claim
        one gene.
    temperature
        0 takes the most probable gene; above 0, Gumbel noise of this scale is added to the logits.
    generator
        Required when ``temperature`` is above 0; on the model's device.
    anchor_from
        ``"visible"`` (default) or the published ``"clean"``, through which the hidden tokens leak.

    Returns
    -------
    TokenBatch
        The batch with genes and values at the masked positions replaced; no gene occurs twice in a row
        because of the sampler.

    Raises
    ------
    DataError
        ``steps`` is below 1, or a temperature comes without a generator.
    """
    if steps < 1:
        msg = f"steps is {steps}."
        raise DataError(msg, "Choose at least 1.")
    if temperature > 0 and generator is None:
        msg = f"Sampling at temperature {temperature} needs a generator."
        raise DataError(msg, "Pass torch.Generator().manual_seed(...), so that the result can be repeated.")
    ids, values, masked = batch.gene_ids.clone(), batch.values.clone(), mask.clone()
    total = masked.sum(dim=1)
    step = 0
    while bool(masked.any()):
        step += 1
        left = torch.ceil(total * max(1 - step / steps, 0.0)).long()  # still masked after this step
        output = model(ids, values, mask=masked, anchor_from=anchor_from)
        confidence, genes = _propose(model, output.tokens, ids, masked, temperature, generator)
        commit = _surest(confidence, genes, masked, masked.sum(dim=1) - left)
        ids = torch.where(commit, genes, ids)
        values = torch.where(commit, model.gene_values(output.tokens).float(), values)
        masked &= ~commit
    return TokenBatch(ids, values, batch.lengths)


def _propose(
    model: ScDiVaModel,
    tokens: Tensor,
    ids: Tensor,
    masked: Tensor,
    temperature: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Probability and id of the best gene that the row does not hold yet, ``[B, L]`` each."""
    blocked = torch.zeros(ids.shape[0], model.config.vocab_size, dtype=torch.bool, device=ids.device)
    blocked.scatter_(1, torch.where(masked, model.config.pad_id, ids), value=True)
    blocked[:, list(model.config.reserved_ids)] = True
    # Logits at the masked positions alone: over all of a long row they would not fit in memory.
    logits = model.gene_logits(tokens[masked]).float()
    logits = logits.masked_fill(blocked[masked.nonzero()[:, 0]], float("-inf"))
    noisy = logits
    if temperature > 0:
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device).clamp(min=1e-9)
        noisy = logits - temperature * torch.log(-torch.log(uniform))
    best = noisy.argmax(dim=-1, keepdim=True)
    genes, confidence = ids.clone(), torch.full(ids.shape, -1.0, device=ids.device)
    genes[masked] = best.squeeze(-1)
    confidence[masked] = logits.softmax(dim=-1).gather(-1, best).squeeze(-1)
    return confidence, genes


def _surest(confidence: Tensor, genes: Tensor, masked: Tensor, wanted: Tensor) -> Tensor:
    """Choose up to ``wanted`` masked positions of each row, the surest first, one for each gene."""
    order = confidence.argsort(dim=1, descending=True, stable=True)
    ordered = genes.gather(1, order)
    # A position repeats a surer one's gene if, sorted by gene with ties in order of confidence, it follows its like.
    by_gene, index = torch.where(masked.gather(1, order), ordered, -1).sort(dim=1, stable=True)
    repeated = torch.zeros_like(masked)
    repeated[:, 1:] = by_gene[:, 1:] == by_gene[:, :-1]
    allowed = masked.gather(1, order) & ~torch.zeros_like(masked).scatter(1, index, repeated)
    chosen = allowed & (allowed.cumsum(dim=1) <= wanted[:, None])
    return torch.zeros_like(masked).scatter(1, order, chosen)
