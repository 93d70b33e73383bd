"""Bringing predicted terms to the level of a set's labels, and scoring what the head names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.evaluation.annotation import OTHER, annotate, head_probabilities, reachable, resolve
from scdiva_core.evaluation.sets import read_set
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


def test_the_heads_probabilities_are_those_of_the_model(small: Small) -> None:
    with small.engine.open(small.data / "blood.h5ad") as dataset:
        embedding = np.array(small.engine.embed(dataset))
        _, block = next(dataset.chunks(300))
        model = small.engine.model
        rows = model.tokenizer.serialize(block.indptr, block.indices, block.data, dataset.gene_ids)
    with torch.inference_mode():
        logits = model.predict(rows.batch(slice(None), pad_id=model.config.pad_id), "annotation")
    expected = torch.softmax(logits / model.labels.temperature, dim=1).numpy()
    found = head_probabilities(small.engine, embedding)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_scores_are_of_resolved_predictions_on_every_cell_with_a_type(small: Small) -> None:
    with small.engine.open(small.data / "stimulated.h5ad") as dataset:
        cells = read_set(dataset, small.studies, len(small.engine.vocabulary))
        embedding = np.array(small.engine.embed(dataset))
    found = annotate(small.engine, cells, embedding, None, cell_ontology())
    assert set(found) == {"scdiva", "majority"}
    typed = cells.terms != ""
    assert 0 < (~typed).sum() < 30, "'T activated' means no type here"
    probabilities = head_probabilities(small.engine, embedding[typed])
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


def test_types_that_no_class_comes_to_are_named(small: Small) -> None:
    with small.engine.open(small.data / "blood.h5ad") as dataset:
        cells = read_set(dataset, small.studies, len(small.engine.vocabulary))
    found = reachable(cells, small.corpus.classes, cell_ontology())
    assert found["out_of_reach"] == {"CL:0000556": "megakaryocyte"}
    assert found["best_accuracy"] == np.mean(cells.labels != "Megakaryocytes")
    assert found["terms"] == 8
