"""Labels beside the truth, by hand, and what labels as people write them mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.ontology import CellOntology, cell_ontology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import LabelCalls, with_unknown
from scdiva_core.tasks.label_sources import column_calls
from scdiva_core.tasks.label_truth import check_labels, label_meanings

NAIVE_CD4, T_CELL, B_CELL = "CL:0000895", "CL:0000084", "CL:0000236"


@pytest.fixture(scope="module")
def ontology() -> CellOntology:
    return cell_ontology()


@pytest.fixture
def calls() -> LabelCalls:
    """Naive CD4 T 0.9 and 0.6, T 0.8, B 0.7 and 0.5."""
    rows = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]]
    return LabelCalls.from_probabilities("head", (NAIVE_CD4, T_CELL, B_CELL), ("n", "t", "b"), np.array(rows))


def test_a_kind_of_the_true_type_is_right_and_what_lies_above_is_wrong(
    calls: LabelCalls, ontology: CellOntology
) -> None:
    truth = pd.Series(["T cell", "B cell", "T cell", "B cell", "T cell"], name="type")
    found = check_labels(calls, truth, ontology)
    assert found.correct.tolist() == [True, False, True, True, False]
    assert (found.accuracy, found.majority, found.majority_name) == (0.6, 0.6, "T cell")
    assert (found.n_judged, found.unknown, found.left_out) == (5, 0.0, {})
    # In the truth's words: a naive T cell and a T cell together.
    np.testing.assert_allclose(found.confidence, [1.0, 1.0, 0.9, 0.7, 0.5], atol=1e-3)
    # Of the two that are sure one is right; the others have a bin each, off by 0.1, 0.3 and 0.5.
    assert found.calibration_error == pytest.approx((2 * 0.5 + 0.1 + 0.3 + 0.5) / 5, abs=1e-3)
    finer = check_labels(calls, pd.Series([NAIVE_CD4] * 5, name="type"), ontology)
    assert finer.correct.tolist() == [True, True, False, False, False]


def test_unknown_is_not_right_and_has_no_confidence(calls: LabelCalls, ontology: CellOntology) -> None:
    strange = with_unknown(calls, np.array([2.0, 0, 0, 0, 0]))
    truth = pd.Series(["T cell", "T cell", None, "B cell", "tumour X"], name="type")
    found = check_labels(strange, truth, ontology)
    assert (found.n_judged, found.left_out) == (3, {"tumour X": 1})
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.unknown == pytest.approx(1 / 3)
    assert found.correct.tolist() == [True, True]
    nothing = check_labels(with_unknown(calls, np.full(5, 2.0)), truth, ontology)
    assert (nothing.accuracy, nothing.calibration_error) == (0, None)


def test_a_column_of_free_text_is_judged_by_its_meaning(ontology: CellOntology) -> None:
    own = column_calls(pd.Series(["B", "NK", "mine"], name="own"), ontology)
    truth = pd.Series(["B cell", "NK cell", "B cell"], name="type")
    assert check_labels(own, truth, ontology).correct.tolist() == [True, True, False]


def test_a_column_without_cell_types_is_refused(calls: LabelCalls, ontology: CellOntology) -> None:
    with pytest.raises(DataError, match="None of the 2 values of 'run' is a cell type"):
        check_labels(calls, pd.Series(["run 1", "run 2", "run 1", None, "run 2"], name="run"), ontology)
    with pytest.raises(DataError, match="The column has 3 values, but there are 5 labels"):
        check_labels(calls, pd.Series(["B cell"] * 3), ontology)


def test_labels_mean_what_their_authors_meant(ontology: CellOntology) -> None:
    told = {
        "T cell": T_CELL,
        "CL:0000236": B_CELL,
        "T cells": T_CELL,
        "Megakaryocytes": "CL:0000556",
        "FCGR3A Monocytes": "CL:0000875",  # only the tables of published sets know
        "Dendritic": "CL:0000451",
        "nk": "CL:0000623",
    }
    assert label_meanings([*told, "cluster 7", ""], ontology) == told
    assert label_meanings([], ontology) == {}
