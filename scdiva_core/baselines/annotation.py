"""Cell types by multinomial logistic regression on highly variable genes of the corpus."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from scdiva_core.baselines.expression import corpus_expression, variable_genes
from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import DataError

MAX_CLASS_CELLS = 500
"""Training cells of a type at most (our choice: more of the commonest types cost minutes and teach little)."""

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Inverse regularisation strengths C that are tried on the corpus' validation cells."""

_LARGEST = 10.0  # standard deviations, as scanpy's scaling cuts them: a rare gene's one cell is no outlier to follow
_STEPS = 100  # twice as many hardly change the validation score


@dataclass(frozen=True)
class RegressionSettings:
    """What was chosen on the corpus' validation cells.

    Parameters
    ----------
    strength
        scikit-learn's C.
    balanced
        Whether every type weighs the same, however many cells it has.
    validation_macro_f1
        Reached with them on the validation cells.
    """

    strength: float
    balanced: bool
    validation_macro_f1: float


class LabelledCells:
    """Corpus cells whose label is a final cell type.

    Parameters
    ----------
    corpus
        Prepared corpus.
    part
        ``"training"`` or ``"validation"``.
    most
        Cells of a type at most, drawn with the seed; None takes all.
    seed
        Of the draw.

    Attributes
    ----------
    expression
        log1p of counts per 10,000, float32 ``[n_cells, vocab_size]``.
    types
        Cell Ontology id of each cell, ``[n_cells]``.

    Raises
    ------
    DataError
        Fewer than two types are labelled.
    """

    def __init__(self, corpus: Corpus, part: str, *, most: int | None = None, seed: int = 0) -> None:
        final = np.array([label in corpus.classes for label in corpus.label_ids] + [False])
        cells = corpus.cells(part)
        cells = cells[final[corpus.labels[cells]]]  # a label of -1 finds the False at the end
        if len(np.unique(corpus.labels[cells])) < 2:
            msg = f"The {part} cells of the corpus carry labels of {len(np.unique(corpus.labels[cells]))} cell types."
            raise DataError(msg, "Prepare the corpus with its table of labels.")
        if most is not None:
            shuffled = np.random.default_rng(seed).permutation(cells)
            kept = [shuffled[corpus.labels[shuffled] == label][:most] for label in np.unique(corpus.labels[cells])]
            cells = np.sort(np.concatenate(kept))
        self.expression = corpus_expression(corpus, cells)
        self.types = np.array(corpus.label_ids)[corpus.labels[cells]]


class HvgRegression:
    """Multinomial logistic regression on standardised highly variable genes.

    Parameters
    ----------
    corpus
        Its gene means and standard deviations standardise every cell.
    cells
        To learn from.
    gene_ids
        Token ids that may be used, ascending; the 2,000 that vary most in ``cells`` are.
    strength, balanced
        See `RegressionSettings`.
    """

    def __init__(
        self, corpus: Corpus, cells: LabelledCells, gene_ids: NDArray[np.integer], *, strength: float, balanced: bool
    ) -> None:
        self.gene_ids = gene_ids[variable_genes(cells.expression[:, gene_ids])]
        self._mean = corpus.gene_mean[self.gene_ids]
        self._scale = np.maximum(corpus.gene_std[self.gene_ids], 1e-3)
        weight = "balanced" if balanced else None
        self._model = LogisticRegression(C=strength, class_weight=weight, max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalty goes on improving for long
            self._model.fit(self._standardised(cells.expression), cells.types)

    def predict(self, expression: sp.csr_matrix) -> NDArray[np.str_]:
        """Cell Ontology id of each cell, ``[n_cells]``.

        Parameters
        ----------
        expression
            log1p of counts per 10,000 ``[n_cells, vocab_size]``; columns are token ids.
        """
        return self._model.predict(self._standardised(expression))

    def _standardised(self, expression: sp.csr_matrix) -> NDArray[np.float32]:
        dense = expression[:, self.gene_ids].toarray()
        return np.clip((dense - self._mean) / self._scale, -_LARGEST, _LARGEST).astype(np.float32)


def choose_settings(
    corpus: Corpus, training: LabelledCells, *, strengths: Sequence[float] = STRENGTHS
) -> RegressionSettings:
    """Choose penalty and balance by macro-F1 on the corpus' validation cells, over all genes of the corpus.

    Validation cells are of other donors. Types that no training cell has are left out of the score. The penalty is
    chosen with types weighted alike, and then whether to weigh them so at all.

    Parameters
    ----------
    corpus, training
        Where to validate, and what to learn from.
    strengths
        To try; the first of equals is kept.
    """
    validation = LabelledCells(corpus, "validation")
    known = np.isin(validation.types, training.types)
    truth, expression = validation.types[known], validation.expression[np.flatnonzero(known)]
    gene_ids = np.flatnonzero(corpus.gene_mean > 0)

    def tried(strength: float, balanced: bool) -> RegressionSettings:
        model = HvgRegression(corpus, training, gene_ids, strength=strength, balanced=balanced)
        predicted = model.predict(expression)
        score = f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
        return RegressionSettings(strength, balanced, float(score))

    best = max((tried(strength, True) for strength in strengths), key=_validation_score)
    return max(best, tried(best.strength, False), key=_validation_score)


def _validation_score(settings: RegressionSettings) -> float:
    return settings.validation_macro_f1
