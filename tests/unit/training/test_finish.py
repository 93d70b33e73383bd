"""The heads' last lesson: what it trains and what it leaves alone, that it learns, and that it repeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.finish import finish_heads
from scdiva_core.training.genes import variable_genes
from scdiva_core.training.initial import initialise
from scdiva_core.training.losses import LatentObjective
from scdiva_core.training.settings import PretrainSettings
from scdiva_core.training.states import pooled_states

THINNED = Augmentation(thinned_share=0.5)
SHORT = PretrainSettings(finish_cells=60, finish_steps=12)
FLOAT32 = torch.autocast("cpu", torch.bfloat16, enabled=False)
FRESH = tuple(
    f"heads.{name}.{kind}"
    for name in (
        *("latent.mu", "latent.logvar"),
        *("annotation.dense", "annotation.out", "batch_integration.dense", "batch_integration.out"),
    )
    for kind in ("weight", "bias")
)


class Case:
    """A network as training begins with it, and its objective."""

    def __init__(self, corpus: Corpus, config: ScDiVaConfig) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ScDiVaModel(config)
        initialise(self.model, corpus, genes="svd", seed=0)
        self.corpus = corpus
        self.objective = LatentObjective(corpus, variable_genes(corpus, seed=0), 0.05)
        self.log: list[dict[str, Any]] = []
        self.before = self.state()

    def state(self) -> dict[str, torch.Tensor]:
        state = self.model.state_dict() | {"offsets": self.objective.offsets.weight}
        return {name: tensor.detach().clone() for name, tensor in state.items()}

    def finish(self, settings: PretrainSettings, augmentation: Augmentation = THINNED) -> bool:
        parts = self.model, self.corpus, self.objective, settings, augmentation
        return finish_heads(*parts, autocast=FLOAT32, report=self.log.append)

    def changed(self) -> set[str]:
        return {name for name, tensor in self.state().items() if not torch.equal(tensor, self.before[name])}


@pytest.fixture
def case(labelled: Corpus, labelled_network: ScDiVaConfig) -> Case:
    return Case(labelled, labelled_network)


def test_heads_and_their_gene_vectors_are_trained_and_layers_stay_to_the_bit(case: Case) -> None:
    assert case.finish(SHORT) is True
    assert case.changed() == {
        *FRESH,
        *("heads.latent.gene_vectors.weight", "heads.latent.center", "heads.latent.scale", "offsets"),
    }
    assert not case.model.training


def test_heads_are_drawn_anew(labelled: Corpus, labelled_network: ScDiVaConfig) -> None:
    """What they had learnt before does not matter, but for the offsets of the batches."""
    one, two = Case(labelled, labelled_network), Case(labelled, labelled_network)
    with torch.no_grad():
        for name in FRESH:
            two.model.get_parameter(name).normal_()
        for name in ("center", "scale"):
            two.model.get_buffer(f"heads.latent.{name}").normal_()
    one.finish(SHORT)
    two.finish(SHORT)
    assert all(torch.equal(tensor, two.state()[name]) for name, tensor in one.state().items())


def test_what_the_latent_reads_is_standardised(case: Case) -> None:
    """Over cells drawn alike; the sample of them is not the one that is checked."""
    untrained = Case(case.corpus, case.model.config).model
    case.finish(replace(SHORT, finish_cells=1500, finish_steps=1, balance=1.0), Augmentation())
    cells, head = case.corpus.cells("training"), case.model.heads["latent"]
    states = pooled_states(untrained, case.corpus, cells, np.random.default_rng(0)).pooled
    standard = (states - head.center) * head.scale
    assert standard.mean(dim=0).abs().max() < 4 / np.sqrt(1500)
    torch.testing.assert_close(standard.std(dim=0), torch.ones(48), atol=0.15, rtol=0)


def test_the_first_step_scores_the_mean_cell_and_the_last_ones_are_better(case: Case) -> None:
    first = Case(case.corpus, case.model.config)
    first.finish(replace(SHORT, finish_cells=400, finish_steps=1, balance=1.0))
    assert first.log[0]["finish_expression"] == pytest.approx(1.0, abs=0.05)
    case.finish(replace(SHORT, finish_cells=400, finish_steps=200, balance=1.0))
    assert [line["finish_step"] for line in case.log] == [100, 200]
    expression = [first.log[0]["finish_expression"], *(line["finish_expression"] for line in case.log)]
    assert expression == sorted(expression, reverse=True)
    assert expression[-1] < 0.85
    assert case.log[-1]["finish_annotation"] < first.log[0]["finish_annotation"] - 1
    assert set(case.log[0]) == {
        *("finish_expression", "finish_annotation", "finish_kl", "finish_alignment", "finish_step")
    }


def test_two_runs_agree_to_the_bit_and_another_seed_differs(labelled: Corpus, labelled_network: ScDiVaConfig) -> None:
    states, before = [], None
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        case = Case(labelled, labelled_network)
        torch.manual_seed(global_seed)  # the global generator must not matter
        before = torch.get_rng_state()
        case.finish(replace(SHORT, seed=seed))
        assert torch.equal(torch.get_rng_state(), before), "nor is it used"
        states.append(case.state())
    one, two, other = states
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert not torch.allclose(one["heads.latent.mu.weight"], other["heads.latent.mu.weight"], atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 14, 15, 20])
def test_any_number_of_steps_can_be_taken(case: Case, steps: int) -> None:
    case.finish(replace(SHORT, finish_steps=steps))
    assert [line["finish_step"] for line in case.log] == [steps]
    assert np.isfinite(case.log[0]["finish_expression"])


@pytest.mark.parametrize(
    ("network", "steps"),
    [({}, 0), ({"latent_pooling": "anchor"}, 12), ({"heads": ()}, 12)],
    ids=["no steps", "anchor", "no latent"],
)
def test_without_steps_or_tokens_to_read_all_stays_as_it_is(
    labelled: Corpus, labelled_network: ScDiVaConfig, network: dict[str, Any], steps: int
) -> None:
    case = Case(labelled, replace(labelled_network, **network))
    assert case.finish(replace(SHORT, finish_steps=steps)) is False
    assert case.changed() == set()
    assert case.log == []


def test_types_are_learnt_without_a_decoder(labelled: Corpus, labelled_network: ScDiVaConfig) -> None:
    case = Case(labelled, replace(labelled_network, heads=("latent", "annotation")))
    case.finish(replace(SHORT, finish_cells=200, finish_steps=101, expression_weight=0.0))
    assert [line["finish_expression"] for line in case.log] == [0, 0]
    assert case.log[-1]["finish_annotation"] < 1.5, "chance is 2.1"
    assert "offsets" not in case.changed()
