"""More than two hundred damaged ``.h5ad`` files: each is read or refused, none crashes or hangs.

130 cases change bytes, the others change the structure through h5py. All are opened in a child process
(`fuzz_child`), so that a crash or endless loop inside the HDF5 library would be seen.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.fuzz

DEADLINE = 10.0
BYTE_CASES = range(130)
METADATA = re.compile(rb"TREE|HEAP|SNOD|OHDR|OCHK|GCOL|FRHP|FSHD|FHDB|BTHD|BTLF")


class Child:
    """A process that opens files; replaced when it dies or falls silent."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, path: Path) -> dict[str, str]:
        """Return how opening the file ended, or fail the test."""
        if self._process is None:
            self._start()
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=DEADLINE)
        except queue.Empty:
            self.stop()
            pytest.fail(f"no answer within {DEADLINE} s: reading hangs")
        if line is None:
            code = self._process.wait()
            self.stop()
            pytest.fail(f"the reading process died with exit code {code}")
        return json.loads(line)

    def _start(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fuzz_child.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(self._process, self._answers), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
        with process.stdout as lines:
            for line in lines:
                answers.put(line)
        answers.put(None)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process = None


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.stop()


@pytest.fixture(scope="module")
def base(pbmc, tmp_path_factory) -> bytes:
    """A file with everything in it: X, raw, layer, embedding, columns of several kinds."""
    adata = pbmc.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata.copy()
    adata.X = adata.X.astype(np.float32)
    adata.obs["score"] = np.linspace(0, 1, 60)
    adata.obs["note"] = [f"cell {i}" for i in range(60)]
    adata.obsm["X_umap"] = np.zeros((60, 2), np.float32)
    path = tmp_path_factory.mktemp("fuzz") / "base.h5ad"
    adata.write_h5ad(path, compression="gzip")
    return path.read_bytes()


def check(answer: dict[str, str]) -> None:
    assert answer["outcome"] in ("read", "refused"), answer["text"]


def test_the_undamaged_file_is_read(child: Child, base: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(base)
    assert child.open(tmp_path / "a.h5ad") == {"outcome": "read", "text": ""}


def mutated(base: bytes, seed: int) -> bytes:
    """Change bytes: anywhere, single bits, a run, within metadata, or cut the file short."""
    rng = np.random.default_rng(seed)
    content = bytearray(base)
    match seed % 5:
        case 0:
            for position in rng.integers(0, len(content), rng.integers(1, 40)):
                content[position] = rng.integers(256)
        case 1:
            for position in rng.integers(0, len(content), rng.integers(1, 6)):
                content[position] ^= 1 << int(rng.integers(8))
        case 2:
            start, length = int(rng.integers(len(content))), int(rng.integers(1, 200))
            content[start : start + length] = rng.bytes(len(content[start : start + length]))
        case 3:
            places = [found.start() for found in METADATA.finditer(base)]
            for position in rng.choice(places, 3) + rng.integers(4, 64, 3):
                content[position % len(content)] = rng.integers(256)
        case _:
            del content[int(rng.integers(len(content))) :]
    return bytes(content)


@pytest.mark.parametrize("seed", BYTE_CASES)
def test_changed_bytes(child: Child, base: bytes, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.h5ad"
    path.write_bytes(mutated(base, seed))
    check(child.open(path))


# --- structure: what to do to an open file ---


def put(name: str, make: Callable[[np.ndarray], object]) -> Callable[[h5py.File], None]:
    """Replace a data set by something made from its values, keeping its attributes."""

    def change(file: h5py.File) -> None:
        attributes, values = dict(file[name].attrs), file[name][:]
        del file[name]
        file.create_dataset(name, data=make(values)).attrs.update(attributes)

    return change


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def attribute(name: str, key: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__setitem__(key, value)


def no_attribute(name: str, key: str) -> Callable[[h5py.File], None]:
    return lambda file: file[name].attrs.__delitem__(key)


def instead(name: str, value: object) -> Callable[[h5py.File], None]:
    """Put a link, group or array where something else was."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def empty_of(name: str, **options: object) -> Callable[[h5py.File], None]:
    """Put a data set there of which nothing was ever written."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def at(index: int, value: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


def cyclic(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file[name].__setitem__("again", file["/"])


def bad_name(file: h5py.File) -> None:
    for group in (file["obs"], file["layers"], file["obsm"]):
        h5py.h5o.link(file["obs/score"].id, group.id, b"\xff\xfe")


def no_cells(file: h5py.File) -> None:
    for name in ("X/data", "X/indices", "obs/_index", "obs/score", "obs/note", "obs/cell_type/codes"):
        if name in file:
            put(name, lambda values: values[:0])(file)
    put("X/indptr", lambda values: values[:1])(file)
    file["X"].attrs["shape"] = [0, 700]


STRUCTURE: dict[str, Callable[[h5py.File], None]] = {
    **{f"drop {name}": drop(name) for name in (
        "X", "X/data", "X/indices", "X/indptr", "obs", "var", "raw", "raw/X", "raw/var", "raw/X/indptr",
        "layers",
        "layers/counts/data", "obsm", "obs/cell_type/codes", "obs/cell_type/categories", "uns",
    )},
    **{f"no {key} of {name}": no_attribute(name, key) for name, key in (
        ("X", "encoding-type"), ("X", "shape"), ("obs", "_index"), ("var", "_index"), ("obs", "column-order"),
        ("obs/cell_type", "encoding-type"), ("raw/X", "shape"),
    )},
    "shape of text": attribute("X", "shape", "60 by 700"),
    "shape of one": attribute("X", "shape", [60]),
    "shape negative": attribute("X", "shape", [-60, 700]),
    "shape float": attribute("X", "shape", [60.5, 700.0]),
    "shape huge": attribute("X", "shape", np.array([2**62, 2**62])),
    "shape NaN": attribute("raw/X", "shape", [np.nan, np.nan]),
    "index attribute is a number": attribute("obs", "_index", 3),
    "index attribute is a path": attribute("obs", "_index", "/X/data"),
    "index attribute is bytes": attribute("var", "_index", np.bytes_(b"\xff\xfe")),
    "encoding is an array": attribute("X", "encoding-type", [1, 2, 3]),
    "encoding of a column is an array": attribute("obs/cell_type", "encoding-type", [1, 2, 3]),
    "ordered is an array": attribute("obs/cell_type", "ordered", [True, False]),
    "X is a type": instead("X", np.dtype("f4")),
    "order is a number": attribute("obs", "column-order", 7),
    "pointers fall": put("X/indptr", lambda values: values[::-1]),
    "pointers negative": put("X/indptr", at(5, -4)),
    "pointers beyond": put("X/indptr", at(-1, 10**9)),
    "pointers unsigned overflow": put("X/indptr", lambda v: at(30, 2**64 - 1)(v.astype("u8"))),
    "pointers too short": put("X/indptr", lambda values: values[:-3]),
    "pointers float": put("X/indptr", lambda values: values / 3),
    "pointers empty": put("X/indptr", lambda values: values[:0]),
    "pointers all to one cell": put("X/indptr", lambda values: np.where(np.arange(61) < 60, 0, values[-1])),
    "indices beyond": put("X/indices", at(100, 700)),
    "indices negative": put("X/indices", at(100, -1)),
    "indices huge": put("X/indices", lambda values: values.astype("i8") + 2**40),
    "indices text": put("X/indices", lambda values: [str(value) for value in values]),
    "indices repeated": put("X/indices", lambda values: values * 0),
    "data NaN": put("X/data", at(7, np.nan)),
    "data infinite": put("X/data", at(-7, np.inf)),
    "data negative": put("X/data", at(7, -3)),
    "data beyond float32": put("X/data", lambda values: values.astype("f8") * 1e300),
    "data text": put("X/data", lambda values: [str(value) for value in values]),
    "data complex": put("X/data", lambda values: values * 1j),
    "data compound": put("X/data", lambda values: np.zeros(len(values), "i4,f4")),
    "data of two dimensions": put("X/data", lambda values: values[:100].reshape(10, 10)),
    "data zero": put("X/data", lambda values: values * 0),
    "data never written": empty_of("X/data", shape=(2**40,), chunks=(2**20,), dtype="f4"),
    "data in another file": empty_of("X/data", shape=(100,), dtype="u1", external=[("/etc/passwd", 0, 100)]),
    "X external link": instead("X", h5py.ExternalLink("/dev/zero", "/X")),
    "X soft link to itself": instead("X", h5py.SoftLink("/X")),
    "obs soft link": instead("obs", h5py.SoftLink("/var")),
    "X is text": instead("X", "hello"),
    "X is a number": instead("X", 3.5),
    "X has three dimensions": instead("X", np.zeros((60, 700, 2))),
    "X dense of text": instead("X", np.full((60, 700), b"a")),
    "X dense of nothing": empty_of("X", shape=(2**31, 2**31), chunks=(1024, 1024), dtype="f8"),
    "obs holds the file": cyclic("obs"),
    "X holds the file": cyclic("X"),
    "layers hold the file": cyclic("layers"),
    "names that are not UTF-8": bad_name,
    "gene names not UTF-8": put("var/gene", lambda v: np.array([b"\xff\xfe%d" % i for i in range(len(v))])),
    "gene names numbers": put("var/gene", lambda values: np.arange(len(values))),
    "gene names all the same": put("var/gene", lambda values: ["CD3D"] * len(values)),
    "codes beyond": put("obs/cell_type/codes", at(3, 100)),
    "codes below": put("obs/cell_type/codes", at(3, -2)),
    "codes float": put("obs/cell_type/codes", lambda values: values / 2),
    "categories repeated": put("obs/cell_type/categories", lambda values: ["a"] * len(values)),
    "no cells": no_cells,
}  # fmt: skip


@pytest.mark.parametrize("case", list(STRUCTURE))
def test_changed_structure(child: Child, base: bytes, tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.h5ad"
    path.write_bytes(base)
    with h5py.File(path, "r+") as file:
        STRUCTURE[case](file)
    check(child.open(path))


def test_empty_file(child: Child, tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"")
    assert child.open(tmp_path / "a.h5ad")["outcome"] == "refused"


def test_at_least_two_hundred_cases() -> None:
    assert len(BYTE_CASES) + len(STRUCTURE) >= 200
