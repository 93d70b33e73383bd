"""Profiles against the normal density they stand for, on all genes and on some; and their file, checked when read."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.stats import multivariate_normal

from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.profiles import (
    FEWEST_GENES,
    HEAD_WEIGHT,
    LARGEST,
    PROFILES_FILE,
    SHARE_POWER,
    Profiles,
    joint_logits,
)

WEIGHTS = hashlib.sha256(b"weights").hexdigest()
GENES = np.arange(5, 5 + 3 * 80, 3, dtype=np.int32)


def made(weights: str = WEIGHTS) -> Profiles:
    """Three types over eighty genes that covary."""
    rng = np.random.default_rng(0)
    return Profiles(
        ids=("CL:0000236", "CL:0000623", "CL:0000860"),
        names=("B cell", "natural killer cell", "classical monocyte"),
        gene_ids=GENES,
        mean=rng.uniform(0, 2, 80).astype(np.float32),
        deviation=rng.uniform(0.1, 1, 80).astype(np.float32),
        centers=rng.normal(size=(3, 80)).astype(np.float16).astype(np.float32),
        loadings=rng.normal(size=(80, 4)).astype(np.float16).astype(np.float32),
        noise=rng.uniform(0.2, 2, 80).astype(np.float32),
        temperature=31.25,
        joint_temperature=2.123456789,
        weights=weights,
    )


def cells(n_genes: int, n: int = 20) -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(1).poisson(0.7, (n, n_genes)).astype(np.float32))


def density(profiles: Profiles, kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Log-density of each cell under each type over the kept genes, brought to the scale of all genes."""
    loadings = profiles.loadings[kept].astype(float)
    covariance = loadings @ loadings.T + np.diag(profiles.noise[kept].astype(float))
    share = distance(profiles, kept) / distance(profiles, np.arange(80))
    z = np.minimum((values - profiles.mean[kept]) / profiles.deviation[kept], LARGEST)
    found = [multivariate_normal(center[kept], covariance).logpdf(z) for center in profiles.centers]
    return np.stack(found, axis=1) / share**SHARE_POWER


def distance(profiles: Profiles, kept: np.ndarray) -> float:
    """Mean squared Mahalanobis distance between types over some genes."""
    loadings, centers = profiles.loadings[kept].astype(float), profiles.centers[:, kept].astype(float)
    inverse = np.linalg.inv(loadings @ loadings.T + np.diag(profiles.noise[kept].astype(float)))
    pairs = [(one - two) @ inverse @ (one - two) for one, two in itertools.combinations(centers, 2)]
    return float(np.mean(pairs))


def relative(scores: np.ndarray) -> np.ndarray:
    return scores - scores[:, :1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_kept=st.integers(FEWEST_GENES, 80), n_strange=st.integers(0, 30))
def test_scores_are_the_density_over_the_genes_of_the_file(seed: int, n_kept: int, n_strange: int) -> None:
    """Whatever their order in the file, and whatever other genes it has: the discriminant of that panel."""
    profiles, rng = made(), np.random.default_rng(seed)
    kept = rng.choice(80, n_kept, replace=False)
    columns = np.concatenate([GENES[kept], 1000 + np.arange(n_strange)])
    order = rng.permutation(len(columns))
    expression = cells(len(columns))
    found = profiles.over(columns[order]).scores(expression[:, order])
    expected = density(profiles, kept, expression[:, :n_kept].toarray())
    np.testing.assert_allclose(relative(found), relative(expected), rtol=1e-3, atol=2e-2)


def test_expression_is_cut() -> None:
    profiles = made()
    high = profiles.mean + LARGEST * profiles.deviation
    discriminant = profiles.over(GENES)
    one, two = (discriminant.scores(sp.csr_matrix(high[None] + more)) for more in (0, 100))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_too_few_genes_are_refused_with_their_number() -> None:
    with pytest.raises(DataError, match=r"has 49 of the 80 genes"):
        made().over(GENES[: FEWEST_GENES - 1])
    with pytest.raises(DataError, match=r"has 0 of the 80 genes"):
        made().over(np.array([], int))


def test_what_both_say_is_the_weighted_product_of_what_each_says() -> None:
    one, two = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    product = one.softmax(dim=1) ** HEAD_WEIGHT * two.softmax(dim=1)
    expected = product / product.sum(dim=1, keepdim=True)
    torch.testing.assert_close(joint_logits(one, two).softmax(dim=1), expected)


# The file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made().save(tmp_path / PROFILES_FILE)
    return tmp_path / PROFILES_FILE


def test_profiles_are_given_back(path: Path) -> None:
    saved, loaded = made(), Profiles.load(path, WEIGHTS)
    for name in ("ids", "names", "temperature", "joint_temperature", "weights"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name in ("gene_ids", "mean", "deviation", "centers", "loadings", "noise"):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert [file.name for file in path.parent.iterdir()] == [PROFILES_FILE]


def test_profiles_of_other_weights_are_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"made with weights {WEIGHTS[:12]}, but the checkpoint has 0000"):
        Profiles.load(path, "0" * 64)
    (path.parent / "model.safetensors").write_bytes(b"weights")
    assert Profiles.load(path).weights == WEIGHTS
    (path.parent / "model.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointError, match="was made with weights"):
        Profiles.load(path)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:500])])
def test_a_file_that_cannot_be_read_is_refused(path: Path, damage: Callable[[Path], object]) -> None:
    damage(path)
    with pytest.raises(CheckpointError, match=r"profiles\.safetensors cannot be read"):
        Profiles.load(path, WEIGHTS)


def rewrite(path: Path, told: dict[str, Any] | None = None, **tensors: np.ndarray | None) -> None:
    with safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["told"]) | (told or {})
    kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(kept, path, {"told": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"ids": ["CL:0000236", "CL:0000623"]}, "has 2 different ids for 3 names"),
        ({"ids": ["CL:0000236"] * 3}, "has 1 different ids for 3 names"),
        ({"ids": 3}, "has names that are no text"),
        ({"names": [1, 2, 3]}, "has names that are no text"),
        ({"temperature": 0}, "must be positive numbers"),
        ({"joint_temperature": float("nan")}, "must be positive numbers"),
        ({"temperature": "hot"}, "does not say what it holds"),
    ],
)
def test_metadata_that_contradict_themselves_are_refused(path: Path, told: dict[str, Any], message: str) -> None:
    rewrite(path, told)
    with pytest.raises(CheckpointError, match=message):
        Profiles.load(path, WEIGHTS)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("noise", None, "expected centers, deviation, gene_ids, loadings, mean, noise"),
        ("mean", np.zeros(80), "has mean of type F64, expected F32"),
        ("mean", np.zeros(79, np.float32), r"has mean of shape \[79\], expected \[80\]"),
        ("centers", np.zeros((4, 80), np.float16), r"has centers of shape \[4, 80\], expected \[3, 80\]"),
        ("loadings", np.zeros(80, np.float16), r"has loadings of shape \[80\], expected \[80, 80\]"),
        ("gene_ids", GENES[::-1].copy(), "ascending order"),
        ("gene_ids", GENES - 100, "ascending order"),
        ("noise", np.zeros(80, np.float32), "has a noise that is no positive number"),
        ("deviation", np.full(80, np.nan, np.float32), "has a deviation that is no positive number"),
        ("centers", np.full((3, 80), np.inf, np.float16), "has centers that are not finite"),
    ],
)
def test_tensors_that_contradict_the_rest_are_refused(
    path: Path, name: str, tensor: np.ndarray | None, message: str
) -> None:
    rewrite(path, **{name: tensor})
    with pytest.raises(CheckpointError, match=message):
        Profiles.load(path, WEIGHTS)


def test_a_file_without_genes_is_refused(tmp_path: Path) -> None:
    none = {"gene_ids": GENES[:0], "centers": np.zeros((3, 0), np.float32), "loadings": np.zeros((0, 4), np.float32)}
    parts = {name: np.zeros(0, np.float32) for name in ("mean", "deviation", "noise")}
    replace(made(), **none, **parts).save(tmp_path / PROFILES_FILE)
    with pytest.raises(CheckpointError, match="of shape"):
        Profiles.load(tmp_path / PROFILES_FILE, WEIGHTS)
