"""The vectors that are compared: the checkpoint's, those of the same network untrained, and PCA's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scdiva_core.baselines.expression import corpus_expression
from scdiva_core.baselines.pca import N_COMPONENTS, fit_pca
from scdiva_core.data.corpus import Corpus
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.evaluation.sets import EvaluationSet
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.neighbors import ProjectionSettings, principal_components
from scdiva_core.training.initial import initialise

Vectors = dict[str, NDArray[np.float32]]
Report = Callable[[str], None]

NETWORKS = ("scdiva", "untrained_svd", "untrained_random")
"""Representations that a network makes, cell by cell: those of pooled sets are put together from them."""


class Representations:
    """Makes every representation of a set.

    Parameters
    ----------
    engine
        The checkpoint under test.
    corpus
        What it was trained on, or another corpus over the same genes.
    folder
        Receives the untrained networks.
    report
        Called with a line of progress.

    Raises
    ------
    DataError
        The corpus is made of other genes than the checkpoint.
    """

    def __init__(self, engine: Engine, corpus: Corpus, folder: Path, report: Report) -> None:
        if engine.vocabulary.sha256 != corpus.vocabulary.sha256:
            msg = "The checkpoint and the corpus do not have the same genes."
            raise DataError(msg, "Prepare the corpus again with --vocabulary and the checkpoint's vocab.json.")
        self._report = report
        report("Reading the corpus")
        self._training = corpus_expression(corpus, corpus.cells("training"))
        self._engines = {
            "scdiva": engine,
            "untrained_svd": untrained(engine, corpus, folder / "untrained_svd", genes="svd"),
            "untrained_random": untrained(engine, corpus, folder / "untrained_random", genes="random"),
        }

    def of_set(self, dataset: H5adDataset, cells: EvaluationSet) -> Vectors:
        """Vectors of all cells of a set, float32 ``[n_cells, d]`` each.

        Parameters
        ----------
        dataset, cells
            The open file, and what was read from it.
        """
        vectors: Vectors = {}
        for name in NETWORKS:
            self._report(f"{cells.name}: embedding {dataset.n_obs:,} cells, {name}")
            vectors[name] = np.array(self._engines[name].embed(dataset))
        self._report(f"{cells.name}: PCA")
        vectors["pca"] = principal_components(dataset, ProjectionSettings(n_pcs=N_COMPONENTS))
        vectors["pca_corpus"] = self._corpus_pca(cells.expression[:, cells.gene_ids], cells.gene_ids)
        return vectors

    def of_pool(self, sets: list[EvaluationSet], rows: list[NDArray[np.int64]], single: dict[str, Vectors]) -> Vectors:
        """Vectors of cells of several sets, one set after the other, over the genes that all sets share.

        Parameters
        ----------
        sets, rows
            The sets, and the cells of each.
        single
            Vectors of each set by its name, as `of_set` gives them; networks embed each set by itself.
        """
        vectors = {
            name: np.concatenate([single[cells.name][name][kept] for cells, kept in zip(sets, rows, strict=True)])
            for name in NETWORKS
        }
        gene_ids = sets[0].gene_ids
        for cells in sets[1:]:
            gene_ids = np.intersect1d(gene_ids, cells.gene_ids)
        shared = [cells.expression[kept][:, gene_ids] for cells, kept in zip(sets, rows, strict=True)]
        expression = sp.vstack(shared, format="csr")
        vectors["pca"] = fit_pca(expression).transform(expression)
        vectors["pca_corpus"] = self._corpus_pca(expression, gene_ids)
        return vectors

    def _corpus_pca(self, expression: sp.csr_matrix, gene_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Coordinates of cells over these genes on the components of the corpus' training cells."""
        return fit_pca(self._training[:, gene_ids]).transform(expression)


def untrained(
    engine: Engine, corpus: Corpus, folder: Path, *, genes: Literal["svd", "random"], seed: int = 0
) -> Engine:
    """Save the checkpoint's network as it was before training, and open it like any other checkpoint.

    Parameters
    ----------
    engine
        Whose configuration, genes, entropies, device and store are taken.
    corpus
        For the SVD and the mean cell.
    folder
        Receives the weights.
    genes
        Where its gene vectors come from; see `scdiva_core.training.initial.initialise`.
    seed
        Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ScDiVaModel(engine.model.config)
    model.vocabulary, model.tokenizer = engine.model.vocabulary, engine.model.tokenizer
    model.has_entropy = engine.model.has_entropy
    initialise(model, corpus, genes=genes, seed=seed)
    model.card = {"name": folder.name, "random_weights": True}
    model.save_pretrained(folder)
    return Engine(folder, str(engine.device), engine.store)
