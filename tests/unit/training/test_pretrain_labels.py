"""Pre-training on a labelled corpus: cell types are learnt and named, and a run repeats to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import CheckpointError
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.layout import MADE_FROM_WEIGHTS
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.training.batches import make_batch
from scdiva_core.training.genes import gene_vectors
from scdiva_core.training.losses import fitted_temperature
from scdiva_core.training.pretrain import pretrain
from scdiva_core.training.settings import PretrainSettings
from tests.labelled_corpus import LABELS, write_tables

SHORT = PretrainSettings(
    steps=10,
    batch_size=16,
    warmup_steps=2,
    validate_every=5,
    save_every=4,
    validation_cells=20,
    finish_cells=60,
    finish_steps=12,
)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(one: ScDiVaModel, two: ScDiVaModel) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


class Stopped(Exception):
    """Stands for whatever ends a run from outside."""


def stop_at_five(record: dict[str, Any]) -> None:
    if record["step"] == 5:
        raise Stopped


class StopLate:
    """Ends a run in its last minutes: when ``name`` is logged for the ``nth`` time."""

    def __init__(self, name: str, nth: int) -> None:
        self.name, self.left = name, nth

    def __call__(self, record: dict[str, Any]) -> None:
        self.left -= self.name in record
        if not self.left:
            raise Stopped


@pytest.fixture(scope="module", params=["float32", "bf16"])
def finished(
    request: pytest.FixtureRequest,
    labelled: Corpus,
    labelled_network: ScDiVaConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ScDiVaModel, Path, PretrainSettings]:
    """Model, folder and settings of an unbroken short run."""
    settings, folder = replace(SHORT, precision=request.param), tmp_path_factory.mktemp("run")
    return pretrain(labelled, labelled_network, folder, settings), folder, settings


def test_two_runs_with_one_seed_agree_to_the_bit(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    trained, folder, settings = finished
    torch.manual_seed(77)  # the global generator must not matter
    again = pretrain(labelled, labelled_network, tmp_path, settings)
    assert same_weights(again, trained)
    assert again.labels == trained.labels
    for name in ("model.safetensors", "labels.json", *MADE_FROM_WEIGHTS):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_stopped_run_goes_on_to_the_very_same_weights(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    trained, folder, settings = finished
    with pytest.raises(Stopped):
        pretrain(labelled, labelled_network, tmp_path, settings, report=stop_at_five)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    same_as_unbroken(pretrain(labelled, labelled_network, tmp_path, settings), tmp_path, finished)


def same_as_unbroken(resumed: ScDiVaModel, where: Path, finished: tuple) -> None:
    """Weights, labels and all that the log says but for the clock."""
    trained, folder, _ = finished
    assert same_weights(resumed, trained)
    assert resumed.labels == trained.labels
    timed = ("seconds", "cells_per_second")
    one, two = ([{k: v for k, v in line.items() if k not in timed} for line in records(f)] for f in (where, folder))
    assert one == two


@pytest.mark.parametrize(
    "stop",
    [("total", 1), ("finish_step", 1), ("validation_total", 3)],
    ids=["before the heads' last lesson", "in it", "after it"],
)
def test_a_run_stopped_near_its_end_goes_on_to_the_very_same_weights(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path, stop: tuple[str, int]
) -> None:
    settings = finished[2]
    with pytest.raises(Stopped):
        pretrain(labelled, labelled_network, tmp_path, settings, report=StopLate(*stop))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == (8 if stop[0] == "total" else 10)
    assert not (tmp_path / "model.safetensors").exists()
    steps: list[int] = []
    resumed = pretrain(
        labelled, labelled_network, tmp_path, settings, report=lambda record: steps.append(record["step"])
    )
    assert min(steps) == 10
    same_as_unbroken(resumed, tmp_path, finished)
    assert not (tmp_path / "state.pt").exists()


def test_the_log_tells_the_heads_last_lesson_and_what_it_brought(finished: tuple) -> None:
    lines = records(finished[1])
    kinds = [next(k for k in ("finish_step", "validation_total", "total") if k in line) for line in lines]
    assert kinds == ["validation_total", "total", "validation_total", "finish_step", "validation_total"]
    assert lines[3]["finish_step"] == 12
    assert [line["step"] for line in lines] == [5, 10, 10, 10, 10]
    assert lines[-1]["validation_expression"] != lines[2]["validation_expression"]
    assert lines[-1]["validation_identity"] == lines[2]["validation_identity"], "the layers rest"


def test_gene_vectors_of_the_latent_stay_what_the_corpus_says_until_the_last_lesson(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    expected = gene_vectors(labelled, 16, seed=0).projection
    before = pretrain(labelled, labelled_network, tmp_path, replace(finished[2], finish_steps=0))
    assert torch.equal(before.heads["latent"].gene_vectors.weight, expected)
    assert not torch.equal(finished[0].heads["latent"].gene_vectors.weight, expected)


def test_without_the_last_lesson_the_heads_are_those_of_the_training(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    settings = replace(finished[2], finish_steps=0)
    trained = pretrain(labelled, labelled_network, tmp_path, settings)
    one, two = trained.state_dict(), finished[0].state_dict()
    heads = ("heads.latent.gene_vectors", "heads.latent.mu", "heads.annotation", "heads.batch_integration")
    for name, tensor in one.items():
        trained_in_it = name.startswith(heads) or name in ("heads.latent.center", "heads.latent.scale")
        assert name.startswith("heads.latent.logvar") or torch.equal(tensor, two[name]) is not trained_in_it, name
    assert [line for line in records(tmp_path) if "validation_total" in line][-1]["step"] == 10
    assert sum("validation_total" in line for line in records(tmp_path)) == 2, "nothing is measured twice"


def test_types_are_learnt_without_a_decoder(labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path: Path) -> None:
    config = replace(labelled_network, heads=("latent", "annotation"))
    trained = pretrain(labelled, config, tmp_path, replace(SHORT, expression_weight=0.0))
    assert [line["expression"] for line in records(tmp_path) if "total" in line] == [0.0]
    assert trained.labels.ids == labelled.classes


def test_precision_matters(labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path: Path) -> None:
    """Else the bf16 runs above would prove nothing; on a CPU the automatic choice is float32."""
    one, two, auto = (
        pretrain(labelled, labelled_network, tmp_path / name, replace(SHORT, steps=3, precision=name))
        for name in ("float32", "bf16", "auto")
    )
    assert not same_weights(one, two)
    assert same_weights(one, auto)


@pytest.fixture(scope="module")
def learnt(labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Model and folder of a run that is long enough to learn something."""
    folder = tmp_path_factory.mktemp("learnt")
    settings = PretrainSettings(
        steps=120,
        batch_size=32,
        warmup_steps=10,
        validate_every=20,
        learning_rate=3e-3,
        finish_cells=400,
        finish_steps=100,
    )
    return pretrain(labelled, replace(labelled_network, dropout=0.0), folder, settings, card={"name": "x"}), folder


def test_cell_types_of_held_out_cells_are_learnt(learnt: tuple) -> None:
    losses = [line["validation_annotation"] for line in records(learnt[1]) if "validation_annotation" in line]
    assert len(losses) == 7
    for trained in losses[-2:]:
        assert trained < losses[0] - 0.3
        assert trained < np.log(8) - 0.5, "better than guessing"


def test_the_total_counts_every_term(learnt: tuple) -> None:
    settings = PretrainSettings()
    for line in records(learnt[1]):
        if "finish_step" in line:
            continue
        prefix = "validation_" if "validation_total" in line else ""
        term = {name: line[prefix + name] for name in ("identity", "value", "expression", "annotation", "kl")}
        expected = term["identity"] + 10 * term["value"] + settings.expression_weight * term["expression"]
        expected += settings.annotation_weight * term["annotation"] + settings.kl_weight * term["kl"]
        assert term["annotation"] > 0
        assert line[f"{prefix}total"] == pytest.approx(expected, rel=1e-3)


def test_labels_are_written_and_read_back(learnt: tuple, labelled: Corpus) -> None:
    trained, folder = learnt
    stored = json.loads((folder / "labels.json").read_text())
    assert stored["ids"] == list(labelled.classes)
    assert stored["names"][:2] == ["B cell", "dendritic cell"]
    assert ScDiVaModel.from_pretrained(folder).labels == trained.labels
    assert trained.labels.ids == labelled.classes
    assert len(trained.labels.names) == 8


@torch.no_grad()
def test_the_temperature_is_fitted_on_held_out_cells_of_final_labels(learnt: tuple, labelled: Corpus) -> None:
    trained, _ = learnt
    final = [labelled.label_ids.index(term) for term in labelled.classes]
    cells = np.array([cell for cell in labelled.cells("validation") if labelled.labels[cell] in final])
    assert 30 < len(cells) < 40, "some are unlabelled or coarse"
    tokenizer = Tokenizer(labelled.entropy, trained.config.max_genes)
    batch = make_batch(labelled, tokenizer, cells, np.random.default_rng(0))
    truth = torch.tensor([final.index(label) for label in labelled.labels[cells]])
    expected = fitted_temperature(trained.predict(batch.tokens), truth)
    assert trained.labels.temperature == pytest.approx(expected, rel=0.02)
    assert 0.25 < expected < 4, "not at the end of the grid"


def test_the_card_tells_figures_and_data(learnt: tuple) -> None:
    card = json.loads((learnt[1] / "card.json").read_text())
    assert card["name"] == "x"
    told = card["training"]
    assert (told["steps"], told["cells_seen"], told["seed"], told["device"]) == (120, 3840, 0, "cpu")
    assert told["datasets"] == [
        {"name": "kang", "n_cells": 160, "labelled_cells": 152, "validation_cells": 40},
        {"name": "pbmc", "n_cells": 109, "labelled_cells": 109, "validation_cells": 0},
    ]
    assert (told["settings"]["annotation_weight"], told["settings"]["balance"]) == (4.0, 0.5)
    last = [line for line in records(learnt[1]) if "validation_total" in line][-1]
    for name, value in told["validation"].items():
        assert value == pytest.approx(last[name], abs=1e-5)
    assert "validation_annotation" in told["validation"]


def test_without_final_labels_among_held_out_cells_the_temperature_is_one(
    labelled_files: list[Path], labelled_network: ScDiVaConfig, tmp_path: Path
) -> None:
    """Only the first file has people, and here it has no labels."""
    rows = tuple("\t".join([*row.split("\t")[:2], "", "", "none", ""]) for row in LABELS if row.startswith("kang"))
    rows += tuple(row.replace("\tgroup\t", "\tclass\t") for row in LABELS if row.startswith("pbmc"))
    studies = Studies.read(write_tables(tmp_path / "tables", labels=rows))
    prepare(labelled_files, tmp_path / "corpus", studies=studies, min_cells=20)
    corpus = Corpus(tmp_path / "corpus")
    config = replace(labelled_network, vocab_size=len(corpus.vocabulary), num_cell_types=len(corpus.classes))
    trained = pretrain(corpus, config, tmp_path / "out", replace(SHORT, steps=1))
    assert trained.labels.temperature == 1.0
    assert "CL:0000624" in trained.labels.ids


def test_a_coarse_label_with_one_class_left_below_it_says_nothing_of_the_temperature(
    labelled_files: list[Path], labelled_network: ScDiVaConfig, tmp_path: Path
) -> None:
    """Nobody but cells of that label is held out; all but four naive cells are called something else."""
    cells = anndata.read_h5ad(labelled_files[0])
    labels = cells.obs["cell_type"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "CD4 Naive T")[4:]] = "CD14 Mono"
    cells.obs["cell_type"] = labels
    cells.obs["person"] = np.where(labels == "T activated", "p2", "p0")
    cells.write_h5ad(tmp_path / "kang.h5ad")
    rows = tuple(row.replace("CL:0000084\tT cell", "CL:0000624\tCD4-positive, alpha-beta T cell") for row in LABELS)
    studies = Studies.read(write_tables(tmp_path / "tables", labels=rows))
    prepare([tmp_path / "kang.h5ad"], tmp_path / "corpus", studies=studies, min_cells=20)
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.members[corpus.label_ids.index("CL:0000624")].sum() == 1
    assert {corpus.label_ids[i] for i in corpus.labels[corpus.cells("validation")]} == {"CL:0000624"}
    config = replace(labelled_network, vocab_size=len(corpus.vocabulary), num_cell_types=len(corpus.classes))
    assert pretrain(corpus, config, tmp_path / "out", replace(SHORT, steps=1)).labels.temperature == 1.0


def test_a_corpus_without_labels_leaves_the_head_without_names(
    corpus: Corpus, tiny_config: Callable[..., ScDiVaConfig], tmp_path: Path
) -> None:
    config = tiny_config(len(corpus.vocabulary), heads=("latent", "annotation", "batch_integration"))
    assert pretrain(corpus, config, tmp_path, replace(SHORT, steps=1)).labels is None
    assert not (tmp_path / "labels.json").exists()
    assert ScDiVaModel.from_pretrained(tmp_path).labels is None
    assert not any((tmp_path / name).exists() for name in MADE_FROM_WEIGHTS)


def test_labels_need_an_annotation_head_of_their_number(
    labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path: Path
) -> None:
    without = replace(labelled_network, heads=("latent", "batch_integration"))
    with pytest.raises(CheckpointError, match="heads that the configuration lacks: annotation") as caught:
        pretrain(labelled, without, tmp_path / "out", SHORT)
    assert "annotation_weight to 0" in caught.value.hint
    with pytest.raises(CheckpointError, match="The corpus has 8 cell types, the configuration 7"):
        pretrain(labelled, replace(labelled_network, num_cell_types=7), tmp_path / "out", SHORT)
    assert not (tmp_path / "out").exists()
    settings = replace(SHORT, steps=1, annotation_weight=0.0)
    assert pretrain(labelled, without, tmp_path / "out", settings).labels is None


def test_starting_vectors_of_the_genes_are_a_choice(
    labelled: Corpus, labelled_network: ScDiVaConfig, finished: tuple, tmp_path: Path
) -> None:
    random = [
        pretrain(labelled, labelled_network, tmp_path / name, replace(finished[2], initial_genes="random"))
        for name in "ab"
    ]
    assert same_weights(*random)
    assert not torch.allclose(random[0].gene_embedding.weight, finished[0].gene_embedding.weight, atol=0.1)
    assert isinstance(random[0].labels, CellLabels)
