"""The heads' last lesson: many passes over cells whose network states were computed once.

Our choice: the layers cost a thousand times what the heads do, so that the heads, and the gene vectors that the latent
head projects expression on, can be trained to the end in minutes while the layers rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from scdiva_core.data.corpus import CellDraws, Corpus
from scdiva_core.model.heads import LatentMLP
from scdiva_core.model.network import ScDiVaModel, initialise_weights
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.initial import start_from_mean_cell
from scdiva_core.training.losses import LatentObjective
from scdiva_core.training.settings import PretrainSettings
from scdiva_core.training.states import pooled_states, standardise

BATCH_SIZE = 512
"""Cells of a step."""

GENE_RATE = 0.05
"""Learning rate of the latent's gene vectors, as a share of the heads'."""


def finish_heads(
    model: ScDiVaModel,
    corpus: Corpus,
    objective: LatentObjective,
    settings: PretrainSettings,
    augmentation: Augmentation,
    *,
    autocast: torch.autocast,
    report: Callable[[dict[str, Any]], None],
) -> bool:
    """Train latent, annotation and decoder anew on the states of a trained network, in place.

    Parameters
    ----------
    model
        Its layers stay as they are. Nothing is done when its latent head does not read tokens.
    corpus
        Training cells are drawn from it as for training batches.
    objective
        What the latent is scored by; its offsets are trained too.
    settings
        ``finish_cells``, ``finish_steps`` and ``finish_learning_rate``, and the weights of the terms.
    augmentation
        Changes a share of the cells.
    autocast
        Precision of the layers.
    report
        Called with records of the log.

    Returns
    -------
    bool
        Whether anything was trained.
    """
    head = model.heads["latent"] if "latent" in model.heads else None
    if head is None or not head.reads_tokens or settings.finish_steps == 0:
        return False
    device = model.device
    cells = CellDraws(corpus, settings.finish_cells, settings.seed + 1, settings.balance).batch(0)
    rng = np.random.default_rng([settings.seed, 1])
    with autocast:
        states = pooled_states(model, corpus, cells, rng, augmentation)
    standardise(head, states.pooled)
    around = states.pooled[:, : -model.config.hidden_size]
    trained = _fresh_modules(model, corpus, settings.seed)
    optimizer, schedule = _optimizer([*trained, objective], head.gene_vectors.weight, settings)
    model.train()
    for step in range(settings.finish_steps):
        chosen = rng.integers(0, len(cells), BATCH_SIZE)
        rows = corpus.take(cells[chosen])
        projected = head.projected(states.tokens.gene_ids[chosen].to(device), states.tokens.values[chosen].to(device))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(settings.seed * 1_000_003 + step)
            losses = objective(
                model,
                *head.from_pooled(torch.cat([around[chosen].to(device), projected], dim=1)),
                expression=rows.sparse(rows.log1p(), len(corpus.vocabulary)).to(device).to_dense(),
                labels=torch.from_numpy(corpus.labels[cells[chosen]].astype(np.int64)).to(device),
                batch_of=torch.from_numpy(corpus.batch_of[cells[chosen]].astype(np.int64)).to(device),
                importance=torch.ones(len(chosen), device=device),
            )
        total = settings.expression_weight * losses.expression + settings.annotation_weight * losses.annotation
        total = total + settings.kl_weight * losses.divergence + settings.alignment_weight * losses.alignment
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0 or step + 1 == settings.finish_steps:
            scores = {"expression": losses.expression, "annotation": losses.annotation, "kl": losses.divergence}
            scores["alignment"] = losses.alignment
            report({f"finish_{name}": loss.item() for name, loss in scores.items()} | {"finish_step": step + 1})
    model.eval()
    return True


def _optimizer(
    modules: list[nn.Module], gene_vectors: nn.Parameter, settings: PretrainSettings
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with one rise and fall of the rate; gene vectors, which start from components, move more slowly."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    rates = [settings.finish_learning_rate, settings.finish_learning_rate * GENE_RATE]
    groups = [{"params": parameters, "lr": rates[0]}, {"params": [gene_vectors.requires_grad_()], "lr": rates[1]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    # A rise of a single step would make the schedule divide by zero.
    rise = min(max(0.1, 1.5 / settings.finish_steps), 0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=settings.finish_steps, pct_start=rise)
    return optimizer, schedule


def _fresh_modules(model: ScDiVaModel, corpus: Corpus, seed: int) -> list[nn.Module]:
    """Draw the heads' weights anew; the decoder says the mean cell again, gene vectors go on from where they are."""
    head = model.heads["latent"]
    others = [module for module in model.heads.values() if isinstance(module, LatentMLP)]
    fresh = [head.mu, head.logvar, *others]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh:
            module.apply(initialise_weights)
    head.reset()
    if "batch_integration" in model.heads:
        start_from_mean_cell(model.heads["batch_integration"], corpus)
    return fresh
