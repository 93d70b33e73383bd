"""The evaluation of integration: every method, with and without labels, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scdiva_core.engine_integration import FINETUNED
from scdiva_core.errors import DataError
from scdiva_core.evaluation.integration import UNLABELLED, evaluate_integration, to_markdown
from tests.unit.evaluation.conftest import Small


@pytest.fixture(scope="module")
def evaluated(small: Small) -> dict[str, Any]:
    return evaluate_integration(small.engine, small.data, small.studies, sets=["stimulated"], seeds=1)


def test_every_method_stands_in_both_tables(evaluated: dict[str, Any]) -> None:
    found = evaluated["sets"]["stimulated"]
    methods = ["pca", "pca_centred", "harmony", "scdiva", "scdiva_harmony", FINETUNED, UNLABELLED]
    assert [row["method"] for row in found["table"]] == methods
    assert [row["method"] for row in found["judged"]] == methods
    assert found["judged"][0]["n_cells"] < found["table"][0]["n_cells"]
    assert len({row["n_cells"] for row in found["judged"]}) == 1, "the same cells for every method"
    assert json.loads(json.dumps(evaluated)) == evaluated


def test_the_page_has_every_number_and_says_what_counts(evaluated: dict[str, Any]) -> None:
    found, page = evaluated["sets"]["stimulated"], to_markdown(evaluated)
    assert page.startswith("# Integration, evaluated\n")
    row = found["judged"][-1]
    start = f"| ScDiVa, fine-tuned without labels | {row['avg_bio']:.3f} ± 0.000 | {row['avg_batch']:.3f} |"
    assert start in page
    assert f"### Cells whose labels fine-tuning never learned from ({row['n_cells']:,})" in page
    for line in found["words"]:
        assert f"- {line}" in page
    assert found["words"][0].startswith("With labels, on held-out cells: ScDiVa, fine-tuned mixes batches")


def test_sets_without_batches_are_refused(small: Small) -> None:
    with pytest.raises(DataError, match="elsewhere is no set with batches and labels"):
        evaluate_integration(small.engine, small.data, small.studies, sets=["elsewhere"])
    one_batch = {name: replace(study, batch_column="") for name, study in small.studies.studies.items()}
    with pytest.raises(DataError, match="stimulated is no set"):
        evaluate_integration(small.engine, small.data, replace(small.studies, studies=one_batch), sets=["stimulated"])
