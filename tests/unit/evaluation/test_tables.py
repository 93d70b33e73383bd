"""An evaluation read back from beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scdiva_core.errors import CheckpointError
from scdiva_core.evaluation.embedding import GROUPS
from scdiva_core.evaluation.tables import MAX_BYTES, Evaluation, read_evaluation
from tests.small_evaluation import TITLES, small_evaluation


def write(folder: Path, content: Any) -> Path:
    (folder / "evaluation.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> Evaluation:
    return read_evaluation(write(tmp_path, small_evaluation("abc")))


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None


def test_what_was_measured_in_the_order_of_a_report(stored: Evaluation) -> None:
    assert stored.sha256 == "abc"
    measures = stored.measures()
    assert list(measures) == ["classification", "annotation", "mixing"]
    assert measures["classification"] == ("knn_accuracy", "probe_accuracy")
    assert measures["annotation"] == ("accuracy", "macro_f1", "calibration_error")


def test_a_row_each_set_and_the_mean_a_column_each_method(stored: Evaluation) -> None:
    grid = stored.grid("classification", "knn_accuracy")
    methods = ["scdiva", "pca", "pca_corpus", "untrained_svd", "untrained_random", "chance"]
    for table in (grid.values, grid.texts, grid.best):
        assert table.index.name is table.columns.name is None
        assert list(table.index) == [TITLES["blood"], TITLES["lung"], "Mean"]
        assert list(table.columns) == methods
    assert grid.values.loc["Lung"].tolist() == pytest.approx([0.96, 0.94, 0.90, 0.84, 0.64, 0.35])
    assert grid.values.loc["Mean"].tolist() == pytest.approx([0.93, 0.93, 0.88, 0.82, 0.62, 0.30])
    assert grid.texts.loc["Lung", "scdiva"] == "0.960 ± 0.010"


def test_the_best_of_a_row_and_ties_as_printed(stored: Evaluation) -> None:
    best = stored.grid("classification", "knn_accuracy").best
    assert [list(best.columns[row]) for row in best.to_numpy()] == [["pca"], ["scdiva"], ["scdiva", "pca"]]
    assert list(stored.grid("annotation", "macro_f1").best.iloc[0]) == [True, True, False]


def test_one_method_alone_is_not_the_best(stored: Evaluation) -> None:
    grid = stored.grid("annotation", "calibration_error")
    assert list(grid.values.columns) == ["scdiva"]
    assert not grid.best.to_numpy().any()


def test_less_is_better_where_it_is(tmp_path: Path) -> None:
    content = small_evaluation("abc")
    content["annotation"]["blood"]["hvg_lr"]["calibration_error"] = {"value": 0.05}
    best = read_evaluation(write(tmp_path, content)).grid("annotation", "calibration_error").best
    assert best.iloc[0].to_dict() == {"scdiva": False, "hvg_lr": True}


def test_a_method_that_a_set_lacks_leaves_a_gap(tmp_path: Path) -> None:
    content = small_evaluation("abc")
    del content["classification"]["lung"]["pca_corpus"]
    grid = read_evaluation(write(tmp_path, content)).grid("classification", "knn_accuracy")
    assert grid.texts.loc["Lung", "pca_corpus"] == ""
    assert not grid.best.loc["Lung", "pca_corpus"]
    assert grid.texts.loc["Lung", "pca"] == "0.940 ± 0.010"


def test_an_interval_is_written_as_one(stored: Evaluation) -> None:
    assert stored.grid("annotation", "macro_f1").texts.iloc[0, 0] == "0.700 (0.700 to 0.700)"


def test_in_words(stored: Evaluation) -> None:
    first, mean = stored.in_words("classification", "knn_accuracy")
    assert first == "Against PCA on the set: above on 1 (Lung), level on none, below on 1 (Blood, <b>3k</b>)."
    assert mean == "kNN accuracy, mean: ScDiVa (0.930) is level with PCA on the set (0.930; +0.000)."


def test_a_single_set_is_told_whole(stored: Evaluation) -> None:
    assert stored.in_words("mixing", "avg_bio") == [
        "Studies pooled, Avg-Bio, Both together: ScDiVa (0.800) is above PCA on the set (0.700; +0.100)."
    ]
    (words,) = stored.in_words("annotation", "macro_f1")
    assert "variable genes + logistic regression" in words


def test_no_verdict_no_words(stored: Evaluation) -> None:
    assert stored.in_words("annotation", "calibration_error") == []


def test_scores_are_one_long_table(stored: Evaluation) -> None:
    table = stored.scores
    assert len(table) == 3 * 6 * 2 + 6 + 3 * 2
    row = table[(table["set"] == "mean") & (table["method"] == "pca") & (table["measure"] == "knn_accuracy")].iloc[0]
    assert (row["group"], row["title"], row["value"]) == ("classification", "Mean", pytest.approx(0.93))


def test_notes_say_how_it_was_measured(stored: Evaluation) -> None:
    assert "in 3 stratified folds, 2 times" in stored.notes["classification"]
    assert set(stored.notes) == set(stored.measures())


def test_what_the_evaluation_writes_is_read(result: dict[str, Any], tmp_path: Path) -> None:
    found = read_evaluation(write(tmp_path, result))
    assert list(found.measures()) == list(GROUPS)
    for group, measures in found.measures().items():
        for measure in measures:
            grid = found.grid(group, measure)
            assert len(grid.values) == len(result[group]) + (len(result[group]) > 1)
    expected = result["classification"]["stimulated"]["untrained_svd"]["probe_macro_f1"]["value"]
    assert found.grid("classification", "probe_macro_f1").values.loc["Cells, stimulated", "untrained_svd"] == expected
    assert found.in_words("classification", "knn_accuracy")


DAMAGE = {
    "": "cannot be read",
    "{": "cannot be read",
    '{"a": NaN': "cannot be read",
    "[" * 100_000: "cannot be read",
    "[]": "has no table 'means'",
    "{}": "has no table 'means'",
    " " * (MAX_BYTES + 1): "is larger than 5,000,000 bytes",
}


@pytest.mark.parametrize("text", DAMAGE, ids=lambda text: text[:9])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=f"^evaluation.json {DAMAGE[text]}") as caught:
        read_evaluation(write(tmp_path, text))
    assert caught.value.hint == "Evaluate the checkpoint again, or remove the file."


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_bytes(b"\xff\xfe\x00\x80{")
    with pytest.raises(CheckpointError, match=r"^evaluation.json cannot be read"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("classification",), [], "no table 'classification'"),
        (("classification", "lung", "pca"), 0.9, "no table 'pca'"),
        (("classification", "lung", "pca", "knn_accuracy"), 0.9, "no table 'knn_accuracy'"),
        (("classification", "lung", "pca", "knn_accuracy", "value"), "0.9", "a knn_accuracy that is no number"),
        (("classification", "lung", "pca", "knn_accuracy", "value"), True, "a knn_accuracy that is no number"),
        (("classification", "lung", "pca", "knn_accuracy", "value"), None, "a knn_accuracy that is no number"),
        (("classification", "lung", "pca", "knn_accuracy", "std"), float("nan"), "a knn_accuracy that is no number"),
        (("classification", "lung", "pca", "knn_accuracy", "value"), 10**400, "a knn_accuracy that is no number"),
        (("annotation", "blood", "scdiva", "macro_f1"), {"value": 1, "low": 0}, "a macro_f1 with half an interval"),
        (("sets", "lung"), "Lung", "no table 'lung'"),
        (("means", "classification"), None, "no table 'classification'"),
        (("checkpoint", "sha256"), 7, "does not say which weights it is of"),
        (("settings",), None, "does not say how it was made"),
        (("settings", "regression"), "C = 1", "does not say how it was made"),
        (("verdicts",), {}, "no list of 'verdicts'"),
        (("verdicts", 0), {"group": "classification"}, "a verdict that is none"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, path: tuple[str | int, ...], value: Any, message: str) -> None:
    content = small_evaluation("abc")
    parent = content
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with pytest.raises(CheckpointError, match=message):
        read_evaluation(write(tmp_path, content))


def test_an_evaluation_of_nothing(tmp_path: Path) -> None:
    content = small_evaluation("abc") | {"classification": {}, "annotation": {}, "mixing": {}}
    with pytest.raises(CheckpointError, match="holds no score"):
        read_evaluation(write(tmp_path, content))


def test_groups_methods_and_measures_of_another_version_are_passed_over(tmp_path: Path) -> None:
    content = small_evaluation("abc")
    content["speed"] = {"blood": 3}
    content["classification"]["lung"]["telepathy"] = {"knn_accuracy": {"value": 1}}
    content["classification"]["lung"]["pca"]["beauty"] = {"value": 1}
    found = read_evaluation(write(tmp_path, content))
    assert "telepathy" not in found.grid("classification", "knn_accuracy").values
    assert "beauty" not in found.measures()["classification"]
