"""What the latent head reads of many cells: the same as of each alone, thinned on request, standardised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.heads import LatentHead
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.batches import make_batch
from scdiva_core.training.initial import initialise
from scdiva_core.training.states import pooled_states, standardise

CELLS = np.random.default_rng(0).permutation(269)[:70]


@pytest.fixture(scope="module")
def model(labelled: Corpus, labelled_network: ScDiVaConfig) -> ScDiVaModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ScDiVaModel(labelled_network)
    initialise(made, labelled, genes="svd", seed=0)
    return made


@torch.no_grad()
def test_states_are_those_of_each_cell_alone_in_the_order_given(model: ScDiVaModel, labelled: Corpus) -> None:
    model.train()
    states = pooled_states(model, labelled, CELLS, np.random.default_rng(0))
    found = states.pooled
    assert found.shape == (70, 48)
    assert found.dtype == torch.float32
    assert not model.training, "dropout would blur them"
    tokenizer = Tokenizer(labelled.entropy, model.config.max_genes)
    for place in (0, 31, 32, 69):
        alone = make_batch(labelled, tokenizer, CELLS[[place]], np.random.default_rng(0)).tokens
        mu, _ = model.heads["latent"].from_pooled(found[[place]])
        torch.testing.assert_close(mu, model.encode(alone)["mu"], atol=1e-4, rtol=1e-4)
        n = int(alone.lengths[0])
        assert torch.equal(states.tokens.gene_ids[place, :n], alone.gene_ids[0])
        assert torch.equal(states.tokens.values[place, :n], alone.values[0])
        assert not states.tokens.values[place, n:].any()
        assert states.tokens.lengths[place] == n


def test_a_share_of_the_cells_is_thinned(model: ScDiVaModel, labelled: Corpus) -> None:
    def states(share: float, seed: int = 0) -> torch.Tensor:
        return pooled_states(
            model, labelled, CELLS, np.random.default_rng(seed), Augmentation(thinned_share=share)
        ).pooled

    changed = (states(0.5) - states(0.0)).abs().amax(dim=1) > 1e-3
    assert 20 < changed.sum() < 50
    assert torch.equal(states(0.5), states(0.5))
    assert not torch.equal(states(0.5), states(0.5, seed=1))


def test_standardised_states_have_mean_zero_and_deviation_one(labelled_network: ScDiVaConfig) -> None:
    head = LatentHead(labelled_network)
    states = torch.randn(200, 48, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 48) + 7
    states[:, 5] = 3.0
    standardise(head, states)
    standard = (states - head.center) * head.scale
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(48), atol=1e-3, rtol=0)
    varying = torch.arange(48) != 5
    torch.testing.assert_close(standard.std(dim=0)[varying], torch.ones(47))
    assert head.scale[5] == pytest.approx(1000), "what does not vary is not blown up without end"
