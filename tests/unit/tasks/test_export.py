"""Results in a new file: everything that was there is kept, and the input's bytes are never touched."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.cellsets import CellSet
from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError
from scdiva_core.tasks.export import write_result
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings

PROVENANCE = {"model": "tiny", "checkpoint_sha256": "0" * 64, "random_weights": True, "genes_known": 3}


def projection(name: str, clusters: int, n_obs: int = 160) -> Projection:
    rng = np.random.default_rng(clusters)
    leiden = (np.arange(n_obs) % clusters).astype(np.int32)
    coordinates = rng.normal(size=(n_obs, 2)).astype(np.float32)
    return Projection(coordinates, leiden, name, ProjectionSettings(resolution=0.7, seed=5))


def cell_set(name: str, *cells: int, n_obs: int = 160) -> CellSet:
    mask = np.zeros(n_obs, bool)
    mask[list(cells)] = True
    return CellSet(name, {"kind": "category", "column": "donor", "values": ["d1"]}, mask)


@pytest.fixture
def embedding() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(160, 8)).astype(np.float32)


@pytest.fixture
def write(dataset: H5adDataset, embedding: np.ndarray) -> Callable[..., Path]:
    def run(path: Path, **changes: Any) -> Path:
        return write_result(dataset, path, **({"embedding": embedding, "provenance": PROVENANCE} | changes))

    return run


def test_result_opens_in_anndata_with_old_and_new_content(
    write: Callable[..., Path], embedding: np.ndarray, small_cells: anndata.AnnData, tmp_path: Path
) -> None:
    maps = [projection("X_scdiva", 12), projection("X_pca", 3)]
    sets = [cell_set("my cells", 1, 5, 7)]
    path = write(tmp_path / "out.h5ad", projections=maps, cell_sets=sets)
    assert path == tmp_path / "out.h5ad"
    found = anndata.read_h5ad(path)
    assert sorted(found.obsm) == ["X_old", "X_scdiva", "X_umap_pca", "X_umap_scdiva"]
    np.testing.assert_array_equal(found.obsm["X_scdiva"], embedding)
    np.testing.assert_array_equal(found.obsm["X_umap_scdiva"], maps[0].coordinates)
    np.testing.assert_array_equal(found.obsm["X_umap_pca"], maps[1].coordinates)
    np.testing.assert_array_equal(found.obsm["X_old"], small_cells.obsm["X_old"])
    assert (found.X != small_cells.X).nnz == 0
    pd.testing.assert_frame_equal(found.var, small_cells.var)
    assert list(found.obs) == ["cell_type", "donor", "leiden_scdiva", "leiden_pca", "set: my cells"]
    pd.testing.assert_series_equal(found.obs["cell_type"], small_cells.obs["cell_type"])
    assert list(found.obs_names) == list(small_cells.obs_names)
    assert found.obs["leiden_scdiva"].astype(int).tolist() == maps[0].leiden.tolist()
    assert list(found.obs["leiden_scdiva"].cat.categories) == [str(k) for k in range(12)], "2 before 10"
    assert found.obs["set: my cells"].dtype == bool
    assert np.flatnonzero(found.obs["set: my cells"]).tolist() == [1, 5, 7]
    assert found.uns["note"] == "kept"


def test_further_embeddings_are_written_by_name_with_their_maps(write: Callable[..., Path], tmp_path: Path) -> None:
    further, drawn = np.ones((160, 3), np.float32), projection("X_by_donor", 4)
    path = write(tmp_path / "out.h5ad", projections=[drawn], embeddings={"X_by_donor": further})
    found = anndata.read_h5ad(path)
    assert sorted(found.obsm) == ["X_by_donor", "X_old", "X_scdiva", "X_umap_by_donor"]
    np.testing.assert_array_equal(found.obsm["X_by_donor"], further)
    np.testing.assert_array_equal(found.obsm["X_umap_by_donor"], drawn.coordinates)
    assert found.obs["leiden_by_donor"].astype(int).tolist() == drawn.leiden.tolist()
    with pytest.raises(DataError, match="The results are of 3 cells, but the file has 160"):
        write(tmp_path / "other.h5ad", embeddings={"X_by_donor": further[:3]})


def test_provenance_says_how_it_was_made(write: Callable[..., Path], tmp_path: Path) -> None:
    sets = [cell_set("one", 1)]
    path = write(tmp_path / "out.h5ad", projections=[projection("X_scdiva", 2)], cell_sets=sets)
    record = {name: json.loads(value) for name, value in anndata.read_h5ad(path).uns["scdiva"].items()}
    assert {name: record[name] for name in PROVENANCE} == PROVENANCE
    assert record["settings"]["X_scdiva"]["resolution"] == 0.7
    assert record["settings"]["X_scdiva"]["seed"] == 5
    assert record["cell_sets"] == {"one": sets[0].recipe}
    assert record["versions"]["anndata"] == version("anndata")
    assert {"torch", "scanpy"} <= set(record["versions"])


def test_input_is_untouched_byte_for_byte(write: Callable[..., Path], small_h5ad: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(small_h5ad.read_bytes()).hexdigest()
    stamp = small_h5ad.stat().st_mtime_ns
    write(tmp_path / "out.h5ad", projections=[projection("X_scdiva", 2)])
    assert hashlib.sha256(small_h5ad.read_bytes()).hexdigest() == before
    assert small_h5ad.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("link", [None, "symbolic", "hard"])
def test_the_input_itself_is_no_place_for_the_result(
    small_h5ad: Path,
    small_vocabulary: GeneVocabulary,
    embedding: np.ndarray,
    tmp_path: Path,
    link: str | None,
) -> None:
    source = Path(shutil.copy(small_h5ad, tmp_path / "input.h5ad"))
    target = source if link is None else tmp_path / "link.h5ad"
    if link == "symbolic":
        target.symlink_to(source)
    elif link == "hard":
        target.hardlink_to(source)
    before = source.read_bytes()
    with (
        open_h5ad(source, small_vocabulary) as dataset,
        pytest.raises(DataError, match="is the input file, which is never changed") as caught,
    ):
        write_result(dataset, target, embedding=embedding, provenance=PROVENANCE)
    assert "another name" in caught.value.hint
    assert source.read_bytes() == before


def test_an_older_result_is_replaced_column_by_column(
    write: Callable[..., Path], small_vocabulary: GeneVocabulary, embedding: np.ndarray, tmp_path: Path
) -> None:
    first = write(tmp_path / "first.h5ad", projections=[projection("X_scdiva", 12)], cell_sets=[cell_set("a", 1)])
    with open_h5ad(first, small_vocabulary) as dataset:
        second = write_result(
            dataset,
            tmp_path / "second.h5ad",
            embedding=embedding[:, :3],
            provenance=PROVENANCE,
            projections=[projection("X_scdiva", 4)],
            cell_sets=[cell_set("a", 2, 3)],
        )
    found = anndata.read_h5ad(second)
    assert found.obsm["X_scdiva"].shape == (160, 3)
    assert list(found.obs["leiden_scdiva"].cat.categories) == ["0", "1", "2", "3"]
    assert np.flatnonzero(found.obs["set: a"]).tolist() == [2, 3]
    assert list(found.obs) == ["cell_type", "donor", "leiden_scdiva", "set: a"]
    assert len(anndata.read_h5ad(first).obs["leiden_scdiva"].cat.categories) == 12


def test_an_existing_target_is_replaced_whole(write: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "out.h5ad"
    target.write_bytes(b"something old")
    write(target)
    assert "X_scdiva" in anndata.read_h5ad(target).obsm
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5ad"], "no partial file is left"


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("a/b", "set: a-b"),
        ("..", "set: .."),
        (".", "set: ."),
        ("/", "set: -"),
        ("CD8⁺ T, \"naïve\" 'x'", "set: CD8⁺ T, \"naïve\" 'x'"),
        ("set: one", "set: set: one"),
        ("x" * 80, "set: " + "x" * 80),
    ],
)
def test_odd_names_of_cell_sets(write: Callable[..., Path], tmp_path: Path, name: str, column: str) -> None:
    found = anndata.read_h5ad(write(tmp_path / "out.h5ad", cell_sets=[cell_set(name, 4)]))
    assert np.flatnonzero(found.obs[column]).tolist() == [4]
    assert list(json.loads(found.uns["scdiva"]["cell_sets"])) == [name]


def test_names_that_differ_by_a_slash_alone_are_both_kept(write: Callable[..., Path], tmp_path: Path) -> None:
    sets = [cell_set("a/b", 1), cell_set("a-b", 2), cell_set("a-b (2)", 3)]
    found = anndata.read_h5ad(write(tmp_path / "out.h5ad", cell_sets=sets))
    columns = [name for name in found.obs if name.startswith("set: ")]
    assert sorted(np.flatnonzero(found.obs[name]).tolist() for name in columns) == [[1], [2], [3]]


@pytest.mark.parametrize("absent", ["obsm", "uns"])
def test_files_that_lack_a_group_gain_it(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, embedding: np.ndarray, tmp_path: Path, absent: str
) -> None:
    source = Path(shutil.copy(small_h5ad, tmp_path / "input.h5ad"))
    with h5py.File(source, "r+") as file:
        del file[absent]
    with open_h5ad(source, small_vocabulary) as dataset:
        path = write_result(dataset, tmp_path / "out.h5ad", embedding=embedding, provenance=PROVENANCE)
    found = anndata.read_h5ad(path)
    assert "X_scdiva" in found.obsm
    assert "scdiva" in found.uns


def test_cells_without_any_column_gain_the_first(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, embedding: np.ndarray, tmp_path: Path
) -> None:
    bare = anndata.AnnData(small_cells.X.copy(), obs=small_cells.obs[[]].copy(), var=small_cells.var.copy())
    bare.write_h5ad(tmp_path / "bare.h5ad")
    with open_h5ad(tmp_path / "bare.h5ad", small_vocabulary) as dataset:
        path = write_result(
            dataset,
            tmp_path / "out.h5ad",
            embedding=embedding,
            provenance=PROVENANCE,
            projections=[projection("X_scdiva", 2)],
        )
    assert list(anndata.read_h5ad(path).obs) == ["leiden_scdiva"]


def test_a_table_without_column_order_is_still_written(
    small_h5ad: Path, small_vocabulary: GeneVocabulary, embedding: np.ndarray, tmp_path: Path
) -> None:
    source = Path(shutil.copy(small_h5ad, tmp_path / "input.h5ad"))
    with h5py.File(source, "r+") as file:
        del file["obs"].attrs["column-order"]
    with open_h5ad(source, small_vocabulary) as dataset:
        path = write_result(
            dataset,
            tmp_path / "out.h5ad",
            embedding=embedding,
            provenance=PROVENANCE,
            projections=[projection("X_scdiva", 2)],
        )
    assert sorted(anndata.read_h5ad(path).obs) == ["cell_type", "donor", "leiden_scdiva"]


def test_targets_that_cannot_be_written(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "folder", tmp_path / "file" / "out.h5ad"):
        with pytest.raises(DataError, match="cannot be written") as caught:
            write(target)
        assert "another folder" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "no partial file is left"


@pytest.mark.parametrize("room", [-1000, 5000], ids=["while copying", "while adding"])
def test_a_full_disk_leaves_nothing_behind(
    write: Callable[..., Path], small_h5ad: Path, tmp_path: Path, room: int
) -> None:
    """The largest file a process may write stands for what the disk still takes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (small_h5ad.stat().st_size + room, before[1]))
    try:
        with pytest.raises(DataError, match=r"out\.h5ad cannot be written: .*") as caught:
            write(tmp_path / "out.h5ad", embedding=np.random.default_rng(0).random((160, 900)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "disk space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(write: Callable[..., Path], tmp_path: Path) -> None:
    assert write(tmp_path / "a" / "b" / "out.h5ad").is_file()


def test_another_number_of_cells_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="159 cells, but the file has 160"):
        write(tmp_path / "out.h5ad", embedding=np.zeros((159, 2), np.float32))
    with pytest.raises(DataError, match="150 cells, but the file has 160"):
        write(tmp_path / "out.h5ad", projections=[projection("X_scdiva", 2, n_obs=150)])
    with pytest.raises(DataError, match="170 cells, but the file has 160"):
        write(tmp_path / "out.h5ad", cell_sets=[cell_set("a", 1, n_obs=170)])
    assert list(tmp_path.iterdir()) == []
