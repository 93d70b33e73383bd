"""One review on one page run: where it starts, what was decided, and the item at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from pages._ui import annotation_work, state
from pages._ui.annotation_work import Labelled
from pages._ui.review_log import ReviewLog
from scdiva_core.annotations.events import Action, StartingLabels
from scdiva_core.annotations.replay import AnnotationState
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property
from scdiva_core.tasks.annotation_export import Annotation
from scdiva_core.tasks.review_session import OpenItem, Review, open_items, starting_labels, unreviewed

REASON = "reason"
SEARCH = "label-search"
PART = "part"
WHOLE = "all of them"

Label = tuple[str, str]
"""Cell Ontology id, empty for free text, and name."""


@dataclass(eq=False)
class Session:
    """Everything that the parts of the page share about the review.

    Parameters
    ----------
    cells, labelled, log
        The data set, its labels, what was decided on them.
    source
        Whose labels are reviewed.
    embedding, clusters
        float ``[n_cells, d]`` and int ``[n_cells]``, for splitting and for items.
    """

    cells: H5adDataset
    labelled: Labelled
    log: ReviewLog
    source: str
    embedding: np.ndarray
    clusters: np.ndarray

    @cached_property
    def _start(self) -> tuple[StartingLabels, np.ndarray]:
        return starting_labels(self.labelled.annotated.labels(self.source))

    @property
    def starting(self) -> StartingLabels:
        """The labels that the review starts from."""
        return self._start[0]

    @cached_property
    def annotation(self) -> Annotation:
        """All decisions on them, ready for export; before the first one, a review that has just begun."""
        starting, confidence = self._start
        events = self.log.events
        if self.log.begun is None:
            why = self.labelled.settings.to_text()
            hashes = {"data_sha256": self.log.data_sha256, "model_sha256": self.log.model_sha256}
            events = (unreviewed(starting, **hashes, who=self.log.who, why=why),)
        return Annotation(starting, confidence, events)

    @property
    def state(self) -> AnnotationState:
        """The labels as they are."""
        return self.annotation.state

    @cached_property
    def review(self) -> Review:
        """Evidence and queue."""
        return annotation_work.review(self.labelled, self.source, self.cells, self.clusters)

    @cached_property
    def open(self) -> list[OpenItem]:
        """Items with cells that nobody has decided on."""
        return open_items(self.review.items, self.state)

    @property
    def table_key(self) -> str:
        """Key of the table of items: a new one after each entry, so that the first item is at hand again."""
        return f"queue-{self.source}-{len(self.log.events)}"

    @cached_property
    def current(self) -> OpenItem | None:
        """The item at hand: the one selected in the table, else the first; None when all is decided."""
        chosen = st.session_state.get(self.table_key)
        rows = chosen["selection"]["rows"] if chosen else []
        place = rows[0] if rows and rows[0] < len(self.open) else 0
        return self.open[place] if self.open else None

    def label(self, code: int) -> Label | None:
        """Id and name of a code of the queue; None for unknown."""
        return (self.review.ids[code], self.review.names[code]) if code >= 0 else None

    def decide(self, mask: np.ndarray, action: Action, label: Label | None = None) -> None:
        """Make an entry; called by buttons, before the page runs again.

        Parameters
        ----------
        mask
            bool ``[n_cells]``.
        action
            What is decided.
        label
            What the cells are from now on, where the action gives a label.
        """
        term, name = label or ("", "")
        why = (st.session_state.get(REASON) or "").strip()
        done = self.log.write(
            self.starting,
            self.labelled.settings,
            lambda log: log.label(mask, action, label_id=term, label_name=name, why=why),
        )
        if done:
            st.session_state[REASON] = st.session_state[SEARCH] = ""
            st.session_state[PART] = WHOLE  # the next item is another one
        if done and action == "split":
            state.clear_selection()


def in_progress(log: ReviewLog, labelled: Labelled) -> bool:
    """Whether the review that the log has begun is one of these labels.

    Parameters
    ----------
    log
        What was decided.
    labelled
        The labels on the page.
    """
    if log.begun is None:
        return False
    try:
        calls = labelled.annotated.labels(log.begun.source)
    except DataError:
        return False
    return starting_labels(calls)[0].sha256 == log.begun.labels_sha256
