"""A whole evaluation of a small untrained checkpoint on small real sets: does it measure what it says?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from scdiva_core.data.corpus import Corpus
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.evaluation.embedding import GROUPS, evaluate_embedding
from scdiva_core.evaluation.report import to_markdown
from scdiva_core.metrics.classification import cross_validate
from scdiva_core.store import ResultStore
from tests.unit.evaluation.conftest import Small
from tests.unit.evaluation.small_studies import write_checkpoint

SINGLE = {"scdiva", "pca", "pca_corpus", "untrained_svd", "untrained_random"}


def numbers(value: Any) -> Iterator[float]:
    """Every number in nested plain values."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def test_every_table_has_its_sets_and_methods(result: dict[str, Any]) -> None:
    methods = {group: {name: set(row) for name, row in result[group].items()} for group in GROUPS}
    assert methods == {
        "classification": dict.fromkeys(("blood", "stimulated"), SINGLE | {"chance"}),
        "clusters": dict.fromkeys(("blood", "stimulated"), SINGLE | {"chance"}),
        "integration": {"stimulated": SINGLE | {"harmony"}},
        "annotation": dict.fromkeys(("blood", "stimulated"), {"scdiva", "hvg_lr", "majority"}),
        "mixing": {"both": SINGLE | {"harmony"}},
    }


def test_the_result_is_json_without_a_missing_number(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(math.isfinite(number) for number in numbers(result))


def test_the_models_row_is_measured_on_its_embedding(result: dict[str, Any], small: Small) -> None:
    with small.engine.open(small.data / "blood.h5ad") as dataset:
        embedding, labels = np.array(small.engine.embed(dataset)), dataset.obs["cell_type"].astype(str).to_numpy(str)
    kept = labels != "Megakaryocytes"
    found = cross_validate(embedding[kept], labels[kept], "knn", seeds=2)
    row = result["classification"]["blood"]["scdiva"]
    assert row["knn_accuracy"]["seeds"] == found.accuracy.tolist()
    assert row["knn_macro_f1"]["seeds"] == found.macro_f1.tolist()
    silhouette = result["clusters"]["blood"]["scdiva"]["silhouette"]["value"]
    assert silhouette == pytest.approx(silhouette_score(embedding[kept], labels[kept]), abs=1e-6)


def test_good_baselines_are_good_and_chance_is_chance(result: dict[str, Any]) -> None:
    for name in ("blood", "stimulated"):
        row = result["classification"][name]
        for measure in ("knn_accuracy", "probe_accuracy", "knn_macro_f1", "probe_macro_f1"):
            by_chance = row["chance"][measure]["value"]
            assert row["pca"][measure]["value"] > by_chance + 0.2
            assert row["pca_corpus"][measure]["value"] > by_chance + 0.2
            assert row["untrained_svd"][measure]["value"] > row["untrained_random"][measure]["value"]
        assert abs(result["clusters"][name]["chance"]["ari"]["value"]) < 0.05
        annotated = result["annotation"][name]
        assert annotated["hvg_lr"]["macro_f1"]["value"] > annotated["majority"]["macro_f1"]["value"] + 0.3


def test_harmony_alone_is_told_the_batches(result: dict[str, Any]) -> None:
    row = result["integration"]["stimulated"]
    assert row["harmony"]["avg_batch"]["value"] > row["pca"]["avg_batch"]["value"]
    assert row["harmony"]["avg_bio"]["value"] > row["untrained_random"]["avg_bio"]["value"]


def test_averages_are_of_their_parts(result: dict[str, Any]) -> None:
    row, clusters = result["integration"]["stimulated"]["pca"], result["clusters"]["stimulated"]["pca"]
    parts = clusters["nmi"]["value"], clusters["ari"]["value"], (clusters["silhouette"]["value"] + 1) / 2
    assert row["avg_bio"]["value"] == pytest.approx(sum(parts) / 3)
    assert row["avg_batch"]["value"] == pytest.approx(
        (row["batch_asw"]["value"] + row["graph_connectivity"]["value"]) / 2
    )
    knn = [result["classification"][name]["pca"]["knn_accuracy"]["value"] for name in ("blood", "stimulated")]
    assert result["means"]["classification"]["pca"]["knn_accuracy"]["value"] == pytest.approx(np.mean(knn))


def test_sizes_and_what_was_left_out(result: dict[str, Any], small: Small) -> None:
    blood, stimulated = result["sets"]["blood"], result["sets"]["stimulated"]
    labels = anndata.read_h5ad(small.data / "blood.h5ad", backed="r").obs["cell_type"].astype(str).value_counts()
    rare = {label: int(count) for label, count in labels.items() if count < 3}
    assert rare
    assert blood["left_out"] == {"without_a_type": 0, "too_rare": rare}
    assert (blood["cells"], blood["measured"]) == (300, 300 - sum(rare.values()))
    assert blood["batches"] == {}
    assert blood["genes_known"] < blood["genes_total"] == 1500
    unused = (anndata.read_h5ad(small.data / "stimulated.h5ad", backed="r").obs["cell_type"] == "T activated").sum()
    assert stimulated["left_out"]["without_a_type"] == unused > 0
    assert set(stimulated["batches"]) == {"CTRL", "STIM"}
    assert sum(stimulated["batches"].values()) == stimulated["measured"]
    pool = result["pools"]["both"]
    assert pool["cells"] + pool["left_out"] == 600
    assert sum(pool["studies"].values()) == sum(pool["terms"].values()) == pool["cells"]
    assert set(result["pools"]) == {"both"}, "a pool that lacks a set is passed over"


def test_the_result_says_what_it_was_made_from(result: dict[str, Any], small: Small, lines: list[str]) -> None:
    assert result["checkpoint"]["sha256"] == small.engine.model.sha256
    assert result["corpus"]["training_cells"] == 450
    assert result["settings"]["regression"]["max_class_cells"] == 500
    assert {"python", "torch", "harmonypy", "scikit-learn"} <= set(result["versions"])
    assert "blood: embedding 300 cells, scdiva" in lines
    assert lines[-1] == "stimulated: naming cell types"


def test_verdicts_follow_from_the_tables(result: dict[str, Any]) -> None:
    seen = set()
    for verdict in result["verdicts"]:
        group, name = verdict["group"], verdict["set"]
        rows = result["means"][group] if name == "mean" else result[group][name]
        ours, other = (rows[method][verdict["measure"]]["value"] for method in ("scdiva", verdict["against"]))
        assert (verdict["scdiva"], verdict["other"]) == (ours, other)
        margin = 0.01 if group == "classification" else 0
        expected = "level" if abs(ours - other) <= margin else "above" if ours > other else "below"
        assert verdict["verdict"] == expected
        assert ("loses to" in verdict["words"]) == (expected == "below")
        assert f"{ours:.3f}" in verdict["words"]
        seen.add((verdict["measure"], name, verdict["against"]))
    for measure in ("knn_accuracy", "probe_accuracy"):
        assert {(measure, name, "pca") for name in ("blood", "stimulated", "mean")} <= seen
        assert {(measure, "mean", f"untrained_{genes}") for genes in ("svd", "random")} <= seen
    assert {("macro_f1", "mean", "hvg_lr"), ("avg_batch", "both", "pca"), ("avg_bio", "both", "pca")} <= seen
    assert any(verdict["verdict"] == "below" for verdict in result["verdicts"]), "an untrained network loses"


def test_a_second_run_gives_the_same(result: dict[str, Any], small: Small, tmp_path: Path) -> None:
    engine = Engine(small.engine.checkpoint, "cpu", ResultStore(tmp_path))  # nothing kept from the first
    again = evaluate_embedding(engine, small.data, small.corpus, small.studies, sets=["blood"], seeds=2, pools=())
    assert again["classification"]["blood"] == result["classification"]["blood"]
    assert again["annotation"]["blood"] == result["annotation"]["blood"]
    assert set(again["sets"]) == {"blood"}
    assert again["integration"] == again["mixing"] == {}


def test_a_checkpoint_that_names_no_types(small: Small, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small.corpus, names_types=False)
    engine = Engine(checkpoint, "cpu", ResultStore(tmp_path / "store"))
    found = evaluate_embedding(engine, small.data, small.corpus, small.studies, sets=["blood"], seeds=1, pools=())
    assert set(found["annotation"]["blood"]) == {"hvg_lr", "majority"}
    assert "annotation" not in found["sets"]["blood"]
    assert not [verdict for verdict in found["verdicts"] if verdict["group"] == "annotation"]
    assert "This checkpoint names no cell types." in to_markdown(found)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["blood", "moon"], "There are no labels for moon. Choose from: blood, stimulated."),
        (["unlabelled"], "There are no labels for unlabelled"),
    ],
)
def test_sets_that_are_not_known(small: Small, sets: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_embedding(small.engine, small.data, small.corpus, small.studies, sets=sets)


def test_files_that_are_not_there(small: Small, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"These files are not in .*: blood.h5ad, stimulated.h5ad. Give the folder"):
        evaluate_embedding(small.engine, tmp_path, small.corpus, small.studies)
    (tmp_path / "blood.h5ad").symlink_to(small.data / "blood.h5ad")
    with pytest.raises(DataError, match=r"These files are not in .*: stimulated.h5ad."):
        evaluate_embedding(small.engine, tmp_path, small.corpus, small.studies, sets=["blood", "stimulated"])


def test_other_refusals(small: Small, corpus_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seeds is 0. Choose at least 1."):
        evaluate_embedding(small.engine, small.data, small.corpus, small.studies, seeds=0)
    with pytest.raises(DataError, match="do not have the same genes. Prepare the corpus again with --vocabulary"):
        evaluate_embedding(small.engine, small.data, Corpus(corpus_folder), small.studies)
    cells = anndata.read_h5ad(small.data / "stimulated.h5ad")
    cells.obs = cells.obs.rename(columns={"condition": "batch"})
    cells.write_h5ad(tmp_path / "stimulated.h5ad")
    with pytest.raises(DataError, match=r"stimulated.h5ad has no column 'condition' in obs"):
        evaluate_embedding(small.engine, tmp_path, small.corpus, small.studies)
    cells.obs = cells.obs.rename(columns={"batch": "condition"})
    cells.obs["cell_type"] = "NK"
    cells.write_h5ad(tmp_path / "stimulated.h5ad")
    with pytest.raises(DataError, match=r"fewer than two cell types with 3 cells or more. Leave it out with --sets"):
        evaluate_embedding(small.engine, tmp_path, small.corpus, small.studies)
