"""What the model infers of every other gene, with and without the perturbed ones, no gene seeing its own value.

The genes of the file are cut into folds. Each fold's tokens are hidden from every cell in turn, and the fold's genes
are predicted from what is left, once with the perturbed genes as they are and once perturbed. The difference, averaged
over cells, is the predicted change.

A prediction can be read in two ways. On held-out donors of four studies of the corpus (120 cells each, 5 folds) the
rank correlation of prediction and truth over cells, median over genes and mean of the studies, was for genes that are a
token of at least 5 % of the cells (in brackets: for all genes that 5 % express):

* ``"latent"``, the decoder's expression for the latent of the visible tokens: 0.32 (0.22);
* ``"tokens"``, the denoiser's own heads at the hidden places, a gene's probability at a place times the value there,
  summed over places: 0.16 (0.05). The published mask hides identity and value together, so that a hidden place does not
  know its gene; and it still shows its rank. Leaving the gene's embedding there, with which the denoiser was never
  trained, gave (-0.10) at the end of the row and (-0.07) at random places;
* for comparison a PCA on training cells, completed from the visible genes: 0.35 (0.26); the number of genes that the
  cell expresses, the same guess for all of them: 0.23 (0.24); each gene's mean: 0.

So the latent is read where the checkpoint has the heads for it. Its levels are those of an average study: changes can
be compared with each other, levels not with the file. Neither reading makes a change specific: much of it is the same
whichever gene is removed, so read it beside that of matched genes (`null_changes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from scdiva_core.data.tokenizer import Tokenizer, TokenRows
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import TokenBudget, encode_rows
from scdiva_core.tasks.perturbation import (
    CellSample,
    Perturbation,
    check_read,
    hidden_tokens,
    perturbed_rows,
    reading_rows,
)
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

Reading = Literal["latent", "tokens"]

FOLDS = 5
"""Parts of the genes, one of which is hidden at a time."""

LEAST_SHARE = 0.05
"""Share of the cells that express a gene of the table at least (our choice: little can be said of the others)."""

_DECODER = "batch_integration"


@dataclass(frozen=True, eq=False)
class ExpressionChange:
    """Predicted change of every other gene of a file.

    Attributes
    ----------
    perturbation
        What was done.
    table
        The genes that at least 5 % of the cells express, the perturbed ones left out, the largest change first:
        ``symbol``; ``before`` and ``after``, predicted log1p expression, mean over the cells; ``change``, their
        difference; ``noise``, the standard deviation of the change from one random cut into folds to the next (NaN
        for a single one); ``detection``, the share of the cells that express the gene; ``n``, the number of cells.
    change
        float64 ``[n_genes]`` change of each column of the sample, NaN where nothing was predicted: the perturbed genes,
        and those that no cell of the sample expresses.
    rows
        int64 ``[n]`` rows of the sample that were averaged, drawn from those that read a perturbed gene.
    n_read
        How many rows that are; in all others the change is exactly 0.
    reading
        How the prediction was read.
    folds, repeats
        Parts of the genes, and random cuts into them.
    """

    perturbation: Perturbation
    table: pd.DataFrame
    change: NDArray[np.float64]
    rows: NDArray[np.int64]
    n_read: int
    reading: Reading
    folds: int
    repeats: int

    @property
    def noise_floor(self) -> float:
        """Root mean square of the table's noise: a change below it is as large as what chance in hiding genes makes."""
        return float(np.sqrt(np.square(self.table["noise"]).mean()))

    @property
    def words(self) -> str:
        """What the changes are, in a sentence or two for a caption."""
        cells = f"{len(self.rows):,} cells that read"
        if len(self.rows) < self.n_read:
            cells = f"{len(self.rows):,} cells, drawn from the {self.n_read:,} that read"
        words = (
            f"{self.perturbation.title}: mean change of predicted log1p expression over {cells} the perturbed genes."
        )
        if self.repeats > 1:
            words += f" Noise floor {self.noise_floor:.4f}, from {self.repeats} random cuts into {self.folds} folds."
        return words

    def against(self, null: NDArray[np.floating]) -> pd.DataFrame:
        """Compare each gene's change with what other perturbations do to the same gene.

        Parameters
        ----------
        null
            float ``[m, n_genes]`` changes by genes matched with the perturbed ones (`null_changes`), columns as in
            `change`; NaN where one does not count.

        Returns
        -------
        DataFrame
            `table` with ``p``, the share of the null's changes that are at least as large in size,
            ``(b + 1) / (m + 1)``, and ``q``, Benjamini-Hochberg over the table.

        Raises
        ------
        DataError
            The null is of other genes.
        """
        if null.ndim != 2 or null.shape[1] != len(self.change):
            msg = f"The null has the shape {list(null.shape)}, but there are {len(self.change):,} genes."
            raise DataError(msg, "Compute it from the same cells.")
        counted = np.isfinite(null)
        larger = (np.abs(np.where(counted, null, 0)) >= np.abs(self.change)) & counted
        p = (larger.sum(axis=0) + 1) / (counted.sum(axis=0) + 1)
        table = self.table.assign(p=p[self.table.index])
        return table.assign(q=false_discovery_control(table["p"]) if len(table) else table["p"])


def expression_change(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    perturbation: Perturbation,
    *,
    folds: int = FOLDS,
    repeats: int = 2,
    seed: int = 0,
    most_cells: int = 200,
    reading: Reading | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ExpressionChange:
    """Predict how the other genes change; two forwards for each cell, fold and repeat.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    perturbation
        What is done. The perturbed genes are in no fold: they are always in sight until they are perturbed.
    folds, repeats
        Parts of the genes, and how often they are cut anew, which gives the noise.
    seed
        Of the cuts, which are the same for every perturbation, and of the cells drawn.
    most_cells
        Reading cells that are averaged at most.
    reading
        See the module; the latent where None and the checkpoint has the heads for it, else the tokens.
    progress, cancelled
        Called once a fold; asked once a batch.

    Returns
    -------
    ExpressionChange
        The table's index is the gene's column in the sample.

    Raises
    ------
    DataError
        Fewer than 2 folds or no repeat; no cell reads the genes, or they are not there.
    CheckpointError
        The checkpoint lacks the heads for the reading.
    Cancelled
        The user stopped.
    """
    if folds < 2 or repeats < 1:
        msg = f"{repeats} repeats of {folds} folds cannot be predicted."
        raise DataError(msg, "Choose at least 2 folds, so that something stays in sight, and 1 repeat.")
    predictor = _Predictor(model, _chosen_reading(model, reading), cancelled)
    check_read(tokenizer, sample, perturbation)
    read = reading_rows(tokenizer, sample, perturbation)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(read, most_cells, replace=False)) if len(read) > most_cells else read
    sides = [_Side.of(tokenizer, sample, each, rows) for each in (None, perturbation)]
    predicted = np.full((repeats, 2, len(sample.gene_ids)), np.nan)
    expressed = np.flatnonzero(np.diff(sample.expressed.indptr))
    for repeat in range(repeats):
        fold_of = np.full(len(sample.gene_ids), -1)
        fold_of[rng.permutation(expressed)] = np.arange(len(expressed)) % folds
        fold_of[sample.columns(perturbation.genes)] = -1
        for fold in range(folds):
            progress(repeat * folds + fold, repeats * folds, "Predicting expression")
            columns = np.flatnonzero(fold_of == fold)
            for number, side in enumerate(sides):
                predicted[repeat, number, columns] = predictor.mean(side, sample.gene_ids[columns])
    progress(repeats * folds, repeats * folds, "Predicting expression")
    changes = predicted[:, 1] - predicted[:, 0]
    table = _table(sample, rows, predicted.mean(axis=0), changes)
    return ExpressionChange(
        perturbation, table, changes.mean(axis=0), rows, len(read), predictor.reading, folds, repeats
    )


def null_changes(
    model: ScDiVaModel,
    tokenizer: Tokenizer,
    sample: CellSample,
    perturbations: Sequence[Perturbation],
    *,
    folds: int = FOLDS,
    seed: int = 0,
    most_cells: int = 50,
    reading: Reading | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float64]:
    """Change by each of many perturbations, of one cut into folds: float64 ``[m, n_genes]``.

    Costly: 100 genes over 50 cells are 50,000 forwards. With fewer cells and one cut a null change is noisier than the
    observed one, so that the p-values err on the careful side.

    Parameters
    ----------
    model, tokenizer, sample
        The cells and what encodes them.
    perturbations
        The same as the observed one, of matched genes.
    folds, seed, most_cells, reading
        As for `expression_change`.
    progress, cancelled
        Called once a perturbation; asked once a batch.
    """
    null = np.empty((len(perturbations), len(sample.gene_ids)))
    for number, perturbation in enumerate(perturbations):
        progress(number, len(perturbations), "Predicting expression for matched genes")
        null[number] = expression_change(
            model,
            tokenizer,
            sample,
            perturbation,
            folds=folds,
            repeats=1,
            seed=seed,
            most_cells=most_cells,
            reading=reading,
            cancelled=cancelled,
        ).change
    progress(len(perturbations), len(perturbations), "Predicting expression for matched genes")
    return null


def _chosen_reading(model: ScDiVaModel, reading: Reading | None) -> Reading:
    decodes = {"latent", _DECODER} <= set(model.heads)
    if reading == "latent" and not decodes:
        msg = f"This checkpoint cannot decode its latent (it has the heads: {', '.join(model.heads) or 'none'})."
        raise CheckpointError(msg, "Read the tokens instead, or open another checkpoint.")
    return reading or ("latent" if decodes else "tokens")


def _table(
    sample: CellSample, rows: NDArray[np.int64], levels: NDArray[np.float64], changes: NDArray[np.float64]
) -> pd.DataFrame:
    detection = sample.expression[rows].getnnz(axis=0) / len(rows)
    table = pd.DataFrame(
        {
            "symbol": sample.symbols,
            "before": levels[0],
            "after": levels[1],
            "change": changes.mean(axis=0),
            "noise": changes.std(axis=0, ddof=1) if len(changes) > 1 else np.nan,
            "detection": detection,
            "n": len(rows),
        }
    )
    table = table[(detection >= LEAST_SHARE) & np.isfinite(table["change"])]
    return table.sort_values("change", key=np.abs, ascending=False, kind="stable")


@dataclass(frozen=True)
class _Side:
    """Tokens of the cells before or after, and which of them the perturbation masks."""

    rows: TokenRows
    masked: NDArray[np.bool_]

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, sample: CellSample, perturbation: Perturbation | None, rows: NDArray[np.int64]
    ) -> _Side:
        if perturbation is None:
            part = sample.expression[rows]
            tokens = tokenizer.serialize(part.indptr, part.indices, part.data, sample.gene_ids)
            return cls(tokens, np.zeros(len(tokens.gene_ids), bool))
        tokens = perturbed_rows(tokenizer, sample, perturbation, rows)
        return cls(tokens, hidden_tokens(sample, perturbation, tokens))

    def without(self, gone: NDArray[np.bool_]) -> _Side:
        """The cells with tokens taken away; those below move up."""
        indptr = np.concatenate([[0], np.cumsum(~gone)])[self.rows.indptr]
        return _Side(TokenRows(indptr, self.rows.gene_ids[~gone], self.rows.values[~gone]), self.masked[~gone])


class _Predictor:
    """Mean prediction over cells of genes that are hidden from all of them."""

    def __init__(self, model: ScDiVaModel, reading: Reading, cancelled: IsCancelled) -> None:
        self.model, self.reading, self._cancelled = model, reading, cancelled
        self._budget = TokenBudget(model)

    @torch.inference_mode()
    def mean(self, side: _Side, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 ``[n_genes]`` for token ids of genes."""
        fold = np.isin(side.rows.gene_ids, genes)
        ids = torch.from_numpy(genes).to(self.model.device)
        total = self._decoded(side.without(fold), ids) if self.reading == "latent" else self._expected(side, fold, ids)
        return total / len(side.rows)

    def _decoded(self, visible: _Side, genes: torch.Tensor) -> NDArray[np.float64]:
        total = np.zeros(len(genes))
        batches = encode_rows(
            self.model, visible.rows, self._budget, hidden=visible.masked, exact=True, cancelled=self._cancelled
        )
        for _, latents in batches:
            decoded = self.model.heads[_DECODER](torch.from_numpy(latents).to(self.model.device))
            total += decoded[:, genes].double().sum(dim=0).cpu().numpy()
        return total

    def _expected(self, side: _Side, fold: NDArray[np.bool_], genes: torch.Tensor) -> NDArray[np.float64]:
        """Sum over places and cells; the hidden genes can only be those of the fold, so no other is considered."""
        model, total = self.model, np.zeros(len(genes))
        order = np.argsort(-side.rows.lengths, kind="stable")
        size = self._budget.cells(int(side.rows.lengths.max(initial=0)))
        for start in range(0, len(order), size):
            stop_if(self._cancelled)
            chosen, pad_id = order[start : start + size], model.config.pad_id
            tokens = side.rows.batch(chosen, pad_id=pad_id).to(model.device)
            read, masked = (
                replace(side.rows, values=marks).batch(chosen, pad_id=pad_id).values.bool().to(model.device)
                for marks in (fold, fold | side.masked)
            )
            output = model(tokens.gene_ids, tokens.values, mask=masked, anchor_from="visible")
            states = output.tokens[read]
            probability = F.linear(states, model.gene_head.weight[genes]).softmax(dim=-1)
            # A value below 0 is no expression.
            total += (probability.T @ model.gene_values(states).clamp(min=0)).double().cpu().numpy()
        return total
