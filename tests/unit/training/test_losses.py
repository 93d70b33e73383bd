"""The terms that read the latent, each against its formula or by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.initial import initialise
from scdiva_core.training.losses import LatentLosses, LatentObjective, fitted_temperature

B_CELL, T_CELL, MEGAKARYOCYTE, CD4_T, MONOCYTE = (
    "CL:0000236",
    "CL:0000084",
    "CL:0000556",
    "CL:0000624",
    "CL:0000860",
)
PROBABILITIES = [0.5, 0.2, 0.1, 0.06, 0.05, 0.04, 0.03, 0.02]
"""Of B, dendritic, NK, CD8 T, CD14 monocyte, CD16 monocyte, CD4 naive and CD4 memory T cell, for every latent."""


@pytest.fixture
def model(labelled_network: ScDiVaConfig) -> ScDiVaModel:
    """Its annotation head says `PROBABILITIES` of every cell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ScDiVaModel(labelled_network)
    with torch.no_grad():
        made.heads["annotation"].out.weight.zero_()
        made.heads["annotation"].out.bias.copy_(torch.tensor(PROBABILITIES).log() + 3.0)
    return made.eval()


def objective_of(corpus: Corpus, smoothing: float = 0.0) -> LatentObjective:
    """An objective to which every third gene is variable."""
    return LatentObjective(corpus, np.arange(5, len(corpus.vocabulary), 3), smoothing)


def score(model: ScDiVaModel, objective: LatentObjective, n: int, **given: Any) -> LatentLosses:
    """Score ``n`` latents of 0 of unlabelled cells without any expression, except for what is given."""
    defaults = {
        "mu": torch.zeros(n, 8),
        "logvar": torch.zeros(n, 8),
        "expression": torch.zeros(n, model.config.vocab_size),
        "labels": torch.full((n,), -1),
        "batch_of": torch.zeros(n, dtype=torch.long),
        "importance": torch.ones(n),
    } | given
    return objective(model, defaults.pop("mu"), defaults.pop("logvar"), **defaults)


def annotation(
    model: ScDiVaModel,
    corpus: Corpus,
    labels: list[str | None],
    importance: list[float] | None = None,
    smoothing: float = 0.0,
) -> float:
    numbers = torch.tensor([-1 if label is None else corpus.label_ids.index(label) for label in labels])
    weights = torch.ones(len(labels)) if importance is None else torch.tensor(importance)
    found = score(model, objective_of(corpus, smoothing), len(labels), labels=numbers, importance=weights)
    return found.annotation.item()


def expression_of(corpus: Corpus, cells: np.ndarray) -> torch.Tensor:
    rows = corpus.take(cells)
    return rows.sparse(rows.log1p(), len(corpus.vocabulary)).to_dense()


def test_a_final_label_costs_its_class_s_surprise(model: ScDiVaModel, labelled: Corpus) -> None:
    assert annotation(model, labelled, [B_CELL]) == pytest.approx(-np.log(0.5), rel=1e-5)
    assert annotation(model, labelled, [MONOCYTE]) == pytest.approx(-np.log(0.05), rel=1e-5)


def test_a_coarse_label_costs_the_surprise_of_all_classes_below_it_together(
    model: ScDiVaModel, labelled: Corpus
) -> None:
    assert annotation(model, labelled, [CD4_T]) == pytest.approx(-np.log(0.03 + 0.02), rel=1e-5)
    assert annotation(model, labelled, [T_CELL]) == pytest.approx(-np.log(0.06 + 0.03 + 0.02), rel=1e-5)


def test_a_coarse_label_does_not_choose_among_its_classes(model: ScDiVaModel, labelled: Corpus) -> None:
    """All of its classes gain in proportion to what they have, all others lose."""
    objective = objective_of(labelled)
    losses = score(model, objective, 1, labels=torch.tensor([labelled.label_ids.index(T_CELL)]))
    losses.annotation.backward()
    p, below = np.array(PROBABILITIES), np.array([3, 6, 7])
    expected = p.copy()
    expected[below] -= p[below] / p[below].sum()
    np.testing.assert_allclose(model.heads["annotation"].out.bias.grad, expected, atol=1e-6)


def test_label_smoothing_keeps_a_share_for_all_classes_alike(model: ScDiVaModel, labelled: Corpus) -> None:
    rest = np.mean(np.log(PROBABILITIES))
    expected = -(0.9 * np.log(0.5) + 0.1 * rest)
    assert annotation(model, labelled, [B_CELL], smoothing=0.1) == pytest.approx(expected, rel=1e-5)
    expected = -(0.8 * np.log(0.05) + 0.2 * rest)
    assert annotation(model, labelled, [CD4_T], smoothing=0.2) == pytest.approx(expected, rel=1e-5)


def test_cells_without_a_usable_label_do_not_count(model: ScDiVaModel, labelled: Corpus) -> None:
    """Without a label, or with one that is no class for want of cells."""
    alone = annotation(model, labelled, [B_CELL, T_CELL], smoothing=0.05)
    others = [None, B_CELL, MEGAKARYOCYTE, T_CELL, None]
    assert annotation(model, labelled, others, smoothing=0.05) == pytest.approx(alone, rel=1e-5)


def test_importance_weighs_labelled_cells(model: ScDiVaModel, labelled: Corpus) -> None:
    found = annotation(model, labelled, [B_CELL, CD4_T, None], importance=[0.9, 0.3, 7.0])
    assert found == pytest.approx(-(3 * np.log(0.5) + np.log(0.05)) / 4, rel=1e-5)


@pytest.mark.parametrize("labels", [[None, None], [MEGAKARYOCYTE]])
def test_without_any_usable_label_annotation_costs_nothing(
    model: ScDiVaModel, labelled: Corpus, labels: list[str | None]
) -> None:
    assert annotation(model, labelled, labels) == 0


def test_without_labels_or_the_head_annotation_costs_nothing(
    corpus: Corpus, labelled: Corpus, tiny_model: Callable[..., ScDiVaModel]
) -> None:
    with_head = tiny_model(len(corpus.vocabulary), heads=("latent", "annotation", "batch_integration"))
    assert score(with_head, objective_of(corpus, 0.1), 3).annotation == 0
    without_head = tiny_model(len(labelled.vocabulary), heads=("latent", "batch_integration"))
    known = torch.tensor([labelled.label_ids.index(B_CELL)] * 3)
    assert score(without_head, objective_of(labelled, 0.1), 3, labels=known).annotation == 0


def test_the_mean_cell_scores_one(model: ScDiVaModel, labelled: Corpus) -> None:
    """A fresh decoder gives the mean of the training cells."""
    initialise(model, labelled, genes="random", seed=0)
    cells = labelled.cells("training")
    losses = score(model, objective_of(labelled), len(cells), expression=expression_of(labelled, cells))
    assert losses.expression.item() == pytest.approx(1.0, rel=1e-3)


def test_expression_is_standardised_by_gene_and_weighed_by_gene_and_cell(model: ScDiVaModel, labelled: Corpus) -> None:
    cells = np.array([0, 100, 200])
    objective = objective_of(labelled)
    with torch.no_grad():
        objective.offsets.weight.normal_(generator=torch.Generator().manual_seed(1))
    given = {
        "mu": torch.randn(3, 8, generator=torch.Generator().manual_seed(2)),
        "expression": expression_of(labelled, cells),
        "batch_of": torch.tensor([0, 1, 2]),
        "importance": torch.tensor([0.2, 0.4, 0.9]),
    }
    found = score(model, objective, 3, **given).expression.item()
    decoded = model.heads["batch_integration"](given["mu"]).detach().double().numpy()
    decoded += objective.offsets.weight.detach().double().numpy()
    weight = np.array([1.0 if gene >= 5 and gene % 3 == 2 else 0.1 for gene in range(len(labelled.vocabulary))])
    deviation = np.maximum(labelled.gene_std.astype(float), 0.1)
    errors = (weight * ((decoded - given["expression"].double().numpy()) / deviation) ** 2).sum(axis=1)
    of_mean_cell = (weight * (labelled.gene_std / deviation) ** 2).sum()
    assert found == pytest.approx(np.average(errors / of_mean_cell, weights=[2, 4, 9]), rel=1e-4)


def test_an_error_counts_ten_times_where_the_gene_is_variable(model: ScDiVaModel, labelled: Corpus) -> None:
    with torch.no_grad():
        model.heads["batch_integration"].out.weight.zero_()
    objective = objective_of(labelled)
    often = np.flatnonzero(labelled.gene_std > 0.3)
    variable, other = often[often % 3 == 2][0], often[often % 3 == 0][0]

    def rise(gene: int) -> float:
        wrong = torch.zeros(1, len(labelled.vocabulary))
        wrong[0, gene] = 2 * labelled.gene_std[gene].item()
        return score(model, objective, 1, expression=wrong).expression.item()

    assert rise(variable) == pytest.approx(10 * rise(other), rel=1e-3)


def test_without_a_decoder_expression_costs_nothing(tiny_model: Callable[..., ScDiVaModel], labelled: Corpus) -> None:
    without = tiny_model(len(labelled.vocabulary), heads=("latent", "annotation"), num_cell_types=8)
    known = torch.tensor([labelled.label_ids.index(B_CELL)] * 3)
    losses = score(without, objective_of(labelled), 3, labels=known)
    assert losses.expression == 0
    assert losses.annotation > 0


def test_only_the_offsets_of_batches_that_are_there_learn(model: ScDiVaModel, labelled: Corpus) -> None:
    objective = objective_of(labelled)
    assert objective.offsets.weight.shape == (3, len(labelled.vocabulary))
    assert not objective.offsets.weight.any(), "none until they are learnt"
    cells = np.array([0, 200])
    given = {"expression": expression_of(labelled, cells), "batch_of": torch.tensor([0, 2])}
    score(model, objective, 2, **given).expression.backward()
    assert objective.offsets.weight.grad.any(dim=1).tolist() == [True, False, True]


def test_divergence_from_a_standard_normal_by_hand(model: ScDiVaModel, labelled: Corpus) -> None:
    mu, logvar = torch.zeros(2, 8), torch.zeros(2, 8)
    mu[0, 0], logvar[1, 3] = 2.0, np.log(4.0)
    found = score(model, objective_of(labelled), 2, mu=mu, logvar=logvar).divergence.item()
    assert found == pytest.approx((0.5 * 2**2 + 0.5 * (4 - 1 - np.log(4))) / 2, rel=1e-5)


class Studies:
    """Latents of two types in two studies, and how far apart the loss says they are."""

    def __init__(self, corpus: Corpus, model: ScDiVaModel) -> None:
        self.corpus, self.model = corpus, model
        kang, pbmc = (int(corpus.batch_of[corpus.dataset_of == study][0]) for study in (0, 1))
        self.batch_of = torch.tensor([kang] * 4 + [pbmc] * 4 + [kang] * 3 + [pbmc] * 3)
        self.types = [B_CELL] * 8 + [MONOCYTE] * 6
        self.mu = torch.randn(14, 8, generator=torch.Generator().manual_seed(3))

    def alignment(self, mu: torch.Tensor | None = None, types: list[str | None] | None = None) -> torch.Tensor:
        ids = self.corpus.label_ids
        labels = torch.tensor([-1 if name is None else ids.index(name) for name in types or self.types])
        given = {"mu": self.mu if mu is None else mu, "labels": labels, "batch_of": self.batch_of}
        return score(self.model, objective_of(self.corpus), len(labels), **given).alignment


@pytest.fixture
def studies(labelled: Corpus, model: ScDiVaModel) -> Studies:
    return Studies(labelled, model)


def test_alignment_by_hand(studies: Studies) -> None:
    """Squared distance of a type's means in two studies, over its spread within them, each cell alike."""
    x = studies.mu.double().numpy()
    groups = [x[:4], x[4:8], x[8:11], x[11:]]
    apart = [((groups[i].mean(axis=0) - groups[j].mean(axis=0)) ** 2).sum() for i, j in ((0, 1), (2, 3))]
    spread = np.concatenate([((group - group.mean(axis=0)) ** 2).sum(axis=1) for group in groups]).mean()
    expected = (8 * apart[0] + 6 * apart[1]) / 14 / spread
    assert studies.alignment().item() == pytest.approx(expected, rel=1e-5)


def test_alignment_brings_a_type_s_studies_together_without_widening_it(studies: Studies) -> None:
    mu = studies.mu.clone().requires_grad_()
    studies.alignment(mu).backward()
    inside = mu.grad[:4] - mu.grad[:4].mean(dim=0)
    assert inside.abs().max() < 1e-6, "cells of one type and study move together"
    stepped = studies.mu - 0.5 * mu.grad
    assert studies.alignment(stepped) < studies.alignment()


def test_cells_of_other_types_and_of_none_are_not_aligned(studies: Studies) -> None:
    one_study = [B_CELL] * 4 + [MONOCYTE] * 4 + [None] * 6
    assert studies.alignment(types=one_study) == 0
    assert studies.alignment(types=[MEGAKARYOCYTE] * 14) == 0, "no class"
    alone = [B_CELL] * 8 + [None] * 6
    far = studies.mu.clone()
    far[8:] += 100
    assert studies.alignment(types=alone) == studies.alignment(far, types=alone)


def test_a_coarse_type_is_aligned_with_those_below_it(studies: Studies) -> None:
    finer = "CL:0000625"  # a CD8 T cell is a T cell
    assert studies.alignment(types=[T_CELL] * 4 + [finer] * 4 + [None] * 6) > 0
    assert studies.alignment(types=[CD4_T] * 4 + [finer] * 4 + [None] * 6) == 0


def test_few_cells_of_a_type_are_not_aligned(studies: Studies) -> None:
    few = [B_CELL] * 2 + [None] * 2 + [B_CELL] * 2 + [None] * 8
    assert studies.alignment(types=few) == 0


def test_without_labels_nothing_is_aligned(corpus: Corpus, tiny_model: Callable[..., ScDiVaModel]) -> None:
    unlabelled = tiny_model(len(corpus.vocabulary), heads=("latent", "annotation", "batch_integration"))
    assert score(unlabelled, objective_of(corpus), 9).alignment == 0


def test_the_latent_is_drawn_in_training_only(model: ScDiVaModel, labelled: Corpus) -> None:
    objective = objective_of(labelled)

    def expression(logvar: float) -> float:
        return score(model, objective, 4, logvar=torch.full((4, 8), logvar)).expression.item()

    assert expression(0.0) == expression(0.0) == expression(-10.0)
    fixed = expression(0.0)
    model.train()
    assert expression(0.0) != expression(0.0)
    assert abs(expression(-10.0) - fixed) < 0.1 * abs(expression(2.0) - fixed), "less noise the smaller its variance"


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(20_000, 6, generator=generator)
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator)[:, 0]
    found = fitted_temperature(honest * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    halved = fitted_temperature(honest * temperature / 2, labels)
    assert halved == pytest.approx(found / 2, rel=1e-3)


def test_a_temperature_stays_between_a_quarter_and_four() -> None:
    labels = torch.arange(8) % 4
    right = torch.nn.functional.one_hot(labels, 4).float()
    assert fitted_temperature(right, labels) == 0.25, "all right: never sure enough"
    assert fitted_temperature(-9 * right, labels) == 4, "all wrong: always too sure"
