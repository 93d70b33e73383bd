"""Fine-tuning on perturbations judged on those that it never saw, beside baselines that learned from the same ones.

Every perturbation is held out once, and with a single one every double in which its gene takes part, so that a held-out
gene was never perturbed. A double is held out where those of its genes that were measured alone are all learned from,
as far as that can be; it is counted by how many of them (0, 1 or 2) were. Nothing is chosen on what is held out:
settings are fixed beforehand, and each training ends by perturbations that it holds out of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.baselines.perturbation import BASELINES, MeasuredPerturbations
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import DataError
from scdiva_core.metrics.perturbation import changed_genes, retrieval_rank, score_delta
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation_model import PerturbationModel
from scdiva_core.tasks.progress import IsCancelled, never, stop_if
from scdiva_core.training.finetune_perturbation import finetune_perturbation
from scdiva_core.training.finetune_settings import PerturbationSettings
from scdiva_core.training.perturbation_cells import PerturbationCells
from scdiva_core.training.perturbation_result import PerturbationTuned

FOLDS = 5

SETTINGS = PerturbationSettings(minutes=120.0, epochs=12, patience=4, cells=8, batch_size=8, validation_cells=16)
"""Fixed before any of it was measured: the published learning rate, and as many passes as two CPU cores do in minutes.

Passes end a training and never its time, so that a busy machine comes to the same result.
"""

PREDICTED_CELLS = 64
"""Control cells over which a prediction is averaged."""

MEASURES = {
    "pearson_delta": True,
    "de_mse": False,
    "de_auprc": True,
    "fold_change_spearman": True,
    "hit_rate": True,
    "sign_accuracy": True,
    "centroid_pearson": True,
    "retrieval_rank": False,
}
"""Measures of `scdiva_core.metrics.perturbation`, and whether higher is better."""

MODEL = "scdiva"

_RESAMPLES = 2000


@dataclass(frozen=True)
class Fold:
    """What one training learns from, and what it is judged on.

    Attributes
    ----------
    train, test
        Perturbations, sorted; some are in neither.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_perturbations(names: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> list[Fold]:
    """Hold out every perturbation once.

    Parameters
    ----------
    names
        Perturbations, genes joined by ``+``.
    folds
        How many parts; fewer where there are fewer singles.
    seed
        Of the parts.

    Raises
    ------
    DataError
        There are fewer than two single perturbations.
    """
    singles, combined = ([name for name in sorted(names) if ("+" in name) == several] for several in (False, True))
    if len(singles) < 2:
        msg = f"There are {len(singles)} single perturbations."
        raise DataError(msg, "Use a set with two of them at least.")
    rng = np.random.default_rng(seed)
    held = [set(part.tolist()) for part in np.array_split(rng.permutation(singles), min(folds, len(singles)))]
    alone: list[set[str]] = [set() for _ in held]
    for name in rng.permutation(combined).tolist() if combined else []:
        genes = set(name.split("+"))
        best = min(range(len(held)), key=lambda number: (len(genes & held[number]), len(alone[number])))
        alone[best].add(name)
    found = []
    for genes, others in zip(held, alone, strict=True):
        test = genes | others
        train = [name for name in sorted(names) if name not in test and not genes & set(name.split("+"))]
        found.append(Fold(tuple(train), tuple(sorted(test))))
    return found


def group_of(name: str, train: Sequence[str]) -> str:
    """Kind of a held-out perturbation: ``single``, or ``double, k seen`` by its genes that were learned from alone.

    Genes that were not may still have been learned from in another double, which the network can use and the additive
    baseline cannot.
    """
    genes = name.split("+")
    if len(genes) == 1:
        return "single"
    number = {2: "double", 3: "triple"}.get(len(genes), f"{len(genes)} genes")
    return f"{number}, {len(set(genes) & set(train))} seen"


@dataclass(frozen=True, eq=False)
class FinetunedEvaluation:
    """Scores of held-out perturbations.

    Attributes
    ----------
    scores
        One row for each perturbation and method: ``perturbation``, ``group``, ``fold``, ``method``, ``n_changed``
        (genes that truly changed), and a column for each of `MEASURES`, NaN where it is not defined.
    trainings
        One record a fold: ``passes``, ``best_epoch``, ``stopped``, ``seconds``, ``spearman`` and ``spearman_mean`` on
        the perturbations that ended it.
    """

    scores: pd.DataFrame
    trainings: list[dict[str, Any]]

    def summary(self) -> pd.DataFrame:
        """Mean of each measure by group and method over the perturbations where it is defined; ``n`` of the group."""
        groups = self.scores.groupby(["group", "method"], sort=False)
        means = groups[list(MEASURES)].mean()
        means.insert(0, "n", groups.size())
        order = [MODEL, *BASELINES]
        return means.sort_index(
            key=lambda level: level.map(order.index) if level.name == "method" else level, kind="stable"
        )

    def comparison(self, measure: str, baseline: str, *, seed: int = 0) -> tuple[float, float, float, int]:
        """Advantage of the model, positive where it is better, over all held-out perturbations.

        Parameters
        ----------
        measure
            One of `MEASURES`.
        baseline
            One of `scdiva_core.baselines.perturbation.BASELINES`.
        seed
            Of the resamples.

        Returns
        -------
        tuple
            Mean, 2.5 % and 97.5 % quantile over resamples of the perturbations (Efron 1979), and how many there are at
            which both are defined; NaN where there is none.
        """
        wide = self.scores.pivot(index="perturbation", columns="method", values=measure)
        gains = (wide[MODEL] - wide[baseline]).dropna().to_numpy() * (1 if MEASURES[measure] else -1)
        if not len(gains):
            return float("nan"), float("nan"), float("nan"), 0
        drawn = np.random.default_rng(seed).integers(0, len(gains), (_RESAMPLES, len(gains)))
        low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
        return float(gains.mean()), float(low), float(high), len(gains)

    @property
    def words(self) -> str:
        """Which baselines the model beats, is level with or loses to, for singles and for several genes at once.

        Beating is a difference whose 95 % interval leaves 0 out; of so many comparisons some do by chance.
        """
        single = self.scores["group"] == "single"
        sentences = []
        for kind, rows in (("single", self.scores[single]), ("several genes", self.scores[~single])):
            part = FinetunedEvaluation(rows, [])
            sentences += [f"{kind}, {part._compared(measure)}" for measure in MEASURES if len(rows)]
        return "\n".join(sentences)

    def _compared(self, measure: str) -> str:
        said: dict[str, list[str]] = {"beats": [], "is level with": [], "loses to": []}
        most = 0
        for baseline in BASELINES:
            _, low, high, number = self.comparison(measure, baseline)
            most = max(most, number)
            if number:
                said["beats" if low > 0 else "loses to" if high < 0 else "is level with"].append(baseline)
        parts = [f"{verb} {', '.join(names)}" for verb, names in said.items() if names]
        where = "1 perturbation" if most == 1 else f"{most} perturbations"
        return f"{measure} ({where}): {'; '.join(parts)}." if parts else f"{measure}: nothing to compare."

    def to_markdown(self) -> str:
        """Table of `summary` and what it says, as Markdown."""
        header = ["group", "n", "method", *(f"{name} {'up' if up else 'down'}" for name, up in MEASURES.items())]
        lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        for (group, method), row in self.summary().iterrows():
            values = ("-" if np.isnan(row[name]) else f"{row[name]:.3f}" for name in MEASURES)
            lines.append(f"| {group} | {int(row['n'])} | {method} | {' | '.join(values)} |")
        return "\n".join([*lines, "", self.words, ""])


def evaluate_finetuned(
    model: ScDiVaModel,
    cells: PerturbationCells,
    folder: Path,
    *,
    tokenizer: Tokenizer | None = None,
    settings: PerturbationSettings = SETTINGS,
    folds: int = FOLDS,
    cancelled: IsCancelled = never,
    report: Callable[[str], None] = lambda _: None,
) -> FinetunedEvaluation:
    """Fine-tune once a fold and score what was held out; genes that were perturbed are in no score of theirs.

    Parameters
    ----------
    model
        Checkpoint to begin with; not changed.
    cells
        The whole set.
    folder
        Keeps each fold's scores, and a training that is under way: a run that was stopped goes on.
    tokenizer
        As for `finetune_perturbation`.
    settings
        Of every training.
    folds
        See `split_perturbations`.
    cancelled
        Asked once a batch.
    report
        Called with a line of progress.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth, scores, trainings = _Truth(cells), [], []
    for number, fold in enumerate(split_perturbations(truth.names, folds=folds, seed=settings.seed)):
        kept = folder / f"{_digest(model, cells, settings, fold)}.json"
        if not kept.is_file():
            report(f"Fold {number + 1}: {len(fold.train)} perturbations to learn from, {len(fold.test)} held out")
            parts = {"tokenizer": tokenizer, "settings": settings, "state": kept.with_suffix(".pt")}
            tuned = finetune_perturbation(model, cells.only(fold.train), cancelled=cancelled, **parts)
            stop_if(cancelled)  # what was kept of a training that the user stopped is not what is to be judged
            rows = _judged(tuned.model, truth, fold, settings.seed, cancelled)
            partial = kept.with_suffix(".partial")
            partial.write_text(json.dumps({"scores": rows, "training": _summary(tuned)}), encoding="utf-8")
            os.replace(partial, kept)
            kept.with_suffix(".pt").unlink(missing_ok=True)
        record = json.loads(kept.read_text(encoding="utf-8"))
        scores += [{"fold": number, **row} for row in record["scores"]]
        trainings.append({"fold": number, **record["training"]})
        report(f"Fold {number + 1}: {record['training']}")
    return FinetunedEvaluation(pd.DataFrame(scores).astype(dict.fromkeys(MEASURES, float)), trainings)


class _Truth:
    """What every perturbation of a set truly changed."""

    def __init__(self, cells: PerturbationCells) -> None:
        self.cells, self.names = cells, sorted(cells.targets)
        self.deltas = {name: cells.change(name) for name in self.names}
        controls = cells.expression[cells.control]
        self.changed = {name: changed_genes(cells.expression[cells.rows(name)], controls) for name in self.names}
        targets = [token for ids in cells.targets.values() for token in ids]
        self.never_perturbed = ~np.isin(cells.gene_ids, targets)
        self.elsewhere = np.stack([self.deltas[name][self.never_perturbed] for name in self.names])

    def genes(self, name: str) -> tuple[str, ...]:
        """Perturbed genes, named as the panel names them, so that baselines find them there."""
        symbols = dict(zip(self.cells.gene_ids.tolist(), self.cells.symbols, strict=True))
        pairs = zip(self.cells.targets[name], name.split("+"), strict=True)
        return tuple(symbols.get(token, gene) for token, gene in pairs)

    def score(self, name: str, delta: NDArray[np.floating], centroid: NDArray[np.floating]) -> dict[str, float]:
        """All measures of one prediction, its perturbed genes left out."""
        others = ~np.isin(self.cells.gene_ids, self.cells.targets[name])
        scores = score_delta(delta[others], self.deltas[name][others], self.changed[name][others], centroid[others])
        rank = retrieval_rank(delta[self.never_perturbed], self.elsewhere, self.names.index(name))
        return scores | {"retrieval_rank": rank}


def _judged(model: ScDiVaModel, truth: _Truth, fold: Fold, seed: int, cancelled: IsCancelled) -> list[dict[str, Any]]:
    """Scores of every method on a fold's held-out perturbations."""
    cells, predictor = truth.cells, PerturbationModel(model)
    controls = cells.expression[cells.control]
    known = MeasuredPerturbations(
        symbols=cells.symbols,
        control=sp.csr_matrix(controls),
        perturbations=tuple(truth.genes(name) for name in fold.train),
        deltas=np.stack([truth.deltas[name] for name in fold.train]),
        kind=cells.kind,
    )
    drawn = controls[np.random.default_rng(seed).permutation(len(controls))[:PREDICTED_CELLS]]
    rows = []
    for name in fold.test:
        predicted = predictor.changes(cells.gene_ids, drawn, cells.targets[name], cancelled=cancelled).mean(axis=0)
        methods = {MODEL: predicted}
        methods |= {method: predict(known, truth.genes(name)) for method, predict in BASELINES.items()}
        n_changed = int(truth.changed[name].sum())
        described = {"perturbation": name, "group": group_of(name, fold.train), "n_changed": n_changed}
        for method, delta in methods.items():
            scores = truth.score(name, delta, known.deltas.mean(axis=0))
            rows.append({**described, "method": method, **scores})
    return rows


def _summary(tuned: PerturbationTuned) -> dict[str, Any]:
    """How a training went."""
    return {
        "passes": len(tuned.curve) - 1,
        "best_epoch": tuned.best_epoch,
        "stopped": tuned.stopped,
        "seconds": tuned.curve[-1]["seconds"],
        "spearman": tuned.curve[tuned.best_epoch]["spearman"],
        "spearman_mean": tuned.mean_spearman,
    }


def _digest(model: ScDiVaModel, cells: PerturbationCells, settings: PerturbationSettings, fold: Fold) -> str:
    """Name of a fold's result: what it was computed from."""
    facts = json.dumps([model.sha256, cells.kind, asdict(settings), fold.train, fold.test, cells.gene_ids.tolist()])
    values = hashlib.sha256(np.ascontiguousarray(cells.expression))
    values.update(facts.encode())
    values.update("\n".join(cells.names.tolist()).encode())
    values.update(cells.batches.tobytes())
    return values.hexdigest()[:32]
