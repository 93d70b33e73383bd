"""Fine-tuning on the labels of one file, so that the network names that file's cell types.

As published for the annotation task: the last third of the layers (4 of 12) and a new MLP learn by cross-entropy, the
rest is frozen, and macro-F1 on validation cells ends it early. The final norm and the latent head, which lie between
them, learn too. Ours: the MLP is first trained alone on the frozen latent, so that a random head does not spoil the
layers (Kumar 2022); there is no dropout, whose noise would drown what tells close types apart; and there is a budget
of time.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer, TokenRows
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.training.finetune_cells import (
    IsCancelled,
    LabelledSplit,
    Progress,
    read_tokens,
    split_cells,
    tokenizer_of,
)
from scdiva_core.training.finetune_result import (
    FineTuned,
    Stop,
    card_of,
    compare,
    in_words,
    label_meanings,
    macro_f1,
)
from scdiva_core.training.finetune_settings import FinetuneSettings
from scdiva_core.training.losses import fitted_temperature

Report = Callable[[dict[str, Any]], None]

HEAD_STEPS, HEAD_CELLS, HEAD_RATE = 300, 256, 2e-3
"""Steps, cells a step and learning rate of the head alone: a second on a CPU."""

WARMUP_STEPS = 50
"""Steps over which the learning rates rise: Adam's first ones are as long as any, and know least."""

FROZEN_SHARE = 0.5
"""Share of the budget that embedding the labelled cells once may take; where it takes more, training would be idle."""

_EMBEDDED_CELLS = {"cuda": 256}  # of a batch; 16 elsewhere: more falls out of a CPU's cache and is slower
_FIRST_GUESS = 5.0  # seconds, after which the speed tells how long embedding will take


def finetune_annotation(
    model: ScDiVaModel,
    dataset: H5adDataset,
    labels: ArrayLike,
    *,
    batches: ArrayLike | None = None,
    settings: FinetuneSettings = FinetuneSettings(),  # noqa: B008 - frozen
    progress: Progress = lambda *_: None,
    cancelled: IsCancelled = lambda: False,
    report: Report = lambda _: None,
) -> FineTuned:
    """Teach a copy of a network to name the classes of some labelled cells.

    Parameters
    ----------
    model
        In evaluation mode, on its device; not changed. CUDA trains in bfloat16 autocast, everything else in float32.
    dataset
        The open file, over the model's vocabulary.
    labels
        ``[n_obs]`` label of each cell, such as a column of ``obs``; missing or blank is unlabelled. Classes with fewer
        than five labelled cells are left out, see `FineTuned.left_out`.
    batches
        ``[n_obs]`` donor or batch of each cell, whole ones being held out; see
        `scdiva_core.training.finetune_cells.split_cells`.
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
    FineTuned
        One seed gives one result on one machine and device, unless time ends it.

    Raises
    ------
    DataError
        The labels or donors cannot be split, or the budget does not suffice to embed the labelled cells.
    Cancelled
        The user stopped before there was anything to keep.

    Notes
    -----
    To use a loaded `scdiva_core.engine.Engine`, pass its ``model``; other work on it waits for nobody and only slows
    both down.
    """
    began = time.monotonic()
    if np.shape(labels) != (dataset.n_obs,):
        msg = f"There are {np.size(labels):,} labels, but the file has {dataset.n_obs:,} cells."
        raise DataError(msg, "Give one for every cell.")
    chosen = split_cells(labels, batches, most=settings.most_cells, seed=settings.seed)
    tokenizer = tokenizer_of(model, dataset)
    rows = read_tokens(dataset, tokenizer, chosen.cells, progress=progress, cancelled=cancelled)
    run = _Run(_copy(model, tokenizer, chosen, settings.seed), rows, chosen, settings, began)
    run.progress, run.cancelled, run.report = progress, cancelled, report
    frozen = run.frozen_latents(model)
    baseline = _logistic_regression(frozen.numpy(), chosen)
    run.start(frozen if "latent" in model.heads else run.model.heads["latent"].from_pooled(frozen.to(model.device))[0])
    stopped = run.train()
    return _finished(run, stopped, baseline, model, dataset)


def _copy(model: ScDiVaModel, tokenizer: Tokenizer, chosen: LabelledSplit, seed: int) -> ScDiVaModel:
    """Same weights under a new annotation head; heads that read another latent are left behind."""
    config = replace(model.config, heads=("latent", "annotation"), num_cell_types=len(chosen.classes))
    if "latent" not in model.heads:
        config = replace(config, latent_pooling="anchor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = ScDiVaModel(config)
    kept = {name: tensor for name, tensor in model.state_dict().items() if _is_kept(name)}
    copy.load_state_dict(kept, strict=False)
    copy.vocabulary, copy.tokenizer, copy.has_entropy = model.vocabulary, tokenizer, True
    return copy.to(model.device).eval()


def _is_kept(name: str) -> bool:
    return not name.startswith("heads.") or name.startswith("heads.latent.")


def _logistic_regression(latents: NDArray[np.float32], chosen: LabelledSplit) -> NDArray[np.int64]:
    """Predict the validation cells by a linear probe (Alain and Bengio 2016): C = 1, standardised coordinates."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # still improving after a thousand steps: taken as it is
        probe.fit(latents[chosen.training_rows], chosen.codes[chosen.training_rows])
    return probe.predict(latents[chosen.validation_rows])


class _Run:
    """State of one fine-tuning: the network as it is, and the best that it was."""

    progress: Progress
    cancelled: IsCancelled
    report: Report

    def __init__(
        self, model: ScDiVaModel, rows: TokenRows, chosen: LabelledSplit, settings: FinetuneSettings, began: float
    ) -> None:
        self.model, self.rows, self.chosen, self.settings, self.began = model, rows, chosen, settings, began
        self.deadline = began + 60 * settings.minutes
        self.codes = torch.from_numpy(chosen.codes)
        self.curve: list[dict[str, Any]] = []
        self.best_round, self.best_logits = 0, torch.empty(0)
        self.best_weights: dict[str, Tensor] = {}
        self.validation_seconds, self.steps, self.cells_seen = 0.0, 0, 0
        model.requires_grad_(False)
        for module in _trained_modules(model):
            module.requires_grad_(True)
        if model.heads["latent"].reads_tokens:
            # A path around the layers over every gene: few labels would only teach it by heart.
            model.heads["latent"].gene_vectors.requires_grad_(False)
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        heads = [weight for name, weight in self.weights.items() if name.startswith("heads.annotation.")]
        others = [weight for name, weight in self.weights.items() if not name.startswith("heads.annotation.")]
        groups = [
            {"params": others, "full_lr": settings.learning_rate},
            {"params": heads, "full_lr": settings.head_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)

    def frozen_latents(self, model: ScDiVaModel) -> Tensor:
        """Embed all labelled cells with the network as it was; float32 ``[n, d]`` on the CPU."""
        began = time.monotonic()

        def watch(done: int, total: int) -> None:
            elapsed = time.monotonic() - began
            guess = elapsed if elapsed < _FIRST_GUESS else elapsed / max(done, 1) * total
            if guess > FROZEN_SHARE * 60 * self.settings.minutes:
                needed = guess / FROZEN_SHARE / 60
                msg = f"{self.settings.minutes:g} minutes do not suffice to embed {total:,} labelled cells."
                raise DataError(msg, f"Give it at least {math.ceil(needed):,} min, or label fewer cells.")
            self._watch("Embedding labelled cells", done, total)

        latents = _embedded(model, self.rows, np.arange(len(self.rows)), watch)
        share = self.chosen.validation.mean()
        self.validation_seconds = float(share) * (time.monotonic() - began)
        return latents

    def start(self, latents: Tensor) -> None:
        """Train the new head alone on the latents of the cells that teach, and score it: round 0."""
        head, settings, device = self.model.heads["annotation"], self.settings, self.model.device
        latents = latents.detach().to(device)
        inputs, codes = latents[self.chosen.training_rows], self.codes[self.chosen.training_rows]
        center, scale = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-6)
        optimizer = torch.optim.AdamW(head.parameters(), HEAD_RATE, weight_decay=settings.weight_decay)
        rng = np.random.default_rng(settings.seed)
        for _ in range(HEAD_STEPS):
            some = rng.integers(0, len(inputs), HEAD_CELLS)
            loss = self._loss(head((inputs[some] - center) / scale), codes[some])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():  # from here on it reads latents as they are
            head.dense.weight /= scale
            head.dense.bias -= head.dense.weight @ center
        self._score(latents[self.chosen.validation_rows], None)

    def train(self) -> Stop:
        """Take rounds until one of the reasons to stop."""
        batches = _batches(self.chosen.training_rows, self.settings.batch_size, self.settings.seed)
        try:
            for number in range(1, self.settings.rounds + 1):
                if self._round(number, batches):
                    return "budget"
                if number - self.best_round >= self.settings.patience:
                    return "patience"
        except Cancelled:
            return "cancelled"
        return "rounds"

    def _round(self, number: int, batches: Iterator[NDArray[np.int64]]) -> bool:
        """Train, then validate; True when the time is spent."""
        settings, losses = self.settings, []
        cells = min(settings.round_cells, len(self.chosen.training_rows))
        steps = math.ceil(cells / settings.batch_size)
        while len(losses) < steps:
            if time.monotonic() + self.validation_seconds > self.deadline:
                break
            self._watch(f"Fine-tuning, round {number}", min(len(losses) * settings.batch_size, cells), cells)
            losses.append(self._step(next(batches)))
        if losses:
            began = time.monotonic()
            watch = partial(self._watch, f"Judging round {number}")
            latents = _embedded(self.model, self.rows, self.chosen.validation_rows, watch)
            self.validation_seconds = time.monotonic() - began
            self._score(latents.to(self.model.device), float(np.mean(losses)))
        return len(losses) < steps

    def _step(self, rows: NDArray[np.int64]) -> float:
        latents = _latents(self.model, self.rows, rows)
        loss = self._loss(self.model.heads["annotation"](latents), self.codes[rows])
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * min((self.steps + 1) / WARMUP_STEPS, 1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), self.settings.clip)
        self.optimizer.step()
        self.steps, self.cells_seen = self.steps + 1, self.cells_seen + len(rows)
        return loss.item()

    def _loss(self, logits: Tensor, codes: Tensor) -> Tensor:
        return F.cross_entropy(logits, codes.to(logits.device), label_smoothing=self.settings.label_smoothing)

    @torch.no_grad()
    def _score(self, latents: Tensor, loss: float | None) -> None:
        """Add a record to the curve; keep the weights when none before were as good."""
        logits = self.model.heads["annotation"](latents).float().cpu()
        truth, named = self.chosen.codes[self.chosen.validation], logits.argmax(dim=1).numpy()
        record = {
            "round": len(self.curve),
            "seconds": round(time.monotonic() - self.began, 1),
            "cells_seen": self.cells_seen,
            "loss": None if loss is None or not math.isfinite(loss) else loss,
            "macro_f1": float(macro_f1(truth, named)[0]),
            "accuracy": float((truth == named).mean()),
        }
        if not self.curve or record["macro_f1"] > self.curve[self.best_round]["macro_f1"]:
            self.best_round, self.best_logits = record["round"], logits
            self.best_weights = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.curve.append(record)
        self.report(record)

    def restore(self) -> None:
        """Go back to the best weights."""
        self.model.load_state_dict(self.best_weights, strict=False)
        self.model.requires_grad_(True).eval()

    def _watch(self, what: str, done: int, total: int) -> None:
        if self.cancelled():
            raise Cancelled
        self.progress(done, total, what)


def _trained_modules(model: ScDiVaModel) -> list[nn.Module]:
    """The last third of the layers, rounded up, and what lies above them."""
    count = math.ceil(len(model.layers) / 3)
    return [*model.layers[-count:], model.final_norm, model.heads["latent"], model.heads["annotation"]]


def _batches(rows: NDArray[np.int64], size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Pass after pass over the cells, each in an order of its own."""
    for number in itertools.count():
        order = np.random.default_rng([seed, number]).permutation(rows)
        yield from (order[start : start + size] for start in range(0, len(order), size))


def _latents(model: ScDiVaModel, rows: TokenRows, cells: NDArray[np.int64]) -> Tensor:
    tokens = rows.batch(cells, pad_id=model.config.pad_id)
    with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
        latents = model.encode(tokens)["latent"]
    return latents.float()


@torch.no_grad()
def _embedded(
    model: ScDiVaModel, rows: TokenRows, cells: NDArray[np.int64], watch: Callable[[int, int], None]
) -> Tensor:
    """Latents of cells, float32 ``[n, d]`` on the CPU; like lengths go together."""
    order = np.argsort(-rows.lengths[cells], kind="stable")
    size = _EMBEDDED_CELLS.get(model.device.type, 16)
    parts = []
    for start in range(0, len(order), size):
        watch(start, len(order))
        parts.append(_latents(model, rows, cells[order[start : start + size]]).cpu())
    watch(len(order), len(order))
    return torch.cat(parts)[torch.from_numpy(np.argsort(order))]


def _finished(
    run: _Run, stopped: Stop, baseline: NDArray[np.int64], base: ScDiVaModel, dataset: H5adDataset
) -> FineTuned:
    """Restore the best weights, name the outputs, and write down what was done."""
    run.restore()
    chosen, model, seed = run.chosen, run.model, run.settings.seed
    truth = chosen.codes[chosen.validation]
    majority = int(np.bincount(chosen.codes[~chosen.validation]).argmax())
    comparison = compare(truth, run.best_logits.argmax(dim=1).numpy(), baseline, majority, seed=seed)
    words = in_words(
        comparison,
        n_validation=len(truth),
        held_out=chosen.held_out,
        best_round=run.best_round,
        stopped=stopped,
    )
    ids, names = label_meanings(chosen.classes)
    model.labels = CellLabels(ids, names, fitted_temperature(run.best_logits, torch.from_numpy(truth)))
    done = FineTuned(model, tuple(run.curve), run.best_round, comparison, dict(chosen.left_out), stopped, words)
    model.card = card_of(done, base, dataset, chosen, settings=asdict(run.settings), steps=run.steps)
    return done
