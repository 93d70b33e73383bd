"""Saved embeddings: found again by any engine, kept once, and only for the file they are of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.engine_saved import save_embedding, saved_embedding
from scdiva_core.errors import DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings

SETTINGS = ProjectionSettings(n_neighbors=7)


@pytest.fixture
def dataset(small_h5ad: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(small_h5ad, small_vocabulary) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def made(n_obs: int, seed: int = 0) -> tuple[np.ndarray, Projection]:
    rng = np.random.default_rng(seed)
    xy = rng.normal(size=(n_obs, 2)).astype(np.float32)
    clusters = rng.integers(0, 3, n_obs).astype(np.int32)
    return rng.normal(size=(n_obs, 8)).astype(np.float32), Projection(xy, clusters, "harmony", SETTINGS)


def test_what_was_saved_is_found_again_with_its_map(dataset: H5adDataset, store: ResultStore) -> None:
    vectors, projection = made(dataset.n_obs)
    key = save_embedding(store, dataset, vectors, projection, {"words": "Harmony, integrated by donor"})
    found = saved_embedding(ResultStore(store.root), dataset, key)
    np.testing.assert_array_equal(found.vectors, vectors)
    np.testing.assert_array_equal(found.projection.coordinates, projection.coordinates)
    np.testing.assert_array_equal(found.projection.leiden, projection.leiden)
    assert found.projection.settings == SETTINGS
    assert found.about == {"words": "Harmony, integrated by donor"}


def test_the_same_vectors_are_kept_once(dataset: H5adDataset, store: ResultStore) -> None:
    vectors, projection = made(dataset.n_obs)
    keys = {save_embedding(store, dataset, vectors, projection, {"words": text}) for text in ("one", "two")}
    assert len(keys) == len(store.entries()) == 1
    save_embedding(store, dataset, *made(dataset.n_obs, seed=1), {})
    assert len(store.entries()) == 2


def test_it_belongs_to_its_file(
    dataset: H5adDataset, store: ResultStore, small_h5ad: Path, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    key = save_embedding(store, dataset, *made(dataset.n_obs), {})
    other = tmp_path / "other.h5ad"
    other.write_bytes(small_h5ad.read_bytes() + b"\0")
    with open_h5ad(other, small_vocabulary) as opened:
        assert saved_embedding(store, opened, key) is None
    store.delete(key)
    assert saved_embedding(store, dataset, key) is None


def test_what_does_not_fit_is_refused(dataset: H5adDataset, store: ResultStore) -> None:
    vectors, projection = made(dataset.n_obs)
    with pytest.raises(DataError, match=f"The embedding has 3 cells, the file {dataset.n_obs}"):
        save_embedding(store, dataset, vectors[:3], projection, {})
    with pytest.raises(DataError, match="The embedding has 3 cells"):
        save_embedding(store, dataset, vectors, replace(projection, coordinates=projection.coordinates[:3]), {})
    vectors[:2, 1] = np.nan
    with pytest.raises(DataError, match="2 cells have values that are not finite"):
        save_embedding(store, dataset, vectors, projection, {})
    assert store.entries() == []
