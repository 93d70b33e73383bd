"""Results on disk: found again, never half written, never lost by a killed process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from scdiva_core.errors import StoreError
from scdiva_core.store import ResultStore, home

ROOT = Path(__file__).resolve().parents[2]
KEY = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def test_home_is_the_folder_of_the_environment_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "new" / "home"))
    assert home() == tmp_path / "new" / "home"
    assert home().stat().st_mode & 0o777 == 0o700


def test_home_that_cannot_be_made_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(StoreError, match="cannot be created.*Set SCDIVA_HOME"):
        home()


def test_the_key_depends_on_every_part_and_not_on_order_or_number_class(store: ResultStore) -> None:
    key = store.key("embed", "data", "weights", {"a": 1, "b": [1, 2], "c": "x"})
    assert len(key) == 64
    same = {"c": "x", "b": np.array([1, 2]), "a": np.int64(1)}
    assert store.key("embed", "data", "weights", same) == key
    assert store.key("embed", "data", "weights", {"a": 1, "b": (1, 2), "c": "x"}) == key
    others = [
        store.key("umap", "data", "weights", same),
        store.key("embed", "other", "weights", same),
        store.key("embed", "data", "other", same),
        store.key("embed", "data", "weights", {**same, "a": 2}),
    ]
    assert len({key, *others}) == 5


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), object(), {1, 2}])
def test_a_parameter_that_is_no_json_is_refused(store: ResultStore, value: object) -> None:
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        store.key("embed", "data", "weights", {"value": value})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.zeros((0, 5)),
        np.float16(3.5),
        np.array(["T cell", "β cell"]),
        np.array([True, False]),
    ],
    ids=["matrix", "empty", "scalar", "text", "bool"],
)
def test_an_array_comes_back_as_it_went_in(store: ResultStore, array: np.ndarray) -> None:
    assert store.get(KEY) is None
    store.put(KEY, {"X_scdiva": array}, {"seconds": np.float32(1.5), "genes": [1, 2]})
    entry = ResultStore(store.root).get(KEY)
    assert entry.meta == {"seconds": 1.5, "genes": [1, 2]}
    assert list(entry.arrays) == ["X_scdiva"]
    found = entry.arrays["X_scdiva"]
    assert found.dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(found, array)


def test_stored_arrays_are_read_only(store: ResultStore) -> None:
    entry = store.put(KEY, {"x": np.ones(3)}, {})
    with pytest.raises(ValueError, match="read-only"):
        entry.arrays["x"][0] = 2
    with pytest.raises(KeyError):
        entry.arrays["y"]


def test_the_first_of_two_writers_stays(store: ResultStore) -> None:
    store.put(KEY, {"x": np.zeros(2)}, {"writer": 1})
    assert store.put(KEY, {"x": np.zeros(2)}, {"writer": 2}).meta == {"writer": 1}
    assert [path.name for path in store.root.iterdir()] == [KEY]


def test_many_writers_and_readers_of_one_key_see_whole_entries(store: ResultStore) -> None:
    array = np.arange(1000)
    wrong: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                store.put(KEY, {"x": array}, {"writer": number})
                entry = store.get(KEY)
                if entry is None or not np.array_equal(entry.arrays["x"], array):
                    wrong.append(entry)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_read_headers_one_at_a_time(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = store.put(KEY, {"values": np.zeros((3, 4))}, {}).arrays
    reading, most, load = [], [], np.load

    def slowly(*args: object, **more: object) -> np.ndarray:
        reading.append(1)
        most.append(len(reading))
        time.sleep(0.01)
        try:
            return load(*args, **more)
        finally:
            reading.pop()

    monkeypatch.setattr(np, "load", slowly)
    with ThreadPoolExecutor(4) as threads:
        shapes = set(threads.map(lambda name: arrays[name].shape, ["values"] * 12))
    assert shapes == {(3, 4)}
    assert most == [1] * 12


@pytest.mark.parametrize("damage", ["cut", "no array", "no entry", "bad json", "other json", "bad header"])
def test_a_damaged_entry_counts_as_absent_and_is_removed(store: ResultStore, damage: str) -> None:
    folder = store.put(KEY, {"x": np.arange(100)}, {}).path
    array, entry = folder / "x.npy", folder / "entry.json"
    if damage == "cut":
        os.truncate(array, array.stat().st_size - 8)
    elif damage == "no array":
        array.unlink()
    elif damage == "no entry":
        entry.unlink()
    elif damage == "bad json":
        entry.write_text("{")
    elif damage == "other json":
        entry.write_text('{"bytes": []}')
    else:
        array.write_bytes(b"\x00" * array.stat().st_size)
    assert store.get(KEY) is None
    assert not folder.exists()
    assert store.entries() == []
    assert store.put(KEY, {"x": np.arange(100)}, {}).arrays["x"][99] == 99


def test_a_damaged_entry_is_replaced_by_the_next_write(store: ResultStore) -> None:
    folder = store.put(KEY, {"x": np.arange(100)}, {}).path
    (folder / "entry.json").unlink()
    assert store.put(KEY, {"x": np.arange(3)}, {}).arrays["x"].shape == (3,)


def test_objects_strange_names_and_bad_notes_are_refused_and_leave_nothing(store: ResultStore) -> None:
    with pytest.raises(StoreError, match="Python objects"):
        store.put(KEY, {"x": np.array([{}])}, {})
    with pytest.raises(StoreError, match="cannot name a stored array"):
        store.put(KEY, {"../x": np.ones(1)}, {})
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        store.put(KEY, {"x": np.ones(1)}, {"note": object()})
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("key", ["", "../" + "a" * 61, "A" * 64, "a" * 65])
def test_only_a_result_key_names_an_entry(store: ResultStore, key: str) -> None:
    with pytest.raises(StoreError, match="is not a result key"):
        store.get(key)


def test_entries_sizes_and_deletion(store: ResultStore) -> None:
    other = "b" * 64
    store.put(KEY, {"x": np.zeros(10_000)}, {})
    store.put(other, {"x": np.zeros(10)}, {})
    store.partial("c" * 64, 10, 10)
    assert {entry.key for entry in store.entries()} == {KEY, other}
    assert store.size_bytes() > 80_000
    assert store.get(KEY).size_bytes == 80_128
    for key in (KEY, other, "c" * 64):
        store.delete(key)
    store.delete(KEY)
    assert list(store.root.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_after_a_day(store: ResultStore) -> None:
    old, new = store.root / ".tmp-old", store.root / ".tmp-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "x.npy").write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    ResultStore(store.root)
    assert [path.name for path in store.root.iterdir()] == [".tmp-new"]


def test_a_partial_array_is_resumed_and_finished(store: ResultStore) -> None:
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    first = store.partial(KEY, 10, 3)
    assert not first.done.any()
    first.write(np.array([7, 2]), values[[7, 2]])
    first.write(slice(3, 5), values[3:5])
    assert store.get(KEY) is None

    second = ResultStore(store.root).partial(KEY, 10, 3)
    assert np.flatnonzero(second.done).tolist() == [2, 3, 4, 7]
    with pytest.raises(StoreError, match="6 of 10 rows have not been computed"):
        second.finish({})
    rest = np.flatnonzero(~second.done)
    second.write(rest, values[rest])
    entry = second.finish({"model": "tiny"})
    np.testing.assert_array_equal(entry.arrays["values"], values)
    assert entry.meta == {"model": "tiny"}
    assert [path.name for path in store.root.iterdir()] == [KEY]
    assert sorted(path.name for path in entry.path.iterdir()) == ["entry.json", "values.npy"]


def test_two_processes_that_finish_the_same_partial_array_both_get_the_entry(store: ResultStore) -> None:
    one, two = store.partial(KEY, 4, 2), store.partial(KEY, 4, 2)
    for partial in (one, two):
        partial.write(slice(0, 4), np.ones((4, 2)))
    assert one.finish({"by": 1}).meta == two.finish({"by": 2}).meta == {"by": 1}


def test_a_partial_array_gives_way_to_an_entry_stored_meanwhile(store: ResultStore) -> None:
    partial = store.partial(KEY, 4, 2)
    partial.write(slice(0, 4), np.ones((4, 2)))
    store.put(KEY, {"values": np.ones((4, 2))}, {"by": "put"})
    assert partial.finish({}).meta == {"by": "put"}
    assert [path.name for path in store.root.iterdir()] == [KEY]


def test_a_partial_array_that_was_deleted_says_so(store: ResultStore) -> None:
    partial = store.partial(KEY, 1, 1)
    partial.write(slice(0, 1), np.ones((1, 1)))
    store.delete(KEY)
    with pytest.raises(StoreError, match="was deleted while it was computed. Run the step again"):
        partial.finish({})


def test_a_partial_array_of_another_shape_or_cut_short_is_begun_again(store: ResultStore) -> None:
    store.partial(KEY, 4, 2).write(slice(0, 2), np.ones((2, 2)))
    assert not store.partial(KEY, 5, 2).done.any()
    store.partial(KEY, 5, 2).write(slice(0, 2), np.ones((2, 2)))
    values = store.root / f"{KEY}.partial" / "values.npy"
    os.truncate(values, values.stat().st_size - 4)
    assert not store.partial(KEY, 5, 2).done.any()


ENDLESS_WRITER = """
import sys
import numpy as np
from scdiva_core.store import ResultStore
partial = ResultStore(sys.argv[1]).partial("a" * 64, 100_000, 4)
for start in range(0, 100_000, 10):
    partial.write(slice(start, start + 10), np.arange(start, start + 10)[:, None] * np.ones(4))
    print(start + 10, flush=True)
"""


def test_kill_9_loses_at_most_the_batch_in_flight(store: ResultStore) -> None:
    command = [sys.executable, "-c", ENDLESS_WRITER, str(store.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    told = 0
    while told < 200:
        told = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    told = int(rest[-1]) if rest else told
    partial = store.partial(KEY, 100_000, 4)
    assert partial.done[:told].all()
    assert partial.done.sum() <= told + 10
    done = np.flatnonzero(partial.done)
    np.testing.assert_array_equal(partial.values[done], done[:, None] * np.ones(4))
