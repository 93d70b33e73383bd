"""What a perturbation changes, predicted without any network: from other perturbations, or from control cells alone.

Every baseline is a function ``predict(train, perturbation) -> delta [n_genes]`` of the same two arguments, and
`BASELINES` names them all. Choose what stands beside a model by what the model has seen: `no_change`, `co_expression`
and `random_change` need no measured perturbation of the kind that is to be predicted, the others do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

COMPONENTS = 10
"""Principal components of the linear model (Ahlmann-Eltze 2025)."""

RIDGE = 0.1
"""Penalty of the linear model on either side (Ahlmann-Eltze 2025)."""


@dataclass(frozen=True, eq=False)
class MeasuredPerturbations:
    """Perturbations that may be learned from, and the control cells.

    Parameters
    ----------
    symbols
        Gene of each column, ``[n_genes]``.
    control
        log1p expression of the control cells, float ``[n_cells, n_genes]``.
    perturbations
        Genes that were perturbed together, ``[n]``.
    deltas
        float ``[n, n_genes]``: mean log1p expression of each perturbation's cells less that of the control.
    kind
        ``"knockout"`` for what lowers its targets, ``"activation"`` for what raises them.

    Raises
    ------
    DataError
        The sizes do not fit each other, or there is no control cell.
    """

    symbols: tuple[str, ...]
    control: sp.csr_matrix
    perturbations: tuple[tuple[str, ...], ...]
    deltas: NDArray[np.floating]
    kind: Literal["knockout", "activation"]

    def __post_init__(self) -> None:
        expected = (len(self.perturbations), len(self.symbols))
        if self.deltas.shape != expected or self.control.shape[1] != len(self.symbols):
            msg = (
                f"There are {len(self.perturbations)} perturbations of {len(self.symbols)} genes, but deltas "
                f"{list(self.deltas.shape)} and control cells {list(self.control.shape)}."
            )
            raise DataError(msg, "Give one row for each perturbation and one column for each gene.")
        if not self.control.shape[0]:
            msg = "There is no control cell."
            raise DataError(msg, "Name the value of the perturbation column that marks control cells.")

    @cached_property
    def place(self) -> dict[str, int]:
        """Column of each gene."""
        return {symbol: column for column, symbol in enumerate(self.symbols)}

    @cached_property
    def control_mean(self) -> NDArray[np.float64]:
        """Mean log1p expression of the control cells, ``[n_genes]``."""
        return np.asarray(self.control.mean(axis=0), np.float64).ravel()

    def columns(self, perturbation: tuple[str, ...]) -> list[int]:
        """Columns of the perturbed genes that were measured."""
        return [self.place[symbol] for symbol in perturbation if symbol in self.place]


Baseline = Callable[[MeasuredPerturbations, tuple[str, ...]], NDArray[np.float64]]


def no_change(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """Nothing happens."""
    return np.zeros(len(train.symbols))


def mean_change(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """The mean delta of all training perturbations, whatever is perturbed.

    Raises
    ------
    DataError
        There is no training perturbation.
    """
    _need_training(train)
    return train.deltas.mean(axis=0, dtype=np.float64)


def additive(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """The sum of the single perturbations' deltas (Ahlmann-Eltze 2025).

    A gene that was not perturbed alone in training counts with the mean delta of the training singles (our choice), or
    of all training perturbations where there are no singles; a single that was never seen is thus predicted by a mean.

    Raises
    ------
    DataError
        There is no training perturbation.
    """
    _need_training(train)
    singles = {genes[0]: row for row, genes in enumerate(train.perturbations) if len(genes) == 1}
    usual = train.deltas[list(singles.values())] if singles else train.deltas
    each = [train.deltas[singles[gene]] if gene in singles else usual.mean(axis=0) for gene in perturbation]
    return np.sum(each, axis=0, dtype=np.float64)


def ridge_on_pca(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """The linear model of Ahlmann-Eltze 2025: ``deltas = G W P + b``, both sides with a ridge.

    ``G [n_genes, k]`` are principal components of the genes over the training conditions' mean expression (control and
    perturbations); ``P`` are the rows of G of the perturbed genes, summed where there are several (ours); ``b`` is the
    mean delta. Perturbations of which no target was measured are not learned from, and are predicted by ``b``.

    Raises
    ------
    DataError
        There is no training perturbation.
    """
    _need_training(train)
    center = train.deltas.mean(axis=0, dtype=np.float64)
    known = [row for row, genes in enumerate(train.perturbations) if train.columns(genes)]
    if not known or not train.columns(perturbation):
        return center
    conditions = np.vstack([train.control_mean, train.control_mean + train.deltas]).T
    components = min(COMPONENTS, *conditions.shape)
    genes = PCA(components, svd_solver="full").fit_transform(conditions)
    targets = np.stack([genes[train.columns(train.perturbations[row])].sum(axis=0) for row in known], axis=1)
    penalty = RIDGE * np.eye(components)
    left = np.linalg.solve(genes.T @ genes + penalty, genes.T @ (train.deltas[known] - center).T)
    weights = np.linalg.solve(targets @ targets.T + penalty, targets @ left.T).T
    return genes @ weights @ genes[train.columns(perturbation)].sum(axis=0) + center


def co_expression(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """What goes with the target in control cells goes with it when it is perturbed; needs no training perturbation.

    Each gene follows its regression line on the target, ``correlation x sd / sd of the target`` for each unit of log1p.
    A knockout lowers the target by its mean, an activation raises it by 1 (our choice); several targets add up. Genes
    and targets that do not vary change nothing, nor do targets that were not measured.
    """
    delta = np.zeros(len(train.symbols))
    n_cells = train.control.shape[0]
    for column in train.columns(perturbation):
        target = np.asarray(train.control[:, [column]].todense(), np.float64).ravel()
        variance = target.var()
        if variance > 0:
            centred = target - target.mean()
            slope = np.asarray(train.control.T @ centred).ravel() / n_cells / variance
            delta += slope * (-target.mean() if train.kind == "knockout" else 1.0)
    return delta


def random_change(train: MeasuredPerturbations, perturbation: tuple[str, ...]) -> NDArray[np.float64]:
    """A training delta, drawn at random, of which the genes are shuffled; the same for the same perturbation.

    Without training perturbations the values are drawn from a normal distribution instead.
    """
    rng = np.random.default_rng(zlib.crc32("+".join(perturbation).encode()))
    if not len(train.perturbations):
        return rng.normal(size=len(train.symbols))
    return rng.permutation(train.deltas[rng.integers(len(train.perturbations))]).astype(np.float64)


BASELINES: dict[str, Baseline] = {
    "no_change": no_change,
    "mean": mean_change,
    "additive": additive,
    "ridge_pca": ridge_on_pca,
    "co_expression": co_expression,
    "random": random_change,
}
"""Every baseline by its name."""


def _need_training(train: MeasuredPerturbations) -> None:
    if not len(train.perturbations):
        msg = "This baseline learns from other perturbations, but there are none."
        raise DataError(msg, "Choose a file with several perturbations, or compare with co-expression alone.")
