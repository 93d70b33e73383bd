"""The page that an evaluation is read on."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from scdiva_core.evaluation.report import to_markdown


@pytest.fixture(scope="module")
def page(result: dict[str, Any]) -> str:
    return to_markdown(result)


def table(page: str, measure: str) -> dict[str, list[str]]:
    """Row -> cells of the first table of a measure; the columns' names under ``columns``."""
    lines = page.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"| {measure} |"))
    rows = {}
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows["columns" if name == measure else name] = cells
    return rows


def test_it_is_the_same_from_json(result: dict[str, Any], page: str) -> None:
    assert to_markdown(json.loads(json.dumps(result))) == page


def test_every_group_has_a_heading_in_order(page: str) -> None:
    headings = re.findall(r"^##? (.+)$", page, re.MULTILINE)
    assert headings == [
        "Embedding, evaluated",
        "In words",
        "Sets",
        "Columns",
        "Telling published cell types apart",
        "Clusters and distances against published cell types",
        "Batches within a set",
        "Naming cell types, no label of the set used",
        "Studies pooled",
    ]


def test_rows_are_sets_and_a_mean_columns_methods(result: dict[str, Any], page: str) -> None:
    rows = table(page, "kNN accuracy")
    assert list(rows) == ["columns", "---", "Cells, blood", "Cells, stimulated", "*mean*"]
    assert rows["columns"] == [
        "ScDiVa",
        "PCA on the set",
        "PCA on the corpus",
        "untrained, SVD genes",
        "untrained, random genes",
        "chance",
    ]
    score = result["classification"]["blood"]["pca"]["knn_accuracy"]
    assert rows["Cells, blood"][1].strip("*") == f"{score['value']:.3f} ± {score['std']:.3f}"
    score = result["annotation"]["blood"]["hvg_lr"]["macro_f1"]
    shown = table(page, "Macro-F1")["Cells, blood"][1].strip("*")
    assert shown == f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def test_the_best_of_a_row_is_bold(result: dict[str, Any]) -> None:
    changed = copy.deepcopy(result)
    row = changed["classification"]["blood"]
    for place, method in enumerate(row):
        row[method]["knn_accuracy"]["value"] = 0.1 * place
    row["scdiva"]["knn_accuracy"]["value"] = row["pca"]["knn_accuracy"]["value"] = 0.9
    cells = table(to_markdown(changed), "kNN accuracy")["Cells, blood"]
    assert [cell.startswith("**") for cell in cells] == [True, True, False, False, False, False]


def test_losses_are_said_in_bold(result: dict[str, Any], page: str) -> None:
    for verdict in result["verdicts"]:
        bold = f"- **{verdict['words']}**" in page
        assert bold == (verdict["verdict"] == "below")
        assert bold or f"- {verdict['words']}" in page


def test_footnotes_name_the_numbers_used(page: str) -> None:
    assert "in 3 stratified folds, 2 times with other folds" in page
    assert "at most 500 of a type" in page
    assert "megakaryocyte" in page
    assert "{" not in page, "every placeholder was filled in"


def test_groups_without_a_set_are_left_out(result: dict[str, Any]) -> None:
    changed = {**result, "integration": {}, "mixing": {}, "pools": {}}
    page = to_markdown(changed)
    assert "Batches within a set" not in page
    assert "Studies pooled\n" not in page
