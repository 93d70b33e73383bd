"""The unfinished embedding on disk: what is marked is whole, what is not whole is done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from scdiva_core.distributed.vectors import VectorFolder, begin_vectors, begun_vectors, is_finished, work_folder
from scdiva_core.errors import StoreError

MADE_OF: dict[str, Any] = {"data_sha256": "d", "checkpoint": "c", "chunk_cells": 4}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


@pytest.fixture
def vectors(target: Path) -> VectorFolder:
    return begin_vectors(target, MADE_OF, n_obs=10, width=3, chunk_cells=4)


def rows(vectors: VectorFolder, number: int) -> np.ndarray:
    start, stop = vectors.cells(number)
    return np.arange(start * 3, stop * 3, dtype=np.float32).reshape(-1, 3)


def test_chunks_arrive_in_any_order_and_from_several_processes(vectors: VectorFolder) -> None:
    assert [vectors.cells(number) for number in range(vectors.n_chunks)] == [(0, 4), (4, 8), (8, 10)]
    assert vectors.missing() == [0, 1, 2]
    other = VectorFolder(vectors.folder)
    other.write(2, rows(vectors, 2))
    vectors.write(0, rows(vectors, 0))
    assert vectors.missing() == other.missing() == [1]
    assert np.isnan(vectors.read(1)).all()
    other.write(1, rows(vectors, 1))
    np.testing.assert_array_equal(vectors.values(), np.arange(30, dtype=np.float32).reshape(10, 3))


def test_a_mark_without_its_chunk_does_not_count(vectors: VectorFolder) -> None:
    for number in range(3):
        vectors.write(number, rows(vectors, number))
    chunks = vectors.result / "obsm" / "X_scdiva"
    (chunks / "0.0").unlink()
    whole = (chunks / "2.0").read_bytes()
    (chunks / "2.0").write_bytes(whole[: len(whole) // 2])
    assert vectors.missing() == [0, 2]
    assert not vectors.is_marked(0)
    assert vectors.is_marked(1)


def test_work_goes_on_only_with_the_recipe_that_it_began_with(vectors: VectorFolder, target: Path) -> None:
    assert begun_vectors(target.with_name("other.zarr"), MADE_OF) is None
    assert begun_vectors(target, MADE_OF).folder == vectors.folder == work_folder(target)
    with pytest.raises(StoreError, match="unfinished embedding made from another checkpoint and chunk cells"):
        begun_vectors(target, MADE_OF | {"checkpoint": "x", "chunk_cells": 5})


def test_entropies_travel_with_the_work(target: Path) -> None:
    entropy = np.linspace(0, 1, 7, dtype=np.float32)
    begin_vectors(target, MADE_OF, n_obs=10, width=3, chunk_cells=4, entropy=entropy)
    np.testing.assert_array_equal(VectorFolder(work_folder(target)).entropy, entropy)


def test_a_finished_store_takes_its_name_and_says_what_it_is(vectors: VectorFolder, target: Path) -> None:
    vectors.write(0, rows(vectors, 0))
    assert not is_finished(target, MADE_OF)
    vectors.finish(target, {"map": None})
    assert [path.name for path in target.parent.iterdir()] == ["out.zarr"]
    np.testing.assert_array_equal(zarr.open_array(target, path="obsm/X_scdiva", mode="r")[:4], rows(vectors, 0))
    assert is_finished(target, MADE_OF | {"map": None})
    with pytest.raises(StoreError, match="there already, made from another data sha256"):
        is_finished(target, MADE_OF | {"data_sha256": "e"})


def test_what_a_killed_process_left_before_it_said_what_it_was_is_begun_anew(target: Path) -> None:
    (work_folder(target) / "done").mkdir(parents=True)
    (work_folder(target) / "done" / "0").touch()
    assert begun_vectors(target, MADE_OF) is None
    assert begin_vectors(target, MADE_OF, n_obs=10, width=3, chunk_cells=4).missing() == [0, 1, 2]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot use"):
        begin_vectors(tmp_path / "file" / "out.zarr", MADE_OF, n_obs=10, width=3, chunk_cells=4)
