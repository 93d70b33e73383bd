"""Cells named by profiles, read in chunks; and by head and profiles together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, CheckpointError
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.model.profiles import HEAD_WEIGHT, Profiles
from scdiva_core.tasks import profile_sources
from scdiva_core.tasks.label_sources import head_calls
from scdiva_core.tasks.profile_sources import joint_calls, joint_probabilities, profile_calls, profile_scores

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo" / "kang2018_pbmc_ifnb_3k.h5ad"


@pytest.fixture
def dataset() -> H5adDataset:
    with open_h5ad(DEMO, vocabulary()) as found:
        yield found


def vocabulary() -> GeneVocabulary:
    from scdiva_core.engine import DEFAULT_CHECKPOINT

    return GeneVocabulary.from_file(DEFAULT_CHECKPOINT / "vocab.json")


def made(gene_ids: np.ndarray, k: int = 3) -> Profiles:
    rng = np.random.default_rng(0)
    n = len(gene_ids)
    return Profiles(
        ids=tuple(f"CL:{i}" for i in range(k)),
        names=tuple("abcdefgh"[:k]),
        gene_ids=np.sort(gene_ids).astype(np.int32),
        mean=np.zeros(n, np.float32),
        deviation=np.ones(n, np.float32),
        centers=rng.normal(size=(k, n)).astype(np.float32),
        loadings=rng.normal(size=(n, 2)).astype(np.float32),
        noise=np.ones(n, np.float32),
        temperature=5.0,
        joint_temperature=2.0,
        weights="0" * 64,
    )


def test_chunks_do_not_show_and_are_told_of(dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = made(dataset.gene_ids[::7])
    told: list[tuple[int, int]] = []
    whole = profile_scores(profiles, dataset)
    monkeypatch.setattr(profile_sources, "_CHUNK_CELLS", 100)
    parts = profile_scores(profiles, dataset, progress=lambda done, of, words: told.append((done, of)))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert whole.shape == (dataset.n_obs, 3)
    assert told[0] == (0, dataset.n_obs)
    assert told[-1] == (dataset.n_obs, dataset.n_obs)
    block = next(iter(dataset.chunks(50)))[1]
    np.testing.assert_allclose(whole[:50], profiles.over(dataset.gene_ids).scores(block), rtol=1e-5)


def test_scoring_can_be_cancelled(dataset: H5adDataset) -> None:
    with pytest.raises(Cancelled):
        profile_scores(made(dataset.gene_ids), dataset, cancelled=lambda: True)


def test_profiles_alone_are_calibrated_by_their_temperature() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32) * 20
    profiles = made(np.arange(60))
    calls = profile_calls(profiles, scores)
    expected = torch.softmax(torch.from_numpy(scores) / 5, dim=1).numpy()
    assert (calls.source, calls.ids, calls.names) == ("profiles", profiles.ids, profiles.names)
    assert calls.best.tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(calls.probability, expected.max(axis=1), rtol=1e-4)


@pytest.fixture
def model(tiny_model: Callable[..., ScDiVaModel]) -> ScDiVaModel:
    named = tiny_model(heads=("latent", "annotation"))
    named.labels = CellLabels(tuple(f"CL:{i}" for i in range(6)), tuple("abcdef"), 3.0)
    return named


def test_head_and_profiles_each_have_their_say(model: ScDiVaModel) -> None:
    rng = np.random.default_rng(0)
    latents, scores = rng.normal(size=(40, 8)).astype(np.float32), rng.normal(size=(40, 6)).astype(np.float32) * 5
    profiles = made(np.arange(60), 6)
    calls = joint_calls(model, profiles, latents, scores)
    assert calls.source == "scdiva"
    with torch.inference_mode():
        head = torch.softmax(model.heads["annotation"](torch.from_numpy(latents)).double() / 3, dim=1).numpy()
    product = np.sqrt(head**HEAD_WEIGHT * torch.softmax(torch.from_numpy(scores).double() / 5, dim=1).numpy())
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(joint_probabilities(model, profiles, latents, scores), expected, rtol=1e-5)
    assert calls.best.tolist() == expected.argmax(axis=1).tolist()
    alone = head_calls(model, latents)
    assert joint_calls(model, profiles, latents, scores * 0).best.tolist() == alone.best.tolist()


def test_other_types_than_the_heads_are_refused(model: ScDiVaModel) -> None:
    profiles = replace(made(np.arange(60), 6), ids=tuple("uvwxyz"))
    with pytest.raises(CheckpointError, match="names 6 cell types, the profiles 6 others"):
        joint_calls(model, profiles, np.zeros((2, 8), np.float32), np.zeros((2, 6), np.float32))
