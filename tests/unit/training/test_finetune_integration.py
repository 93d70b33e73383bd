"""Fine-tuning on batches: what learns, what rests, when it ends, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.metrics.integration import batch_silhouette
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import TokenBudget, encode_rows
from scdiva_core.training.finetune_cells import read_tokens
from scdiva_core.training.finetune_integration import contrastive_loss, finetune_integration
from scdiva_core.training.integration_cells import read_integration
from scdiva_core.training.integration_result import IntegrationTuned
from scdiva_core.training.integration_settings import IntegrationSettings

QUICK = IntegrationSettings(rounds=6, round_steps=10, batch_size=64, learning_rate=5e-3, seed=1)


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 blood cells in two made-up batches; in the second, 200 genes are counted eight times as often."""
    cells = small_cells.copy()
    cells.obs["batch"] = np.where(np.arange(160) % 2, "deep", "plain")
    X = cells.X.toarray()
    X[1::2, 400:600] *= 8
    cells.X = X
    path = tmp_path_factory.mktemp("integration") / "blood.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture
def dataset(file: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(file, small_vocabulary) as opened:
        yield opened


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path) -> ScDiVaModel:
    return load_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def tuned(file: Path, small_vocabulary: GeneVocabulary, base: ScDiVaModel) -> IntegrationTuned:
    with open_h5ad(file, small_vocabulary) as opened:
        return finetune_integration(base, opened, opened.obs["batch"], opened.obs["cell_type"], settings=QUICK)


def latents(model: ScDiVaModel, dataset: H5adDataset) -> np.ndarray:
    asked = {"progress": lambda *_: None, "cancelled": lambda: False}
    rows = read_tokens(dataset, model.tokenizer, np.arange(dataset.n_obs), **asked)
    found = np.empty((dataset.n_obs, model.config.latent_dim), np.float32)
    for cells, vectors in encode_rows(model, rows, TokenBudget(model)):
        found[cells] = vectors
    return found


def test_it_mixes_batches_and_says_by_how_much(
    tuned: IntegrationTuned, base: ScDiVaModel, dataset: H5adDataset
) -> None:
    scores = [record["score"] for record in tuned.curve]
    assert scores[tuned.best_round] == max(scores) > scores[0] + 0.02
    labels, batches = dataset.obs["cell_type"].to_numpy(), dataset.obs["batch"].to_numpy()
    rows = tuned.judged
    after, before = (latents(model, dataset)[rows] for model in (tuned.model, base))
    best = tuned.curve[tuned.best_round]
    assert batch_silhouette(after, labels[rows], batches[rows]) == pytest.approx(best["batch_asw"], abs=1e-4)
    assert batch_silhouette(before, labels[rows], batches[rows]) == pytest.approx(tuned.curve[0]["batch_asw"], abs=1e-4)
    assert best["score"] == pytest.approx(0.6 * best["type_asw"] + 0.4 * best["batch_asw"])
    assert f"(batch ASW; {tuned.curve[0]['batch_asw']:.3f} before)" in tuned.words
    assert f"draw together {tuned.n_groups} labels" in tuned.words


def test_only_the_latent_head_learns(tuned: IntegrationTuned, base: ScDiVaModel) -> None:
    before, after = base.state_dict(), tuned.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {"heads.latent.mu.weight", "heads.latent.mu.bias"}
    assert tuned.model.config.heads == ("latent",), "what read the old latent is gone"


def test_a_fifth_of_each_type_and_batch_judges(
    dataset: H5adDataset, base: ScDiVaModel, tuned: IntegrationTuned
) -> None:
    cells = read_integration(
        dataset,
        base.tokenizer,
        dataset.obs["batch"],
        dataset.obs["cell_type"],
        taught_by="labels",
        most=10_000,
        seed=1,
        progress=lambda *_: None,
        cancelled=lambda: False,
    )
    assert np.array_equal(cells.places[cells.validation], tuned.judged)
    pairs = [*zip(cells.groups.tolist(), cells.batches.tolist(), strict=True)]
    judging = [pair for pair, marked in zip(pairs, cells.validation, strict=True) if marked]
    assert all(judging.count(pair) == pairs.count(pair) // 5 for pair in set(pairs))
    alone = {pair[0] for pair in set(pairs)} - {group for group, batch in set(pairs) if (group, 1 - batch) in pairs}
    assert set(cells.groups[~cells.shared].tolist()) == alone
    assert cells.batch_names == ("deep", "plain")


def test_the_checkpoint_opens_like_any_other(tuned: IntegrationTuned, dataset: H5adDataset, tmp_path: Path) -> None:
    folder = tuned.save(tmp_path / "made")
    loaded = load_pretrained(folder)
    np.testing.assert_allclose(latents(loaded, dataset), latents(tuned.model, dataset), atol=1e-6)
    record = loaded.card["integration"]
    assert record["batches"] == ["deep", "plain"]
    assert record["taught_by"] == "labels"
    assert record["words"] == tuned.words
    assert record["data"]["validation_cells"] == len(tuned.judged)
    assert loaded.card["name"] == "tiny, integrated on blood"
    assert loaded.card["provisional"]
    with pytest.raises(CheckpointError, match="holds files already"):
        tuned.save(folder)


def test_clusters_may_stand_in_and_are_named_as_such(
    dataset: H5adDataset, small_vocabulary: GeneVocabulary, tiny_model: Callable[..., ScDiVaModel]
) -> None:
    model = tiny_model(len(small_vocabulary), max_genes=64)  # without any head
    model.vocabulary, model.has_entropy = small_vocabulary, True
    clusters = np.where(np.arange(160) % 4 < 2, "cluster 0", "cluster 1")
    done = finetune_integration(
        model, dataset, dataset.obs["batch"], clusters, taught_by="clusters", settings=replace(QUICK, rounds=1)
    )
    assert "2 clusters that stand in for labels, since none were given" in done.words
    assert done.model.config.latent_pooling == "anchor"


def test_stopping_keeps_the_best_so_far(dataset: H5adDataset, base: ScDiVaModel) -> None:
    asked = {"settings": QUICK}
    seen: list[str] = []
    stopped = finetune_integration(
        base,
        dataset,
        dataset.obs["batch"],
        dataset.obs["cell_type"],
        progress=lambda done, total, message: seen.append(message),
        cancelled=lambda: seen[-1:] == ["Fine-tuning, round 2"],
        **asked,
    )
    assert stopped.stopped == "cancelled"
    assert len(stopped.curve) == 2
    assert "It was stopped" in stopped.words
    with pytest.raises(Cancelled):
        finetune_integration(
            base, dataset, dataset.obs["batch"], dataset.obs["cell_type"], cancelled=lambda: True, **asked
        )


def test_what_cannot_be_integrated_is_refused(dataset: H5adDataset, base: ScDiVaModel) -> None:
    types, batch = dataset.obs["cell_type"], dataset.obs["batch"]
    with pytest.raises(DataError, match="The cells are of 1 batch"):
        finetune_integration(base, dataset, ["all"] * 160, types)
    with pytest.raises(DataError, match="The batch few has 4 cells; 5 are needed"):
        finetune_integration(base, dataset, ["few"] * 4 + ["many"] * 156, types)
    with pytest.raises(DataError, match="No type has cells enough in two of the 2 batches"):
        finetune_integration(base, dataset, batch, batch)
    with pytest.raises(DataError, match="There are 3 values, but the file has 160 cells"):
        finetune_integration(base, dataset, batch, ["a", "b", "c"])
    with pytest.raises(DataError, match="temperature is 0"):
        IntegrationSettings(temperature=0)


def test_contrast_worked_out_by_hand() -> None:
    # Two cells of one group point one way, one of another the opposite way; temperature 1. For each of the two: mate 1,
    # stranger -1, so -log(e / (e + 1/e)); the third has no mate and does not count, nor has a cell of no group.
    latents = torch.tensor([[2.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    expected = math.log(1 + math.exp(-2))
    assert contrastive_loss(latents, torch.tensor([0, 0, 1]), 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert contrastive_loss(latents, torch.tensor([-1, -1, 1]), 1.0).item() == 0
    sharper = contrastive_loss(latents, torch.tensor([0, 0, 1]), 0.5).item()
    assert sharper == pytest.approx(math.log(1 + math.exp(-4)), abs=1e-6)
