"""Fine-tuning on one file behind one call: what is asked, what would be learned, and the checkpoint that it makes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import look
from scdiva_core.engine_integration import stand_ins
from scdiva_core.errors import DataError
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.training.finetune_annotation import FROZEN_SHARE, finetune_annotation
from scdiva_core.training.finetune_cells import split_cells, tokenizer_of
from scdiva_core.training.finetune_integration import READING_SHARE, finetune_integration
from scdiva_core.training.finetune_perturbation import finetune_perturbation, judging
from scdiva_core.training.finetune_result import FineTuned, new_folder
from scdiva_core.training.finetune_settings import FinetuneSettings, PerturbationSettings
from scdiva_core.training.integration_cells import check_batches
from scdiva_core.training.integration_result import IntegrationTuned
from scdiva_core.training.integration_settings import IntegrationSettings
from scdiva_core.training.perturbation_cells import Kind, read_perturbations, usable_perturbations
from scdiva_core.training.perturbation_result import PerturbationTuned

Task = Literal["annotation", "perturbation", "integration"]
Tuned = FineTuned | PerturbationTuned | IntegrationTuned

MINUTES: dict[Task, float] = {"annotation": 10.0, "perturbation": 30.0, "integration": 5.0}
"""Usual budgets."""

_LEARNING_COST = {"annotation": 1.7, "perturbation": 3.0}  # of a step, in passes forward; typical


@dataclass(frozen=True)
class FinetuneRequest:
    """What a checkpoint shall be taught, and by what.

    Parameters
    ----------
    task
        What for.
    label_key
        Column of ``obs``: the cell types, or for a perturbation what was done to each cell. For integration it may be
        None: clusters stand in for the types.
    batch_key
        Column of ``obs`` with the donor or batch; only integration needs one.
    control, kind
        For a perturbation: what `label_key` says of unperturbed cells, and what was done to the genes.
    minutes
        Budget.
    seed
        Of the split and of the training.
    name
        What the checkpoint is called; empty for a name made of its base and the file.

    Raises
    ------
    DataError
        Something that the task needs is missing, or a number makes no sense.
    """

    task: Task
    label_key: str | None = None
    batch_key: str | None = None
    control: str | None = None
    kind: Kind | None = None
    minutes: float = 10.0
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            msg = f"There is no fine-tuning for {self.task!r}."
            raise DataError(msg, f"Choose one of: {', '.join(get_args(Task))}.")
        needed = {"annotation": ("label_key",), "integration": ("batch_key",)}
        for name in needed.get(self.task, ("label_key", "control", "kind")):
            if not getattr(self, name):
                msg = f"Fine-tuning for {self.task} needs {name}."
                raise DataError(msg, "Choose it.")
        _ = self.settings  # checks the numbers

    @property
    def settings(self) -> FinetuneSettings | PerturbationSettings | IntegrationSettings:
        """Of the training."""
        kinds = {
            "annotation": FinetuneSettings,
            "perturbation": PerturbationSettings,
            "integration": IntegrationSettings,
        }
        return kinds[self.task](minutes=self.minutes, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a request would learn from, before anything is computed.

    Attributes
    ----------
    groups
        A row for each label, perturbation or batch: ``name``, ``teach`` and ``judge`` (cells), ``left_out`` (why;
        empty where it is used).
    held_out
        Donors or batches of whom all cells judge.
    seconds_reading
        What the frozen network takes to read the cells, typical; 0 where it does not.
    seconds_round
        What a round of training takes, typical; 0 where that is next to nothing.
    enough
        Whether the budget suffices for the reading.
    """

    groups: pd.DataFrame
    held_out: tuple[str, ...] = ()
    seconds_reading: float = 0.0
    seconds_round: float = 0.0
    enough: bool = True

    @property
    def used(self) -> pd.DataFrame:
        """Rows that are learned."""
        return self.groups[self.groups["left_out"] == ""]

    @property
    def left_out(self) -> dict[str, str]:
        """What is not learned -> why."""
        rest = self.groups[self.groups["left_out"] != ""]
        return dict(zip(rest["name"], rest["left_out"], strict=True))


def lesson(engine: Engine, dataset: H5adDataset, request: FinetuneRequest) -> Lesson:
    """Look up what a request would learn from; the first call for a file times the network for half a second.

    Parameters
    ----------
    engine, dataset, request
        As for `finetune`.

    Raises
    ------
    DataError
        The columns do not suffice, with the numbers found.
    """
    if request.task == "annotation":
        return _annotation_lesson(engine, dataset, request)
    if request.task == "perturbation":
        return _perturbation_lesson(engine, dataset, request)
    batches = _column(dataset, request.batch_key)
    check_batches(batches)
    sizes = batches.dropna().astype(str).value_counts(sort=False).sort_index()
    judge = sizes // 5
    reading = look(engine, dataset).seconds * min(int(sizes.sum()), request.settings.most_cells)
    groups = _rows(sizes.index, sizes - judge, judge, {})
    return Lesson(groups, seconds_reading=reading, enough=reading <= READING_SHARE * 60 * request.minutes)


def finetune(
    engine: Engine,
    dataset: H5adDataset,
    request: FinetuneRequest,
    folder: Path,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Tuned:
    """Teach a copy of the engine's network, and write it as a checkpoint that opens like any other.

    Parameters
    ----------
    engine
        Its network is not changed.
    dataset
        Opened by this engine.
    request
        What for, and by which columns.
    folder
        Absent or empty; it is there as a whole or not at all. A file beside it keeps a long training between its
        passes: the same call goes on where a killed one stopped.
    progress
        Called with units done, units in all, and what is going on.
    cancelled
        Asked once a batch. True ends the training; the best so far is written.
    report
        Called with each record of the curve. From the first one on there is something to keep.

    Returns
    -------
    FineTuned, PerturbationTuned or IntegrationTuned
        With its curve, and in words what it is worth beside its baseline.

    Raises
    ------
    DataError
        The columns or the budget do not suffice.
    CheckpointError
        The folder holds files, or the file beside it is of another run.
    Cancelled
        The user stopped before there was anything to keep.
    """
    target, state = new_folder(folder), state_path(folder)
    told = {"progress": progress, "cancelled": cancelled, "report": report}
    train = {"annotation": _annotation, "perturbation": _perturbation, "integration": _integration}[request.task]
    tuned = train(engine, dataset, request, state, told)
    if request.name:
        tuned.model.card["name"] = request.name
    stage = target.with_name(f".{target.name}.partial")
    shutil.rmtree(stage, ignore_errors=True)  # of a process that was killed here
    tuned.save(stage)
    os.replace(stage, target)
    state.unlink(missing_ok=True)
    return tuned


def state_path(folder: Path) -> Path:
    """File beside a checkpoint's folder that keeps its training while it is made."""
    return folder.with_name(folder.name + ".state.pt")


def _annotation(
    engine: Engine, dataset: H5adDataset, request: FinetuneRequest, state: Path, told: dict[str, Any]
) -> FineTuned:
    labels, batches = _columns(dataset, request)
    return finetune_annotation(engine.model, dataset, labels, batches=batches, settings=request.settings, **told)


def _perturbation(
    engine: Engine, dataset: H5adDataset, request: FinetuneRequest, state: Path, told: dict[str, Any]
) -> PerturbationTuned:
    names, batches = _columns(dataset, request)
    cells = read_perturbations(
        dataset,
        engine.vocabulary,
        names,
        control=request.control,
        kind=request.kind,
        max_genes=engine.model.config.max_genes,
        batches=batches,
        seed=request.seed,
        progress=told["progress"],
        cancelled=told["cancelled"],
    )
    state.parent.mkdir(parents=True, exist_ok=True)
    return finetune_perturbation(
        engine.model,
        cells,
        tokenizer=tokenizer_of(engine.model, dataset),
        source={"name": dataset.path.name, "sha256": dataset.sha256, "control": request.control},
        settings=request.settings,
        state=state,
        **told,
    )


def _integration(
    engine: Engine, dataset: H5adDataset, request: FinetuneRequest, state: Path, told: dict[str, Any]
) -> IntegrationTuned:
    labels, batches = _columns(dataset, request)
    check_batches(batches)
    if labels is None:
        engine.embed(dataset, progress=told["progress"], cancelled=told["cancelled"])
        groups, taught_by = stand_ins(engine, dataset, batches, request.seed), "clusters"
    else:
        groups, taught_by = labels, "labels"
    return finetune_integration(
        engine.model, dataset, batches, groups, taught_by=taught_by, settings=request.settings, **told
    )


def _annotation_lesson(engine: Engine, dataset: H5adDataset, request: FinetuneRequest) -> Lesson:
    labels, batches = _columns(dataset, request)
    settings = request.settings
    chosen = split_cells(labels, batches, most=settings.most_cells, seed=settings.seed)
    n_classes = len(chosen.classes)
    judge = np.bincount(chosen.codes[chosen.validation], minlength=n_classes)
    teach = np.bincount(chosen.codes[~chosen.validation], minlength=n_classes)
    second = look(engine, dataset).seconds
    reading = second * len(chosen.cells)
    round_cells = min(settings.round_cells, int(teach.sum()))
    return Lesson(
        _rows(chosen.classes, teach, judge, chosen.left_out),
        chosen.held_out,
        seconds_reading=reading,
        seconds_round=second * (_LEARNING_COST["annotation"] * round_cells + int(judge.sum())),
        enough=reading <= FROZEN_SHARE * 60 * request.minutes,
    )


def _perturbation_lesson(engine: Engine, dataset: H5adDataset, request: FinetuneRequest) -> Lesson:
    given, _ = _columns(dataset, request)
    names, targets, left_out = usable_perturbations(given, request.control, engine.vocabulary)
    settings, judges = request.settings, judging(targets, request.settings)
    sizes = pd.Series(names).value_counts()
    cells = np.array([int(sizes[name]) for name in targets])
    held = np.isin(list(targets), judges)
    second = engine.estimate_seconds(1, min(len(dataset.gene_ids), engine.model.config.max_genes))
    shown = _LEARNING_COST["perturbation"] * settings.cells * int((~held).sum())
    return Lesson(
        _rows(targets, np.where(held, 0, cells), np.where(held, cells, 0), left_out),
        seconds_round=second * (shown + settings.validation_cells * int(held.sum())),
    )


def _rows(names: Any, teach: Any, judge: Any, left_out: dict[str, str]) -> pd.DataFrame:
    used = pd.DataFrame({"name": list(names), "teach": list(teach), "judge": list(judge), "left_out": ""})
    rest = pd.DataFrame({"name": list(left_out), "teach": 0, "judge": 0, "left_out": list(left_out.values())})
    return pd.concat([used, rest], ignore_index=True) if left_out else used


def _columns(dataset: H5adDataset, request: FinetuneRequest) -> tuple[pd.Series | None, pd.Series | None]:
    return tuple(None if key is None else _column(dataset, key) for key in (request.label_key, request.batch_key))


def _column(dataset: H5adDataset, name: str) -> pd.Series:
    if name not in dataset.obs.columns:
        there = ", ".join(map(str, dataset.obs.columns[:12])) or "none"
        msg = f"{dataset.path.name} has no column {name!r} in obs."
        raise DataError(msg, f"Choose one of: {there}.")
    return dataset.obs[name]
