"""What a network starts from: gene vectors of the corpus or random ones, and the mean cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.genes import gene_vectors
from scdiva_core.training.initial import initialise
from scdiva_core.training.states import pooled_states


def scaled_loadings(corpus: Corpus, seed: int) -> torch.Tensor:
    """Loadings with unit deviation over the genes that are seen."""
    found = gene_vectors(corpus, 16, seed=seed).loadings
    return found / found[found.any(dim=1)].std(dim=0)


def made(config: ScDiVaConfig) -> ScDiVaModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ScDiVaModel(config)


@pytest.fixture
def fresh(labelled_network: ScDiVaConfig) -> ScDiVaModel:
    return made(labelled_network)


GENES = ("gene_embedding.weight", "gene_head.weight", "heads.latent.gene_vectors.weight")


def test_random_genes_stay_as_the_constructor_drew_them(labelled: Corpus, fresh: ScDiVaModel) -> None:
    before = {name: fresh.get_parameter(name).clone() for name in GENES}
    initialise(fresh, labelled, genes="random", seed=0)
    for name, weight in before.items():
        assert torch.equal(fresh.get_parameter(name), weight), name


def test_genes_start_from_their_loadings_less_the_mean_in_a_cell(labelled: Corpus, fresh: ScDiVaModel) -> None:
    initialise(fresh, labelled, genes="svd", seed=3)
    loadings = scaled_loadings(labelled, seed=3)
    seen, found = loadings.any(dim=1), fresh.gene_embedding.weight.detach()
    shift = (found - loadings)[seen]
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-4, rtol=0)
    mean_cell = torch.from_numpy(labelled.gene_mean) @ found
    torch.testing.assert_close(mean_cell / labelled.gene_mean.sum(), torch.zeros(16), atol=1e-4, rtol=0)
    assert (~seen).sum() >= 5, "the reserved tokens at least"
    assert not found[~seen].any(), "padding stays 0"
    torch.testing.assert_close(fresh.gene_head.weight.detach(), 0.02 * loadings)


def test_the_latent_starts_from_principal_components(labelled: Corpus, fresh: ScDiVaModel) -> None:
    initialise(fresh, labelled, genes="svd", seed=3)
    expected = gene_vectors(labelled, 16, seed=3).projection
    assert torch.equal(fresh.heads["latent"].gene_vectors.weight, expected)


@torch.no_grad()
@pytest.mark.parametrize("genes", ["svd", "random"])
def test_what_the_latent_reads_starts_standardised(labelled: Corpus, fresh: ScDiVaModel, genes: str) -> None:
    """Whatever the scale of the three vectors; checked on all cells, set from a sample of thinned ones."""
    initialise(fresh, labelled, genes=genes, seed=0)
    head = fresh.heads["latent"]
    thinned = Augmentation(thinned_share=0.5)
    states = pooled_states(fresh, labelled, np.arange(len(labelled)), np.random.default_rng(1), thinned).pooled
    standard = (states - head.center) * head.scale
    assert standard.mean(dim=0).abs().max() < 0.6
    assert 0.6 < standard.std(dim=0).min() < standard.std(dim=0).max() < 1.6
    spread = states.std(dim=0)
    assert spread.max() > 3 * spread.min(), "it was not so before"


@torch.no_grad()
@pytest.mark.parametrize("genes", ["svd", "random"])
def test_the_decoder_starts_from_the_mean_cell(labelled: Corpus, fresh: ScDiVaModel, genes: str) -> None:
    initialise(fresh, labelled, genes=genes, seed=0)
    decoded = fresh.heads["batch_integration"](torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(decoded, torch.from_numpy(labelled.gene_mean).expand(2, -1))


@pytest.mark.parametrize("changes", [{"heads": ()}, {"latent_pooling": "anchor"}])
def test_a_network_without_decoder_or_tokens_to_read_is_initialised_too(
    labelled: Corpus, labelled_network: ScDiVaConfig, changes: dict
) -> None:
    plain = made(replace(labelled_network, **changes))
    initialise(plain, labelled, genes="svd", seed=0)
    torch.testing.assert_close(plain.gene_head.weight.detach(), 0.02 * scaled_loadings(labelled, seed=0))


def test_one_seed_one_start(labelled: Corpus, labelled_network: ScDiVaConfig) -> None:
    states = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        model = made(labelled_network)
        torch.manual_seed(global_seed)  # the global generator must not matter
        initialise(model, labelled, genes="svd", seed=seed)
        states.append(model.state_dict())
    one, two, other = states
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.allclose(one["heads.latent.center"], other["heads.latent.center"], atol=1e-3)
