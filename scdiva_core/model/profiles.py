"""Mean expression of cell types, with how cells and studies spread around it: it judges by whatever genes a file has.

A network reads a gene that a file lacks as a silent one, and a panel without a type's genes as a cell of another type.
A linear discriminant (Fisher 1936) has no such trouble: the genes that are missing are left out of its means and its
covariance, and what is left is the very discriminant that would have been fitted to the panel. The covariance is a
low-rank part plus a diagonal, so that this takes a fraction of a second.

``profiles.safetensors`` lies beside the weights; names, temperatures and the digest of the weights are JSON in its
metadata.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.errors import DataError
from scdiva_core.model.companion import Shapes, Told, check_names, read_companion, refuse, write_companion

if TYPE_CHECKING:
    import scipy.sparse as sp  # training does without scipy

PROFILES_FILE = "profiles.safetensors"

FEWEST_GENES = 50
"""Genes of the profiles that a file must have; fewer tell few types apart (our choice)."""

HEAD_WEIGHT = 0.25
"""What the head's log-probabilities weigh beside those of the profiles: of 0, 0.25, 0.5 and 1 the best on held-out
donors of the corpus, whole and cut to six panels. The head is sure of the studies that it was trained on, and knows
nothing of missing genes."""

SHARE_POWER = 0.7
"""Of 0.5, 0.6 ... 1 the one with the most honest probabilities on held-out donors of the corpus, whole and cut to six
panels (mean calibration error 0.042; 0.068 at 0.5)."""

LARGEST = 5.0
"""Standard deviations above the mean at which expression is cut: one cell of a rare gene is no outlier to follow."""

_TYPES = {"gene_ids": "I32", "mean": "F32", "deviation": "F32", "centers": "F16", "loadings": "F16", "noise": "F32"}


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Profiles over the genes that a file has.

    Attributes
    ----------
    columns
        int64 ``[g]`` columns of the file's genes that are used.
    mean, deviation
        float32 ``[g]`` of log1p expression in the corpus.
    weight, bias
        float64 ``[g, k]`` and ``[k]``: standardised expression times weight plus bias are the types' scores.
    """

    columns: NDArray[np.int64]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, expression: sp.csr_matrix) -> NDArray[np.float32]:
        """Log-likelihood of each cell under each type, up to a constant of the cell: float32 ``[n, k]``.

        Parameters
        ----------
        expression
            log1p of counts per 10,000 ``[n, n_genes]``, columns as they were given to `Profiles.over`.
        """
        return self.scores_of_used(expression[:, self.columns].toarray())

    def scores_of_used(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """The same, of the used genes alone, dense ``[n, g]``."""
        return (standardised(values, self.mean, self.deviation) @ self.weight + self.bias).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Profiles:
    """A linear discriminant with its parts, so that genes can be left out.

    Attributes
    ----------
    ids, names
        Cell Ontology id and name of each of the ``k`` types.
    gene_ids
        int32 ``[g]`` token ids, ascending.
    mean, deviation
        float32 ``[g]`` of log1p expression in the corpus; everything below is in these units.
    centers
        float32 ``[k, g]`` mean of each type.
    loadings, noise
        float32 ``[g, r]`` and ``[g]``: the covariance within a type is loadings times their transpose, plus noise on
        the diagonal.
    temperature
        Scores are divided by it before the softmax.
    joint_temperature
        So is the sum of the head's log-probabilities and those of the profiles.
    weights
        SHA-256 of the weights file whose head ``joint_temperature`` belongs to, in hexadecimal.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    gene_ids: NDArray[np.int32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    centers: NDArray[np.float32]
    loadings: NDArray[np.float32]
    noise: NDArray[np.float32]
    temperature: float
    joint_temperature: float
    weights: str

    def over(self, gene_ids: NDArray[np.integer]) -> Discriminant:
        """Leave out the genes that a file lacks.

        Types lie nearer to each other by fewer genes, and scores differ less. They are divided by a power of the share
        of the squared distance that is left (`SHARE_POWER`, ours): between 0, which is right if genes are independent,
        and 1, which is right if each tells the same.

        Parameters
        ----------
        gene_ids
            Token id of each column of the file's expression.

        Raises
        ------
        DataError
            Fewer than `FEWEST_GENES` are left.
        """
        _, columns, kept = np.intersect1d(gene_ids, self.gene_ids, return_indices=True)
        if len(kept) < FEWEST_GENES:
            msg = f"This file has {len(kept)} of the {len(self.gene_ids):,} genes that the profiles compare."
            raise DataError(msg, f"At least {FEWEST_GENES} are needed; choose another source of labels.")
        weight, separation = self._weight(kept)
        share = separation / self._weight(np.arange(len(self.gene_ids)))[1]
        weight = weight / max(share, 1e-6) ** SHARE_POWER
        bias = -0.5 * (weight * self.centers[:, kept]).sum(axis=1)
        return Discriminant(columns, self.mean[kept], self.deviation[kept], weight.T, bias)

    def _weight(self, genes: NDArray[np.integer]) -> tuple[NDArray[np.float64], float]:
        """Inverse covariance of some genes times the centers ``[k, g]``; mean squared distance between types by it."""
        centers, loadings = self.centers[:, genes].astype(np.float64), self.loadings[genes].astype(np.float64)
        precise = 1 / self.noise[genes].astype(np.float64)
        # Woodbury: the inverse of a diagonal plus a low-rank part costs the inverse of an r x r matrix.
        inner = np.eye(loadings.shape[1]) + loadings.T @ (loadings * precise[:, None])
        weight = centers * precise
        weight = weight - np.linalg.solve(inner, loadings.T @ weight.T).T @ loadings.T * precise
        products = weight @ centers.T
        own = np.diag(products)
        return weight, float((own[:, None] + own[None] - 2 * products).mean())

    def save(self, path: str | Path) -> None:
        """Write the file in one step, centers and loadings as float16.

        Parameters
        ----------
        path
            `PROFILES_FILE` in the checkpoint's folder; an older file is replaced.
        """
        halves = {"centers": self.centers.astype(np.float16), "loadings": self.loadings.astype(np.float16)}
        tensors = {name: halves.get(name, getattr(self, name)) for name in _TYPES}
        scalars = ("ids", "names", "temperature", "joint_temperature", "weights")
        write_companion(path, tensors, {name: getattr(self, name) for name in scalars})

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> Profiles:
        """Read the file; shapes and types are checked from its header before anything is read.

        Parameters
        ----------
        path
            Written by `save`.
        weights
            SHA-256 of the weights that it must belong to, `ScDiVaModel.sha256`; when None, that of the weights beside
            the file.

        Raises
        ------
        CheckpointError
            The file is missing, damaged, contradicts itself, or was made with other weights; or there are no weights
            beside it.
        """
        path = Path(path)
        told, tensors = read_companion(path, _TYPES, weights, partial(_check, path))
        _check_values(path, tensors)
        return cls(
            ids=tuple(told["ids"]),
            names=tuple(told["names"]),
            gene_ids=tensors["gene_ids"],
            mean=tensors["mean"],
            deviation=tensors["deviation"],
            centers=tensors["centers"].astype(np.float32),
            loadings=tensors["loadings"].astype(np.float32),
            noise=tensors["noise"],
            temperature=told["temperature"],
            joint_temperature=told["joint_temperature"],
            weights=told["weights"],
        )


def standardised(
    expression: NDArray[np.floating], mean: NDArray[np.floating], deviation: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Dense expression ``[n, g]`` in standard deviations from the mean, cut above `LARGEST`."""
    return np.minimum((expression - mean) / deviation, LARGEST).astype(np.float32)


def joint_logits(head: torch.Tensor, profiles: torch.Tensor) -> torch.Tensor:
    """What head and profiles say together: the weighted sum of their log-probabilities, ``[n, k]``, both calibrated.

    As if each judged by evidence of its own; `HEAD_WEIGHT` and `Profiles.joint_temperature` mend that they do not.
    """
    return HEAD_WEIGHT * head.log_softmax(dim=1) + profiles.log_softmax(dim=1)


def _check(path: Path, told: Told, shapes: Shapes) -> None:
    check_names(path, told)
    temperatures = [float(told[name]) for name in ("temperature", "joint_temperature")]
    if not all(0 < temperature < math.inf for temperature in temperatures):
        refuse(path, f"has the temperatures {temperatures}, which must be positive numbers")
    n_genes = math.prod(shapes["gene_ids"])
    expected = {"centers": [len(told["ids"]), n_genes], "loadings": [n_genes, shapes["loadings"][-1]]}
    for name, shape in shapes.items():
        if shape != expected.get(name, [n_genes]) or not n_genes:
            refuse(path, f"has {name} of shape {shape}, expected {expected.get(name, [n_genes])}")


def _check_values(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    if not (np.diff(tensors["gene_ids"]) > 0).all() or tensors["gene_ids"][0] < 0:
        refuse(path, "has genes that are not in ascending order")
    for name in ("deviation", "noise"):
        if not (np.isfinite(tensors[name]) & (tensors[name] > 0)).all():
            refuse(path, f"has a {name} that is no positive number")
    for name in ("mean", "centers", "loadings"):
        if not np.isfinite(tensors[name]).all():
            refuse(path, f"has {name} that are not finite")
