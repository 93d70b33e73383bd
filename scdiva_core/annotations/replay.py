"""From a log of decisions to the label of every cell; the same events give the same labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdiva_core.annotations.events import UNKNOWN, Event, StartingLabels, damaged
from scdiva_core.errors import StoreError

SOURCES = {"accept": "accepted", "relabel": "relabelled", "split": "split", "reject": "rejected"}
"""What a cell's label is said to come from after each action; a skip leaves it as it is."""


@dataclass(frozen=True, eq=False)
class AnnotationState:
    """The labels as they are after some events.

    Attributes
    ----------
    ids
        Cell Ontology id of each cell, object array of str ``[n_obs]``; empty for free text and unknown.
    names
        Label of each cell, object array of str ``[n_obs]``; ``"unknown"`` where it has none.
    sources
        Where each label comes from, object array of str ``[n_obs]``: one of `SOURCES`, or the source of the starting
        labels.
    events
        int64 ``[n_obs]`` the event that set each label; 0 for the starting labels.
    applied
        Decisions in effect, oldest first, skips included.
    undone
        Decisions taken back that can be made again, the next one last.
    """

    ids: NDArray[np.object_]
    names: NDArray[np.object_]
    sources: NDArray[np.object_]
    events: NDArray[np.int64]
    applied: tuple[Event, ...]
    undone: tuple[Event, ...]

    @property
    def can_undo(self) -> bool:
        """Whether there is a decision to take back."""
        return bool(self.applied)

    @property
    def can_redo(self) -> bool:
        """Whether there is a decision to make again."""
        return bool(self.undone)


def history(kinds: Iterable[str]) -> tuple[list[int], list[int]]:
    """Find which decisions are in effect, as an editor does.

    Parameters
    ----------
    kinds
        `Kind` of each event, oldest first. A decision after an undo drops what was undone; a new beginning drops all.

    Returns
    -------
    tuple of list of int
        Places of the decisions in effect, oldest first; places of those that can be made again, the next one last.

    Raises
    ------
    StoreError
        An undo without anything to undo, or the like.
    """
    applied: list[int] = []
    undone: list[int] = []
    for place, kind in enumerate(kinds):
        if kind in ("undo", "redo"):
            taken, given = (applied, undone) if kind == "undo" else (undone, applied)
            if not taken:
                msg = f"nothing to {kind} at entry {place + 1}"
                raise damaged(msg)
            given.append(taken.pop())
        else:
            undone.clear()
            if kind == "label":
                applied.append(place)
            else:
                applied.clear()
    return applied, undone


def replay(events: Iterable[Event], starting: StartingLabels) -> AnnotationState:
    """Compute the labels that some events lead to.

    Parameters
    ----------
    events
        All events of one data set, oldest first; those before the last ``begin`` no longer count.
    starting
        The labels that the last ``begin`` names.

    Raises
    ------
    StoreError
        Nothing was begun, the starting labels are others, or the log is damaged.
    """
    events = tuple(events)
    begun = next((event for event in reversed(events) if event.kind == "begin"), None)
    if begun is None:
        msg = "No review has begun on this data set."
        raise StoreError(msg, "Choose the labels to start from.")
    if begun.labels_sha256 != starting.sha256:
        model = begun.model_sha256[:12] or "none"
        msg = f"The review began with other labels: those of {begun.source!r}, model {model}."
        raise StoreError(msg, "Compute them again, or begin a new review.")
    applied, undone = (tuple(events[place] for place in places) for places in history(e.kind for e in events))
    decision = np.zeros(starting.n_obs, np.int64)  # 0: as at the start; then places in `applied`, from 1
    for place, event in enumerate(applied, 1):
        if event.action != "skip":
            decision[_cells(event, starting.n_obs)] = place
    kept = decision == 0
    ids = _column(["", *(event.label_id for event in applied)], decision)
    names = _column(["", *(event.label_name or UNKNOWN for event in applied)], decision)
    return AnnotationState(
        np.where(kept, starting.cell_ids, ids),
        np.where(kept, starting.cell_names, names),
        _column([starting.source, *(SOURCES.get(event.action, "") for event in applied)], decision),
        np.array([0, *(event.id for event in applied)], np.int64)[decision],
        applied,
        undone,
    )


def _cells(event: Event, n_obs: int) -> NDArray[np.bool_]:
    if event.n_obs != n_obs:
        msg = f"entry {event.id} is of {event.n_obs:,} cells, the labels of {n_obs:,}"
        raise damaged(msg)
    return event.mask()


def _column(words: list[str], places: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.array(words, object)[places]
