"""Packed shards: what goes in comes out, small on disk, and damage is named."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.shards import Shard, write_shard
from scdiva_core.errors import DataError

Cell = list[tuple[int, int]]
"""Steps from gene id to gene id, the first from -1, and counts."""

around_the_widths = st.sampled_from([254, 255, 256, 257, 65_534, 65_535, 65_536, 70_000])
steps = st.integers(1, 30) | around_the_widths
counts = st.integers(1, 12) | around_the_widths | st.just(2**32 - 1)
cells_of_any_kind = st.lists(st.lists(st.tuples(steps, counts), max_size=6), max_size=8)


def write(path: Path, cells: list[Cell], **per_cell: np.ndarray) -> Path:
    ids = [np.cumsum([step for step, _ in cell], dtype=np.int64) - 1 for cell in cells]
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in cells], dtype=np.int64)])
    entries = {
        "gene_ids": np.concatenate([np.empty(0, np.int64), *ids]).astype(np.uint32),
        "counts": np.array([count for cell in cells for _, count in cell], np.uint32),
    }
    write_shard(path, indptr, entries | per_cell)
    return path


def read(shard: Shard, rows: list[int]) -> list[Cell]:
    lengths, ids, values = shard.take(np.array(rows, int))
    ends = np.cumsum(lengths)
    found = []
    for end, length in zip(ends.tolist(), lengths.tolist(), strict=True):
        of_cell = slice(end - length, end)
        found.append(
            list(zip(np.diff(ids[of_cell].astype(int), prepend=-1).tolist(), values[of_cell].tolist(), strict=True))
        )
    assert len(ids) == len(values) == lengths.sum()
    return found


@settings(max_examples=150, deadline=None)
@given(cells=cells_of_any_kind, data=st.data())
def test_what_is_written_is_read_in_any_order(cells: list[Cell], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = Shard(write(Path(folder) / "a.safetensors", cells))
        assert len(shard) == len(cells)
        rows = data.draw(st.lists(st.integers(0, len(cells) - 1), max_size=12) if cells else st.just([]))
        assert read(shard, rows) == [cells[row] for row in rows]


CELLS: list[Cell] = [[(3, 1), (255, 255)], [], [(70_000, 65_536)], [(1, 1), (1, 2), (1, 3)], []]
"""Steps from -1: the gene ids are 2 and 257; none; 69,999; 0, 1 and 2; none."""


def test_gene_ids_and_counts_are_plain_numbers(tmp_path: Path) -> None:
    lengths, ids, values = Shard(write(tmp_path / "a.safetensors", CELLS)).take(np.array([3, 0, 1, 2]))
    assert lengths.tolist() == [3, 2, 0, 1]
    assert ids.tolist() == [0, 1, 2, 2, 257, 69_999]
    assert values.tolist() == [1, 2, 3, 1, 255, 65_536]


def test_arrays_of_the_cells_are_kept_with_their_types(tmp_path: Path) -> None:
    arrays = {
        "total": np.array([7.5, 0, 1e9, 1, 2]),
        "label": np.array([-1, 0, 300, 2, 1], np.int16),
        "validation": np.array([0, 1, 1, 0, 0], np.uint8),
    }
    shard = Shard(write(tmp_path / "a.safetensors", CELLS, **arrays))
    assert set(shard.cells) == set(arrays)
    for name, values in arrays.items():
        assert shard.cells[name].dtype == values.dtype
        assert np.array_equal(shard.cells[name], values)


def test_a_shard_without_cells_is_empty(tmp_path: Path) -> None:
    shard = Shard(write(tmp_path / "a.safetensors", [], label=np.empty(0, np.int16)))
    assert len(shard) == 0
    assert shard.cells["label"].shape == (0,)
    assert read(shard, []) == []


def test_the_unpacked_form_is_made_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", CELLS)
    Shard(path)
    unpacked = tmp_path / "unpacked" / "a.safetensors"
    before = unpacked.stat()
    assert read(Shard(path), [3]) == [CELLS[3]]
    after = unpacked.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [file.name for file in unpacked.parent.iterdir()] == ["a.safetensors"], "no temporary file is left"


def test_the_unpacked_form_is_made_anew_when_the_packed_one_is_newer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", CELLS)
    Shard(path)
    write(path, CELLS[2:4])
    later = (tmp_path / "unpacked" / "a.safetensors").stat().st_mtime_ns + 1
    os.utime(path, ns=(later, later))
    shard = Shard(path)
    assert read(shard, [0, 1]) == CELLS[2:4]
    assert len(shard) == 2


@pytest.mark.parametrize("damage", ["missing", "truncated", "cut to nothing", "garbage", "other arrays"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "a.safetensors", CELLS)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other arrays":
        path.write_bytes(content.replace(b"counts_bytes", b"counts_bites"))
    else:
        path.write_bytes({"truncated": content[:-5], "cut to nothing": b"", "garbage": b"no shard" * 40}[damage])
    with pytest.raises(DataError, match=r"Shard a\.safetensors of the corpus cannot be read") as caught:
        Shard(path)
    assert "run 'prepare' again" in caught.value.hint


def test_a_damaged_unpacked_form_is_mended_as_the_hint_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", CELLS)
    Shard(path)
    unpacked = tmp_path / "unpacked" / "a.safetensors"
    os.truncate(unpacked, 20)
    with pytest.raises(DataError, match="cannot be read") as caught:
        Shard(path)
    assert "the folder 'unpacked' beside it" in caught.value.hint
    unpacked.unlink()
    assert read(Shard(path), [0]) == [CELLS[0]]


@pytest.mark.fuzz
@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_never_breaks_the_program(place: int, value: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.safetensors", CELLS, label=np.arange(5, dtype=np.int16))
        content = bytearray(path.read_bytes())
        content[place % len(content)] = value
        path.write_bytes(content)
        try:
            shard = Shard(path)
        except DataError:
            return
        assert len(read(shard, list(range(len(shard))))) == len(shard)


def test_real_counts_take_hardly_more_than_a_byte_each(data_root: Path, tmp_path: Path) -> None:
    matrix = anndata.read_h5ad(data_root / "demo" / "tenx_pbmc3k.h5ad")[:800].X.tocsr()
    matrix.sort_indices()
    path = tmp_path / "a.safetensors"
    write_shard(path, matrix.indptr, {"gene_ids": matrix.indices, "counts": matrix.data})
    assert path.stat().st_size < 1.3 * matrix.nnz
    lengths, ids, values = Shard(path).take(np.arange(800))
    assert np.array_equal(lengths, np.diff(matrix.indptr))
    assert np.array_equal(ids, matrix.indices)
    assert np.array_equal(values, matrix.data)
