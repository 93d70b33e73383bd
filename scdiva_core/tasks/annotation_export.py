"""Reviewed labels taken home: a new ``.h5ad`` with its whole log, a table, and the Cell Annotation Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from scdiva_core.annotations.events import Event, StartingLabels, damaged
from scdiva_core.annotations.replay import AnnotationState, replay
from scdiva_core.data.frames import Table
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.hdf5 import Array, hdf5_errors, member, open_hdf5, subgroup
from scdiva_core.data.heaps import check_references
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.packing import pack_bytes, unpack_bytes
from scdiva_core.errors import DataError, StoreError
from scdiva_core.lazy import cached_property
from scdiva_core.tasks.export import check_cells, write_columns, write_copy, write_record

LABEL = "scdiva_label"
"""Column of ``obs`` with the labels; those beside it begin with the same word."""

SCHEMA_VERSION = "1.1.0"
"""Version of the Cell Annotation Schema that is written (https://github.com/cellannotation/cell-annotation-schema)."""

_TEXT_COLUMNS = (LABEL, f"{LABEL}_ontology_id", f"{LABEL}_source")
_LOG = "annotation_log"
_LOG_FORMAT = 1
_LONGEST_TITLE, _LONGEST_RATIONALE = 200, 2_000  # characters, by the schema


@dataclass(frozen=True, eq=False)
class Annotation:
    """A review: the labels it began with and all that was decided since.

    Attributes
    ----------
    starting
        Labels that it began with.
    confidence
        float32 ``[n_obs]`` probability of each starting label; NaN where its source gives none.
    events
        The whole log of the data set, oldest first.

    Raises
    ------
    StoreError
        The log does not begin with these labels, or is damaged.
    """

    starting: StartingLabels
    confidence: NDArray[np.float32]
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if self.confidence.shape != self.state.names.shape:  # a log that does not fit is refused here
            msg = f"There are {self.starting.n_obs:,} labels, but probabilities {self.confidence.shape}."
            raise DataError(msg, "Give one for each cell.")

    @cached_property
    def state(self) -> AnnotationState:
        """The labels as they are after all events."""
        return replay(self.events, self.starting)

    @cached_property
    def label_confidence(self) -> NDArray[np.float32]:
        """Probability of each label as it is now, float32 ``[n_obs]``; NaN for unknown and where a person chose."""
        kept = (self.state.ids == self.starting.cell_ids) & (self.state.names == self.starting.cell_names)
        return np.where(kept & (self.starting.best >= 0), self.confidence, np.nan).astype(np.float32)


def write_annotation(
    dataset: H5adDataset, path: str | Path, annotation: Annotation, *, author: str, title: str
) -> Path:
    """Copy the input and add the labels to the copy.

    The copy gains ``obs["scdiva_label"]``, ``["scdiva_label_ontology_id"]`` (missing for free text and unknown),
    ``["scdiva_label_confidence"]`` (see `Annotation.label_confidence`) and ``["scdiva_label_source"]``; the log with
    the labels it began with, as JSON in ``uns["scdiva"]["annotation_log"]``; and ``uns["cas"]``, the Cell Annotation
    Schema as JSON. What was there under these names is replaced, everything else is kept as it was.

    Parameters
    ----------
    dataset
        The open input.
    path
        The new file; replaced in one step when it is there already.
    annotation
        What to write.
    author
        First and last name of the person who answers for the labels, as the schema wants it.
    title
        What the data set is called there, at most 200 characters.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    DataError
        The labels are of other cells, author or title are empty or too long, ``path`` is the input itself, or the copy
        cannot be written.
    """
    check_cells(dataset, annotation.starting.n_obs)
    state = annotation.state
    columns = {
        LABEL: pd.Categorical(state.names),
        f"{LABEL}_ontology_id": pd.Categorical(np.where(state.ids == "", None, state.ids)),
        f"{LABEL}_confidence": annotation.label_confidence,
        f"{LABEL}_source": pd.Categorical(state.sources),
    }
    schema = json.dumps(cell_annotation_schema(dataset.obs_names, annotation, author=author, title=title))

    def add(file: h5py.File) -> None:
        write_columns(file["obs"], columns, list(dataset.obs))
        write_record(file, {_LOG: _to_record(annotation)})
        write_elem(file["uns"], "cas", schema)

    return write_copy(dataset, path, add)


def read_annotation(path: str | Path) -> Annotation:
    """Read what `write_annotation` wrote: labels, log, and what can be undone and redone.

    Parameters
    ----------
    path
        An ``.h5ad`` file.

    Raises
    ------
    DataError
        There is no log in the file, or cells or labels were changed after it was written.
    StoreError
        The log is damaged.
    """
    with open_hdf5(path) as file:
        uns = subgroup(file, "uns")
        record = None if uns is None else subgroup(uns, "scdiva")
        if record is None or member(record, _LOG) is None:
            msg = f"{Path(path).name!r} holds no annotation log."
            raise DataError(msg, "Choose a file that was exported with its labels.")
        text = _text(record)
        obs = Table.open(file, "obs")
        columns = {column.name for column in obs.columns}
        found = [obs.text(name) if name in columns else None for name in _TEXT_COLUMNS]
        annotation = _from_record(text, obs.length)
    state = annotation.state
    if not all(map(np.array_equal, (state.names, state.ids, state.sources), found)):
        msg = f"The labels in {Path(path).name!r} differ from their log: they were changed after the export."
        raise DataError(msg, f"Open the file as exported, or begin a new review with the column {LABEL!r}.")
    return annotation


def annotation_table(obs_names: Sequence[str], annotation: Annotation) -> pd.DataFrame:
    """Lay the labels out for a spreadsheet.

    Parameters
    ----------
    obs_names
        Names of the cells, ``[n_obs]``.
    annotation
        What to lay out.

    Returns
    -------
    DataFrame
        One row a cell, by its name: the columns that `write_annotation` adds, ``starting_label``, and of the decision
        ``decided_by``, ``decided_at`` (UTC) and ``reason``, which are empty where none was made.
    """
    state = annotation.state
    decisions = {event.id: event for event in state.applied}

    def of_decision(name: str) -> pd.Series:
        values = {number: getattr(event, name) for number, event in decisions.items()}
        return pd.Series(state.events).map({0: "", **values}).to_numpy()

    return pd.DataFrame(
        {
            LABEL: state.names,
            f"{LABEL}_ontology_id": state.ids,
            f"{LABEL}_confidence": annotation.label_confidence,
            f"{LABEL}_source": state.sources,
            "starting_label": annotation.starting.cell_names,
            "decided_by": of_decision("who"),
            "decided_at": of_decision("time"),
            "reason": of_decision("why"),
        },
        index=pd.Index(obs_names, name="cell"),
    )


def cell_annotation_schema(
    obs_names: Sequence[str], annotation: Annotation, *, author: str, title: str
) -> dict[str, Any]:
    """Describe the labels in the Cell Annotation Schema, general part.

    Parameters
    ----------
    obs_names
        Names of the cells, ``[n_obs]``.
    annotation
        What to describe.
    author
        First and last name of the person who answers for the labels.
    title
        What the data set is called, at most 200 characters.

    Returns
    -------
    dict
        Plain values for `json.dumps`: one label set, and one annotation for each label with its cells, its term and
        the reasons that were given.

    Raises
    ------
    DataError
        Author or title are empty, or the title is too long.
    """
    if not author.strip() or not 0 < len(title.strip()) <= _LONGEST_TITLE:
        msg = f"The author is {author!r}, the title has {len(title.strip())} characters."
        raise DataError(msg, f"Name an author, and a title of 1 to {_LONGEST_TITLE} characters.")
    state = annotation.state
    names = np.asarray(obs_names, object)
    labels = pd.DataFrame({"name": state.names, "id": state.ids})
    by_label = sorted(labels.groupby(["name", "id"]).indices.items())
    latest = datetime.fromisoformat(annotation.events[-1].time)
    return {
        "author_name": author,
        "title": title,
        "cellannotation_schema_version": SCHEMA_VERSION,
        "cellannotation_timestamp": latest.strftime("%Y-%m-%d %H:%M:%S"),
        "labelsets": [_labelset(annotation)],
        "annotations": [_described(label, names[cells], _reasons(state, cells)) for label, cells in by_label],
    }


def _labelset(annotation: Annotation) -> dict[str, str]:
    sources = pd.Series(annotation.state.sources).value_counts(sort=False).sort_index()
    by_hand = annotation.state.events > 0
    return {
        "name": LABEL,
        "description": f"Cells by source of their label: {', '.join(f'{n} {name}' for name, n in sources.items())}.",
        "annotation_method": "manual" if by_hand.all() else "both" if by_hand.any() else "algorithmic",
    }


def _described(label: tuple[str, str], cells: NDArray[np.object_], reasons: str) -> dict[str, Any]:
    name, term = label
    entry: dict[str, Any] = {"labelset": LABEL, "cell_label": name, "cell_fullname": name}
    if term:
        entry["cell_ontology_term_id"] = term
        entry["cell_ontology_term"] = cell_ontology().name(term) if term in cell_ontology() else name
    if reasons:
        entry["rationale"] = reasons
    return {**entry, "cell_ids": cells.tolist()}


def _reasons(state: AnnotationState, cells: NDArray[np.intp]) -> str:
    """Reasons of the decisions that gave these cells their label, each once, cut to what the schema allows."""
    deciding = set(state.events[cells].tolist())
    given = dict.fromkeys(event.why for event in state.applied if event.why and event.id in deciding)
    text = "; ".join(given)
    return text if len(text) <= _LONGEST_RATIONALE else f"{text[: _LONGEST_RATIONALE - 1]}…"


def _to_record(annotation: Annotation) -> dict[str, Any]:
    starting = annotation.starting
    return {
        "format": _LOG_FORMAT,
        "starting": {
            "source": starting.source,
            "ids": list(starting.ids),
            "names": list(starting.names),
            "best": pack_bytes(starting.best.astype("<i4").tobytes()),
            "confidence": pack_bytes(annotation.confidence.astype("<f4").tobytes()),
        },
        "events": [event.to_dict() for event in annotation.events],
    }


def _from_record(text: str, n_obs: int) -> Annotation:
    """Read the log of a file, which may come from a stranger."""
    try:
        record: Mapping[str, Any] = json.loads(text)
        if record["format"] != _LOG_FORMAT:
            msg = f"The annotation log has format {record['format']!r}; this program knows {_LOG_FORMAT}."
            raise StoreError(msg, "Open the file with a newer version of the program.")
        start, events = record["starting"], tuple(Event.from_dict(values) for values in record["events"])
        for event in events:
            if event.kind == "label":
                event.mask()  # also of what is undone, which no replay looks at
        if events and events[-1].n_obs != n_obs:
            msg = f"The file has {n_obs:,} cells, its annotation log {events[-1].n_obs:,}."
            raise DataError(msg, "Open the file as exported: cells were added or left out since.")
        best = np.frombuffer(unpack_bytes(start["best"], 4 * n_obs), "<i4")
        confidence = np.frombuffer(unpack_bytes(start["confidence"], 4 * n_obs), "<f4")
        words = [str(start["source"]), tuple(map(str, start["ids"])), tuple(map(str, start["names"]))]
        starting = StartingLabels(*words, best.astype(np.int32))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        msg = f"{type(error).__name__} {error}"
        raise damaged(msg) from error
    return Annotation(starting, confidence.astype(np.float32), events)


def _text(record: h5py.Group) -> str:
    header = Array(record, _LOG, ndim=0)
    with hdf5_errors(header.label):
        if not header.is_text:
            msg = "no text"
            raise ValueError(msg)
        check_references(record[_LOG])
        return record[_LOG].asstr()[()]
