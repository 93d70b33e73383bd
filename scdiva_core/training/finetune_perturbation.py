"""Fine-tuning on the measured perturbations of one file, so that the network predicts others.

As published: the [PERT] vector is added to the anchor, the whole encoder learns, a regressor reads each gene, the loss
is a weighted squared error and a ranking that knows which genes changed, and held-out perturbations end it early (by
the rank correlation of log fold changes). The sources print no weights, no form of the ranking and no way to say which
gene was perturbed. Ours, therefore:

* the perturbed genes stand first in the row, see `scdiva_core.training.perturbation_cells.marked_rows`, at value 0 for
  a knockout, and for an activation at a value that 99 of 100 expressed genes of the control cells do not reach;
* the regressor reads the sum of a gene's state and the states of the perturbed genes;
* it says how far the gene moves from the mean of the control cells, starting from no change, and is taught the
  perturbation's mean: a control cell and a perturbed one are two cells, of which no pair tells more than the means;
* genes that changed (Welch's t-test, BH q < 0.05 in the training cells) weigh more, and are to move further in their
  direction than the others move in any;
* the new head is first trained alone on the frozen network, as for annotation.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, spearmanr, ttest_ind
from torch import Tensor, nn

from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import Cancelled, CheckpointError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_cells import IsCancelled, Progress
from scdiva_core.training.finetune_result import Stop
from scdiva_core.training.finetune_settings import PerturbationSettings
from scdiva_core.training.perturbation_cells import MarkedRows, PerturbationCells, marked_rows
from scdiva_core.training.perturbation_result import PerturbationTuned, perturbation_card

Report = Callable[[dict[str, Any]], None]

HEAD_STEPS, HEAD_CELLS = 200, 2
"""Steps of the head alone, and control cells of each perturbation whose frozen states it reads."""

WARMUP_STEPS = 20
"""Steps over which the learning rates rise."""

FEWEST_TO_SPLIT = 5
"""Training perturbations below which all of them teach and none judges."""

RANKED = 20
"""Changed genes of a perturbation that are ranked above those that did not change: as many as HR@20 looks at."""

FDR = 0.05
"""Benjamini-Hochberg q below which a gene counts as changed."""


def finetune_perturbation(
    model: ScDiVaModel,
    cells: PerturbationCells,
    *,
    tokenizer: Tokenizer | None = None,
    source: dict[str, Any] | None = None,
    settings: PerturbationSettings = PerturbationSettings(),  # noqa: B008 - frozen
    state: Path | None = None,
    progress: Progress = lambda *_: None,
    cancelled: IsCancelled = lambda: False,
    report: Report = lambda _: None,
) -> PerturbationTuned:
    """Teach a copy of a network to predict what perturbations change.

    Parameters
    ----------
    model
        In evaluation mode, on its device; not changed. Its other heads read an encoder that is no more, and are left
        behind.
    cells
        All of its perturbations may be learned from; leave out those that are to be predicted
        (`PerturbationCells.only`).
    tokenizer
        Orders the genes; the model's own when None. Give that of the file where the checkpoint brings no entropies
        (`scdiva_core.training.finetune_cells.tokenizer_of`).
    source
        What the card says of the file: name, SHA-256.
    settings
        How.
    state
        File that keeps the run after each pass, in an existing folder: a run that was killed goes on from it. Remove
        it once the result is saved.
    progress
        Called with units done, units in all, and what is going on.
    cancelled
        Asked once a batch. True ends the work; the best weights so far are kept.
    report
        Called with each record of the curve.

    Raises
    ------
    CheckpointError
        The state is of another run.
    Cancelled
        The user stopped before there was anything to keep.
    """
    run = _Run(_copy(model, tokenizer, settings.seed), cells, settings)
    run.progress, run.cancelled, run.report = progress, cancelled, report
    base = {"name": str(model.card.get("name") or "ScDiVa"), "sha256": model.sha256}
    identity = json.dumps([base, asdict(settings), sorted(cells.targets), source, cells.gene_ids.tolist()])
    if state is None or not run.resume(state, identity):
        run.start()
        run.keep(state, identity)
    stopped = run.train(state, identity)
    done = run.finished(stopped)
    facts = {"settings": asdict(settings), "steps": run.steps, "source": source or {}}
    done.model.card = perturbation_card(done, model, cells, value=run.value, **facts)
    return done


def judging(names: Iterable[str], settings: PerturbationSettings) -> list[str]:
    """Perturbations that judge and do not teach, sorted; none where there are too few."""
    order = np.random.default_rng([settings.seed, 0]).permutation(sorted(names)).tolist()
    held = max(round(settings.validation_share * len(order)), 1) if settings.validation_share else 0
    return sorted(order[:held]) if len(order) >= FEWEST_TO_SPLIT else []


def predicted_changes(model: ScDiVaModel, rows: MarkedRows, n_genes: int) -> Tensor:
    """Change of each gene of the panel in each row, in log1p, float32 ``[B, n_genes]``; on the model's device."""
    tokens, marked = rows.tokens.to(model.device), torch.from_numpy(rows.n_marked).to(model.device)
    everywhere = torch.ones(len(marked), dtype=torch.bool, device=model.device)
    with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
        hidden = model(tokens.gene_ids, tokens.values, perturbed=everywhere).tokens
    return _read(model.heads["perturbation"], hidden.float(), marked, rows.columns, n_genes)


def _read(head: nn.Module, hidden: Tensor, marked: Tensor, columns: NDArray[np.int64], n_genes: int) -> Tensor:
    """Regressor over token states, put into the panel's order."""
    first = (torch.arange(hidden.shape[1], device=hidden.device) < marked[:, None]).unsqueeze(-1).to(hidden.dtype)
    found = head(hidden + (hidden * first).sum(dim=1, keepdim=True))
    places = torch.from_numpy(np.where(columns < 0, n_genes, columns)).to(hidden.device)
    return found.new_zeros(len(found), n_genes + 1).scatter(1, places, found)[:, :n_genes]


def mark_value(cells: PerturbationCells) -> float:
    """Value that a perturbed gene gets: 0 after a knockout, the 99th percentile of what is expressed if activated."""
    if cells.kind == "knockout":
        return 0.0
    values = cells.expression[cells.control]
    expressed = values[values > 0]
    return float(np.quantile(expressed, 0.99)) if expressed.size else 1.0


def perturbation_loss(predicted: Tensor, truth: Tensor, changed: Tensor, settings: PerturbationSettings) -> Tensor:
    """Weighted squared error and ranking loss of predicted changes.

    Parameters
    ----------
    predicted, truth
        float ``[B, g]`` changes in log1p.
    changed
        bool ``[B, g]``, True for the genes that changed.
    settings
        Weights of the terms.

    Returns
    -------
    Tensor
        Scalar: the squared error over that of no change, and the mean over pairs, of one of the `RANKED` genes that
        changed most and one that did not change, of ``softplus((size of the other - change in the true direction) /
        scale)`` over its value ``log 2`` at no change (our form; logistic as RankNet, Burges 2005). The scale is the
        root mean square of the true changes.
    """
    weight = 1 + (settings.changed_weight - 1) * changed.float()
    squares = (weight * truth.square()).sum().clamp(min=1e-12)
    error = (weight * (predicted - truth).square()).sum() / squares
    scale = truth.square().mean().sqrt().clamp(min=1e-6)
    size = truth.abs().masked_fill(~changed, -1.0)
    most, genes = size.topk(min(RANKED, size.shape[1]), dim=1)
    along = (predicted * truth.sign()).gather(1, genes)
    pairs = ((most >= 0)[:, :, None] & ~changed[:, None, :]).to(predicted.dtype)
    costs = F.softplus((predicted.abs()[:, None, :] - along[:, :, None]) / scale)
    ranking = (costs * pairs).sum() / pairs.sum().clamp(min=1)
    return error + settings.ranking_weight * ranking / math.log(2)


def _copy(model: ScDiVaModel, tokenizer: Tokenizer | None, seed: int) -> ScDiVaModel:
    """Same weights with a new perturbation head, which predicts no change; no other heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = ScDiVaModel(replace(model.config, heads=("perturbation",)))
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("heads.")}
    copy.load_state_dict(own, strict=False)
    last = copy.heads["perturbation"].regressor[2]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    copy.vocabulary, copy.tokenizer, copy.has_entropy = model.vocabulary, tokenizer or model.tokenizer, True
    return copy.to(model.device).eval()


def _changed(cells: PerturbationCells, name: str) -> NDArray[np.bool_]:
    """Genes that differ between a perturbation's cells and the control, bool ``[g]``."""
    sides = cells.expression[cells.rows(name)], cells.expression[cells.control]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a gene that is the same in all cells has no p
        p = ttest_ind(*sides, equal_var=False).pvalue
    return false_discovery_control(np.nan_to_num(p, nan=1.0)) < FDR


class _Run:
    """State of one fine-tuning: the network as it is, and the best that it was."""

    progress: Progress
    cancelled: IsCancelled
    report: Report

    def __init__(self, model: ScDiVaModel, cells: PerturbationCells, settings: PerturbationSettings) -> None:
        self.model, self.cells, self.settings = model, cells, settings
        names = sorted(cells.targets)
        self.judges = judging(names, settings)
        self.teachers = [name for name in names if name not in self.judges]
        self.truth = {name: torch.from_numpy(cells.change(name)) for name in names}
        self.changed = {name: torch.from_numpy(_changed(cells, name)) for name in self.teachers}
        self.value, self.n_genes = mark_value(cells), len(cells.gene_ids)
        self.curve: list[dict[str, Any]] = []
        self.best_epoch, self.best_weights, self.steps, self.cells_seen = 0, {}, 0, 0
        self.began, self.earlier = time.monotonic(), 0.0
        head = model.heads["perturbation"]
        others = [weight for name, weight in model.named_parameters() if not name.startswith("heads.")]
        groups = [
            {"params": others, "full_lr": settings.learning_rate},
            {"params": list(head.parameters()), "full_lr": settings.head_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began

    def start(self) -> None:
        """Train the head alone on frozen states of a few control cells, and score it: epoch 0."""
        settings, head = self.settings, self.model.heads["perturbation"]
        rng = np.random.default_rng([settings.seed, 1])
        shown = [name for name in self.teachers for _ in range(HEAD_CELLS)]
        states, parts = [], []
        for start in range(0, len(shown), settings.batch_size):
            self._watch("Reading perturbed genes", start, len(shown))
            rows = self._rows(shown[start : start + settings.batch_size], rng)
            tokens = rows.tokens.to(self.model.device)
            with torch.no_grad():
                states.append(self.model(tokens.gene_ids, tokens.values).tokens.float())
            parts.append((rows, shown[start : start + settings.batch_size]))
        optimizer = torch.optim.AdamW(head.parameters(), settings.head_learning_rate, weight_decay=0)
        for step in range(HEAD_STEPS):
            if step % 20 == 0:
                self._watch("Training the new head", step, HEAD_STEPS)
            chosen = int(rng.integers(len(parts)))
            rows, names = parts[chosen]
            marked = torch.from_numpy(rows.n_marked).to(self.model.device)
            loss = self._loss(_read(head, states[chosen], marked, rows.columns, self.n_genes), names)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        self._score(None)

    def train(self, state: Path | None, identity: str) -> Stop:
        """Take passes until one of the reasons to stop."""
        settings = self.settings
        try:
            for epoch in range(len(self.curve), settings.epochs + 1):
                if self.judges and epoch - 1 - self.best_epoch >= settings.patience:
                    return "patience"
                if self._epoch(epoch):
                    return "budget"
                self.keep(state, identity)
        except Cancelled:
            return "cancelled"
        return "rounds"

    def _epoch(self, number: int) -> bool:
        """One pass, then validation; True when the time is spent."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 2, number])
        shown = rng.permutation(np.repeat(self.teachers, settings.cells)).tolist()
        losses = []
        for start in range(0, len(shown), settings.batch_size):
            if self.seconds > 60 * settings.minutes:
                break
            self._watch(f"Fine-tuning, pass {number}", start, len(shown))
            names = shown[start : start + settings.batch_size]
            loss = self._loss(predicted_changes(self.model, self._rows(names, rng), self.n_genes), names)
            self._step(loss)
            losses.append(loss.item())
            self.cells_seen += len(names)
        if losses:
            self._score(float(np.mean(losses)))
        return self.seconds > 60 * settings.minutes

    def _step(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * min((self.steps + 1) / WARMUP_STEPS, 1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.steps += 1

    def _rows(self, names: Sequence[str], rng: np.random.Generator) -> MarkedRows:
        cells = np.concatenate([self.cells.draw_controls(name, 1, rng) for name in names])
        targets = [self.cells.targets[name] for name in names]
        return marked_rows(self.model, self.cells.gene_ids, self.cells.expression[cells], targets, self.value)

    def _loss(self, predicted: Tensor, names: Sequence[str]) -> Tensor:
        truth = torch.stack([self.truth[name] for name in names]).to(predicted.device)
        changed = torch.stack([self.changed[name] for name in names]).to(predicted.device)
        return perturbation_loss(predicted, truth, changed, self.settings)

    @torch.no_grad()
    def _score(self, loss: float | None) -> None:
        """Add a record to the curve; keep the weights when none before were as good."""
        rng = np.random.default_rng([self.settings.seed, 3])  # the same cells each time
        scores = []
        for number, name in enumerate(self.judges):
            self._watch("Judging", number, len(self.judges))
            rows = self._rows([name] * self.settings.validation_cells, rng)
            predicted = predicted_changes(self.model, rows, self.n_genes).mean(dim=0).cpu().numpy()
            scores.append(_spearman(predicted, self.truth[name].numpy()))
        record = {
            "epoch": len(self.curve),
            "seconds": round(self.seconds, 1),
            "cells_seen": self.cells_seen,
            "loss": None if loss is None or not math.isfinite(loss) else loss,
            "spearman": float(np.mean(scores)) if scores else None,
        }
        best = self.curve[self.best_epoch]["spearman"] if self.curve else None
        # Without perturbations that judge, the last pass is as good as any.
        if best is None or record["spearman"] > best:
            self.best_epoch = record["epoch"]
            self.best_weights = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self.curve.append(record)
        self.report(record)

    def finished(self, stopped: Stop) -> PerturbationTuned:
        """Go back to the best weights."""
        self.model.load_state_dict(self.best_weights)
        self.model.eval()
        mean = torch.stack([self.truth[name] for name in self.teachers]).mean(dim=0).numpy()
        usual = float(np.mean([_spearman(mean, self.truth[name].numpy()) for name in self.judges] or [math.nan]))
        return PerturbationTuned(self.model, tuple(self.curve), self.best_epoch, tuple(self.judges), usual, stopped)

    def keep(self, path: Path | None, identity: str) -> None:
        """Write what a run needs to go on, in one step."""
        if path is None:
            return
        kept = ("curve", "best_epoch", "best_weights", "steps", "cells_seen", "seconds")
        content = {name: getattr(self, name) for name in kept} | {"identity": identity}
        partial = path.with_name(path.name + ".partial")
        torch.save(content | {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, partial)
        os.replace(partial, path)

    def resume(self, path: Path, identity: str) -> bool:
        """Go on from a file of `keep`; False when there is none."""
        if not path.is_file():
            return False
        try:
            kept = torch.load(path, map_location=self.model.device, weights_only=True)
            same = kept["identity"] == identity
        except Exception as error:  # torch raises a dozen kinds for a broken file
            msg = f"{path.name} cannot be read as the state of a run."
            raise CheckpointError(msg, "Remove it to begin anew.") from error
        if not same:
            msg = f"{path.name} is of a run on other data, perturbations, weights or settings."
            raise CheckpointError(msg, "Repeat the command it began with, or remove the file to begin anew.")
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.curve, self.best_epoch, self.best_weights = kept["curve"], kept["best_epoch"], kept["best_weights"]
        self.steps, self.cells_seen, self.earlier = kept["steps"], kept["cells_seen"], kept["seconds"]
        return True

    def _watch(self, what: str, done: int, total: int) -> None:
        if self.cancelled():
            raise Cancelled
        self.progress(done, total, what)


def _spearman(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> float:
    """Rank correlation; 0 where one says nothing."""
    if not (np.ptp(predicted) and np.ptp(measured)):
        return 0.0
    return float(spearmanr(predicted, measured).statistic)
