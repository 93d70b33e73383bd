"""One entry of the annotation log, and the labels that a review starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.packing import unpack_mask
from scdiva_core.errors import DataError, StoreError
from scdiva_core.lazy import cached_property

Kind = Literal["begin", "label", "undo", "redo"]
"""A review is begun; cells are decided on; the last decision is taken back; it is made again after all."""

Action = Literal["accept", "relabel", "split", "reject", "skip"]
"""Keep the label; give another; give another to a part of a set; leave without one; decide later."""

UNKNOWN = "unknown"
"""Name of a cell's label when it has none."""

_NUMBERS = ("id", "n_obs")


@dataclass(frozen=True)
class Event:
    """One entry of the log.

    Attributes
    ----------
    id
        Number in its file, ascending; 0 stands for the starting labels.
    time
        UTC, ISO 8601 with milliseconds.
    kind
        What happened, see `Kind`.
    who, why
        Name of the person; reason, perhaps empty.
    data_sha256, n_obs
        Data set and its number of cells.
    model_sha256
        Weights in use; empty for none.
    action, cells, label_id, label_name
        Of a ``label`` event, empty for others: see `Action`; the cells, packed (see `mask`); Cell Ontology id, empty
        for free text; name of the label. A rejection and a skip carry no label.
    source, labels_sha256
        Of a ``begin`` event, empty for others: where the starting labels come from, and their hash.
    """

    id: int
    time: str
    kind: Kind
    who: str
    why: str
    data_sha256: str
    n_obs: int
    model_sha256: str
    action: str = ""
    cells: str = ""
    label_id: str = ""
    label_name: str = ""
    source: str = ""
    labels_sha256: str = ""

    def mask(self) -> NDArray[np.bool_]:
        """Cells of a ``label`` event, bool ``[n_obs]``.

        Raises
        ------
        StoreError
            The entry is damaged.
        """
        try:
            return unpack_mask(self.cells, self.n_obs)
        except ValueError as error:
            msg = f"entry {self.id}: {error}"
            raise damaged(msg) from error

    def to_dict(self) -> dict[str, str | int]:
        """Plain values that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """Read what `to_dict` wrote.

        Raises
        ------
        StoreError
            Something is missing, too much, or of another type.
        """
        try:
            event = cls(**values)
        except TypeError as error:
            raise damaged(str(error)) from error
        for field in fields(cls):
            kind = int if field.name in _NUMBERS else str
            if not isinstance(getattr(event, field.name), kind):
                msg = f"entry {event.id}: {field.name} is no {kind.__name__}"
                raise damaged(msg)
        try:
            datetime.fromisoformat(event.time)
        except ValueError as error:
            msg = f"entry {event.id}: {error}"
            raise damaged(msg) from error
        if event.kind not in get_args(Kind) or (event.kind == "label" and event.action not in get_args(Action)):
            msg = f"entry {event.id}: {event.kind} {event.action}".rstrip()
            raise damaged(msg)
        return event


def damaged(reason: str) -> StoreError:
    """Make the error of a log that cannot be replayed."""
    message = f"The annotation log is damaged ({reason})."
    return StoreError(message, "Restore it from a backup, or begin the review anew.")


@dataclass(frozen=True, eq=False)
class StartingLabels:
    """Labels that a review starts from.

    Attributes
    ----------
    source
        Where they come from, for example ``"head"`` or the name of a column.
    ids
        Cell Ontology id of each label; empty for free text.
    names
        Name of each label.
    best
        int32 ``[n_obs]`` the label of each cell, a place in `ids`; -1 for unknown.

    Raises
    ------
    DataError
        `ids` and `names` differ in number, or `best` points beyond them.
    """

    source: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    best: NDArray[np.int32]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            msg = f"The labels of {self.source!r} have {len(self.ids)} ids and {len(self.names)} names."
            raise DataError(msg, "Give every label an id, empty for free text.")
        if self.best.ndim != 1 or (len(self.best) and not -1 <= self.best.min() <= self.best.max() < len(self.ids)):
            msg = f"The cells of {self.source!r} carry labels that are none of its {len(self.ids)}."
            raise DataError(msg, "Compute the labels again.")

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.best)

    @cached_property
    def cell_ids(self) -> NDArray[np.object_]:
        """Cell Ontology id of each cell, object array of str ``[n_obs]``; empty for free text and unknown."""
        return np.array([*self.ids, ""], object)[self.best]  # -1 finds the last

    @cached_property
    def cell_names(self) -> NDArray[np.object_]:
        """Label of each cell by name, object array of str ``[n_obs]``; `UNKNOWN` for unknown."""
        return np.array([*self.names, UNKNOWN], object)[self.best]

    @cached_property
    def sha256(self) -> str:
        """Hash of source and labels, in hexadecimal; neither unused labels nor the order of `ids` matter."""
        labels = [*zip(self.ids, self.names, strict=True), ("", UNKNOWN)]
        used = sorted({labels[code] for code in np.unique(self.best)})
        place = {label: number for number, label in enumerate(used)}
        codes = np.array([place.get(label, 0) for label in labels], "<i4")[self.best]
        return hashlib.sha256(json.dumps([self.source, used]).encode() + codes.tobytes()).hexdigest()
