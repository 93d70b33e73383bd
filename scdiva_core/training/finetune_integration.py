"""Fine-tuning on the batches of one file, so that the latent mixes them and keeps types apart.

As published, three losses: reconstruction, a batch discriminator behind a reversed gradient (Ganin 2016) and supervised
contrast (Khosla 2020). Ours is what they teach: the latent head alone, on the states of the frozen network, which are
computed once. Passes through all layers for every step would take hours on a laptop where this takes minutes, and the
denoiser stays as it was, so that knockouts, networks and reconstructions do too. Reconstruction is of variable genes
from the latent, with an offset for each batch, so that the latent need not carry the batch (as in scVI, Lopez 2018).
Only cells whose type is in two batches or more hide their batch: a type of one batch alone has nothing to mix with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.metrics.integration import batch_silhouette, label_silhouette
from scdiva_core.model.heads import BatchDiscriminator
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_cells import IsCancelled, Progress, tokenizer_of
from scdiva_core.training.finetune_result import Stop
from scdiva_core.training.genes import LEAST_DEVIATION
from scdiva_core.training.integration_cells import IntegrationCells, TaughtBy, pooled_states, read_integration
from scdiva_core.training.integration_result import IntegrationTuned, integration_card
from scdiva_core.training.integration_settings import IntegrationSettings

BIO_WEIGHT = 0.6
"""Weight of types held together in the score that chooses the weights; the rest is batches mixed (Luecken 2022)."""

READING_SHARE = 0.8
"""Share of the budget that the frozen network may take; where it takes more, nothing would be learned."""

_RAMP = 10.0  # how steeply the adversary's weight rises (Ganin 2016)
_FIRST_GUESS = 5.0  # seconds, after which the speed tells how long reading will take

Report = Callable[[dict[str, Any]], None]


def finetune_integration(
    model: ScDiVaModel,
    dataset: H5adDataset,
    batches: ArrayLike,
    groups: ArrayLike,
    *,
    taught_by: TaughtBy = "labels",
    settings: IntegrationSettings = IntegrationSettings(),  # noqa: B008 - frozen
    progress: Progress = lambda *_: None,
    cancelled: IsCancelled = lambda: False,
    report: Report = lambda _: None,
) -> IntegrationTuned:
    """Teach the latent of a copy of a network to mix the batches of a file.

    Parameters
    ----------
    model
        In evaluation mode, on its device; not changed.
    dataset
        The open file, over the model's vocabulary.
    batches
        ``[n_obs]`` batch of each cell; cells without one are left out.
    groups
        ``[n_obs]`` what is drawn together: cell types, or clusters that stand in for them (see
        `scdiva_core.engine_integration.stand_ins`); missing or blank is of no group.
    taught_by
        Which of the two, for what is said of the result.
    settings
        How.
    progress
        Called with units done, units in all, and what is going on.
    cancelled
        Asked once a batch. True ends the work; the best weights so far are kept.
    report
        Called with each record of the curve.

    Returns
    -------
    IntegrationTuned
        One seed gives one result on one machine and device, unless time ends it.

    Raises
    ------
    DataError
        There is nothing to integrate, or the budget does not suffice to read the cells.
    Cancelled
        The user stopped before there was anything to keep.
    """
    began = time.monotonic()
    tokenizer = tokenizer_of(model, dataset)
    cells = read_integration(
        dataset,
        tokenizer,
        batches,
        groups,
        taught_by=taught_by,
        most=settings.most_cells,
        seed=settings.seed,
        progress=progress,
        cancelled=cancelled,
    )
    run = _Run(_copy(model, tokenizer, settings.seed), cells, settings, began)
    run.progress, run.cancelled, run.report = progress, cancelled, report
    run.start(model)
    stopped = run.train()
    run.restore()
    done = IntegrationTuned(
        run.model,
        tuple(run.curve),
        run.best_round,
        cells.taught_by,
        len(cells.group_names),
        cells.batch_names,
        len(cells.rows),
        cells.places[cells.validation],
        stopped,
    )
    done.model.card = integration_card(done, model, dataset, settings=settings.to_dict(), steps=run.steps)
    return done


def contrastive_loss(latents: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Supervised contrast (Khosla 2020, their L_out): cells of a group are nearer to each other than to the rest.

    Parameters
    ----------
    latents
        ``[B, d]``; only their directions count.
    groups
        int64 ``[B]``; cells of -1 are nobody's mates.
    temperature
        The lower, the more the nearest strangers count.

    Returns
    -------
    Tensor
        Mean over cells with a mate, in nats; 0 where no cell has one.
    """
    directions = F.normalize(latents, dim=1)
    itself = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    likeness = (directions @ directions.T / temperature).masked_fill(itself, float("-inf"))
    log_share = (likeness - likeness.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
    mates = (groups[:, None] == groups[None]) & (groups >= 0)[:, None] & ~itself
    counts = mates.sum(dim=1)
    if not bool((counts > 0).any()):
        return latents.sum() * 0.0
    return -((log_share * mates).sum(dim=1)[counts > 0] / counts[counts > 0]).mean()


def _copy(model: ScDiVaModel, tokenizer: Tokenizer, seed: int) -> ScDiVaModel:
    """Same weights with the latent head alone: what else reads the latent would not know the new one."""
    changes = {} if "latent" in model.heads else {"latent_pooling": "anchor"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = ScDiVaModel(replace(model.config, heads=("latent",), **changes))
    copy.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if name in copy.state_dict()}, strict=False
    )
    copy.vocabulary, copy.tokenizer, copy.has_entropy = model.vocabulary, tokenizer, True
    return copy.to(model.device).eval()


class _Decoder(nn.Module):
    """Latent to the variable genes, with an offset for each batch; serves in training only."""

    def __init__(self, base: ScDiVaModel, gene_ids: NDArray[np.int64], n_batches: int) -> None:
        super().__init__()
        config = base.config
        self.dense = nn.Linear(config.latent_dim, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, len(gene_ids))
        self.offsets = nn.Embedding.from_pretrained(torch.zeros(n_batches, len(gene_ids)), freeze=False)
        if "batch_integration" in base.heads:  # knows already what a latent means
            head, chosen = base.heads["batch_integration"], torch.from_numpy(gene_ids)
            self.dense.load_state_dict(head.dense.state_dict())
            rows = chosen.to(head.out.weight.device)
            self.out.load_state_dict({"weight": head.out.weight[rows], "bias": head.out.bias[rows]})

    def forward(self, latent: Tensor, batches: Tensor) -> Tensor:
        return self.out(F.gelu(self.dense(latent))) + self.offsets(batches)


class _Run:
    """State of one fine-tuning: the latent head as it is, and the best that it was."""

    progress: Progress
    cancelled: IsCancelled
    report: Report

    def __init__(
        self, model: ScDiVaModel, cells: IntegrationCells, settings: IntegrationSettings, began: float
    ) -> None:
        self.model, self.cells, self.settings, self.began = model, cells, settings, began
        self.deadline = began + 60 * settings.minutes
        self.curve: list[dict[str, Any]] = []
        self.best_round, self.steps, self.reading_since = 0, 0, began
        self.best_weights: dict[str, Tensor] = {}
        self.training = np.flatnonzero(~cells.validation)
        self.judges = np.flatnonzero(cells.validation)

    def start(self, base: ScDiVaModel) -> None:
        """Run the frozen network over all cells, set up what learns, and score the latent as it was: round 0."""
        cells, settings, device = self.cells, self.settings, self.model.device
        self.states = torch.from_numpy(pooled_states(self.model, cells.rows, self._reading)).to(device)
        self.batches = torch.from_numpy(cells.batches).to(device)
        self.groups = torch.from_numpy(cells.groups).to(device)
        self.shared = torch.from_numpy(cells.shared).to(device)
        self.target = torch.from_numpy(cells.expression).to(device)
        weight = 1 / self.target[self.training].std(dim=0).clamp(min=LEAST_DEVIATION) ** 2
        self.gene_weight = weight / (weight * self.target[self.training].var(dim=0)).mean()
        n_batches = len(cells.batch_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.decoder = _Decoder(base, cells.gene_ids, n_batches).to(device)
            self.discriminator = BatchDiscriminator(replace(self.model.config, num_batches=n_batches)).to(device)
        self.head = self.model.heads["latent"]
        self.learning = list(self.head.mu.parameters())
        self.others = [*self.decoder.parameters(), *self.discriminator.parameters()]
        self.optimizer = torch.optim.AdamW(
            [*self.learning, *self.others], settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._score(None)

    def train(self) -> Stop:
        """Take rounds until one of the reasons to stop."""
        rng, settings = np.random.default_rng(self.settings.seed), self.settings
        try:
            for number in range(1, settings.rounds + 1):
                losses = []
                for step in range(settings.round_steps):
                    if time.monotonic() > self.deadline:
                        return "budget"
                    self._watch(f"Fine-tuning, round {number}", step, settings.round_steps)
                    losses.append(self._step(rng))
                self._score(losses)
                if number - self.best_round >= settings.patience:
                    return "patience"
        except Cancelled:
            return "cancelled"
        return "rounds"

    def _step(self, rng: np.random.Generator) -> tuple[float, float, float]:
        settings = self.settings
        share = self.steps / (settings.rounds * settings.round_steps)
        strength = settings.adversary * (2 / (1 + math.exp(-_RAMP * share)) - 1)
        size = min(settings.batch_size, len(self.training))
        rows = torch.from_numpy(rng.choice(self.training, size, replace=False)).to(self.states.device)
        latent, batches = self.head.from_pooled(self.states[rows])[0], self.batches[rows]
        error = (self.decoder(latent, batches) - self.target[rows]).square() * self.gene_weight
        reconstruction = error.mean()
        guessed = F.cross_entropy(self.discriminator(latent, strength), batches, reduction="none")
        shared = self.shared[rows]
        adversary = (guessed * shared).sum() / shared.sum().clamp(min=1)
        contrast = contrastive_loss(latent, self.groups[rows], settings.temperature)
        loss = settings.reconstruction * reconstruction + adversary + settings.contrast * contrast
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.learning, *self.others], settings.clip)
        self.optimizer.step()
        self.steps += 1
        return reconstruction.item(), adversary.item(), contrast.item()

    @torch.no_grad()
    def _score(self, losses: list[tuple[float, float, float]] | None) -> None:
        """Add a record to the curve; keep the weights when none before were as good."""
        latent = self.head.from_pooled(self.states[self.judges])[0].cpu().numpy()
        groups, batches = self.cells.groups[self.judges], self.cells.batches[self.judges]
        types = (label_silhouette(latent, groups) + 1) / 2
        mixed = batch_silhouette(latent, groups, batches)
        means = (None,) * 3 if losses is None else np.mean(losses, axis=0).tolist()
        record = {
            "round": len(self.curve),
            "seconds": round(time.monotonic() - self.began, 1),
            "cells_seen": self.steps * min(self.settings.batch_size, len(self.training)),
            **dict(zip(("reconstruction", "adversary", "contrast"), means, strict=True)),
            "type_asw": types,
            "batch_asw": mixed,
            "score": BIO_WEIGHT * types + (1 - BIO_WEIGHT) * mixed,
        }
        if not self.curve or record["score"] > self.curve[self.best_round]["score"]:
            self.best_round = record["round"]
            self.best_weights = {name: weight.detach().clone() for name, weight in self.head.mu.state_dict().items()}
        self.curve.append(record)
        self.report(record)

    def restore(self) -> None:
        """Go back to the best weights."""
        self.head.mu.load_state_dict(self.best_weights)

    def _reading(self, done: int, total: int) -> None:
        """Watch the frozen network; refuse when it is too slow for the budget."""
        if not done:
            self.reading_since = time.monotonic()
        spent = time.monotonic() - self.reading_since
        guess = self.reading_since - self.began + (spent if spent < _FIRST_GUESS else spent / max(done, 1) * total)
        if done and guess > READING_SHARE * 60 * self.settings.minutes:
            needed = math.ceil(guess / READING_SHARE / 60)
            msg = f"{self.settings.minutes:g} minutes do not suffice to read {total:,} cells."
            raise DataError(msg, f"Give it at least {needed:,} min, or fewer cells.")
        self._watch("Reading cells with the network", done, total)

    def _watch(self, what: str, done: int, total: int) -> None:
        if self.cancelled():
            raise Cancelled
        self.progress(done, total, what)
