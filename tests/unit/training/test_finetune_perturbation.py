"""Fine-tuning on perturbations: what is learned, what judges, when it ends, and how it goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.engine import Engine
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.store import ResultStore
from scdiva_core.training.finetune_perturbation import (
    finetune_perturbation,
    mark_value,
    perturbation_loss,
    predicted_changes,
)
from scdiva_core.training.finetune_settings import PerturbationSettings
from scdiva_core.training.perturbation_cells import PerturbationCells, marked_rows, read_perturbations
from scdiva_core.training.perturbation_result import PerturbationTuned
from tests.small_perturbations import write_perturbations

QUICK = PerturbationSettings(epochs=3, cells=4, batch_size=8, learning_rate=1e-3, validation_cells=4, seed=1)


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
def tuned(base: ScDiVaModel, cells: PerturbationCells) -> PerturbationTuned:
    return finetune_perturbation(base, cells, settings=QUICK, source={"name": "p.h5ad", "sha256": "abc"})


def weights(model: ScDiVaModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@torch.no_grad()
def change(model: ScDiVaModel, cells: PerturbationCells, name: str) -> np.ndarray:
    controls = cells.expression[cells.control[:16]]
    rows = marked_rows(model, cells.gene_ids, controls, [cells.targets[name]] * 16, 0.0)
    return predicted_changes(model, rows, len(cells.gene_ids)).mean(dim=0).numpy()


def test_it_tells_perturbations_apart_that_it_learned_from(base: ScDiVaModel, cells: PerturbationCells) -> None:
    settings = replace(QUICK, epochs=20, cells=8, learning_rate=1e-2, validation_share=0.0)
    learned = finetune_perturbation(base, cells.only(["ACTB", "B2M", "RPL10", "TMSB4X"]), settings=settings)
    raising, silencing = cells.change("ACTB"), cells.change("RPL10")
    for name, own, other in (("ACTB", raising, silencing), ("RPL10", silencing, raising)):
        predicted = change(learned.model, cells, name)
        assert np.corrcoef(predicted, own)[0, 1] > 0.8
        assert np.corrcoef(predicted, own)[0, 1] > np.corrcoef(predicted, other)[0, 1] + 0.3
    losses = [record["loss"] for record in learned.curve[1:]]
    assert losses[-1] < losses[0]
    assert learned.judged_by == ()
    assert learned.best_epoch == 20
    assert math.isnan(learned.mean_spearman)
    assert "nothing says how well it predicts" in learned.words


def test_the_whole_encoder_moves_and_the_base_does_not(
    base: ScDiVaModel, cells: PerturbationCells, tuned: PerturbationTuned
) -> None:
    before = weights(base)
    again = finetune_perturbation(base, cells, settings=replace(QUICK, validation_share=0.0, epochs=1))
    assert same(before, weights(base))
    after = weights(again.model)
    for name in (
        "gene_embedding.weight",
        "layers.0.attn.q_proj.weight",
        "latent_encoder.0.weight",
        "input_proj.weight",
    ):
        assert name not in before or not torch.equal(before[name], after[name]), name
    assert after["heads.perturbation.pert"].abs().sum() > 0
    assert tuned.model.config.heads == ("perturbation",)
    assert not tuned.model.training


def test_perturbations_are_held_out_and_compared_with_the_mean(
    cells: PerturbationCells, tuned: PerturbationTuned
) -> None:
    assert len(tuned.judged_by) == 2
    record = tuned.model.card["perturbation"]
    assert set(record["trained_on"]) == set(cells.targets) - set(tuned.judged_by)
    assert set(record["judged_by"]) == set(tuned.judged_by)
    scores = [entry["spearman"] for entry in tuned.curve]
    assert scores[tuned.best_epoch] == max(scores)
    assert [entry["epoch"] for entry in tuned.curve] == [0, 1, 2, 3]
    assert [entry["cells_seen"] for entry in tuned.curve] == [0, 24, 48, 72]
    assert tuned.curve[0]["loss"] is None
    verdict = "It beat" if max(scores) > tuned.mean_spearman else "It did not beat"
    assert tuned.words.startswith(verdict)
    assert f"{max(scores):.3f}" in tuned.words
    assert f"{tuned.mean_spearman:.3f}" in tuned.words


def test_the_checkpoint_opens_and_its_card_says_where_it_comes_from(
    base: ScDiVaModel, cells: PerturbationCells, tuned: PerturbationTuned, tmp_path: Path, small_h5ad: Path
) -> None:
    folder = tuned.save(tmp_path / "made")
    engine = Engine(folder, "cpu", ResultStore(tmp_path / "results"))
    assert same(weights(engine.model), weights(tuned.model))
    assert engine.card().name == "tiny, fine-tuned on p"
    assert engine.card().provisional
    assert tuned.words in engine.card().description
    record = engine.model.card["perturbation"]
    assert record["base"] == {"name": "tiny", "sha256": base.sha256}
    assert record["data"] == {"name": "p.h5ad", "sha256": "abc", "n_cells": 220, "control_cells": 60}
    assert record["left_out"] == {"RPL5": "3 cells; a perturbation needs 10"}
    assert [engine.vocabulary.tokens.index(gene) for gene in record["genes"]] == cells.gene_ids.tolist()
    with engine.open(small_h5ad) as dataset:
        assert engine.embed(dataset).shape == (160, 32)
    with pytest.raises(CheckpointError, match="holds files already"):
        tuned.save(folder)


def test_one_seed_gives_one_result(base: ScDiVaModel, cells: PerturbationCells, tuned: PerturbationTuned) -> None:
    again = finetune_perturbation(base, cells, settings=QUICK)
    assert same(weights(again.model), weights(tuned.model))
    other = finetune_perturbation(base, cells, settings=replace(QUICK, seed=2))
    assert [entry["spearman"] for entry in other.curve] != [entry["spearman"] for entry in tuned.curve]


class Killed(BaseException):
    """The process ends here."""


def test_a_killed_run_goes_on_to_the_same_result(
    base: ScDiVaModel, cells: PerturbationCells, tuned: PerturbationTuned, tmp_path: Path
) -> None:
    state, seen = tmp_path / "run.pt", []

    def progress(_: int, __: int, message: str) -> None:
        if message == "Fine-tuning, pass 3":
            raise Killed

    source = {"name": "p.h5ad", "sha256": "abc"}
    with pytest.raises(Killed):
        finetune_perturbation(base, cells, settings=QUICK, state=state, progress=progress, source=source)
    done = finetune_perturbation(base, cells, settings=QUICK, state=state, report=seen.append, source=source)
    assert [entry["epoch"] for entry in seen] == [3], "the passes before were kept"
    assert same(weights(done.model), weights(tuned.model))
    with pytest.raises(CheckpointError, match="of a run on other data"):
        finetune_perturbation(base, cells, settings=replace(QUICK, seed=9), state=state)
    state.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        finetune_perturbation(base, cells, settings=QUICK, state=state)


def test_cancelling_keeps_the_best_so_far(base: ScDiVaModel, cells: PerturbationCells) -> None:
    seen: list[dict[str, Any]] = []
    done = finetune_perturbation(base, cells, settings=QUICK, report=seen.append, cancelled=lambda: len(seen) == 2)
    assert done.stopped == "cancelled"
    assert list(done.curve) == seen
    assert "It was stopped" in done.words
    with pytest.raises(Cancelled):
        finetune_perturbation(base, cells, settings=QUICK, cancelled=lambda: True)


def test_patience_and_time_end_it(base: ScDiVaModel, cells: PerturbationCells) -> None:
    ruinous = replace(QUICK, epochs=30, patience=2, learning_rate=30.0, head_learning_rate=1e-9, clip=1e6)
    done = finetune_perturbation(base, cells, settings=ruinous)
    assert done.stopped == "patience"
    assert len(done.curve) == done.best_epoch + 3
    short = finetune_perturbation(base, cells, settings=replace(QUICK, minutes=1e-9, epochs=1000))
    assert short.stopped == "budget"
    assert len(short.curve) == 1


def test_the_loss_of_a_prediction_worked_out_by_hand() -> None:
    truth, changed = torch.tensor([[2.0, 0.0]]), torch.tensor([[True, False]])
    settings = PerturbationSettings(changed_weight=4.0, ranking_weight=0.5)
    nothing = perturbation_loss(torch.zeros(1, 2), truth, changed, settings)
    assert float(nothing) == pytest.approx(1 + 0.5)
    # Squares: 4 x (1 - 2)^2 + 3^2 = 13 over 4 x 2^2 = 16; margin (3 - 1) / sqrt(2).
    wrong = perturbation_loss(torch.tensor([[1.0, 3.0]]), truth, changed, settings)
    assert float(wrong) == pytest.approx(13 / 16 + 0.5 * math.log1p(math.exp(2 / math.sqrt(2))) / math.log(2))
    # Down instead of up costs rank even where the size is right.
    down = perturbation_loss(torch.tensor([[-2.0, 0.0]]), truth, changed, settings)
    assert float(down) == pytest.approx(4 + 0.5 * math.log1p(math.exp(2 / math.sqrt(2))) / math.log(2))
    alike = perturbation_loss(torch.tensor([[1.0, 0.0]]), truth, torch.tensor([[True, True]]), settings)
    assert float(alike) == pytest.approx(0.25), "without genes that did not change there is nothing to rank"


def test_the_value_of_a_perturbed_gene(cells: PerturbationCells) -> None:
    assert mark_value(cells) == 0.0
    value = mark_value(replace(cells, kind="activation"))
    expressed = cells.expression[cells.control]
    assert (expressed[expressed > 0] > value).mean() == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"ranking_weight": -1.0}, r"ranking_weight is -1\.0"),
        ({"validation_share": 1.0}, r"validation_share is 1\.0"),
        ({"minutes": 0.0}, "The budget is 0 minutes"),
    ],
)
def test_settings_that_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PerturbationSettings(**changed)
