"""The reference on disk: a byte a coordinate, tied to its weights, checked before it is read; and its own distances."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from scdiva_core.errors import CheckpointError
from scdiva_core.model.reference import REFERENCE_FILE, Reference

WEIGHTS = hashlib.sha256(b"weights").hexdigest()


def made(n: int = 60, d: int = 8, weights: str = WEIGHTS) -> Reference:
    """Cells of three types and two studies; coordinates of very different spread, the last one constant."""
    rng = np.random.default_rng(0)
    latents = (rng.normal(size=(n, d)) * np.logspace(-3, 3, d) + 5).astype(np.float32)
    latents[:, -1] = 2.5
    return Reference(
        latents=latents,
        labels=(np.arange(n) % 3).astype(np.int16),
        ids=("CL:0000236", "CL:0000623", "CL:0000860"),
        names=("B cell", "natural killer cell", "classical monocyte"),
        studies=("one", "zwei \N{LATIN SMALL LETTER E WITH ACUTE}"),
        study_of=(np.arange(n) % 2).astype(np.int16),
        weights=weights,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made().save(tmp_path / REFERENCE_FILE)
    return tmp_path / REFERENCE_FILE


def test_a_reference_is_given_back(path: Path) -> None:
    saved, loaded = made(), Reference.load(path, WEIGHTS)
    for name in ("ids", "names", "studies", "weights"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name in ("labels", "study_of"):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == np.int16
    assert (len(loaded), loaded.latents.dtype) == (60, np.float32)
    step = np.ptp(saved.latents, axis=0) / 254
    assert (np.abs(loaded.latents - saved.latents) <= 0.501 * step + 1e-6).all()
    assert np.array_equal(loaded.latents[:, -1], saved.latents[:, -1]), "what does not vary is kept as it is"
    assert [file.name for file in path.parent.iterdir()] == [REFERENCE_FILE]


def test_saving_again_changes_nothing_more(path: Path) -> None:
    once = Reference.load(path, WEIGHTS)
    once.save(path)
    np.testing.assert_allclose(Reference.load(path, WEIGHTS).latents, once.latents, rtol=1e-5, atol=1e-5)


def test_it_takes_a_byte_for_each_coordinate(tmp_path: Path) -> None:
    made(2000, 128).save(tmp_path / REFERENCE_FILE)
    size = (tmp_path / REFERENCE_FILE).stat().st_size
    assert 2000 * 128 < size < 2000 * (128 + 4) + 128 * 8 + 1500


def test_a_reference_of_other_weights_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"made with weights {WEIGHTS[:12]}, but the checkpoint has bbbbbb") as e:
        Reference.load(path, "b" * 64)
    assert "make it again" in e.value.hint


def test_without_a_digest_the_weights_beside_it_count(path: Path) -> None:
    (path.parent / "model.safetensors").write_bytes(b"weights")
    assert len(Reference.load(path)) == 60
    (path.parent / "model.safetensors").write_bytes(b"weight5")
    with pytest.raises(CheckpointError, match="made with weights"):
        Reference.load(path)


def test_without_weights_beside_it_a_digest_is_needed(path: Path) -> None:
    with pytest.raises(CheckpointError):
        Reference.load(path)


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_a_truncated_file_is_refused(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else keep])
    with pytest.raises(CheckpointError, match=r"reference\.safetensors cannot be read") as caught:
        Reference.load(path, WEIGHTS)
    assert "make it again from the corpus" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 50, b"\xff" * 200])
def test_another_kind_of_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Reference.load(path, WEIGHTS)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        Reference.load(tmp_path / REFERENCE_FILE, WEIGHTS)


def altered(path: Path, tensors: dict[str, Any] | None = None, **told: Any) -> None:
    """Write the file with other tensors (None leaves one out) and other metadata."""
    with safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["told"]) | told
    content = {name: values for name, values in (load_file(path) | (tensors or {})).items() if values is not None}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    save_file(content, path, {"told": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scale", lambda old: None, "holds center, labels, latents, study_of; expected center, labels"),
        ("more", lambda old: np.zeros(3, np.float32), "holds center, labels, latents, more"),
        ("latents", lambda old: old.astype(np.int16), "latents of type I16, expected I8"),
        ("labels", lambda old: old.astype(np.int64), "labels of type I64, expected I16"),
        ("center", lambda old: old.astype(np.float64), "center of type F64, expected F32"),
        ("latents", lambda old: old.ravel(), r"latents of shape \[480\], expected cells and coordinates"),
        ("latents", lambda old: old[:0], r"latents of shape \[0, 8\]"),
        ("latents", lambda old: old[:50], r"labels of shape \[60\], expected \[50\]"),
        ("latents", lambda old: np.ascontiguousarray(old[:, :7]), r"center of shape \[8\], expected \[7\]"),
        ("scale", lambda old: old[:, None], r"scale of shape \[8, 1\], expected \[8\]"),
        ("study_of", lambda old: old[:59], r"study_of of shape \[59\], expected \[60\]"),
        ("labels", lambda old: old + np.int16(1), "labels from 1 to 3, but 3 to choose from"),
        ("labels", lambda old: old - np.int16(1), "labels from -1 to 1"),
        ("study_of", lambda old: old + np.int16(1), "study_of from 1 to 2, but 2 to choose from"),
        ("scale", lambda old: old * 0, "not finite"),
        ("scale", lambda old: old * np.float32(np.nan), "not finite"),
        ("center", lambda old: old + np.float32(np.inf), "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    altered(path, {name: change(load_file(path).get(name))})
    with pytest.raises(CheckpointError, match=message) as caught:
        Reference.load(path, WEIGHTS)
    assert "reference.safetensors" in caught.value.message


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"ids": None}, "does not say what it holds"),
        ({"weights": None}, "does not say"),
        ({"weights": 5}, "does not say"),
        ({"ids": 5}, "names that are no text"),
        ({"ids": "CL:"}, "names that are no text"),
        ({"names": ["B cell", "NK", 7]}, "names that are no text"),
        ({"ids": ["CL:0000236", "CL:0000236", "CL:0000860"]}, "2 different ids for 3 names"),
        ({"names": ["B cell"]}, "3 different ids for 1 names"),
        ({"studies": []}, "study_of from 0 to 1, but 0 to choose from"),
    ],
)
def test_metadata_that_cannot_be_are_refused(path: Path, told: dict[str, Any], message: str) -> None:
    altered(path, **told)
    with pytest.raises(CheckpointError, match=message):
        Reference.load(path, WEIGHTS)


@pytest.mark.parametrize("metadata", [None, {"other": "x"}, {"told": "{"}, {"told": "[]"}])
def test_a_file_without_metadata_is_refused(path: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match="does not say what it holds"):
        Reference.load(path, WEIGHTS)
