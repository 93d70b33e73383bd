"""What a label source says of each cell, what clusters make of it, and labels at another level of the ontology.

Sources are equals: `scdiva_core.tasks.label_sources` makes one `LabelCalls` of each, and
`scdiva_core.tasks.consensus` asks what most of them say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import DataError

UNKNOWN = -1
"""What stands in `LabelCalls.best` where a source names no label."""


@dataclass(frozen=True, eq=False)
class LabelCalls:
    """One source's labels of all cells.

    Attributes
    ----------
    source
        ``"head"``, ``"knn"``, ``"markers"``, ``"obs: <column>"`` or ``"consensus"``.
    ids, names
        Cell Ontology id and name of each label that the source may give; the id of free text is empty.
    best
        int32 ``[n]`` index of each cell's label, `UNKNOWN` where it has none.
    runner_up, third
        int32 ``[n]`` next best labels; `UNKNOWN` where no further one has a probability above 0.
    probability
        float32 ``[n]`` in [0, 1], of the best label.
    margin
        float32 ``[n]`` in [0, 1], of its probability over the runner-up's.
    entropy
        float32 ``[n]`` of all probabilities, in nats over the logarithm of the number of labels: 0 sure, 1 clueless.
    probabilities
        float16 ``[n, len(ids)]`` of all labels; None for a source that has none, such as a column.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    best: NDArray[np.int32]
    runner_up: NDArray[np.int32]
    third: NDArray[np.int32]
    probability: NDArray[np.float32]
    margin: NDArray[np.float32]
    entropy: NDArray[np.float32]
    probabilities: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.best)

    @classmethod
    def from_probabilities(
        cls, source: str, ids: Sequence[str], names: Sequence[str], probabilities: NDArray[np.floating]
    ) -> LabelCalls:
        """Rank each cell's labels; the earlier label first among equals.

        Parameters
        ----------
        source, ids, names
            See the attributes.
        probabilities
            ``[n, len(ids)]``, rows that sum to 1. Not changed.

        Raises
        ------
        DataError
            There is no label, or another number of them than columns; or a row is no distribution.
        """
        if not len(ids) == len(names) == probabilities.shape[1] > 0:
            sizes = f"{len(ids)} ids and {len(names)} names for {probabilities.shape[1]} columns"
            msg = f"The source {source!r} has {sizes} of probabilities."
            raise DataError(msg, "Give one id and one name for each column.")
        sums = probabilities.sum(axis=1, dtype=np.float64)
        # Written so that NaN fails too.
        if not ((probabilities >= 0).all() and (np.abs(sums - 1) < 1e-3).all()):
            msg = f"The source {source!r} gives probabilities that are negative or do not sum to 1."
            raise DataError(msg, "Pass them through a softmax, or divide votes by their sum.")
        labels, tops = _three_best(probabilities)
        some = np.where(probabilities > 0, probabilities, 1).astype(np.float64)
        entropy = -(some * np.log(some)).sum(axis=1) / np.log(max(len(ids), 2))
        return cls(
            source,
            tuple(ids),
            tuple(names),
            *labels,
            probability=_from_0_to_1(tops[0]),
            margin=_from_0_to_1(tops[0] - tops[1]),
            entropy=_from_0_to_1(entropy),
            probabilities=probabilities.astype(np.float16),
        )


def with_unknown(calls: LabelCalls, novelty: NDArray[np.floating]) -> LabelCalls:
    """Call cells unknown that lie beyond what the reference holds.

    Their former best label becomes the runner-up, and that one third; probability, margin and entropy stay what the
    source said, for one may still want to know how sure it was.

    Parameters
    ----------
    calls
        Of any source.
    novelty
        float ``[n]`` of `scdiva_core.tasks.novelty.novelty`; cells above 1 are unknown.
    """
    strange = (np.asarray(novelty) > 1) & (calls.best != UNKNOWN)
    best, runner_up = calls.best, calls.runner_up
    return replace(
        calls,
        best=np.where(strange, np.int32(UNKNOWN), best),
        runner_up=np.where(strange, best, runner_up),
        third=np.where(strange, runner_up, calls.third),
    )


def cluster_votes(calls: LabelCalls, clusters: ArrayLike) -> pd.DataFrame:
    """Let the cells of each cluster vote.

    Parameters
    ----------
    calls
        Labels of the cells; unknown is a label like the others.
    clusters
        ``[n]`` numbers or names; cells without one are left out.

    Returns
    -------
    DataFrame
        Indexed by cluster, in sorted order: ``label`` (int32 index of the label that most cells carry, `UNKNOWN` for
        unknown; a known label before it and the earlier before the later among equals), ``ontology_id`` and ``name``
        (both empty for unknown), ``purity`` (share of the cells that carry it), ``probability`` (their mean) and
        ``n_cells``.

    Raises
    ------
    DataError
        There are more or fewer clusters than cells.
    """
    codes, found = pd.factorize(np.asarray(clusters), sort=True)
    if len(codes) != len(calls):
        msg = f"{len(codes):,} cells have a cluster, but {len(calls):,} a label."
        raise DataError(msg, "Pass clusters and labels of the same cells.")
    width = len(calls.ids) + 1
    rows = np.flatnonzero(codes >= 0)
    labels = calls.best[rows] % width  # unknown comes last
    place = codes[rows] * width + labels
    table = np.bincount(place, minlength=len(found) * width).reshape(len(found), width)
    sums = np.bincount(place, calls.probability[rows], minlength=table.size).reshape(table.shape)
    winner = table.argmax(axis=1)
    each = np.arange(len(found))
    return pd.DataFrame(
        {
            "label": np.where(winner == width - 1, UNKNOWN, winner).astype(np.int32),
            "ontology_id": [(*calls.ids, "")[label] for label in winner],
            "name": [(*calls.names, "")[label] for label in winner],
            "purity": table[each, winner] / table.sum(axis=1),
            "probability": sums[each, winner] / table[each, winner],
            "n_cells": table.sum(axis=1),
        },
        index=pd.Index(found, name="cluster"),
    )


def roll_up(ids: Sequence[str], level_ids: Collection[str], ontology: CellOntology) -> tuple[str, ...]:
    """Bring labels up to a level: the most specific term of it that each is, or is a kind of.

    Parameters
    ----------
    ids
        Cell Ontology ids; empty ones stay empty.
    level_ids
        Terms of the level.
    ontology
        Says what is a kind of what.

    Returns
    -------
    tuple of str
        A term of the level for each id; empty where none lies above it.

    Raises
    ------
    DataError
        The ontology has no such term.
    """
    return tuple((ontology.nearest(term, level_ids) or "") if term else "" for term in ids)


def roll_down(ids: Sequence[str], level_ids: Collection[str], ontology: CellOntology) -> tuple[str, ...]:
    """Bring labels down to a level where there is but one way.

    Parameters
    ----------
    ids, level_ids, ontology
        As for `roll_up`.

    Returns
    -------
    tuple of str
        The term of the level that each id is, or else the one kind of it that the level has; kinds of that kind do not
        count. Empty where there are none or several.

    Raises
    ------
    DataError
        The ontology has no such term.
    """
    return tuple(_only_one_below(term, level_ids, ontology) if term else "" for term in ids)


def _only_one_below(term: str, level_ids: Collection[str], ontology: CellOntology) -> str:
    below = ontology.descendants(term).intersection(level_ids)
    tops = [one for one in below if below.isdisjoint(ontology.ancestors(one) - {one})]
    return tops[0] if len(tops) == 1 else ""


def _three_best(
    probabilities: NDArray[np.floating],
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.float64]]]:
    """Three most probable columns of each row, `UNKNOWN` where the probability is 0, and their probabilities."""
    rest = np.array(probabilities, np.float64)
    rows = np.arange(len(rest))
    labels, tops = [], []
    for _ in range(3):
        label = rest.argmax(axis=1)
        top = rest[rows, label]
        labels.append(np.where(top > 0, label, UNKNOWN).astype(np.int32))
        tops.append(np.maximum(top, 0))
        rest[rows, label] = 0
    return labels, tops


def _from_0_to_1(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rounding may leave a sum of shares a hair outside."""
    return np.clip(values, 0, 1).astype(np.float32)
