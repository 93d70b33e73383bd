"""Splits by perturbation, and fine-tuning judged beside its baselines."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core.baselines.perturbation import BASELINES
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.evaluation.perturbation_finetuned import (
    MEASURES,
    FinetunedEvaluation,
    evaluate_finetuned,
    group_of,
    split_perturbations,
)
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_settings import PerturbationSettings
from scdiva_core.training.perturbation_cells import PerturbationCells, read_perturbations
from tests.small_perturbations import DOUBLES, SINGLES, write_perturbations

QUICK = PerturbationSettings(epochs=1, cells=2, batch_size=8, validation_share=0.0)
NAMES = ["A", "B", "C", "D", "E", "A+B", "B+X", "X+Y"]


@pytest.fixture(scope="module")
def cells(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path_factory: pytest.TempPathFactory
) -> PerturbationCells:
    path = write_perturbations(tmp_path_factory.mktemp("perturbed") / "p.h5ad", list(small_cells.var_names))
    with open_h5ad(path, small_vocabulary) as dataset:
        names, options = dataset.obs["perturbation"], {"control": "ctrl", "kind": "knockout", "max_genes": 64}
        return read_perturbations(dataset, small_vocabulary, names, **options)


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path) -> ScDiVaModel:
    return load_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def found(base: ScDiVaModel, cells: PerturbationCells, folder: Path) -> FinetunedEvaluation:
    return evaluate_finetuned(base, cells, folder, settings=QUICK, folds=2)


@pytest.mark.parametrize("seed", range(5))
def test_every_perturbation_is_held_out_once_and_its_genes_with_it(seed: int) -> None:
    parts = split_perturbations(NAMES, folds=5, seed=seed)
    assert sorted(name for fold in parts for name in fold.test) == sorted(NAMES)
    for fold in parts:
        assert not set(fold.train) & set(fold.test)
        unseen = {name for name in fold.test if "+" not in name}
        assert not any(unseen & set(name.split("+")) for name in fold.train)
        groups = {name: group_of(name, fold.train) for name in fold.test}
        expected = {"A+B": "double, 2 seen", "B+X": "double, 1 seen", "X+Y": "double, 0 seen"}
        assert groups == {name: expected.get(name, "single") for name in fold.test}


def test_folds_of_few_perturbations() -> None:
    assert len(split_perturbations(["A", "B", "C"], folds=5)) == 3
    assert len(split_perturbations(NAMES, folds=2)) == 2
    with pytest.raises(DataError, match="There are 1 single perturbations"):
        split_perturbations(["A", "A+B"])


def test_every_method_is_scored_on_every_perturbation(found: FinetunedEvaluation) -> None:
    scores = found.scores
    assert sorted(scores["perturbation"].unique()) == sorted([*SINGLES, *DOUBLES])
    assert (scores.groupby("perturbation")["method"].nunique() == 1 + len(BASELINES)).all()
    assert len(scores) == 8 * (1 + len(BASELINES))
    table = scores.set_index(["perturbation", "method"])
    assert table.loc[("RPL10", "scdiva"), "group"] == "single"
    assert table.loc[("RPL10", "scdiva"), "n_changed"] >= 5
    # No change: its squared error is the size of the change, its signs are a coin's.
    assert (scores.loc[scores["method"] == "no_change", "sign_accuracy"].dropna() == 0.5).all()
    doubles = scores[(scores["group"] == "double, 2 seen") & (scores["method"] == "additive")]
    assert (doubles["pearson_delta"] > 0.5).all()
    assert len(found.trainings) == 2
    assert {"passes": 1, "best_epoch": 1, "stopped": "rounds"}.items() <= found.trainings[0].items()


def test_a_stopped_run_goes_on(
    base: ScDiVaModel, cells: PerturbationCells, folder: Path, found: FinetunedEvaluation, tmp_path: Path
) -> None:
    lines: list[str] = []
    again = evaluate_finetuned(base, cells, folder, settings=QUICK, folds=2, report=lines.append)
    pd.testing.assert_frame_equal(again.scores, found.scores)
    assert not any("to learn from" in line for line in lines), "nothing was trained"
    with pytest.raises(Cancelled):
        evaluate_finetuned(base, cells, tmp_path, settings=QUICK, folds=2, cancelled=lambda: len(lines) > 0)
    assert not list(tmp_path.glob("*.json"))
    lines.clear()

    def after_one() -> bool:
        return sum("passes" in line for line in lines) == 1

    with pytest.raises(Cancelled):
        evaluate_finetuned(base, cells, tmp_path, settings=QUICK, folds=2, cancelled=after_one, report=lines.append)
    assert len(list(tmp_path.glob("*.json"))) == 1
    finished = evaluate_finetuned(base, cells, tmp_path, settings=QUICK, folds=2)
    pd.testing.assert_frame_equal(finished.scores, found.scores)


def hand_made(values: dict[str, list[float]], measure: str) -> FinetunedEvaluation:
    """Scores of one measure, NaN for all methods and measures that are not given."""
    rows = []
    for method in ("scdiva", *BASELINES):
        for number, value in enumerate(values.get(method, [np.nan] * 4)):
            scores = dict.fromkeys(MEASURES, np.nan) | {measure: value}
            rows.append({"perturbation": f"p{number}", "group": "single", "method": method, **scores})
    return FinetunedEvaluation(pd.DataFrame(rows), [])


def test_words_and_table_say_who_is_better() -> None:
    made = hand_made(
        {"scdiva": [0.5, 0.6, 0.7, np.nan], "mean": [0.1, 0.2, 0.1, 0.9], "additive": [0.8, 0.9, 0.9, 0.9],
         "random": [0.4, 0.7, 0.7, 0.0]},
        "pearson_delta",
    )  # fmt: skip
    mean, low, high, number = made.comparison("pearson_delta", "mean")
    assert mean == pytest.approx((0.4 + 0.4 + 0.6) / 3)
    assert low == pytest.approx(0.4)
    assert mean <= high <= 0.6 + 1e-9
    assert number == 3
    lines = made.words.splitlines()
    assert lines[0] == "single, pearson_delta (3 perturbations): beats mean; is level with random; loses to additive."
    assert lines[1] == "single, de_mse: nothing to compare."
    assert len(lines) == len(MEASURES), "of several genes there is nothing to say"
    assert made.summary().loc[("single", "scdiva"), "pearson_delta"] == pytest.approx(0.6)
    assert made.summary().index.get_level_values("method").tolist() == ["scdiva", *BASELINES]
    row = made.to_markdown().splitlines()[2]
    assert row == "| single | 4 | scdiva | 0.600 | - | - | - | - | - | - | - |"


def test_less_error_is_better() -> None:
    made = hand_made({"scdiva": [1.0, 1.0], "mean": [2.0, 3.0]}, "de_mse")
    assert made.comparison("de_mse", "mean")[0] == pytest.approx(1.5)
    assert "de_mse (2 perturbations): beats mean." in made.words


def test_singles_and_doubles_are_compared_apart() -> None:
    made = hand_made({"scdiva": [0.5, 0.6, 0.1, 0.2], "mean": [0.1, 0.2, 0.5, 0.7]}, "hit_rate")
    made.scores.loc[made.scores["perturbation"].isin(["p2", "p3"]), "group"] = "double, 1 seen"
    assert "single, hit_rate (2 perturbations): beats mean." in made.words
    assert "several genes, hit_rate (2 perturbations): loses to mean." in made.words
