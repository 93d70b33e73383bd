"""Fine-tuning on a file's labels: what learns, what rests, when it ends, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.engine import Engine
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.store import ResultStore
from scdiva_core.tasks.label_sources import head_calls
from scdiva_core.training.finetune_annotation import finetune_annotation
from scdiva_core.training.finetune_result import FineTuned, new_folder
from scdiva_core.training.finetune_settings import FinetuneSettings
from tests.tiny_checkpoint import write_tiny_checkpoint

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
QUICK = FinetuneSettings(rounds=8, patience=8, learning_rate=1e-3, seed=1)


@pytest.fixture(scope="module")
def file(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 blood cells of five made-up donors, each with all common types; every seventh cell without a label."""
    cells = anndata.read_h5ad(DEMO / "tenx_pbmc3k.h5ad")[:480, small_cells.var_names].copy()
    cells.obs["donor"] = [f"d{i % 5}" for i in range(480)]
    cells.obs["mine"] = cells.obs["cell_type"].astype(object).where(np.arange(480) % 7 > 0)
    path = tmp_path_factory.mktemp("finetune") / "blood.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture
def dataset(file: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(file, small_vocabulary) as opened:
        yield opened


@pytest.fixture(scope="module")
def untrained(tiny_config: Callable[..., ScDiVaConfig], small_vocabulary: GeneVocabulary) -> Callable[..., ScDiVaModel]:
    """Make a network of four layers, of which two are the last third."""

    def make(**changes: Any) -> ScDiVaModel:
        sizes = {"num_layers": 4, "max_genes": 64, "latent_dim": 16}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = ScDiVaModel(tiny_config(len(small_vocabulary), **(sizes | changes)))
            # As after training: which genes a cell expresses tells more than how many.
            torch.nn.init.normal_(model.gene_embedding.weight)
        model.vocabulary, model.has_entropy = small_vocabulary, True
        return model.eval()

    return make


@pytest.fixture(scope="module")
def base(untrained: Callable[..., ScDiVaModel], tmp_path_factory: pytest.TempPathFactory) -> ScDiVaModel:
    """Loaded from disk, its latent of two coordinates too narrow for all types; do not alter."""
    heads = ("latent", "annotation", "batch_integration")
    model = untrained(heads=heads, latent_pooling="anchor+tokens", latent_dim=2)
    model.card = {"name": "tiny", "provisional": True}
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    return load_pretrained(folder)


@pytest.fixture(scope="module")
def tuned(file: Path, small_vocabulary: GeneVocabulary, base: ScDiVaModel) -> FineTuned:
    """By donors; do not alter."""
    with open_h5ad(file, small_vocabulary) as opened:
        return finetune_annotation(base, opened, opened.obs["mine"], batches=opened.obs["donor"], settings=QUICK)


def state(model: ScDiVaModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], names: list[str]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in names)


def is_taught(name: str) -> bool:
    return name.startswith(("layers.2.", "layers.3.", "final_norm.", "heads.latent.mu.", "heads.annotation."))


def test_it_learns_what_the_labels_say(tuned: FineTuned) -> None:
    scores = [record["macro_f1"] for record in tuned.curve]
    assert tuned.comparison.finetuned == max(scores) == scores[tuned.best_round]
    assert max(scores) > 1.3 * scores[0], "the layers add to what the head alone reached"
    assert tuned.comparison.finetuned > 2 * tuned.comparison.majority
    assert tuned.comparison.verdict == "above"
    losses = [record["loss"] for record in tuned.curve[1:]]
    assert losses[-1] < 0.95 * losses[0]
    assert tuned.curve[0]["loss"] is None
    assert [record["round"] for record in tuned.curve] == list(range(9))
    data = tuned.model.card["finetuned"]["data"]
    n_training = data["labelled_cells"] - data["validation_cells"]
    assert [record["cells_seen"] for record in tuned.curve[:3]] == [0, n_training, 2 * n_training]
    assert tuned.stopped == "rounds"


def test_what_is_frozen_stays_to_the_bit_and_the_rest_moves(tuned: FineTuned, base: ScDiVaModel) -> None:
    before, after = state(base), state(tuned.model)
    frozen = [name for name in before if not is_taught(name) and not name.startswith("heads.")]
    assert {"gene_embedding.weight", "layers.1.attn.q_proj.weight", "gene_head.weight"} <= set(frozen)
    assert same(before, after, [*frozen, "heads.latent.gene_vectors.weight", "heads.latent.center"])
    moved = [name for name in before if is_taught(name) and "annotation" not in name]
    assert {"layers.2.mlp.up_proj.weight", "final_norm.weight", "heads.latent.mu.weight"} <= set(moved)
    assert not any(torch.equal(before[name], after[name]) for name in moved)


def test_the_network_it_began_with_is_not_altered(dataset: H5adDataset, base: ScDiVaModel) -> None:
    before, card = state(base), json.dumps(base.card)
    finetune_annotation(base, dataset, dataset.obs["mine"], settings=replace(QUICK, rounds=1))
    assert same(before, state(base), list(before))
    assert json.dumps(base.card) == card
    assert base.config.num_cell_types == 6
    assert all(weight.requires_grad for weight in base.parameters())


def test_patience_ends_it_and_the_best_weights_come_back(dataset: H5adDataset, base: ScDiVaModel) -> None:
    ruinous = replace(QUICK, rounds=20, patience=2, learning_rate=30.0, head_learning_rate=30.0, clip=1e6)
    done = finetune_annotation(base, dataset, dataset.obs["mine"], settings=ruinous)
    assert done.stopped == "patience"
    assert len(done.curve) == done.best_round + 3
    assert done.best_round == 0
    before, after = state(base), state(done.model)
    unchanged = [name for name in after if not name.startswith("heads.annotation.")]
    assert {"layers.2.mlp.up_proj.weight", "heads.latent.mu.weight"} <= set(unchanged)
    assert same(before, after, unchanged)
    assert "no round was better than the new head alone" in done.words


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(minutes: float) -> None:
    with pytest.raises(DataError, match=rf"The budget is {minutes:g} minutes") as caught:
        FinetuneSettings(minutes=minutes)
    assert "ten minutes" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"most_cells": 0}, "most_cells is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1\.0"),
    ],
)
def test_settings_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FinetuneSettings(**change)


def test_a_budget_that_is_too_small_says_what_would_do(dataset: H5adDataset, base: ScDiVaModel) -> None:
    settings = replace(QUICK, minutes=1e-9)
    with pytest.raises(DataError, match="do not suffice to embed 4[01][0-9] labelled cells") as caught:
        finetune_annotation(base, dataset, dataset.obs["mine"], settings=settings)
    assert "Give it at least 1 min" in caught.value.hint


def test_the_end_of_the_budget_keeps_the_best_so_far(dataset: H5adDataset, base: ScDiVaModel) -> None:
    settings = replace(QUICK, minutes=0.1, rounds=10**6, patience=10**6)
    done = finetune_annotation(base, dataset, dataset.obs["mine"], settings=settings)
    assert done.stopped == "budget"
    assert done.comparison.finetuned == max(record["macro_f1"] for record in done.curve)
    assert "It ended with its time" in done.words


def test_cancelling_keeps_the_best_so_far(dataset: H5adDataset, base: ScDiVaModel) -> None:
    seen: list[dict[str, Any]] = []
    done = finetune_annotation(
        base,
        dataset,
        dataset.obs["mine"],
        settings=QUICK,
        report=seen.append,
        cancelled=lambda: len(seen) == 4,
    )
    assert done.stopped == "cancelled"
    assert list(done.curve) == seen
    assert len(seen) == 4
    assert done.comparison.finetuned == max(record["macro_f1"] for record in seen)
    assert not done.model.training


def test_cancelling_before_there_is_anything(dataset: H5adDataset, base: ScDiVaModel) -> None:
    with pytest.raises(Cancelled):
        finetune_annotation(base, dataset, dataset.obs["mine"], settings=QUICK, cancelled=lambda: True)


def test_progress_says_what_goes_on(dataset: H5adDataset, base: ScDiVaModel) -> None:
    told: list[tuple[int, int, str]] = []
    settings = replace(QUICK, rounds=1)
    finetune_annotation(
        base, dataset, dataset.obs["mine"], settings=settings, progress=lambda *words: told.append(words)
    )
    kinds = list(dict.fromkeys(message for _, _, message in told))
    assert kinds == ["Reading labelled cells", "Embedding labelled cells", "Fine-tuning, round 1", "Judging round 1"]
    assert all(0 <= done <= total for done, total, _ in told)


def test_one_seed_gives_one_result_and_another_another(
    dataset: H5adDataset, base: ScDiVaModel, tuned: FineTuned
) -> None:
    def again(seed: int) -> FineTuned:
        settings = replace(QUICK, seed=seed)
        return finetune_annotation(base, dataset, dataset.obs["mine"], batches=dataset.obs["donor"], settings=settings)

    def scores(done: FineTuned) -> list[tuple[float, ...]]:
        return [(record["macro_f1"], record["loss"] or 0.0) for record in done.curve]

    repeated, other = again(QUICK.seed), again(5)
    assert scores(repeated) == scores(tuned)
    assert repeated.comparison == tuned.comparison
    assert same(state(repeated.model), state(tuned.model), list(state(tuned.model)))
    assert repeated.model.labels == tuned.model.labels
    assert scores(other) != scores(tuned)


def test_the_checkpoint_opens_like_any_other_and_names_cells(
    tuned: FineTuned, file: Path, base: ScDiVaModel, tmp_path: Path
) -> None:
    folder = tuned.save(tmp_path / "new" / "checkpoint")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "vocab.json",
        "serialization.safetensors",
        "labels.json",
        "card.json",
    }
    engine = Engine(folder, "cpu", ResultStore(tmp_path / "results"))
    assert engine.model.config.heads == ("latent", "annotation")
    assert engine.model.labels == tuned.model.labels
    assert same(state(engine.model), state(tuned.model), list(state(tuned.model)))
    with engine.open(file) as dataset:
        calls = head_calls(engine.model, engine.embed(dataset))
        truth = dataset.obs["mine"].to_numpy()
        card, sha256 = engine.card(), dataset.sha256
    meaning = {entry["label"]: entry["name"] for entry in engine.model.card["finetuned"]["classes"]}
    taught = np.array([label in meaning for label in truth])
    named = np.array(calls.names)[calls.best]
    right = np.array([meaning.get(label) for label in truth]) == named
    commonest = pd.Series(truth[taught]).value_counts(normalize=True).iloc[0]
    assert right[taught].mean() > commonest + 0.1
    assert card.name == "tiny, fine-tuned on blood"
    assert tuned.words in card.description
    record = engine.model.card["finetuned"]
    assert record["base"] == {"name": "tiny", "sha256": base.sha256}
    assert (record["data"]["sha256"], record["data"]["n_cells"]) == (sha256, 480)
    assert record["curve"] == list(tuned.curve)
    assert record["validation"]["macro_f1"] == tuned.comparison.finetuned
    assert record["validation"]["macro_f1_frozen_latent"] == tuned.comparison.frozen_latent
    assert record["validation"]["macro_f1_majority"] == tuned.comparison.majority
    assert sum(entry["validation_cells"] for entry in record["classes"]) == record["data"]["validation_cells"]


def test_a_checkpoint_is_never_written_among_other_files(tuned: FineTuned, tmp_path: Path) -> None:
    (tmp_path / "reference.safetensors").write_text("of another")
    with pytest.raises(CheckpointError, match="holds files already") as caught:
        tuned.save(tmp_path)
    assert "new folder" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["reference.safetensors"]
    with pytest.raises(CheckpointError, match="is a file"):
        new_folder(tmp_path / "reference.safetensors")


def test_a_checkpoint_without_annotation_head_or_entropies(file: Path, tmp_path: Path) -> None:
    base = load_pretrained(write_tiny_checkpoint(tmp_path / "plain"))
    assert not base.has_entropy
    with open_h5ad(file, base.vocabulary) as dataset:
        done = finetune_annotation(base, dataset, dataset.obs["mine"], settings=replace(QUICK, rounds=3))
        assert done.comparison.finetuned > done.comparison.majority
        done.save(tmp_path / "tuned")
        loaded = load_pretrained(tmp_path / "tuned")
    assert loaded.has_entropy, "other files are then read as this one was"
    assert np.array_equal(loaded.tokenizer.entropy, done.model.tokenizer.entropy)


def test_a_published_checkpoint_without_any_head(dataset: H5adDataset, untrained: Callable[..., ScDiVaModel]) -> None:
    done = finetune_annotation(untrained(), dataset, dataset.obs["mine"], settings=QUICK)
    assert done.model.config.heads == ("latent", "annotation")
    assert done.comparison.finetuned > 2 * done.comparison.majority


def test_rare_classes_are_left_out_and_named(dataset: H5adDataset, base: ScDiVaModel) -> None:
    labels = np.array(dataset.obs["mine"].astype(object))
    cells = np.flatnonzero(labels == "B")[:4]
    labels[cells] = "oddity"
    done = finetune_annotation(base, dataset, labels, settings=replace(QUICK, rounds=1))
    assert done.left_out["oddity"] == "4 labelled cells; a class needs 5"
    assert "oddity" not in done.model.labels.names
    assert done.model.card["finetuned"]["left_out"] == done.left_out


def test_labels_of_other_cells_are_refused(dataset: H5adDataset, base: ScDiVaModel) -> None:
    with pytest.raises(DataError, match="There are 479 labels, but the file has 480 cells"):
        finetune_annotation(base, dataset, dataset.obs["mine"][:479], settings=QUICK)
    with pytest.raises(DataError, match="There are 480 labels, but 3 donors"):
        finetune_annotation(base, dataset, dataset.obs["mine"], batches=["a", "b", "c"], settings=QUICK)


def test_the_temperature_is_that_of_validation_cells(tuned: FineTuned) -> None:
    assert 0.25 <= tuned.model.labels.temperature <= 4
    assert tuned.model.labels.temperature != 1.0


def test_the_words_name_figures_baselines_and_donors(tuned: FineTuned) -> None:
    scores, words = tuned.comparison, tuned.words
    (held_out,) = tuned.model.card["finetuned"]["data"]["held_out"]
    assert f"donors or batches that it never saw ({held_out})" in words
    for score in (scores.finetuned, scores.frozen_latent, scores.majority):
        assert f"{score:.3f}" in words
    begin = {"above": "beat the", "level": "did not clearly beat the", "below": "fell short of the"}[scores.verdict]
    assert words.startswith(f"Fine-tuning {begin} frozen latent: macro-F1 ")
    assert "flatters it a little" in words
