"""All loss terms of a pre-training step, as a module over everything that is trained by them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from scdiva_core.diffusion.corruption import Corruption, corrupt
from scdiva_core.diffusion.objective import denoising_loss
from scdiva_core.model.network import AnchorSource, DenoiserOutput, ScDiVaModel
from scdiva_core.training.batches import TrainingBatch
from scdiva_core.training.losses import LatentLosses, LatentObjective
from scdiva_core.training.ranks import Ranks
from scdiva_core.training.settings import PretrainSettings

Losses = dict[str, Tensor]


class PretrainLosses(nn.Module):
    """Scores a batch by the dual denoising loss and by what is read from the latent.

    Parameters
    ----------
    model, objective
        What is trained.
    settings
        Weights of the terms.
    autocast
        Precision.
    ranks
        This process among those that train together: in training each scores its own rows.
    """

    def __init__(
        self,
        model: ScDiVaModel,
        objective: LatentObjective,
        settings: PretrainSettings,
        autocast: torch.autocast,
        ranks: Ranks,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.settings, self.autocast, self.ranks = settings, autocast, ranks

    def forward(self, batch: TrainingBatch, anchor_from: AnchorSource) -> Losses:
        """Corrupt a batch and score it; corruption is drawn on the CPU, the same on every device.

        Parameters
        ----------
        batch
            All rows, of which every process takes its own.
        anchor_from
            As in `ScDiVaModel.forward`.

        Returns
        -------
        dict
            ``total`` and its terms, scalar tensors; of several processes in training, their mean is the loss.
        """
        model, settings, device = self.model, self.settings, self.model.device
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + batch.step)
        corruption = corrupt(batch.tokens, model.config, generator)
        part = None
        if model.training and not self.ranks.is_alone:
            part = self._part(batch, corruption)
            batch, corruption = batch.part(part.rows), corruption.part(part.rows)
        corruption = replace(corruption, targets=corruption.targets.to(device), replaced=corruption.replaced.to(device))
        with self.autocast:
            denoising = denoising_loss(
                model,
                batch.tokens.to(device),
                corruption,
                anchor_from=anchor_from,
                max_identity_targets=settings.max_identity_targets,
                scored=None if part is None else part.scored,
            )
            if part is not None:
                scaled = {name: getattr(denoising, name) * part.shares[name] for name in ("identity", "value")}
                denoising = replace(denoising, **scaled)
            losses = {"identity": denoising.identity, "value": denoising.value}
            total = denoising.total
            if self._reads_latent:
                latent = self._latent_losses(batch, corruption, denoising.output, part)
                losses |= {"expression": latent.expression, "annotation": latent.annotation, "kl": latent.divergence}
                total = total + settings.expression_weight * latent.expression
                total = total + settings.annotation_weight * latent.annotation + settings.kl_weight * latent.divergence
        return {"total": total, **losses}

    @property
    def _reads_latent(self) -> bool:
        return "latent" in self.model.heads and self.settings.expression_weight + self.settings.annotation_weight > 0

    def _latent_losses(
        self, batch: TrainingBatch, corruption: Corruption, output: DenoiserOutput, part: _Part | None
    ) -> LatentLosses:
        """Terms that read the latent; the more of a cell is hidden, the less it counts."""
        device = self.model.device
        tokens = batch.tokens.to(device)
        read = self.model.is_gene(tokens.gene_ids) & ~corruption.replaced
        mu, logvar = self.model.heads["latent"](output.hidden, tokens.gene_ids, tokens.values, read)
        losses = self.objective(
            self.model,
            mu.float(),
            logvar.float(),
            expression=batch.expression.to(device).to_dense(),
            labels=batch.labels.to(device),
            batch_of=batch.batch_of.to(device),
            importance=_importance(corruption).to(device),
            noise=None if part is None else part.noise,
        )
        if part is None:
            return losses
        names = ("expression", "annotation", "divergence")
        return replace(losses, **{name: getattr(losses, name) * part.shares[name] for name in names})

    def _part(self, batch: TrainingBatch, corruption: Corruption) -> _Part:
        """Draw for the whole batch, in the order in which one process does, and take what belongs to these rows."""
        rows, device, most = self.ranks.rows(len(batch)), self.model.device, self.settings.max_identity_targets
        n_targets = int(corruption.targets.sum())
        before, here = int(corruption.targets[: rows.start].sum()), int(corruption.targets[rows].sum())
        scored = torch.arange(here, device=device)
        n_scored = n_targets
        if most is not None and n_targets > most:
            chosen = torch.randperm(n_targets, device=device)[:most]
            scored, n_scored = chosen[(chosen >= before) & (chosen < before + here)] - before, most
        noise = None
        if self._reads_latent:
            noise = torch.randn(len(batch), self.model.config.latent_dim, device=device)[rows]
        importance = _importance(corruption)
        known = importance * self.objective.is_known(batch.labels.to(device)).cpu()
        of_all = {
            "identity": (len(scored), n_scored),
            "value": (here, n_targets),
            "expression": (float(importance[rows].sum()), float(importance.sum())),
            "annotation": (float(known[rows].sum()), float(known.sum())),
            "divergence": (rows.stop - rows.start, len(batch)),
        }
        shares = {name: self.ranks.count * own / max(whole, 1e-12) for name, (own, whole) in of_all.items()}
        return _Part(rows, scored, noise, shares)


@dataclass(frozen=True)
class _Part:
    """What is one process' own of a batch.

    Attributes
    ----------
    rows
        Its rows.
    scored
        int64 numbers, among the targets of its rows, of those whose identity is scored.
    noise
        float32 ``[rows, latent]`` of its latents; None where they are not read.
    shares
        What each term counts: this process' share of the weights that the term is a mean over, times the number of
        processes, over which gradients are averaged.
    """

    rows: slice
    scored: Tensor
    noise: Tensor | None
    shares: dict[str, float]


def _importance(corruption: Corruption) -> Tensor:
    return (1 - corruption.t).clamp(min=0.05)
