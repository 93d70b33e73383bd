"""What most label sources say of each cell, kinship of the labels included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls


@dataclass(frozen=True, eq=False)
class Consensus:
    """Labels that most sources stand behind.

    Attributes
    ----------
    calls
        ``source`` is ``"consensus"``. The sources of a cell fall into camps, that of the label, that of the runner-up
        among those left, and so on. ``probability`` is the sum of a camp's probabilities over the number of all
        sources, so that dissent lowers it; ``margin`` that of the first camp over the second, at least 0; ``entropy``
        that of the camps' sizes: 0 all agree, 1 each says another thing.
    count
        int8 ``[n]`` sources behind each label.
    n_sources
        Of how many.
    """

    calls: LabelCalls
    count: NDArray[np.int8]
    n_sources: int


def consensus(sources: Sequence[LabelCalls], ontology: CellOntology) -> Consensus:
    """Find each cell's label that most sources stand behind.

    A source stands behind a term if its own is that term or lies above it: one that says T cell does not contradict
    one that says naive T cell, and the more specific term wins. Free text stands behind the same text, in either case;
    unknown behind unknown. Of labels with equally many sources that with the higher mean probability wins, then that
    of the earlier source. The count over sources is popV's (Ergen 2024); that a coarse label supports a finer one, but
    two that differ do not support what lies above both, is our choice: one vague source would pull every label up.

    Parameters
    ----------
    sources
        Labels of the same cells.
    ontology
        Says what lies above what; a term that it lacks counts as free text.

    Raises
    ------
    DataError
        There is no source, or they are of different numbers of cells.
    """
    if len({len(source) for source in sources}) != 1:
        sizes = ", ".join(f"{source.source}: {len(source):,}" for source in sources) or "none"
        msg = f"A consensus needs sources that label the same cells (cells: {sizes})."
        raise DataError(msg, "Choose one source or more, all of this data set.")
    labels, terms = _common_labels(sources)
    unknown = len(labels)
    backing = _backing(labels, ontology)
    n_sources, n_cells = terms.shape
    agree = np.stack([backing[terms[one], terms] for one in range(n_sources)])
    stated = np.stack([source.probability for source in sources]).astype(np.float64)
    left = np.ones((n_sources, n_cells), bool)
    winners, sizes, sums = [], np.zeros((n_sources, n_cells)), np.zeros((n_sources, n_cells))
    cells = np.arange(n_cells)
    for camp in range(n_sources):
        count = (agree & left).sum(axis=1)
        total = np.where(agree & left, stated, 0).sum(axis=1)
        merit = np.where(left, count + total / np.maximum(count, 1) / 2, -1)
        leader = merit.argmax(axis=0)
        led = left[leader, cells]  # False once every source has its camp
        winners.append(np.where(led, terms[leader, cells], unknown))
        sizes[camp], sums[camp] = led * count[leader, cells], led * total[leader, cells]
        left &= ~agree[leader, :, cells].T
    shares = sizes / n_sources
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=0) / np.log(max(n_sources, 2))
    second = sums[1] if n_sources > 1 else 0
    while len(winners) < 3:
        winners.append(np.full(n_cells, unknown))
    calls = LabelCalls(
        "consensus",
        tuple(term for term, _ in labels),
        tuple(name for _, name in labels),
        *(np.where(winner == unknown, UNKNOWN, winner).astype(np.int32) for winner in winners[:3]),
        probability=np.clip(sums[0] / n_sources, 0, 1).astype(np.float32),
        margin=np.clip((sums[0] - second) / n_sources, 0, 1).astype(np.float32),
        entropy=np.clip(entropy, 0, 1).astype(np.float32),
    )
    return Consensus(calls, sizes[0].astype(np.int8), n_sources)


def _common_labels(sources: Sequence[LabelCalls]) -> tuple[list[tuple[str, str]], NDArray[np.int64]]:
    """Id and name of all labels, and each source's label of each cell among them; one past the last is unknown."""
    place: dict[tuple[str, str], int] = {}
    labels: list[tuple[str, str]] = []
    columns = []
    for source in sources:
        column = []
        for term, name in zip(source.ids, source.names, strict=True):
            key = (term, "" if term else name.casefold())
            if key not in place:
                place[key] = len(labels)
                labels.append((term, name))
            column.append(place[key])
        columns.append(column)
    numbers = [np.array([*column, len(labels)]) for column in columns]
    return labels, np.stack([known[source.best] for known, source in zip(numbers, sources, strict=True)])


def _backing(labels: Sequence[tuple[str, str]], ontology: CellOntology) -> NDArray[np.bool_]:
    """Bool ``[m + 1, m + 1]``: whether a source that says the column's label stands behind the row's."""
    backing = np.eye(len(labels) + 1, dtype=bool)
    place = {term: number for number, (term, _) in enumerate(labels) if term in ontology}
    for term, row in place.items():
        backing[row, [place[above] for above in ontology.ancestors(term) if above in place]] = True
    return backing
