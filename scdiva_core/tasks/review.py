"""The review queue: a doubt for every cell, and the cell sets to look at in the order that finds mistakes first.

Both are our choice; no publication prescribes them. What they are worth is measured by planting wrong labels, see
``tests/unit/tasks/test_review.py``. Labels are codes into one table that the caller keeps, -1 for unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.errors import DataError

# Three witnesses weigh the same: the cells around it, the other sources, and the hesitation of its own source.
_WEIGHTS = {"neighbors": 3.0, "sources": 3.0, "probability": 1.0, "margin": 1.0, "entropy": 1.0, "novelty": 1.0}
# Doubt from which cells stand out of their set: most of the evidence, and nearly all of it, is against the label.
_STEPS = (0.5, 0.8)
_MOST_CANDIDATES = 3

Codes = NDArray[np.integer]
Shares = NDArray[np.floating]
Kind = Literal["cluster", "minority", "doubtful"]


@dataclass(frozen=True, eq=False)
class ReviewItem:
    """Cells to decide on together.

    Attributes
    ----------
    kind
        ``"cluster"``: the cells with their cluster's vote; ``"minority"``: cells of a cluster with another label;
        ``"doubtful"``: cells with the vote that stand out in doubt.
    cluster
        Cluster that all of them are in.
    label
        Label that all of them carry; -1 for unknown.
    cells
        int64 ``[n]`` their places, the most doubtful first.
    candidates
        Up to three labels with their mean probability, the most probable first.
    doubt
        Mean over the cells, 0 to 1.
    wrong
        Confidence that the label is wrong, 0 to 1: the probability of the best other candidate against that of the
        label itself; 0.5 when neither has any.
    """

    kind: Kind
    cluster: int
    label: int
    cells: NDArray[np.int64]
    candidates: tuple[tuple[int, float], ...]
    doubt: float
    wrong: float

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.cells)

    @property
    def urgency(self) -> float:
        """What the queue is ordered by."""
        return self.doubt * self.wrong


def doubt(
    labels: Codes,
    neighbors: Codes,
    *,
    probability: Shares | None = None,
    margin: Shares | None = None,
    entropy: Shares | None = None,
    sources: Sequence[Codes] = (),
    novelty: Shares | None = None,
) -> NDArray[np.float32]:
    """Say how much speaks against each cell's label.

    The weighted mean of what is given: neighbours with another label 3, other sources with another label 3, and
    1 each for ``1 - probability``, ``1 - margin``, entropy and novelty. Unlike ranks, 0.5 means the same on every
    data set: half of the evidence is against the label.

    Parameters
    ----------
    labels
        Codes ``[n]``; all neighbours and sources disagree with -1.
    neighbors
        ``[n, k]`` places of each cell's nearest neighbours in the latent space, itself not among them (15 are usual).
    probability
        ``[n]`` that the label's source gives to the label; 0 where it prefers another.
    margin
        ``[n]`` probability above that of the runner-up.
    entropy
        ``[n]`` of the source's probabilities, divided by the logarithm of the number of labels.
    sources
        Codes ``[n]`` of each other source; unknown counts as another label.
    novelty
        ``[n]`` distance to the reference over the reference's own 99th percentile; above 1 counts as 1.

    Returns
    -------
    ndarray
        float32 ``[n]``, 0 to 1.

    Raises
    ------
    DataError
        Lengths differ, a value is none that it can be, or a cell is its own neighbour.
    """
    labels, neighbors = np.asarray(labels), _checked_neighbors(labels, neighbors)
    against = {"neighbors": 1 - neighbor_support(labels, neighbors)}
    if probability is not None:
        against["probability"] = 1 - _checked_shares("probability", probability, len(labels))
    if margin is not None:
        against["margin"] = 1 - _checked_shares("margin", margin, len(labels))
    if entropy is not None:
        against["entropy"] = _checked_shares("entropy", entropy, len(labels))
    if novelty is not None:
        against["novelty"] = _checked_shares("novelty", np.minimum(novelty, 1), len(labels))
    if len(sources):
        others = np.stack([_checked_length("sources", source, len(labels)) for source in sources])
        against["sources"] = ((others != labels) | (labels < 0)).mean(axis=0)
    total = sum(_WEIGHTS[name] for name in against)
    return (sum(_WEIGHTS[name] * part for name, part in against.items()) / total).astype(np.float32)


def neighbor_support(labels: Codes, neighbors: Codes) -> NDArray[np.float64]:
    """Share of each cell's neighbours that carry its label, of as many as could: a rare type has few.

    Parameters
    ----------
    labels, neighbors
        As for `doubt`.

    Returns
    -------
    ndarray
        float64 ``[n]``; 0 for unknown cells and for the only cell of a label.
    """
    carriers = np.bincount(labels[labels >= 0], minlength=1)
    same = (labels[neighbors] == labels[:, None]).sum(axis=1)
    possible = np.minimum(neighbors.shape[1], carriers[labels] - 1)
    return np.where((labels >= 0) & (possible > 0), same / np.maximum(possible, 1), 0.0)


def neighbor_votes(
    labels: Codes, neighbors: Codes, most: int = _MOST_CANDIDATES
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Let each cell's neighbours propose labels.

    Parameters
    ----------
    labels, neighbors
        As for `doubt`.
    most
        Labels of a cell at most.

    Returns
    -------
    candidates : ndarray
        int32 ``[n, most]``, the most frequent first, the lower code among equals; -1 where there is none.
    shares : ndarray
        float32 ``[n, most]``, the share of all neighbours.
    """
    labels, neighbors = np.asarray(labels), _checked_neighbors(labels, neighbors)
    n_labels, k = int(labels.max(initial=0)) + 1, neighbors.shape[1]
    codes = labels[neighbors].astype(np.int32)
    counts = np.zeros(codes.shape, np.int16)
    for column in range(k):
        counts += codes == codes[:, column : column + 1]
    # One number that grows with the count and falls with the code; 0 where there is nothing to count.
    keys = np.where(codes >= 0, counts.astype(np.int32) * n_labels + n_labels - 1 - codes, 0)
    candidates = np.full((len(labels), most), -1, np.int32)
    shares = np.zeros((len(labels), most), np.float32)
    for place in range(most):
        best = keys.max(axis=1)
        found = best > 0
        label = n_labels - 1 - best % n_labels
        candidates[found, place] = label[found]
        shares[found, place] = best[found] // n_labels / k
        keys[codes == label[:, None]] = 0
    return candidates, shares


def review_queue(
    labels: Codes, clusters: Codes, doubts: Shares, candidates: Codes, probabilities: Shares
) -> list[ReviewItem]:
    """Cut all cells into sets and order them by doubt times the confidence that something is wrong.

    A cluster's cells are cut by label, and those by doubt: below 0.5, below 0.8, and above. So every cell is in one
    set, the sets of a cluster show what in it does not belong, and few cells with a wrong label are not hidden among
    many that are merely hard to tell.

    Parameters
    ----------
    labels
        Codes ``[n]``, -1 for unknown.
    clusters
        ``[n]`` cluster numbers.
    doubts
        ``[n]`` from `doubt`.
    candidates, probabilities
        ``[n, m]`` labels proposed for each cell, -1 for none, and their probabilities, whose sum is at most 1 in
        each row: those of one source, of several with each divided by their number, or `neighbor_votes`.

    Returns
    -------
    list of ReviewItem
        The most urgent first; the same input gives the same list.

    Raises
    ------
    DataError
        Lengths differ.
    """
    labels, n_obs = np.asarray(labels), len(labels)
    for name, values in (("clusters", clusters), ("doubts", doubts), ("candidates", candidates)):
        _checked_length(name, values, n_obs)
    if candidates.shape != probabilities.shape:
        msg = f"There are candidates {candidates.shape}, but probabilities {probabilities.shape}."
        raise DataError(msg, "Give one probability for each candidate.")
    triples, member = _sets(np.asarray(clusters), labels, np.digitize(doubts, _STEPS))
    sizes = np.bincount(member)
    votes = _votes(triples, sizes.tolist())
    means = np.bincount(member, weights=doubts) / sizes
    proposed = _mean_probabilities(member, sizes, candidates, probabilities)
    by_set = np.split(np.lexsort((-np.asarray(doubts), member)), np.cumsum(sizes)[:-1])
    items = []
    for place, (cluster, label, step) in enumerate(triples):
        kind: Kind = "minority" if label != votes[cluster] else "doubtful" if step else "cluster"
        best, wrong = _judge(proposed[place], label)
        items.append(ReviewItem(kind, cluster, label, by_set[place], best, float(means[place]), wrong))
    # Sets come sorted by cluster, label and step, and sorting keeps the order of equals.
    return sorted(items, key=lambda item: -item.urgency)


def _sets(clusters: Codes, labels: Codes, steps: Codes) -> tuple[list[tuple[int, int, int]], NDArray[np.intp]]:
    """Cluster, label and step of each set, in this order, and the set of each cell."""
    names, codes = np.unique(clusters, return_inverse=True)
    n_labels, n_steps = int(labels.max(initial=-1)) + 2, len(_STEPS) + 1
    keys, member = np.unique((codes * n_labels + labels + 1) * n_steps + steps, return_inverse=True)
    pairs, step = np.divmod(keys, n_steps)
    cluster, label = np.divmod(pairs, n_labels)
    return list(zip(names[cluster].tolist(), (label - 1).tolist(), step.tolist(), strict=True)), member


def _mean_probabilities(
    member: NDArray[np.intp], sizes: NDArray[np.intp], candidates: Codes, probabilities: Shares
) -> list[dict[int, float]]:
    """Mean probability of each label that is a candidate of some cell, by set."""
    given = candidates >= 0
    rows = np.broadcast_to(member[:, None], candidates.shape)[given]
    shares = probabilities[given].astype(np.float64) / sizes[rows]
    table = sp.csr_matrix((shares, (rows, candidates[given])), (len(sizes), int(candidates.max(initial=0)) + 1))
    codes, values, ends = table.indices.tolist(), table.data.tolist(), table.indptr.tolist()
    return [dict(zip(codes[a:b], values[a:b], strict=True)) for a, b in pairwise(ends)]


def _judge(proposed: dict[int, float], label: int) -> tuple[tuple[tuple[int, float], ...], float]:
    """Best candidates of a set, and the confidence that its label is wrong."""
    ranked = sorted(proposed.items(), key=lambda pair: (-pair[1], pair[0]))
    own = proposed.get(label, 0.0)
    other = next((share for code, share in ranked if code != label), 0.0)
    wrong = other / (other + own) if other + own > 0 else 0.5
    return tuple(ranked[:_MOST_CANDIDATES]), wrong


def _votes(triples: list[tuple[int, int, int]], sizes: list[int]) -> dict[int, int]:
    """Most frequent label of each cluster, unknown included; among equals the lower code, and unknown last."""
    counts: dict[int, Counter[int]] = {cluster: Counter() for cluster, _, _ in triples}
    for (cluster, label, _), size in zip(triples, sizes, strict=True):
        counts[cluster][label] += size
    return {
        cluster: min(found, key=lambda label: (-found[label], label < 0, label)) for cluster, found in counts.items()
    }


def _checked_neighbors(labels: Codes, neighbors: Codes) -> Codes:
    neighbors = _checked_length("neighbors", neighbors, len(labels))
    if neighbors.ndim != 2 or not neighbors.shape[1] or neighbors.min() < 0 or neighbors.max() >= len(labels):
        msg = f"The neighbours {neighbors.shape} name cells that are none of the {len(labels):,}."
        raise DataError(msg, "Give the places of at least one neighbour for each cell.")
    own = (neighbors == np.arange(len(labels))[:, None]).any(axis=1)
    if own.any():
        msg = f"{int(own.sum()):,} cells are their own neighbours."
        raise DataError(msg, "Leave each cell out of its neighbours.")
    return neighbors


def _checked_shares(name: str, values: Shares, length: int) -> NDArray[np.float64]:
    values = _checked_length(name, values, length).astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        msg = f"The {name} goes from {np.min(values):.3g} to {np.max(values):.3g}."
        raise DataError(msg, "Give values from 0 to 1.")
    return values


def _checked_length(name: str, values: Codes | Shares, length: int) -> Codes | Shares:
    values = np.asarray(values)
    if len(values) != length:
        msg = f"There are {name} of {len(values):,} cells, but labels of {length:,}."
        raise DataError(msg, "Give them for the same cells.")
    return values
