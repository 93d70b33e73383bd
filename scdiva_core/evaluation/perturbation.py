"""In-silico knockouts against measured ones, without any training on them, beside what needs no network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.baselines.perturbation import (
    Baseline,
    MeasuredPerturbations,
    co_expression,
    mean_change,
    no_change,
    random_change,
)
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import DataError
from scdiva_core.evaluation.perturbation_scores import MEASURES, MODEL, ZeroShot, gene_table, scored, scored_others
from scdiva_core.metrics.perturbation import changed_genes, retrieval_rank
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.perturbation import CellSample, Perturbation, check_read, read_sample, reading_rows
from scdiva_core.tasks.perturbation_null import gene_statistics, matched_tuples
from scdiva_core.tasks.predicted_expression import LEAST_SHARE, Reading, expression_change
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.training.perturbation_cells import PerturbationCells, read_perturbations

INTERFERON_GENES = ("STAT1", "STAT2", "IRF9")
"""The factor ISGF3, through which type I interferon acts."""

MOST_SAMPLED = 600
"""Unperturbed cells that the model is given, drawn at random; baselines see all of them."""

_BASELINES: dict[str, Baseline] = {
    "co_expression": co_expression,
    "mean": mean_change,
    "no_change": no_change,
    "random": random_change,
}


def measured_knockouts(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    dataset: H5adDataset,
    *,
    column: str = "perturbation",
    control: str = "non-targeting",
    batch_column: str | None = "bio_rep",
    most_cells: int = 100,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ZeroShot:
    """Knock out each target in silico in control cells, and compare all genes with the measured knockout.

    Defaults fit Papalexi 2021 (ECCITE-seq, THP-1). The mean of the other knockouts has seen measurements of this very
    experiment, which neither the model nor co-expression has: it says what is common to all knockouts.

    Parameters
    ----------
    model, tokenizer
        The checkpoint.
    dataset
        CRISPR knockouts; open over the model's vocabulary.
    column, control, batch_column
        Columns of ``obs``: the targets, the value of control cells, and the batches within which changes are measured.
    most_cells
        Control cells over which a prediction is averaged.
    seed
        Of all draws.
    progress, cancelled
        Called once a knockout; asked once a batch.

    Raises
    ------
    DataError
        A column is missing, or no knockout can be predicted.
    """
    for name in filter(None, (column, batch_column)):
        if name not in dataset.obs:
            msg = f"{dataset.path.name} has no column {name!r} in obs (it has: {', '.join(dataset.obs.columns)})."
            raise DataError(msg, "Name the column of the perturbations, and that of the batches or none.")
    cells = read_perturbations(
        dataset,
        model.vocabulary,
        dataset.obs[column],
        control=control,
        kind="knockout",
        max_genes=model.config.max_genes,
        batches=dataset.obs[batch_column] if batch_column else None,
        seed=seed,
    )
    there = np.flatnonzero(dataset.obs[column] == control)
    drawn = np.random.default_rng(seed).permutation(there)[:MOST_SAMPLED]
    sample = read_sample(model, tokenizer, dataset, drawn, cancelled=cancelled)
    truth = np.stack([cells.change(name) for name in cells.targets])
    names, skipped = list(cells.targets), dict(cells.left_out)
    predictor = _Predictor(model, tokenizer, sample, cells.gene_ids, most_cells, seed, cancelled)
    by_model = {}
    for number, name in enumerate(names):
        progress(number, len(names), "Knocking out genes")
        genes = tuple(name.split("+"))
        if why := predictor.refused(genes):
            skipped[name] = why
        else:
            by_model[name] = predictor.all(genes)
    progress(len(names), len(names), "Knocking out genes")
    scores, tables = [], []
    for name in by_model:
        compared = _compared(cells, name, by_model, truth, predictor.n_read(tuple(name.split("+"))))
        scores += compared[0]
        tables.append(compared[1])
    if not tables:
        msg = f"None of the {len(names)} knockouts can be predicted: {'; '.join(map(': '.join, skipped.items()))}."
        raise DataError(msg, "Choose a file whose targets are among its genes.")
    return ZeroShot(
        f"{len(tables)} measured knockouts, {len(cells.symbols)} genes",
        pd.DataFrame(scores),
        pd.concat(tables, ignore_index=True),
        skipped,
        "The mean of the other knockouts has seen measurements of this experiment, the model has not.",
    )


def interferon_response(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    dataset: H5adDataset,
    *,
    condition: str = "condition",
    stimulated: str = "STIM",
    control: str = "CTRL",
    groups: str = "cell_type",
    most_cells: int = 60,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ZeroShot:
    """Knock STAT1, STAT2 and IRF9 out of interferon-stimulated cells, and see whether they come to look unstimulated.

    A sanity case and no measured knockout: the truth is control less stimulated expression, within each cell type,
    weighted by the stimulated cells. Defaults fit Kang 2018. Genes that 5 % of the cells of either condition express
    are compared, the three left out.

    Parameters
    ----------
    model, tokenizer, dataset
        As for `measured_knockouts`.
    condition, stimulated, control, groups
        Columns of ``obs``, and the values of the first.
    most_cells, seed
        As for `measured_knockouts`.
    progress, cancelled
        Called once a knockout; asked once a batch.

    Raises
    ------
    DataError
        A column is missing, or the genes are.
    """
    missing = [name for name in (condition, groups) if name not in dataset.obs]
    if missing:
        msg = f"{dataset.path.name} has no column {missing[0]!r} in obs (it has: {', '.join(dataset.obs.columns)})."
        raise DataError(msg, "Name the columns of the condition and of the cell types.")
    expression = sp.vstack([block for _, block in dataset.chunks()], format="csr")
    sides = [dataset.obs[condition].astype(str).to_numpy() == value for value in (stimulated, control)]
    there = np.flatnonzero(sides[0])
    drawn = np.random.default_rng(seed).permutation(there)[:MOST_SAMPLED]
    sample = read_sample(model, tokenizer, dataset, drawn, cancelled=cancelled)
    shares = np.stack([expression[side].getnnz(axis=0) / max(side.sum(), 1) for side in sides])
    own = sample.columns(INTERFERON_GENES)
    kept = np.setdiff1d(np.flatnonzero(shares.max(axis=0) >= LEAST_SHARE), own)
    measured = _within_groups(expression, sides, dataset.obs[groups].astype(str).to_numpy())[kept]
    changed = changed_genes(expression[sides[1]][:, kept], expression[sides[0]][:, kept])
    train = MeasuredPerturbations(
        sample.symbols, expression[sides[0]], (), np.empty((0, len(sample.symbols))), "knockout"
    )
    predictor = _Predictor(model, tokenizer, sample, sample.gene_ids, most_cells, seed, cancelled)
    work = [*((gene,) for gene in INTERFERON_GENES), INTERFERON_GENES]
    others = [predictor.usual(genes)[kept] for genes in _others(sample, seed)]
    scores, tables, skipped = [], [], {}
    for number, genes in enumerate(work):
        progress(number, len(work), "Knocking out genes")
        if why := predictor.refused(genes):
            skipped["+".join(genes)] = why
            continue
        simple = {name: predict(train, genes) for name, predict in _BASELINES.items() if name != "mean"}
        predicted = {name: delta[kept] for name, delta in (predictor.all(genes) | simple).items()}
        about = {
            "perturbation": "+".join(genes),
            "n_measured": int(sides[1].sum()),
            "n_reading": predictor.n_read(genes),
        }
        scores += [scored(about, name, delta, measured, changed) for name, delta in predicted.items()]
        scores.append(scored_others(about, others, measured, changed))
        symbols = np.array(sample.symbols, object)[kept]
        tables.append(gene_table(about["perturbation"], symbols, measured, changed, predicted))
    progress(len(work), len(work), "Knocking out genes")
    if not scores:
        msg = f"None of {', '.join(INTERFERON_GENES)} is read by the {int(sides[0].sum()):,} stimulated cells."
        raise DataError(msg, "Choose a file of interferon-stimulated cells.")
    return ZeroShot(
        f"Interferon response undone by knockouts of {', '.join(INTERFERON_GENES)}, {len(kept):,} genes",
        pd.DataFrame(scores).assign(**dict.fromkeys((name for name in MEASURES if name not in scores[0]), np.nan)),
        pd.concat(tables, ignore_index=True),
        skipped,
        "No knockout was measured here. The default checkpoint was trained on these cells of Kang 2018.",
    )


class _Predictor:
    """Predicted changes of one sample's genes, in the order of given token ids."""

    def __init__(
        self,
        model: ScDiVaModel,
        tokenizer: Tokenizer,
        sample: CellSample,
        gene_ids: NDArray[np.int64],
        most_cells: int,
        seed: int,
        cancelled: IsCancelled,
    ) -> None:
        self.sample, self._model, self._tokenizer = sample, model, tokenizer
        self._columns = np.searchsorted(sample.gene_ids, gene_ids)
        self._most_cells, self._seed, self._cancelled = most_cells, seed, cancelled

    def refused(self, genes: tuple[str, ...]) -> str:
        """Why a knockout cannot be predicted; empty where it can."""
        try:
            check_read(self._tokenizer, self.sample, Perturbation(genes))
        except DataError as error:
            return error.message.rstrip(".")
        return ""

    def n_read(self, genes: tuple[str, ...]) -> int:
        """Cells that read one of the genes."""
        return len(reading_rows(self._tokenizer, self.sample, Perturbation(genes)))

    def usual(self, genes: tuple[str, ...]) -> NDArray[np.float64]:
        """Delta by the usual reading."""
        return self._delta(genes, None)[1]

    def all(self, genes: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
        """Delta by the usual reading, and by the denoiser's own heads where that is another."""
        usual, delta = self._delta(genes, None)
        found = {MODEL: delta}
        if usual != "tokens":
            found["scdiva_tokens"] = self._delta(genes, "tokens")[1]
        return found

    def _delta(self, genes: tuple[str, ...], reading: Reading | None) -> tuple[Reading, NDArray[np.float64]]:
        found = expression_change(
            self._model,
            self._tokenizer,
            self.sample,
            Perturbation(genes),
            repeats=1,
            seed=self._seed,
            most_cells=self._most_cells,
            reading=reading,
            cancelled=self._cancelled,
        )
        return found.reading, np.nan_to_num(found.change[self._columns])


def _compared(
    cells: PerturbationCells,
    name: str,
    by_model: Mapping[str, Mapping[str, NDArray[np.float64]]],
    truth: NDArray[np.float32],
    n_reading: int,
) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """Score a knockout over all genes but its targets; retrieval over all genes that are nobody's target."""
    names, genes = list(cells.targets), tuple(name.split("+"))
    row, rows = names.index(name), cells.rows(name)
    train = MeasuredPerturbations(
        cells.symbols,
        sp.csr_matrix(cells.expression[cells.control]),
        tuple(tuple(other.split("+")) for other in names if other != name),
        np.delete(truth, row, axis=0),
        "knockout",
    )
    predicted = {**by_model[name], **{method: predict(train, genes) for method, predict in _BASELINES.items()}}
    rest = ~np.isin(cells.gene_ids, cells.targets[name])
    nobodys = ~np.isin(cells.gene_ids, np.concatenate([list(ids) for ids in cells.targets.values()]))
    measured, centroid = truth[row][rest], mean_change(train, genes)[rest]
    changed = changed_genes(cells.expression[rows][:, rest], cells.expression[cells.control][:, rest])
    about = {"perturbation": name, "n_measured": len(rows), "n_reading": n_reading}
    scores = [
        scored(about, method, delta[rest], measured, changed, centroid)
        | {"retrieval_rank": retrieval_rank(delta[nobodys], truth[:, nobodys], row)}
        for method, delta in predicted.items()
    ]
    others = [found[MODEL][rest] for other, found in by_model.items() if other != name]
    if others:
        scores.append(scored_others(about, others, measured, changed, centroid))
    left = {method: delta[rest] for method, delta in predicted.items()}
    return scores, gene_table(name, np.array(cells.symbols, object)[rest], measured, changed, left)


def _others(sample: CellSample, seed: int) -> list[tuple[str, ...]]:
    """Genes to compare the interferon genes with, one expressed like each of them."""
    statistics, names = gene_statistics(sample), [sample.symbols[column] for column in sample.columns(INTERFERON_GENES)]
    return [(gene,) for matched in matched_tuples(statistics, names, 5, seed)[:1] for gene in matched]


def _within_groups(
    expression: sp.csr_matrix, sides: list[NDArray[np.bool_]], groups: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Mean of the second side less that of the first within groups that both have, weighted by the first's cells."""
    total, weight = np.zeros(expression.shape[1]), 0
    for group in np.unique(groups):
        first, second = (np.flatnonzero(side & (groups == group)) for side in sides)
        if len(first) and len(second):
            means = [np.asarray(expression[rows].mean(axis=0, dtype=np.float64)).ravel() for rows in (first, second)]
            total += len(first) * (means[1] - means[0])
            weight += len(first)
    return total / max(weight, 1)
