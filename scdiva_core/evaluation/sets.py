"""Evaluation sets as they are needed here: expression over the model's genes, labels, terms and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.studies import Studies
from scdiva_core.errors import DataError
from scdiva_core.metrics.classification import frequent

FOLDS = 3
"""Folds of the cross-validation, and cells that a type must have to be measured."""


@dataclass(frozen=True)
class EvaluationSet:
    """One labelled set, all of its cells.

    Attributes
    ----------
    name, title
        Of its file, and for people.
    expression
        log1p of counts per 10,000, float32 ``[n_cells, vocab_size]``; columns are token ids.
    gene_ids
        Token ids of the set's genes that the model knows, ascending.
    genes_total
        Genes of the file.
    obs
        The file's table of cells.
    labels
        Published label of each cell, ``[n_cells]``.
    terms
        Cell Ontology id that the label means, ``[n_cells]``; empty where it means none, or the corpus holds the cell.
    batches
        Technical batch of each cell; None for a set of one batch.
    sha256
        Of the file.
    """

    name: str
    title: str
    expression: sp.csr_matrix
    gene_ids: NDArray[np.int64]
    genes_total: int
    obs: pd.DataFrame
    labels: NDArray[np.str_]
    terms: NDArray[np.str_]
    batches: NDArray[np.str_] | None
    sha256: str

    @property
    def typed(self) -> NDArray[np.int64]:
        """Cells whose label means a cell type."""
        return np.flatnonzero(self.terms != "")

    @property
    def measured(self) -> NDArray[np.int64]:
        """Cells whose label means a cell type and is carried by enough cells for every fold."""
        return self.typed[frequent(self.labels[self.typed], FOLDS)]


def read_set(dataset: H5adDataset, studies: Studies, vocab_size: int) -> EvaluationSet:
    """Read an open file whole.

    Parameters
    ----------
    dataset
        Open over the model's genes.
    studies
        Knows the file by its name without suffix.
    vocab_size
        Tokens of the model.

    Raises
    ------
    DataError
        A column that the table of studies names is not in the file, or fewer than two types have enough cells.
    """
    name = dataset.path.stem
    study = studies.studies[name]
    labels = _column(dataset, study.label_column)
    meant = {label: studies.label(name, label) for label in np.unique(labels)}
    terms = np.array([term if use == "class" else "" for term, use in (meant[label] for label in labels)], str)
    if study.seen_column:
        terms[np.isin(_column(dataset, study.seen_column), study.seen)] = ""
    blocks = [
        sp.csr_matrix((block.data, dataset.gene_ids[block.indices], block.indptr), shape=(block.shape[0], vocab_size))
        for _, block in dataset.chunks()
    ]
    found = EvaluationSet(
        name=name,
        title=study.title,
        expression=sp.vstack(blocks, format="csr"),
        gene_ids=dataset.gene_ids,
        genes_total=dataset.genes.n_total,
        obs=dataset.obs,
        labels=labels,
        terms=terms,
        batches=_column(dataset, study.batch_column) if study.batch_column else None,
        sha256=dataset.sha256,
    )
    if len(np.unique(labels[found.measured])) < 2:
        msg = f"{dataset.path.name} has fewer than two cell types with {FOLDS} cells or more."
        raise DataError(msg, "Leave it out with --sets.")
    return found


def _column(dataset: H5adDataset, name: str) -> NDArray[np.str_]:
    if name not in dataset.obs:
        msg = f"{dataset.path.name} has no column {name!r} in obs."
        raise DataError(msg, "Correct it in datasets.toml, or use the file that the table describes.")
    return dataset.obs[name].astype(str).to_numpy(str)
