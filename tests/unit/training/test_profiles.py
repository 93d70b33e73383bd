"""Profiles of a corpus: parts by hand, and that they name cells of a donor they have not seen, on few genes too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scdiva_core.baselines.expression import corpus_expression
from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import CheckpointError
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import CellLabels, ScDiVaModel
from scdiva_core.model.profiles import LARGEST, Profiles
from scdiva_core.training import profiles as module
from scdiva_core.training.genes import LEAST_DEVIATION, variable_genes
from scdiva_core.training.profiles import build_profiles
from scdiva_core.training.reference import classed_cells
from tests.unit.training.test_reference import saved


@pytest.fixture(scope="module")
def model(labelled: Corpus, labelled_network: ScDiVaConfig, tmp_path_factory: pytest.TempPathFactory) -> ScDiVaModel:
    folder = saved(labelled_network, labelled, tmp_path_factory.mktemp("checkpoint"))
    named = load_pretrained(folder)
    named.labels = CellLabels(labelled.classes, tuple(labelled.manifest["class_names"]), 1.5)
    save_pretrained(named, folder)
    return load_pretrained(folder)


@pytest.fixture(scope="module")
def profiles(model: ScDiVaModel, labelled: Corpus) -> Profiles:
    return build_profiles(model, labelled, seed=0)


def test_parts_fit_the_corpus(profiles: Profiles, model: ScDiVaModel, labelled: Corpus) -> None:
    assert (profiles.ids, profiles.weights) == (labelled.classes, model.sha256)
    assert (np.diff(profiles.gene_ids) > 0).all()
    assert set(variable_genes(labelled, seed=0)) <= set(profiles.gene_ids.tolist())
    assert np.array_equal(profiles.mean, labelled.gene_mean[profiles.gene_ids])
    assert profiles.deviation.min() >= np.float32(LEAST_DEVIATION)
    assert profiles.noise.min() > 0


def test_a_center_is_the_mean_of_its_studies_by_the_root_of_their_cells(profiles: Profiles, labelled: Corpus) -> None:
    cells, classes = classed_cells(labelled)
    studies = labelled.dataset_of[cells]
    both = next(c for c in np.unique(classes) if len(np.unique(studies[classes == c])) == 2)
    values = corpus_expression(labelled, cells)[:, profiles.gene_ids].toarray()
    z = np.minimum((values - profiles.mean) / profiles.deviation, LARGEST)
    groups = [z[(classes == both) & (studies == study)] for study in (0, 1)]
    roots = np.sqrt([len(group) for group in groups])
    expected = sum(root * group.mean(axis=0) for root, group in zip(roots, groups, strict=True)) / roots.sum()
    np.testing.assert_allclose(profiles.centers[both], expected, atol=1e-4)


def test_what_studies_differ_in_counts_less() -> None:
    """The variance between two studies of a type, tenfold, is added to that within them."""
    values = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    classes, studies = np.repeat([0, 1], 40), np.tile([0, 1], 40)
    values[studies == 1, 0] += 3
    groups = [[values[(classes == kind) & (studies == study)] for study in (0, 1)] for kind in (0, 1)]
    within = np.mean([[group.var(axis=0) for group in pair] for pair in groups], axis=(0, 1))
    between = np.mean([np.var([group.mean(axis=0) for group in pair], axis=0) for pair in groups], axis=0)
    _, spread = module._centers(values, classes, studies, 2)
    np.testing.assert_allclose((spread**2).sum(axis=0), within + 10 * between, rtol=1e-4)
    assert between[0] > 10 * between[1:].max()


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_cells_of_a_new_donor_are_named(profiles: Profiles, labelled: Corpus, share: float) -> None:
    """Also when three genes of four are missing."""
    cells, classes = classed_cells(labelled, "validation")
    rng = np.random.default_rng(0)
    genes = np.flatnonzero(rng.random(len(labelled.vocabulary)) < share)
    scores = profiles.over(genes).scores(corpus_expression(labelled, cells)[:, genes])
    commonest = np.bincount(classes).max() / len(classes)
    assert (scores.argmax(axis=1) == classes).mean() > commonest + 0.2


def test_temperatures_lower_the_surprise_on_held_out_cells(profiles: Profiles, labelled: Corpus) -> None:
    cells, classes = classed_cells(labelled, "validation")
    genes = np.arange(len(labelled.vocabulary))
    scores = torch.from_numpy(profiles.over(genes).scores(corpus_expression(labelled, cells))).double()
    truth = torch.from_numpy(classes)

    def surprise(temperature: float) -> float:
        return torch.nn.functional.cross_entropy(scores / temperature, truth).item()

    assert profiles.temperature > 1
    assert surprise(profiles.temperature) < min(surprise(profiles.temperature * 1.3), surprise(1.0))
    assert profiles.joint_temperature != 1


def test_two_builds_agree_and_the_seed_chooses_cells(
    profiles: Profiles, model: ScDiVaModel, labelled: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = build_profiles(model, labelled, seed=0)
    assert np.array_equal(again.centers, profiles.centers)
    assert np.array_equal(again.loadings, profiles.loadings)
    monkeypatch.setattr(module, "MOST_CELLS", 5)
    few, other = (build_profiles(model, labelled, seed=seed) for seed in (0, 1))
    assert not np.array_equal(few.centers, other.centers[:, : few.centers.shape[1]])


def test_a_model_without_the_corpus_types_is_refused(model: ScDiVaModel, labelled: Corpus, tmp_path: Path) -> None:
    for labels in (None, replace(model.labels, ids=model.labels.ids[::-1])):
        model_of_others = load_pretrained(_copy(model, tmp_path))
        model_of_others.labels = labels
        with pytest.raises(CheckpointError, match="no annotation head over the corpus' cell types"):
            build_profiles(model_of_others, labelled, seed=0)


def _copy(model: ScDiVaModel, folder: Path) -> Path:
    save_pretrained(model, folder)
    return folder
