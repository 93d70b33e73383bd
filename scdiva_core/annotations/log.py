"""The log of all decisions on labels in a project: one SQLite file, written at its end and nowhere else.

Undo and redo are entries too, so that nothing is ever lost; triggers in the file refuse change and deletion. Every
entry is a transaction of its own that has reached the disk when its method returns. The file must lie on a local
disk: SQLite's locks are not reliable on network file systems.
"""

from __future__ import annotations

import fcntl
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from scdiva_core.annotations.events import Action, Event, Kind, StartingLabels
from scdiva_core.annotations.replay import AnnotationState, history, replay
from scdiva_core.data.packing import pack_mask
from scdiva_core.errors import StoreError

WAIT_S = 10.0
"""Seconds that a writer waits for another one."""

_FORMAT = 1
_COLUMNS = tuple(field.name for field in fields(Event))
_APPEND_ONLY = "SELECT RAISE(ABORT, 'the annotation log is only ever added to')"
_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time TEXT NOT NULL,
        kind TEXT NOT NULL,
        who TEXT NOT NULL,
        why TEXT NOT NULL,
        data_sha256 TEXT NOT NULL,
        n_obs INTEGER NOT NULL,
        model_sha256 TEXT NOT NULL,
        action TEXT NOT NULL,
        cells TEXT NOT NULL,
        label_id TEXT NOT NULL,
        label_name TEXT NOT NULL,
        source TEXT NOT NULL,
        labels_sha256 TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS events_data ON events (data_sha256, id)",
    f"CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON events BEGIN {_APPEND_ONLY}; END",
    f"CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON events BEGIN {_APPEND_ONLY}; END",
    # INSERT OR REPLACE deletes without asking the trigger above.
    f"""
    CREATE TRIGGER IF NOT EXISTS no_replace BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id) BEGIN {_APPEND_ONLY}; END
    """,
    f"PRAGMA user_version = {_FORMAT}",
)


class AnnotationLog:
    """The decisions on one data set, in a project's file; safe for threads and processes.

    Several writers may be at work: their entries follow each other as they came, and each replays all of them.

    Parameters
    ----------
    path
        The project's SQLite file, created with its folder when it does not exist; it holds many data sets.
    data_sha256, n_obs
        The data set and its number of cells.
    who
        Person that is at work.
    model_sha256
        Weights in use; empty for none.

    Raises
    ------
    StoreError
        The file cannot be used, or ``who`` is empty; methods that write or read raise it too.
    """

    def __init__(self, path: str | Path, *, data_sha256: str, n_obs: int, who: str, model_sha256: str = "") -> None:
        self.path = Path(path)
        self.data_sha256, self.n_obs = data_sha256, n_obs
        self.who, self.model_sha256 = _checked(who, "name"), model_sha256
        if not who.strip():
            msg = "The log needs a name of who annotates."
            raise StoreError(msg, "Enter your name.")
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()

    def begin(self, starting: StartingLabels, *, why: str = "") -> Event:
        """Begin a review; what was decided on this data set before stays in the log and no longer counts."""
        if starting.n_obs != self.n_obs:
            msg = f"The starting labels are of {starting.n_obs:,} cells, the data set has {self.n_obs:,}."
            raise StoreError(msg, "Compute the labels of this data set.")
        return self._append("begin", why, source=starting.source, labels_sha256=starting.sha256)

    def label(
        self, cells: NDArray[np.bool_], action: Action, *, label_id: str = "", label_name: str = "", why: str = ""
    ) -> Event:
        """Decide on some cells.

        Parameters
        ----------
        cells
            bool ``[n_obs]``.
        action
            ``"accept"``, ``"relabel"`` and ``"split"`` need a name, ``"reject"`` and ``"skip"`` take none.
        label_id, label_name
            Cell Ontology id, empty for free text, and name of the label that the cells have from now on.
        why
            Reason.

        Raises
        ------
        StoreError
            No cell, cells of another data set, an unknown action, a label too few or too many, or no review begun.
        """
        cells = np.asarray(cells, bool)
        if cells.shape != (self.n_obs,):
            msg = f"The selection has {cells.size:,} cells, the data set {self.n_obs:,}."
            raise StoreError(msg, "Select cells of this data set.")
        if not cells.any():
            msg = "No cell is selected."
            raise StoreError(msg, "Select at least one cell.")
        if action not in get_args(Action):
            msg = f"{action!r} is no decision."
            raise StoreError(msg, f"Choose one of {', '.join(get_args(Action))}.")
        if action in ("reject", "skip"):
            if label_id or label_name:
                msg = f"To {action} gives no label, but {label_name or label_id!r} was given."
                raise StoreError(msg, "Relabel the cells instead.")
        elif not label_name.strip():
            msg = f"To {action} needs a label."
            raise StoreError(msg, "Choose a cell type or type a name.")
        return self._append(
            "label",
            why,
            action=action,
            cells=pack_mask(cells),
            label_id=_checked(label_id, "id"),
            label_name=_checked(label_name, "label"),
        )

    def undo(self, *, why: str = "") -> Event:
        """Take the last decision in effect back, whoever made it; as often as there are any."""
        return self._append("undo", why)

    def redo(self, *, why: str = "") -> Event:
        """Make the decision that was taken back last again, unless another one came in between."""
        return self._append("redo", why)

    def restore(self, events: Iterable[Event]) -> None:
        """Take over the log of an exported file as it is, but for the entries' numbers.

        Raises
        ------
        StoreError
            The log has entries of this data set already, or the events are of another one.
        """
        with self._transaction() as table:
            if self._kinds(table):
                msg = "The log has entries of this data set already."
                raise StoreError(msg, "Go on with them, or restore into another project.")
            for event in events:
                if (event.data_sha256, event.n_obs) != (self.data_sha256, self.n_obs):
                    msg = f"Entry {event.id} is of another data set ({event.data_sha256[:12]})."
                    raise StoreError(msg, "Restore the log of this data set.")
                _insert(table, event)

    def events(self) -> tuple[Event, ...]:
        """Return all entries of this data set, oldest first."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM events WHERE data_sha256 = ? ORDER BY id"
        with self._transaction(write=False) as table:
            rows = table.execute(query, (self.data_sha256,)).fetchall()
        return tuple(Event.from_dict(dict(zip(_COLUMNS, row, strict=True))) for row in rows)

    def replay(self, starting: StartingLabels) -> AnnotationState:
        """Compute the labels as they are now.

        Parameters
        ----------
        starting
            The labels that the review began with.
        """
        return replay(self.events(), starting)

    def _append(self, kind: Kind, why: str, **values: str) -> Event:
        """Add one entry if it makes sense after all others; asked inside the transaction, for there may be others."""
        why = _checked(why, "reason")
        with self._transaction() as table:
            kinds = self._kinds(table)
            if kind != "begin":
                _check_follows(kind, kinds)
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = Event(0, time, kind, self.who, why, self.data_sha256, self.n_obs, self.model_sha256, **values)
            return replace(entry, id=_insert(table, entry))

    def _kinds(self, table: sqlite3.Connection) -> list[str]:
        rows = table.execute("SELECT kind FROM events WHERE data_sha256 = ? ORDER BY id", (self.data_sha256,))
        return [kind for (kind,) in rows]

    def _prepare(self) -> None:
        """Make the table in a new file; two programs that do it at once wait for each other.

        SQLite fails instead of waiting when two connections switch to write-ahead mode: hence the lock.
        """
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with closing(self._connect()) as table:
                table.execute("PRAGMA journal_mode = WAL")
                (version,) = table.execute("PRAGMA user_version").fetchone()
                if version > _FORMAT:
                    msg = f"The annotation log {self.path.name} has format {version}; this program knows {_FORMAT}."
                    raise StoreError(msg, "Open the project with a newer version of the program.")
                if version < _FORMAT:
                    with table:
                        table.execute("BEGIN IMMEDIATE")
                        for statement in _SCHEMA:
                            table.execute(statement)

    def _connect(self) -> sqlite3.Connection:
        table = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        table.execute("PRAGMA synchronous = FULL")  # a click is worth waiting for the disk
        return table

    @contextmanager
    def _transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        # The inner table commits or rolls back.
        with self._errors(), closing(self._connect()) as table, table:
            table.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield table

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:  # the rest says which kind
                msg = f"Another program has been writing to {self.path.name} for {WAIT_S:g} seconds."
                raise StoreError(msg, "Nothing was recorded: wait until it is done, then decide again.") from error
            msg = f"The annotation log {self.path} cannot be used ({error})."
            raise StoreError(msg, "Free space on the disk and check the folder's permissions.") from error


def _insert(table: sqlite3.Connection, event: Event) -> int:
    """Add an entry under the next number and return that."""
    names = [name for name in _COLUMNS if name != "id"]
    query = f"INSERT INTO events ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    return int(table.execute(query, [getattr(event, name) for name in names]).lastrowid)


def _check_follows(kind: Kind, kinds: list[str]) -> None:
    """Refuse an entry that the ones before it leave no room for."""
    if "begin" not in kinds:
        msg = "No review has begun on this data set."
        raise StoreError(msg, "Choose the labels to start from.")
    applied, undone = history(kinds)
    if (kind == "undo" and not applied) or (kind == "redo" and not undone):
        msg = f"There is nothing to {kind}."
        raise StoreError(msg, "Another window may have done it: look at the labels again.")


def _checked(text: str, what: str) -> str:
    """Refuse letters that neither SQLite nor HDF5 can keep."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in text):
        msg = f"The {what} {text!r} holds a control character."
        raise StoreError(msg, "Use letters, digits and punctuation.")
    return text
