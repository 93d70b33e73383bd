"""The annotation log: what is written stays, comes back after a crash, and is only ever added to."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiva_core.annotations.events import Event, StartingLabels
from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.errors import DataError, StoreError

ROOT = Path(__file__).resolve().parents[3]
B, T, NK = "CL:0000236", "CL:0000084", "CL:0000623"
STARTING = StartingLabels("head", (B, T), ("B cell", "T cell"), np.array([0, 0, 1, 1, 1, -1], np.int32))

WRITER = """
import sys
import numpy as np
from scdiva_core.annotations.log import AnnotationLog

path, who, entries = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = AnnotationLog(path, data_sha256="d" * 64, n_obs=6, who=who)
for number in range(entries):
    event = log.label(np.arange(6) == number % 6, "relabel", label_name=f"type {number}")
    print(event.id, flush=True)
"""


def cells(*places: int) -> np.ndarray:
    mask = np.zeros(6, bool)
    mask[list(places)] = True
    return mask


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "project" / "annotations.sqlite"


@pytest.fixture
def open_log(path: Path) -> Callable[..., AnnotationLog]:
    def make(**changes: Any) -> AnnotationLog:
        settings = {"data_sha256": "d" * 64, "n_obs": 6, "who": "Ada Lovelace", "model_sha256": "e" * 64}
        return AnnotationLog(path, **(settings | changes))

    return make


@pytest.fixture
def log(open_log: Callable[..., AnnotationLog]) -> AnnotationLog:
    opened = open_log()
    opened.begin(STARTING)
    return opened


def names(log: AnnotationLog) -> list[str]:
    return log.replay(STARTING).names.tolist()


def start_writer(path: Path, who: str, entries: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), who, str(entries)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_review_begins_with_its_starting_labels(log: AnnotationLog) -> None:
    state = log.replay(STARTING)
    assert state.names.tolist() == ["B cell", "B cell", "T cell", "T cell", "T cell", "unknown"]
    assert state.ids.tolist() == [B, B, T, T, T, ""]
    assert state.sources.tolist() == ["head"] * 6
    assert state.events.tolist() == [0] * 6
    assert (state.can_undo, state.can_redo) == (False, False)


def test_every_decision_has_its_mark_on_the_cells(log: AnnotationLog) -> None:
    log.label(cells(0, 1), "accept", label_id=B, label_name="B cell")
    log.label(cells(2, 3), "relabel", label_id=NK, label_name="NK cell", why="NKG7, no CD3")
    log.label(cells(3), "split", label_name="odd NK")
    log.label(cells(1), "reject")
    log.label(cells(4, 5), "skip")
    state = log.replay(STARTING)
    assert state.names.tolist() == ["B cell", "unknown", "NK cell", "odd NK", "T cell", "unknown"]
    assert state.ids.tolist() == [B, "", NK, "", T, ""]
    assert state.sources.tolist() == ["accepted", "rejected", "relabelled", "split", "head", "head"]
    assert state.events.tolist() == [2, 5, 3, 4, 0, 0]
    assert [event.action for event in state.applied] == ["accept", "relabel", "split", "reject", "skip"]


def test_an_entry_says_who_when_what_and_why(log: AnnotationLog) -> None:
    before = datetime.now(UTC)
    written = log.label(cells(2, 4), "relabel", label_id=NK, label_name="NK cell", why="NKG7 é\nno CD3")
    begun, found = log.events()
    assert found == written
    assert (found.who, found.why) == ("Ada Lovelace", "NKG7 é\nno CD3")
    assert (found.kind, found.action, found.label_id, found.label_name) == ("label", "relabel", NK, "NK cell")
    assert np.flatnonzero(found.mask()).tolist() == [2, 4]
    assert (found.data_sha256, found.model_sha256, found.n_obs) == ("d" * 64, "e" * 64, 6)
    time = datetime.fromisoformat(found.time)
    assert time.utcoffset() == timedelta(0)
    assert before - timedelta(milliseconds=1) <= time <= datetime.now(UTC)
    assert (begun.kind, begun.source, begun.labels_sha256) == ("begin", "head", STARTING.sha256)


def test_undo_and_redo_walk_the_decisions_as_an_editor_does(log: AnnotationLog) -> None:
    for number in range(4):
        log.label(cells(number), "relabel", label_name=f"type {number}")
    for _ in range(4):
        log.undo()
    assert names(log) == STARTING.cell_names.tolist()
    assert not log.replay(STARTING).can_undo
    for _ in range(3):
        log.redo()
    assert names(log) == ["type 0", "type 1", "type 2", "T cell", "T cell", "unknown"]
    log.label(cells(5), "relabel", label_name="new")
    state = log.replay(STARTING)
    assert state.names.tolist() == ["type 0", "type 1", "type 2", "T cell", "T cell", "new"]
    assert not state.can_redo, "a new decision drops what was undone"
    assert [event.kind for event in log.events()] == ["begin", *["label"] * 4, *["undo"] * 4, *["redo"] * 3, "label"]


def test_the_decisions_that_can_be_made_again_are_named_the_next_one_last(log: AnnotationLog) -> None:
    for name in ("one", "two", "three"):
        log.label(cells(0), "relabel", label_name=name)
    log.undo()
    log.undo()
    state = log.replay(STARTING)
    assert [event.label_name for event in state.applied] == ["one"]
    assert [event.label_name for event in state.undone] == ["three", "two"]


@pytest.mark.parametrize("step", ["undo", "redo"])
def test_where_there_is_nothing_to_undo_or_redo_nothing_is_written(log: AnnotationLog, step: str) -> None:
    with pytest.raises(StoreError, match=f"There is nothing to {step}"):
        getattr(log, step)()
    assert len(log.events()) == 1


def test_without_a_beginning_there_is_nothing_to_decide(open_log: Callable[..., AnnotationLog]) -> None:
    log = open_log()
    for act in (log.undo, log.redo, lambda: log.label(cells(0), "skip"), lambda: log.replay(STARTING)):
        with pytest.raises(StoreError, match="No review has begun on this data set"):
            act()
    assert log.events() == ()


def test_a_new_beginning_lets_the_old_decisions_rest(log: AnnotationLog) -> None:
    log.label(cells(0), "relabel", label_name="old")
    log.undo()
    own = StartingLabels("obs: cell_type", ("",), ("mine",), np.zeros(6, np.int32))
    log.begin(own, why="the authors know better")
    state = log.replay(own)
    assert state.names.tolist() == ["mine"] * 6
    assert (state.can_undo, state.can_redo) == (False, False)
    assert [event.kind for event in log.events()] == ["begin", "label", "undo", "begin"]
    with pytest.raises(StoreError, match="began with other labels: those of 'obs: cell_type', model eeeeeeeeeeee"):
        log.replay(STARTING)


def test_data_sets_in_one_file_know_nothing_of_each_other(open_log: Callable[..., AnnotationLog]) -> None:
    one, two = open_log(), open_log(data_sha256="f" * 64)
    one.begin(STARTING)
    two.begin(STARTING)
    one.label(cells(0), "relabel", label_name="one")
    two.label(cells(1), "relabel", label_name="two")
    one.undo()
    assert names(one) == STARTING.cell_names.tolist()
    assert names(two)[1] == "two"
    with pytest.raises(StoreError, match="There is nothing to redo"):
        two.redo()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET who = 'somebody else'",
        "DELETE FROM events WHERE id = 2",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE id = 2",
    ],
)
def test_the_file_itself_refuses_to_forget(log: AnnotationLog, path: Path, statement: str) -> None:
    log.label(cells(0), "relabel", label_name="kept")
    before = log.events()
    with closing(sqlite3.connect(path)) as table, pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        table.execute(statement)
    assert log.events() == before


@pytest.mark.parametrize("lines", [1, 13, 40])
def test_a_killed_writer_loses_nothing_that_it_had_reported(log: AnnotationLog, path: Path, lines: int) -> None:
    writer = start_writer(path, "Killed", 100_000)
    reported = [writer.stdout.readline() for _ in range(lines)]
    writer.kill()
    reported += writer.communicate()[0].splitlines(keepends=True)
    ids = [int(line) for line in reported if line.endswith("\n")]
    found = log.events()[1:]
    assert [event.id for event in found] == list(range(2, len(found) + 2))
    assert [event.label_name for event in found] == [f"type {number}" for number in range(len(found))]
    assert len(found) - len(ids) in (0, 1), "at most one entry was written and not yet reported"
    with closing(sqlite3.connect(path)) as table:
        assert table.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    log.label(cells(5), "relabel", label_name="afterwards")
    assert names(log)[5] == "afterwards"
    assert names(log)[0] == f"type {(len(found) - 1) // 6 * 6}"


def test_two_programs_write_at_once_and_both_are_heard(log: AnnotationLog, path: Path) -> None:
    writers = [start_writer(path, who, 20) for who in ("One", "Two")]
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.stdout.close()
    found = log.events()[1:]
    assert sorted(event.who for event in found) == ["One"] * 20 + ["Two"] * 20
    for who in ("One", "Two"):
        assert [event.label_name for event in found if event.who == who] == [f"type {n}" for n in range(20)]


def test_who_comes_while_another_does_not_let_go_is_told_what_to_do(
    log: AnnotationLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scdiva_core.annotations.log.WAIT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as table:
        table.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"Another program has been writing to annotations\.sqlite") as caught:
            log.label(cells(0), "relabel", label_name="late")
        assert "Nothing was recorded" in caught.value.hint
        assert len(log.events()) == 1, "it can still be read"
    log.label(cells(0), "relabel", label_name="in time")
    assert names(log)[0] == "in time"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((cells(), "skip"), "No cell is selected"),
        ((np.ones(7, bool), "skip"), "The selection has 7 cells, the data set 6"),
        ((cells(0), "forget"), "'forget' is no decision. Choose one of accept, relabel, split, reject, skip"),
        ((cells(0), "accept"), "To accept needs a label"),
        ((cells(0), "relabel", "", " "), "To relabel needs a label"),
        ((cells(0), "split", B), "To split needs a label"),
        ((cells(0), "reject", B, "B cell"), "To reject gives no label, but 'B cell' was given"),
        ((cells(0), "skip", B), f"To skip gives no label, but '{B}' was given"),
        ((cells(0), "relabel", "", "a\0b"), "holds a control character"),
        ((cells(0), "relabel", "", "\ud800"), "holds a control character"),
        ((cells(0), "skip", "", "", "\x1b"), "The reason .* holds a control character"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(log: AnnotationLog, arguments: tuple[Any, ...], message: str) -> None:
    mask, action, *words = arguments
    with pytest.raises(StoreError, match=message):
        log.label(mask, action, **dict(zip(("label_id", "label_name", "why"), words, strict=False)))
    assert len(log.events()) == 1


def test_labels_of_another_data_set_are_no_beginning(open_log: Callable[..., AnnotationLog]) -> None:
    with pytest.raises(StoreError, match="The starting labels are of 6 cells, the data set has 7"):
        open_log(n_obs=7).begin(STARTING)


@pytest.mark.parametrize("who", ["", "  ", "a\0"])
def test_nobody_is_no_author(open_log: Callable[..., AnnotationLog], path: Path, who: str) -> None:
    with pytest.raises(StoreError, match="needs a name of who annotates|The name .* holds a control character"):
        open_log(who=who)
    assert not path.exists()


def test_files_that_cannot_be_used_say_so(open_log: Callable[..., AnnotationLog], path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"annotations\.sqlite cannot be used .*not a database"):
        open_log()
    path.unlink()
    with closing(sqlite3.connect(path)) as table:
        table.execute("PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="has format 2; this program knows 1.*newer version"):
        open_log()


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"log\.sqlite cannot be used"):
        AnnotationLog(tmp_path / "file" / "log.sqlite", data_sha256="d", n_obs=6, who="Ada")


def test_an_exported_log_goes_on_in_another_project(log: AnnotationLog, tmp_path: Path) -> None:
    log.label(cells(0), "relabel", label_name="one")
    log.label(cells(1), "relabel", label_name="two", why="seen")
    log.undo()
    other = AnnotationLog(tmp_path / "other.sqlite", data_sha256="d" * 64, n_obs=6, who="Grace Hopper")
    other.restore(log.events())
    assert other.events() == log.events()
    other.redo()
    assert names(other)[:2] == ["one", "two"]
    assert [event.who for event in other.events()] == ["Ada Lovelace"] * 4 + ["Grace Hopper"]
    with pytest.raises(StoreError, match="has entries of this data set already"):
        other.restore(log.events())


def test_a_log_that_goes_wrong_half_way_is_not_taken_over_at_all(log: AnnotationLog, tmp_path: Path) -> None:
    other = AnnotationLog(tmp_path / "other.sqlite", data_sha256="d" * 64, n_obs=6, who="Ada")
    strange = replace(log.label(cells(0), "skip"), data_sha256="f" * 64)
    with pytest.raises(StoreError, match="Entry 2 is of another data set"):
        other.restore([log.events()[0], strange])
    assert other.events() == ()


def test_the_hash_of_starting_labels_is_of_what_the_cells_carry() -> None:
    best = np.array([1, 1, 0, 0, 0, -1], np.int32)
    same = StartingLabels("head", (T, B, NK), ("T cell", "B cell", "NK cell"), best)
    assert same.sha256 == STARTING.sha256, "neither the order of the table nor unused labels count"
    others = [
        StartingLabels("knn", (T, B), ("T cell", "B cell"), best),
        StartingLabels("head", (T, B), ("T cells", "B cell"), best),
        StartingLabels("head", (T, ""), ("T cell", "B cell"), best),
        StartingLabels("head", (T, B), ("T cell", "B cell"), best[::-1]),
        StartingLabels("head", (T, B), ("T cell", "B cell"), np.array([1, 1, 0, 0, 0, 0], np.int32)),
    ]
    assert len({STARTING.sha256, *(labels.sha256 for labels in others)}) == 6


@pytest.mark.parametrize(
    ("ids", "best", "message"),
    [
        ((B,), [0, 0], "1 ids and 2 names"),
        ((B, T), [0, 2], "carry labels that are none of its 2"),
        ((B, T), [0, -2], "carry labels that are none of its 2"),
    ],
)
def test_starting_labels_that_fit_nothing_are_refused(ids: tuple[str, ...], best: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        StartingLabels("head", ids, ("B cell", "T cell"), np.array(best, np.int32))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "forget"},
        {"kind": "label", "action": ""},
        {"id": "1"},
        {"n_obs": 6.0},
        {"who": None},
        {"time": "yesterday"},
        {"colour": "red"},
    ],
)
def test_entries_that_make_no_sense_are_refused(log: AnnotationLog, change: dict[str, Any]) -> None:
    values = log.events()[0].to_dict()
    assert Event.from_dict(values) == log.events()[0]
    with pytest.raises(StoreError, match="The annotation log is damaged"):
        Event.from_dict(values | change)


def test_entries_that_lack_something_are_refused(log: AnnotationLog) -> None:
    values = log.events()[0].to_dict()
    del values["who"]
    with pytest.raises(StoreError, match="damaged .*'who'"):
        Event.from_dict(values)
