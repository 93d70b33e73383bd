"""What a review is made of: the evidence of all sources in one table, its queue, and what of it is still open."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import anndata
import numpy as np
from numpy.typing import NDArray

from scdiva_core.annotations.events import Event, StartingLabels
from scdiva_core.annotations.replay import AnnotationState
from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls
from scdiva_core.tasks.neighbors import NEIGHBORS, add_neighbors
from scdiva_core.tasks.review import ReviewItem, doubt, neighbor_votes, review_queue

FEWEST_TO_SPLIT = 10
"""Cells that a set must have to be clustered again (our choice)."""

_COLUMN = "obs: "  # how the source of a column of the user's begins


@dataclass(frozen=True)
class LabelSettings:
    """What labels are computed with.

    Attributes
    ----------
    sources
        Of the checkpoint.
    columns
        Of ``obs``.
    unknown
        Whether cells unlike the reference are called unknown.
    batch_key
        Column of ``obs`` with batches that may each lie off the reference; None for none.
    """

    sources: tuple[str, ...]
    columns: tuple[str, ...] = ()
    unknown: bool = True
    batch_key: str | None = None

    def to_text(self) -> str:
        """JSON, kept as the reason of the log's ``begin`` entry, so that a review finds its labels again."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> LabelSettings | None:
        """Read what `to_text` wrote; None for anything else.

        Parameters
        ----------
        text
            Perhaps a reason that a person typed.
        """
        try:
            values = json.loads(text)
            sources, columns = (tuple(map(str, values[name])) for name in ("sources", "columns"))
            batch_key = values.get("batch_key")
            return cls(sources, columns, bool(values["unknown"]), None if batch_key is None else str(batch_key))
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, eq=False)
class Review:
    """Evidence on the labels of one source.

    Attributes
    ----------
    ids, names
        Every label that any source may give: Cell Ontology id (empty for free text) and name. All codes point here.
    labels
        int32 ``[n]`` the labels under review; -1 for unknown.
    doubts
        float32 ``[n]`` see `scdiva_core.tasks.review.doubt`.
    items
        The queue, the most urgent first; every cell is in one item.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int32]
    doubts: NDArray[np.float32]
    items: tuple[ReviewItem, ...]


@dataclass(frozen=True, eq=False)
class OpenItem:
    """An item of the queue of which something is left to decide.

    Attributes
    ----------
    place
        In `Review.items`.
    item
        As it was queued.
    cells
        int64 ``[m]`` those of its cells that nobody has decided on, the most doubtful first.
    skipped
        Whether somebody put it off.
    """

    place: int
    item: ReviewItem
    cells: NDArray[np.int64]
    skipped: bool

    def mask(self, n_obs: int) -> NDArray[np.bool_]:
        """Its cells, bool ``[n_obs]``.

        Parameters
        ----------
        n_obs
            Cells of the data set.
        """
        mask = np.zeros(n_obs, bool)
        mask[self.cells] = True
        return mask


def starting_labels(calls: LabelCalls) -> tuple[StartingLabels, NDArray[np.float32]]:
    """Labels of a source as a review starts from them, and their confidence.

    Parameters
    ----------
    calls
        Of any source or of the consensus.

    Returns
    -------
    tuple of StartingLabels and ndarray
        Labels, and float32 ``[n]`` probability of each; NaN where the source is a column, which states none.
    """
    stated = not calls.source.startswith(_COLUMN)
    confidence = np.where(calls.best != UNKNOWN, calls.probability, np.nan) if stated else np.full(len(calls), np.nan)
    return StartingLabels(calls.source, calls.ids, calls.names, calls.best), confidence.astype(np.float32)


def unreviewed(starting: StartingLabels, *, data_sha256: str, model_sha256: str, who: str, why: str = "") -> Event:
    """Make the entry that stands for a review nobody has begun, so that labels can be exported before one.

    Parameters
    ----------
    starting
        The labels.
    data_sha256, model_sha256
        Data set and weights.
    who, why
        As in the log.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    given = {"source": starting.source, "labels_sha256": starting.sha256}
    return Event(1, time, "begin", who, why, data_sha256, starting.n_obs, model_sha256, **given)


def disagreement(calls: LabelCalls, others: Sequence[LabelCalls], ontology: CellOntology) -> NDArray[np.float32]:
    """Share of other sources that contradict each label.

    A source contradicts a label unless it says the same, or one of the two is a kind of the other (our choice: a
    coarse label is no mistake). Unknown contradicts every label, and agrees with unknown.

    Parameters
    ----------
    calls
        The labels.
    others
        Of the same cells, at least one.
    ontology
        Says what is a kind of what.

    Returns
    -------
    ndarray
        float32 ``[n]``, 0 to 1.
    """
    table = _Table([calls, *others])
    kin, own = table.kin(ontology), table.codes(calls, calls.best)
    return np.mean([~kin[own, table.codes(other, other.best)] for other in others], axis=0).astype(np.float32)


def prepare_review(
    calls: LabelCalls,
    others: Sequence[LabelCalls],
    *,
    neighbors: NDArray[np.integer],
    clusters: NDArray[np.integer],
    novelty: NDArray[np.floating] | None,
    ontology: CellOntology,
) -> Review:
    """Weigh all evidence on each label and queue the cells.

    Candidates are what every source and the cells' neighbours propose, each witness with the same weight (our choice).
    The consensus is no witness, for it repeats what the others say; nor are the probabilities of a column, which
    states none.

    Parameters
    ----------
    calls
        The labels under review.
    others
        All other sources' labels of the same cells; perhaps none.
    neighbors
        ``[n, k]`` of `scdiva_core.tasks.neighbors.nearest_cells`.
    clusters
        ``[n]`` cluster numbers.
    novelty
        ``[n]`` distance to the reference over its own; None without a reference.
    ontology
        Says what is a kind of what: a source that is merely coarser or finer does not speak against a label.
    """
    table = _Table([calls, *others])
    labels = table.codes(calls, calls.best)
    kin = table.kin(ontology)
    heard = []
    for other in others:
        codes = table.codes(other, other.best)
        heard.append(np.where(kin[labels, codes], labels, codes))
    stated = {} if calls.source.startswith(_COLUMN) else _stated(calls)
    doubts = doubt(labels, neighbors, sources=heard, novelty=novelty, **stated)
    witnesses = [source for source in (calls, *others) if source.source != "consensus"]
    proposed = [_proposed(source, table) for source in witnesses] + [neighbor_votes(labels, neighbors)]
    candidates = np.concatenate([codes for codes, _ in proposed], axis=1)
    shares = np.concatenate([share for _, share in proposed], axis=1) / len(proposed)
    items = review_queue(labels, clusters, doubts, candidates, shares)
    return Review(table.ids, table.names, labels, doubts, tuple(items))


def open_items(items: Sequence[ReviewItem], state: AnnotationState) -> list[OpenItem]:
    """Leave out what was decided.

    Parameters
    ----------
    items
        Of `Review`.
    state
        The labels as they are.

    Returns
    -------
    list of OpenItem
        In the order of the queue, those that were skipped after all others.
    """
    decided = state.events > 0
    skipped = np.zeros(len(decided), bool)
    for event in state.applied:
        if event.action == "skip":
            skipped |= event.mask()
    left = []
    for place, item in enumerate(items):
        cells = item.cells[~decided[item.cells]]
        if len(cells):
            left.append(OpenItem(place, item, cells, bool(skipped[cells].all())))
    return sorted(left, key=lambda one: one.skipped)


def sub_clusters(vectors: NDArray[np.floating], resolution: float = 1.0, *, seed: int = 0) -> NDArray[np.int32]:
    """Cluster some cells by themselves (Leiden, Traag 2019, on their own 15 nearest neighbours).

    Parameters
    ----------
    vectors
        ``[n, d]`` of these cells alone.
    resolution
        Higher gives more clusters.
    seed
        Of graph and clustering.

    Returns
    -------
    ndarray
        int32 ``[n]`` cluster numbers, 0 the largest.

    Raises
    ------
    DataError
        Fewer than `FEWEST_TO_SPLIT` cells.
    """
    if len(vectors) < FEWEST_TO_SPLIT:
        msg = f"{len(vectors)} cells are too few to be clustered."
        raise DataError(msg, f"Choose at least {FEWEST_TO_SPLIT}, or decide on them together.")
    import scanpy as sc  # seconds to import

    adata = anndata.AnnData(obsm={"X_cells": np.ascontiguousarray(vectors, np.float32)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy warns of choices made here on purpose
        add_neighbors(adata, min(NEIGHBORS, len(vectors) - 1), use_rep="X_cells", random_state=seed)
        sc.tl.leiden(adata, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return adata.obs["leiden"].astype(int).to_numpy(np.int32)


class _Table:
    """Labels of several sources under common codes; free text is the same in either case."""

    def __init__(self, sources: Sequence[LabelCalls]) -> None:
        self._place: dict[tuple[str, str], int] = {}
        labels: list[tuple[str, str]] = []
        for source in sources:
            for label in zip(source.ids, source.names, strict=True):
                if self._place.setdefault(_key(*label), len(labels)) == len(labels):
                    labels.append(label)
        self.ids = tuple(term for term, _ in labels)
        self.names = tuple(name for _, name in labels)

    def codes(self, source: LabelCalls, places: NDArray[np.integer]) -> NDArray[np.int32]:
        """Common codes of places in a source's labels; `UNKNOWN` stays what it is."""
        own = [self._place[_key(*label)] for label in zip(source.ids, source.names, strict=True)]
        return np.array([*own, UNKNOWN], np.int32)[places]

    def kin(self, ontology: CellOntology) -> NDArray[np.bool_]:
        """Bool ``[m + 1, m + 1]``: the same, or one a kind of the other; unknown comes last, as -1 finds it."""
        kin = np.eye(len(self.ids) + 1, dtype=bool)
        place = {term: number for number, term in enumerate(self.ids) if term in ontology}
        for term, row in place.items():
            above = [place[other] for other in ontology.ancestors(term) if other in place]
            kin[row, above] = kin[above, row] = True
        return kin


def _key(term: str, name: str) -> tuple[str, str]:
    return term, "" if term else name.casefold()


def _stated(calls: LabelCalls) -> dict[str, NDArray[np.float32]]:
    return {name: getattr(calls, name) for name in ("probability", "margin", "entropy")}


def _proposed(calls: LabelCalls, table: _Table) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Common codes of each cell's two best labels and their probabilities, both ``[n, 2]``.

    Of an unknown cell the best label is its runner-up, see `scdiva_core.tasks.annotation.with_unknown`.
    """
    strange = calls.best == UNKNOWN
    first, second = np.where(strange, calls.runner_up, calls.best), np.where(strange, calls.third, calls.runner_up)
    codes = np.stack([table.codes(calls, first), table.codes(calls, second)], axis=1)
    shares = np.stack([calls.probability, np.maximum(calls.probability - calls.margin, 0)], axis=1)
    return codes, np.where(codes == UNKNOWN, np.float32(0), shares)
