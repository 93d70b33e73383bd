"""What a checkpoint that was fine-tuned on perturbations predicts of one that was never measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if
from scdiva_core.training.finetune_perturbation import predicted_changes
from scdiva_core.training.perturbation_cells import MOST_TARGETS, Kind, marked_rows

MOST_CELLS = 200
"""Control cells over which a prediction is averaged; of more some are drawn (our choice)."""

_BATCH_CELLS = 16
_CHUNK_CELLS = 2048


@dataclass(frozen=True, eq=False)
class PredictedPerturbation:
    """Predicted mean change of expression.

    Attributes
    ----------
    genes
        Perturbed genes, as they were asked for.
    kind
        What was done to them.
    table
        One row a gene of the checkpoint's panel that the control cells' file holds: ``symbol``, ``before`` (mean log1p
        of the control cells), ``change`` (mean over them, log1p), ``spread`` (standard deviation of the predicted
        change over the cells: how much it depends on the cell, no error of the prediction).
    n_cells
        Control cells that were read.
    measured, seen
        True when this very perturbation was among those that the checkpoint learned from or was chosen by; and those
        of its genes that were perturbed alone there.
    """

    genes: tuple[str, ...]
    kind: Kind
    table: pd.DataFrame
    n_cells: int
    measured: bool
    seen: tuple[str, ...]


class PerturbationModel:
    """Predicts perturbations with a fine-tuned checkpoint.

    Parameters
    ----------
    model
        In evaluation mode, on its device.

    Attributes
    ----------
    kind
        ``"knockout"`` or ``"activation"``: what it learned.
    gene_ids
        int64 ``[g]`` token ids of the genes whose change it predicts, ascending.

    Raises
    ------
    CheckpointError
        The checkpoint was not fine-tuned on perturbations, or its card does not say how.
    """

    def __init__(self, model: ScDiVaModel) -> None:
        if "perturbation" not in model.heads:
            msg = "This checkpoint was not fine-tuned on perturbations."
            raise CheckpointError(msg, "Make one with 'finetune perturbation', or open one.")
        self.model = model
        record = model.card.get("perturbation")
        try:
            self.kind, self.value, genes = _record(record)
            self.gene_ids = np.sort(model.vocabulary.match(genes).ids.astype(np.int64))
            names = (*record["trained_on"], *record["judged_by"])
            self._measured = {frozenset(model.vocabulary.match(name.split("+")).ids.tolist()) for name in names}
        except (KeyError, TypeError, ValueError) as error:
            msg = "card.json of this checkpoint does not say how perturbations are read."
            raise CheckpointError(msg, "Restore the checkpoint's own file.") from error
        room = model.config.max_genes - MOST_TARGETS
        if not 0 < len(self.gene_ids) <= room or self.gene_ids[0] < 0:
            unknown = int((self.gene_ids < 0).sum())
            msg = f"card.json names {len(self.gene_ids)} genes, {unknown} unknown; 1 to {room} known ones can be read."
            raise CheckpointError(msg, "Restore the checkpoint's own file.")

    def predict(
        self,
        dataset: H5adDataset,
        control: ArrayLike,
        perturbations: Sequence[tuple[str, ...]],
        *,
        most_cells: int = MOST_CELLS,
        seed: int = 0,
        progress: Progress = silent,
        cancelled: IsCancelled = never,
    ) -> list[PredictedPerturbation]:
        """Predict perturbations of a file's control cells, as the mean over these cells.

        Parameters
        ----------
        dataset
            The open file. Genes of the panel that it lacks are left out of the rows and of the tables.
        control
            int ``[n]`` numbers of the unperturbed cells.
        perturbations
            Genes of each, one to three, known to the vocabulary; they need not be in the file.
        most_cells, seed
            Cells to read, and the seed of their draw.
        progress, cancelled
            Called once a batch.

        Raises
        ------
        DataError
            There is no control cell, the file holds no gene of the panel, or a gene is unknown.
        Cancelled
            The user stopped.
        """
        targets = [self.targets(genes) for genes in perturbations]
        cells = np.sort(np.random.default_rng(seed).permutation(np.asarray(control, np.int64))[:most_cells])
        if not len(cells):
            msg = "There is no control cell to predict from."
            raise DataError(msg, "Choose a cell set of unperturbed cells.")
        columns = np.flatnonzero(np.isin(dataset.gene_ids, self.gene_ids))
        if not len(columns):
            msg = f"{dataset.path.name} holds none of the {len(self.gene_ids)} genes that this checkpoint predicts."
            raise DataError(msg, "Use cells of a study like that it was fine-tuned on.")
        gene_ids, expression = dataset.gene_ids[columns], _read(dataset, cells, columns, cancelled)
        symbols, before = [dataset.gene_symbols[column] for column in columns], expression.mean(axis=0)
        found = []
        for number, (genes, tokens) in enumerate(zip(perturbations, targets, strict=True)):
            progress(number, len(targets), "Predicting perturbations")
            changes = self.changes(gene_ids, expression, tokens, cancelled=cancelled)
            columns_of = {"change": changes.mean(axis=0), "spread": changes.std(axis=0)}
            table = pd.DataFrame({"symbol": symbols, "before": before, **columns_of})
            seen = tuple(gene for gene in genes if frozenset(self.targets([gene])) in self._measured)
            measured = frozenset(tokens) in self._measured
            found.append(PredictedPerturbation(tuple(genes), self.kind, table, len(cells), measured, seen))
        progress(len(targets), len(targets), "Predicting perturbations")
        return found

    def targets(self, genes: Sequence[str]) -> tuple[int, ...]:
        """Token ids of perturbed genes.

        Raises
        ------
        DataError
            There are none, too many, or some that the vocabulary lacks.
        """
        ids = self.model.vocabulary.match(list(genes)).ids.tolist()
        unknown = [gene for gene, token in zip(genes, ids, strict=True) if token < 0]
        if unknown:
            msg = f"The model's vocabulary lacks {', '.join(unknown)}."
            raise DataError(msg, "Use a human gene symbol or Ensembl id.")
        if not 1 <= len(set(ids)) <= MOST_TARGETS:
            msg = f"{len(set(ids))} genes are to be perturbed."
            raise DataError(msg, f"Choose 1 to {MOST_TARGETS}.")
        return tuple(dict.fromkeys(ids))

    @torch.inference_mode()
    def changes(
        self,
        gene_ids: NDArray[np.integer],
        expression: NDArray[np.float32],
        targets: tuple[int, ...],
        *,
        cancelled: IsCancelled = never,
    ) -> NDArray[np.float32]:
        """Predicted change of each gene in each control cell, log1p, float32 ``[n, g]``.

        Parameters
        ----------
        gene_ids
            int ``[g]`` token ids of the columns, ascending; no more than the panel holds.
        expression
            float32 ``[n, g]`` log1p expression of control cells.
        targets
            Token ids of the perturbed genes.
        cancelled
            Asked once a batch.

        Raises
        ------
        Cancelled
            The user stopped.
        """
        parts = []
        for start in range(0, len(expression), _BATCH_CELLS):
            stop_if(cancelled)
            some = expression[start : start + _BATCH_CELLS]
            rows = marked_rows(self.model, np.asarray(gene_ids), some, [targets] * len(some), self.value)
            parts.append(predicted_changes(self.model, rows, len(gene_ids)).float().cpu().numpy())
        return np.concatenate(parts)


def _record(record: Any) -> tuple[Kind, float, list[str]]:
    """Kind, value of perturbed genes and panel of a card; raises KeyError, TypeError or ValueError."""
    kind, value, genes = record["kind"], float(record["value"]), record["genes"]
    if kind not in ("knockout", "activation") or not np.isfinite(value) or not isinstance(genes, list):
        raise ValueError(kind)
    return kind, value, [str(gene) for gene in genes]


def _read(
    dataset: H5adDataset, cells: NDArray[np.int64], columns: NDArray[np.int64], cancelled: IsCancelled
) -> NDArray[np.float32]:
    """Some cells and genes of a file, dense float32."""
    blocks = []
    for start, block in dataset.chunks(_CHUNK_CELLS):
        stop_if(cancelled)
        first, last = np.searchsorted(cells, [start, start + block.shape[0]])
        if last > first:
            blocks.append(block[cells[first:last] - start][:, columns].toarray())
    return np.concatenate(blocks).astype(np.float32)
