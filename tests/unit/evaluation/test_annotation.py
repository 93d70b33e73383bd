"""Bringing predicted terms to the level of a set's labels, and scoring what the head names."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.engine import Engine
from scdiva_core.evaluation.annotation import OTHER, annotate, named_by_model, reachable, resolve
from scdiva_core.evaluation.sets import EvaluationSet, read_set
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.profiles import PROFILES_FILE
from scdiva_core.tasks.label_sources import head_logits
from scdiva_core.training.profiles import build_profiles
from tests.unit.evaluation.conftest import Small

NAIVE_CD4, CD4, T_CELL, LYMPHOCYTE = "CL:0000895", "CL:0000624", "CL:0000084", "CL:0000542"
B_CELL, MONOCYTE, CLASSICAL = "CL:0000236", "CL:0000576", "CL:0000860"


@pytest.mark.parametrize(
    ("predicted", "truths", "meaning"),
    [
        (CD4, [CD4, B_CELL], CD4),
        (NAIVE_CD4, [CD4, B_CELL], CD4),
        (NAIVE_CD4, [T_CELL, CD4, LYMPHOCYTE], CD4),
        (NAIVE_CD4, [T_CELL, LYMPHOCYTE, B_CELL], T_CELL),
        (CD4, [NAIVE_CD4, B_CELL], OTHER),
        (T_CELL, [CD4, B_CELL], OTHER),
        (CLASSICAL, [CD4, B_CELL], OTHER),
    ],
    ids=["same", "finer", "nearest of three", "nearest of two above", "coarser", "much coarser", "unrelated"],
)
def test_a_prediction_becomes_the_nearest_term_above_it(predicted: str, truths: list[str], meaning: str) -> None:
    assert resolve([predicted], truths, cell_ontology()).tolist() == [meaning]


def test_predictions_are_resolved_each_by_itself() -> None:
    found = resolve([NAIVE_CD4, B_CELL, CLASSICAL, NAIVE_CD4], [T_CELL, MONOCYTE], cell_ontology())
    assert found.tolist() == [T_CELL, OTHER, MONOCYTE, T_CELL]


@pytest.fixture
def stimulated(small: Small) -> tuple[EvaluationSet, np.ndarray]:
    """A set with its embedding."""
    with small.engine.open(small.data / "stimulated.h5ad") as dataset:
        cells = read_set(dataset, small.studies, len(small.engine.vocabulary))
        return cells, np.array(small.engine.embed(dataset))


def test_scores_are_of_resolved_predictions_on_every_cell_with_a_type(
    small: Small, stimulated: tuple[EvaluationSet, np.ndarray]
) -> None:
    cells, embedding = stimulated
    found = annotate(small.engine, cells, embedding, None, cell_ontology())
    assert set(found) == {"scdiva", "majority"}, "without profiles the head speaks alone"
    typed = cells.terms != ""
    assert 0 < (~typed).sum() < 30, "'T activated' means no type here"
    probabilities = torch.softmax(head_logits(small.engine.model, embedding[typed]), dim=1).numpy()
    ids = np.array(small.engine.model.labels.ids)
    right = ids[probabilities.argmax(axis=1)] == cells.terms[typed]
    score = found["scdiva"]["accuracy"]
    assert score.value == right.mean()
    low, high = score.interval
    assert low < score.value < high
    # Every class is a term of this set, so that the confidence is the class's own.
    top = probabilities.max(axis=1)
    assert np.abs(np.mean(right) - top.mean()) <= found["scdiva"]["calibration_error"].value + 1e-9
    _, sizes = np.unique(cells.terms[typed], return_counts=True)
    assert found["majority"]["accuracy"].value == sizes.max() / sizes.sum()
    assert found["majority"]["balanced_accuracy"].value == pytest.approx(1 / len(sizes))


def test_with_profiles_each_is_scored_alone_and_both_together(
    small: Small, stimulated: tuple[EvaluationSet, np.ndarray], tmp_path: Path
) -> None:
    cells, embedding = stimulated
    shutil.copytree(small.engine.folder, tmp_path / "checkpoint")
    profiles = build_profiles(load_pretrained(tmp_path / "checkpoint"), small.corpus, seed=0)
    profiles.save(tmp_path / "checkpoint" / PROFILES_FILE)
    engine = Engine(tmp_path / "checkpoint", "cpu", small.engine.store)
    found = annotate(engine, cells, embedding, None, cell_ontology())
    assert set(found) == {"scdiva", "head", "profiles", "majority"}
    head_alone = annotate(small.engine, cells, embedding, None, cell_ontology())["scdiva"]
    assert found["head"]["accuracy"].value == head_alone["accuracy"].value
    # The head is untrained, the profiles have seen cells of these types.
    assert found["profiles"]["macro_f1"].value > found["majority"]["macro_f1"].value + 0.3
    assert found["scdiva"]["macro_f1"].value > found["head"]["macro_f1"].value
    named = named_by_model(engine, cells, cells.typed, embedding)
    for probabilities in named.values():
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_types_that_no_class_comes_to_are_named(small: Small) -> None:
    with small.engine.open(small.data / "blood.h5ad") as dataset:
        cells = read_set(dataset, small.studies, len(small.engine.vocabulary))
    found = reachable(cells, small.corpus.classes, cell_ontology())
    assert found["out_of_reach"] == {"CL:0000556": "megakaryocyte"}
    assert found["best_accuracy"] == np.mean(cells.labels != "Megakaryocytes")
    assert found["terms"] == 8
