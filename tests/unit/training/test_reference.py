"""The reference of a corpus: which cells, how many of each study, and that their latents are the model's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.reference import REFERENCE_FILE, Reference
from scdiva_core.training.batches import make_batch
from scdiva_core.training.initial import initialise
from scdiva_core.training.reference import build_reference, classed_cells


def saved(config: ScDiVaConfig, corpus: Corpus, folder: Path) -> Path:
    """Write an untrained network that starts from the corpus' gene vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ScDiVaModel(config)
    initialise(model, corpus, genes="svd", seed=0)
    model.vocabulary, model.tokenizer = corpus.vocabulary, Tokenizer(corpus.entropy, config.max_genes)
    model.has_entropy = True
    save_pretrained(model, folder)
    return folder


@pytest.fixture(scope="module")
def folder(labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(labelled_network, labelled, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(folder: Path) -> ScDiVaModel:
    return load_pretrained(folder)


@pytest.fixture(scope="module")
def expected(labelled: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Training cells whose label is a class, and that label's number, one by one."""
    held_out = set(labelled.cells("validation").tolist())
    pairs = [
        (cell, labelled.classes.index(labelled.label_ids[label]))
        for cell, label in enumerate(labelled.labels.tolist())
        if cell not in held_out and label >= 0 and labelled.label_ids[label] in labelled.classes
    ]
    return tuple(np.array(column) for column in zip(*pairs, strict=True))


def sizes(labels: np.ndarray, studies: np.ndarray) -> np.ndarray:
    """Cells of each of eight classes in both studies."""
    table = np.zeros((8, 2), int)
    np.add.at(table, (labels, studies), 1)
    return table


def test_cells_are_labelled_training_cells_of_one_class(labelled: Corpus, expected: tuple) -> None:
    cells, classes = classed_cells(labelled)
    assert np.array_equal(cells, expected[0])
    assert np.array_equal(classes, expected[1])
    left_out = {labelled.label_ids[label] for label in set(labelled.labels.tolist()) - {-1}}
    assert left_out - set(labelled.classes) == {"CL:0000084", "CL:0000624", "CL:0000556"}


def test_a_coarse_label_with_one_class_left_below_it_is_left_out(labelled: Corpus, tmp_path: Path) -> None:
    shutil.copytree(labelled.folder, tmp_path / "corpus")
    manifest = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    manifest["labels"]["CL:0000624"] = [manifest["classes"].index("CL:0000895")]
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps(manifest))
    changed = Corpus(tmp_path / "corpus")
    assert changed.members[changed.label_ids.index("CL:0000624")].sum() == 1
    assert np.array_equal(classed_cells(changed)[0], classed_cells(labelled)[0])


def test_without_labels_there_are_no_such_cells(corpus: Corpus) -> None:
    assert [len(part) for part in classed_cells(corpus)] == [0, 0]


@torch.no_grad()
def test_latents_are_the_models_own(model: ScDiVaModel, labelled: Corpus, expected: tuple) -> None:
    model.train()
    reference = build_reference(model, labelled, seed=0)
    assert not model.training
    cells, classes = expected
    assert np.array_equal(reference.labels, classes)
    assert np.array_equal(reference.study_of, (cells >= 160).astype(int))
    assert reference.latents.dtype == np.float32
    tokenizer = Tokenizer(labelled.entropy, model.config.max_genes)
    for place in (0, 31, 32, len(cells) - 1):
        alone = make_batch(labelled, tokenizer, cells[[place]], np.random.default_rng(5)).tokens
        np.testing.assert_allclose(
            reference.latents[[place]], model.encode(alone)["latent"].numpy(), atol=1e-4, rtol=1e-4
        )
    assert (reference.ids, reference.names) == (labelled.classes, tuple(labelled.manifest["class_names"]))
    assert reference.studies == ("kang", "pbmc")


def test_studies_give_the_same_number_as_far_as_they_go(model: ScDiVaModel, labelled: Corpus, expected: tuple) -> None:
    there = sizes(expected[1], (expected[0] >= 160).astype(int))
    assert ((there.min(axis=1) < 4) & (there.sum(axis=1) >= 8)).any(), "one study has too few of some class"
    assert (there.min(axis=1) >= 4).any()
    for most in (2, 8, 9):
        reference = build_reference(model, labelled, per_class=most, seed=0)
        found = sizes(reference.labels, reference.study_of)
        assert np.array_equal(found.sum(axis=1), np.minimum(there.sum(axis=1), most))
        for taken, available in zip(found, there, strict=True):
            fewer, more = np.argsort(taken)
            assert taken[more] - taken[fewer] <= 1 or taken[fewer] == available[fewer]


def test_the_seed_chooses_the_cells(model: ScDiVaModel, labelled: Corpus) -> None:
    one, again, other = (build_reference(model, labelled, per_class=5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.latents, again.latents)
    assert np.array_equal(np.bincount(one.labels), np.bincount(other.labels))
    assert not np.array_equal(one.latents, other.latents)
    assert len({tuple(row) for row in one.latents.tolist()}) == len(one), "no cell twice"


def test_it_belongs_to_its_checkpoint(model: ScDiVaModel, labelled: Corpus, folder: Path) -> None:
    build_reference(model, labelled, seed=0).save(folder / REFERENCE_FILE)
    assert Reference.load(folder / REFERENCE_FILE).weights == model.sha256
    assert load_pretrained(folder).sha256 == model.sha256, "a checkpoint with a reference is still one"


def test_a_model_that_was_not_loaded_is_refused(labelled: Corpus, labelled_network: ScDiVaConfig) -> None:
    fresh = ScDiVaModel(labelled_network)
    fresh.vocabulary = labelled.vocabulary
    with pytest.raises(CheckpointError, match="was not loaded from a file") as caught:
        build_reference(fresh, labelled, seed=0)
    assert "Save the model, load it again" in caught.value.hint


def test_another_vocabulary_is_refused(model: ScDiVaModel, corpus: Corpus) -> None:
    with pytest.raises(CheckpointError, match="tokens, the corpus another one of") as caught:
        build_reference(model, corpus, seed=0)
    assert "the model's vocabulary" in caught.value.hint


def test_a_corpus_without_labels_is_refused(corpus: Corpus, network: ScDiVaConfig, tmp_path: Path) -> None:
    unlabelled = load_pretrained(saved(network, corpus, tmp_path / "checkpoint"))
    with pytest.raises(CheckpointError, match="None of the 240 cells of the corpus is labelled"):
        build_reference(unlabelled, corpus, seed=0)
