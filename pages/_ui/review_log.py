"""The project's log of decisions on the open data set; every page run reads it anew, so that two windows agree."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages._ui import resources, state
from scdiva_core.annotations.events import Event, StartingLabels
from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import ScDiVaError, StoreError
from scdiva_core.store import home
from scdiva_core.tasks.review_session import LabelSettings

_ANONYMOUS = "anonymous"


class ReviewLog:
    """Reads and writes the log; nothing is written before the first decision.

    Parameters
    ----------
    cells
        The open data set.

    Attributes
    ----------
    events
        All entries of this data set, oldest first.
    begun
        The entry that began the review in progress; None before one.
    """

    def __init__(self, cells: H5adDataset) -> None:
        self.data_sha256, self._n_obs = cells.sha256, cells.n_obs
        self._path = home() / "projects" / state.project() / "annotations.sqlite"
        self.model_sha256 = resources.engine().card().sha256 or ""
        self.events: tuple[Event, ...] = self._open().events() if self._path.exists() else ()
        self.begun = next((event for event in reversed(self.events) if event.kind == "begin"), None)

    @property
    def settings(self) -> LabelSettings | None:
        """What the labels of the review in progress were computed with, as far as its entry says so."""
        return LabelSettings.from_text(self.begun.why) if self.begun is not None else None

    @property
    def who(self) -> str:
        """Name of the person at work."""
        return state.reviewer().strip() or _ANONYMOUS

    def last_reviewer(self) -> str:
        """Whoever made the latest entry; empty for nobody."""
        name = self.events[-1].who if self.events else ""
        return "" if name == _ANONYMOUS else name

    def write(
        self, starting: StartingLabels, settings: LabelSettings, decide: Callable[[AnnotationLog], object]
    ) -> bool:
        """Make an entry, and before the first one begin the review; False (and a message) where that is not possible.

        Parameters
        ----------
        starting, settings
            The labels on the page, and what they were computed with.
        decide
            Makes the entry.
        """

        def act(log: AnnotationLog) -> None:
            begun = next((event for event in reversed(log.events()) if event.kind == "begin"), None)
            if begun is None:
                log.begin(starting, why=settings.to_text())
            elif begun.labels_sha256 != starting.sha256:
                msg = "Another window has begun a review of other labels."
                raise StoreError(msg, "Look at the labels again, then decide.")
            decide(log)

        return self._act(act)

    def begin(self, starting: StartingLabels, settings: LabelSettings) -> bool:
        """Begin a new review; earlier decisions stay in the log and no longer count."""
        return self._act(lambda log: log.begin(starting, why=settings.to_text()))

    def undo(self) -> bool:
        """Take the last decision back."""
        return self._act(lambda log: log.undo())

    def redo(self) -> bool:
        """Make it again."""
        return self._act(lambda log: log.redo())

    def _act(self, act: Callable[[AnnotationLog], object]) -> bool:
        try:
            act(self._open())
        except ScDiVaError as error:
            state.set_review_problem(error)
            return False
        state.set_review_problem(None)
        return True

    def _open(self) -> AnnotationLog:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return AnnotationLog(
            self._path,
            data_sha256=self.data_sha256,
            n_obs=self._n_obs,
            who=self.who,
            model_sha256=self.model_sha256,
        )


def reviewer_control(log: ReviewLog, help_text: str) -> None:
    """Let the user say who is at work."""
    st.text_input(
        "Your name",
        value=log.last_reviewer(),
        key=state.REVIEWER,
        placeholder="anonymous",
        help=help_text,
        persist_state="session",
        max_chars=80,
    )
