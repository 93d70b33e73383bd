"""Pre-training: a corpus folder in, a checkpoint folder out; resumes where it was stopped.

Runs on CPU or CUDA with torch, numpy and safetensors alone, in one process or in several (see
`scdiva_core.training.ranks`). Objective: the published dual denoising loss, and beside it (ours) the full-depth
expression and the cell type read from the latent head.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import CheckpointError, JobError
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.batches import TrainingBatch, make_batch, training_batches
from scdiva_core.training.companions import write_companions
from scdiva_core.training.finish import finish_heads
from scdiva_core.training.genes import variable_genes
from scdiva_core.training.initial import initialise
from scdiva_core.training.losses import LatentObjective, fitted_temperature
from scdiva_core.training.pretrain_losses import Losses, PretrainLosses
from scdiva_core.training.ranks import ALONE, Ranks, is_lost
from scdiva_core.training.settings import PretrainSettings

Report = Callable[[dict[str, Any]], None]


def pretrain(
    corpus: Corpus,
    config: ScDiVaConfig,
    folder: Path,
    settings: PretrainSettings,
    *,
    device: str = "cpu",
    card: dict[str, Any] | None = None,
    report: Report = lambda record: None,
    ranks: Ranks = ALONE,
) -> ScDiVaModel:
    """Train a model and write it to ``folder``.

    Several processes take each step together, with the very batch and noise of one process (but for dropout); the
    first one writes and reports, and finishes the heads alone.

    Parameters
    ----------
    corpus
        Prepared corpus; its vocabulary must have ``config.vocab_size`` tokens.
    config
        Architecture.
    folder
        Receives the checkpoint, ``log.jsonl`` and, while the run lasts, ``state.pt`` to resume from.
    settings
        How to train. A run resumes only with the settings it began with.
    device
        ``"cpu"`` or ``"cuda"``; of several processes, each its own GPU.
    card
        Written to ``card.json`` with the run's own figures added.
    report
        Called with each record of the log.
    ranks
        This process among those that train together, see `join_ranks`.

    Returns
    -------
    ScDiVaModel
        The trained model; in processes other than the first, one whose heads are unfinished.

    Raises
    ------
    CheckpointError
        The vocabulary or the heads do not fit, or ``folder`` holds a run with other settings or a damaged one.
    JobError
        There are more processes than cells in a batch, or another process is gone.
    """
    if len(corpus.vocabulary) != config.vocab_size:
        msg = f"The corpus has {len(corpus.vocabulary):,} tokens, the configuration {config.vocab_size:,}."
        raise CheckpointError(msg, "Set vocab_size to the corpus's.")
    wanted = {"latent", "batch_integration"} if settings.expression_weight > 0 else set()
    wanted |= {"latent", "annotation"} if settings.annotation_weight > 0 and corpus.classes else set()
    lacking = wanted - set(config.heads)
    if lacking:
        msg = f"The settings train heads that the configuration lacks: {', '.join(sorted(lacking))}."
        raise CheckpointError(msg, "Add these heads, or set expression_weight or annotation_weight to 0.")
    if "annotation" in config.heads and corpus.classes and config.num_cell_types != len(corpus.classes):
        msg = f"The corpus has {len(corpus.classes)} cell types, the configuration {config.num_cell_types}."
        raise CheckpointError(msg, "Set num_cell_types to the corpus's.")
    if ranks.count > settings.batch_size:
        msg = f"There are {ranks.count} processes, but {settings.batch_size} cells in a batch."
        raise JobError(msg, "Start fewer processes, or choose a larger batch_size.")
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(corpus, config, folder, settings, torch.device(device), report, ranks)
    try:
        run.start()
        run.train()
    except RuntimeError as error:
        if ranks.is_alone or not is_lost(error):
            raise
        msg = f"Process {ranks.number} of {ranks.count} lost another one after step {run.step:,}."
        raise JobError(
            msg, "What that one says tells why. The same command goes on from the last saved step."
        ) from error
    ranks.leave()
    if not ranks.is_first:
        return run.model
    run.finish()
    run.name_labels()
    run.model.card = {**(card or {}), "training": run.figures()}
    save_pretrained(run.model.cpu().eval(), folder, dtype=torch.float16)
    write_companions(folder, corpus, seed=settings.seed)
    (folder / "state.pt").unlink(missing_ok=True)
    return run.model


class _Run:
    """State of one pre-training run."""

    def __init__(
        self,
        corpus: Corpus,
        config: ScDiVaConfig,
        folder: Path,
        settings: PretrainSettings,
        device: torch.device,
        report: Report,
        ranks: Ranks,
    ) -> None:
        self.corpus, self.folder, self.settings, self.device = corpus, folder, settings, device
        self.report, self.ranks = report, ranks
        self.step, self.seconds = 0, 0.0
        self.tokenizer = Tokenizer(corpus.entropy, config.max_genes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = ScDiVaModel(config)
        self.model.vocabulary, self.model.tokenizer = corpus.vocabulary, self.tokenizer
        self.model.has_entropy = True
        self.validation: dict[str, float] = {}
        autocast = settings.precision == "bf16" or (settings.precision == "auto" and device.type == "cuda")
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
        variable = variable_genes(corpus, seed=settings.seed)
        self.objective = LatentObjective(corpus, variable, settings.label_smoothing)
        shares = (settings.thinned_share, settings.biased_share, settings.panel_share)
        self.augmentation = Augmentation(*shares, variable)

    def start(self) -> None:
        """Begin anew, or go on from ``state.pt``."""
        state = self._saved_state()
        self.ranks.check_same(-1 if state is None else state["step"], self.device)
        if state is None and self.ranks.is_first:  # whose weights the others take over
            (self.folder / "log.jsonl").unlink(missing_ok=True)
            initialise(self.model, self.corpus, genes=self.settings.initial_genes, seed=self.settings.seed)
        if "latent" in self.model.heads and self.model.heads["latent"].reads_tokens:
            # Components of the corpus, worth more as they are than after noisy steps; they learn in the last lesson.
            self.model.heads["latent"].gene_vectors.weight.requires_grad_(False)
        self.model.to(self.device)
        self.objective.to(self.device)
        if self.device.type == "cuda":
            # The layers alone: what surrounds them has shapes that change from batch to batch.
            for layer in self.model.layers:
                layer.compile(dynamic=True)
        self.optimizer = torch.optim.AdamW(
            [p for module in (self.model, self.objective) for p in module.parameters() if p.requires_grad],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            betas=(0.9, 0.98),
        )
        if state is not None:
            self._restore(state)
        self.losses = PretrainLosses(self.model, self.objective, self.settings, self.autocast, self.ranks)
        self.trained = self.ranks.together(self.losses)

    def _saved_state(self) -> dict[str, Any] | None:
        """State of an unfinished run in the folder, if it is one of these settings."""
        path = self.folder / "state.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            same = state["settings"] == asdict(self.settings)
            same = same and state["config"] == json.dumps(asdict(self.model.config))
        except Exception as error:  # torch raises a dozen kinds for a broken file
            msg = f"{path} cannot be read, so this run cannot go on."
            raise CheckpointError(msg, "Delete it to begin anew, or choose another folder.") from error
        if not same:
            msg = f"{self.folder} holds an unfinished run with other settings."
            raise CheckpointError(msg, "Repeat the first command to go on with it, or choose another folder.")
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.validation = state["step"], state["seconds"], state["validation"]
        if not self.ranks.is_first:
            return
        # What the stopped run logged after its last saved state is about to be done again.
        log = self.folder / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
        log.write_text("".join(takewhile(self._is_done, lines)), encoding="utf-8")

    def _is_done(self, line: str) -> bool:
        """Whether a line of the log was written before the state was saved; none is saved while the heads finish."""
        record = json.loads(line)
        return record["step"] <= self.step and "finish_step" not in record

    def train(self) -> None:
        """Take the remaining steps."""
        settings, before, began = self.settings, self.seconds, time.perf_counter()
        remaining = training_batches(
            self.corpus, settings, self.model.config.max_genes, self.augmentation, start=self.step
        )
        for batch in remaining:
            losses = self._take_step(batch)
            self.step = batch.step + 1
            self.seconds = before + time.perf_counter() - began
            last = self.step == settings.steps
            if self.step % 50 == 0 or last:
                means = self.ranks.mean(torch.stack([loss.detach().float() for loss in losses.values()]))
                self._log(dict(zip(losses, means.tolist(), strict=True)))
            if not self.ranks.is_first:
                continue
            if self.step % settings.validate_every == 0 or last:
                self.validation = self._validate()
                self._log(self.validation)
            if self.step % settings.save_every == 0 and not last:
                self._save_state()

    def _take_step(self, batch: TrainingBatch) -> Losses:
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(batch.step, settings)
        self.model.train()
        # Seeded by step, so that a resumed run draws what an unbroken one would have drawn.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(settings.seed * 1_000_003 + batch.step)
            visible = float(torch.rand(())) < settings.visible_share
            losses = self.trained(batch, "visible" if visible else "clean")
            self.optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        return losses

    def finish(self) -> None:
        """Train the heads to the end on the finished layers."""
        began, before = time.perf_counter(), self.seconds
        self._save_state()

        def log(record: dict[str, float]) -> None:
            self.seconds = before + time.perf_counter() - began
            self._log(record)

        parts = self.model, self.corpus, self.objective, self.settings, self.augmentation
        if finish_heads(*parts, autocast=self.autocast, report=log):
            self.validation = self._validate()
            log(self.validation)

    @torch.no_grad()
    def name_labels(self) -> None:
        """Say what the annotation head's outputs mean, with a temperature from held-out donors."""
        corpus = self.corpus
        if "annotation" not in self.model.heads or not corpus.classes:
            return
        # A coarse label with one class left below it does not say that its cells are of that class.
        final = np.array([label in corpus.classes for label in corpus.label_ids])
        cells = corpus.cells("validation")
        cells = cells[(corpus.labels[cells] >= 0) & final[corpus.labels[cells]]]
        self.model.eval()
        logits, rng = [], np.random.default_rng(self.settings.seed)
        for start in range(0, len(cells), self.settings.batch_size):
            chosen = cells[start : start + self.settings.batch_size]
            batch = make_batch(corpus, self.tokenizer, chosen, rng)
            logits.append(self.model.predict(batch.tokens, "annotation").float().cpu())
        truth = torch.from_numpy(corpus.members.argmax(axis=1)[corpus.labels[cells]])
        temperature = fitted_temperature(torch.cat(logits), truth) if len(cells) else 1.0
        names = tuple(corpus.manifest["class_names"])
        self.model.labels = CellLabels(corpus.classes, names, temperature)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss terms on held-out donors, a share from U(0, 1) of each cell's tokens hidden, anchor from the rest."""
        settings = self.settings
        self.model.eval()
        cells = self.corpus.cells("validation")
        rng = np.random.default_rng(settings.seed)
        cells = rng.permutation(cells)[: settings.validation_cells]
        sums: dict[str, float] = {}
        for start in range(0, len(cells), settings.batch_size):
            chosen = cells[start : start + settings.batch_size]
            batch = make_batch(self.corpus, self.tokenizer, chosen, rng, step=start)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(start)
                losses = self.losses(batch, "visible")
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() * len(chosen) / len(cells)
        return {f"validation_{name}": value for name, value in sums.items()}

    def _log(self, losses: dict[str, float]) -> None:
        if not self.ranks.is_first:
            return
        record = {
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "cells_per_second": round(self.step * self.settings.batch_size / max(self.seconds, 1e-9), 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **{name: round(value, 5) for name, value in losses.items()},
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.report(record)

    def _save_state(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "validation": self.validation,
            "settings": asdict(self.settings),
            "config": json.dumps(asdict(self.model.config)),
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.folder / "state.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")

    def figures(self) -> dict[str, Any]:
        """What the card says of the run."""
        return {
            "steps": self.step,
            "cells_seen": self.step * self.settings.batch_size,
            "seconds": round(self.seconds),
            "device": self.device.type,
            "seed": self.settings.seed,
            "settings": asdict(self.settings),
            "datasets": [
                {key: dataset[key] for key in ("name", "n_cells", "labelled_cells", "validation_cells")}
                for dataset in self.corpus.manifest["datasets"]
            ],
            "validation": self.validation,
        }


def _schedule(step: int, settings: PretrainSettings) -> float:
    """Linear warm-up, then cosine decay to a tenth."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(progress, 1.0)))
