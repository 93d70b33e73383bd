"""The optional heads, above all what the latent reads and the sign of the reversed gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from scdiva_core.model.config import HEADS
from scdiva_core.model.heads import LatentHead, build_heads
from scdiva_core.model.network import ScDiVaModel


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.0])
def test_discriminator_reverses_and_scales_the_gradient(tiny_config: Callable, strength: float) -> None:
    torch.manual_seed(0)
    head = build_heads(tiny_config(heads=("latent", "batch_discriminator")))["batch_discriminator"]
    latent = torch.randn(5, 8, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 1])
    plain = F.cross_entropy(head.classifier(latent), labels)
    (expected,) = torch.autograd.grad(plain, latent)
    reversed_ = F.cross_entropy(head(latent, strength), labels)
    (found,) = torch.autograd.grad(reversed_, latent)
    torch.testing.assert_close(reversed_, plain)
    torch.testing.assert_close(found, -strength * expected)
    assert expected.abs().max() > 1e-4


def test_the_classifier_itself_still_learns_to_tell_batches(tiny_config: Callable) -> None:
    torch.manual_seed(0)
    head = build_heads(tiny_config(heads=("latent", "batch_discriminator")))["batch_discriminator"]
    latent, labels = torch.randn(5, 8), torch.tensor([0, 1, 0, 1, 1])
    weights = list(head.parameters())
    with_reversal = torch.autograd.grad(F.cross_entropy(head(latent, 1.0), labels), weights)
    without = torch.autograd.grad(F.cross_entropy(head.classifier(latent), labels), weights)
    for one, two in zip(with_reversal, without, strict=True):
        torch.testing.assert_close(one, two)


def test_a_step_along_the_reversed_gradient_confuses_the_discriminator(tiny_config: Callable) -> None:
    torch.manual_seed(0)
    head = build_heads(tiny_config(heads=("latent", "batch_discriminator")))["batch_discriminator"]
    latent = torch.randn(32, 8, requires_grad=True)
    labels = torch.arange(32) % 2
    loss = F.cross_entropy(head(latent, 1.0), labels)
    (gradient,) = torch.autograd.grad(loss, latent)
    assert F.cross_entropy(head(latent - 5.0 * gradient, 1.0), labels) > loss


@pytest.fixture
def latent_head(tiny_config: Callable) -> Callable[[str], LatentHead]:
    """Make a latent head of random weights for states of 32 numbers, with a centre and a scale where it has them."""

    def make(pooling: str) -> LatentHead:
        head = LatentHead(tiny_config(heads=("latent",), latent_pooling=pooling))
        with torch.no_grad():
            for seed, (name, tensor) in enumerate(head.state_dict().items()):
                tensor.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
                if name == "scale":
                    tensor.exp_()
        return head

    return make


HIDDEN = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
GENES = torch.tensor([[7, 21, 58, 9, 30], [40, 7, 11, 12, 59]])
VALUES = torch.tensor([[1.0, 2.0, 0.5, 3.0, 4.0], [0.25, 5.0, 1.5, 6.0, 2.0]])
READ = torch.tensor([[True, True, True, False, False], [True, False, True, False, True]])
CELLS = (HIDDEN, GENES, VALUES, READ)


def test_log_variance_is_clamped_so_that_exp_stays_finite(latent_head: Callable) -> None:
    for pooling in ("anchor", "anchor+tokens"):
        for sign in (1, -1):
            mu, logvar = latent_head(pooling)(sign * 1e6 * HIDDEN, GENES, VALUES, READ)
            assert mu.shape == logvar.shape == (2, 8)
            assert (logvar.min(), logvar.max()) == (-10, 4)


@pytest.mark.parametrize("pooling", ["anchor", "anchor+tokens"])
def test_a_fresh_latent_has_little_noise(tiny_config: Callable, pooling: str) -> None:
    model = ScDiVaModel(tiny_config(heads=("latent",), latent_pooling=pooling))
    _, logvar = model.heads["latent"](*CELLS)
    torch.testing.assert_close((0.5 * logvar).exp(), torch.full((2, 8), 0.0498), atol=1e-4, rtol=0)


def test_a_latent_of_the_anchor_reads_nothing_else(latent_head: Callable) -> None:
    head = latent_head("anchor")
    other = HIDDEN.clone()
    other[:, 1:] += 5
    for one, two in zip(head(*CELLS), head(other, GENES + 1, VALUES * 2, ~READ), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(head.pooled(*CELLS), HIDDEN[:, 0])
    torch.testing.assert_close(head(*CELLS)[0], HIDDEN[:, 0] @ head.mu.weight.T + head.mu.bias)
    assert not {"gene_vectors.weight", "center", "scale"} & set(head.state_dict())


def test_beside_the_anchor_stand_the_mean_token_and_the_projected_expression(latent_head: Callable) -> None:
    head = latent_head("anchor+tokens")
    means = torch.stack([HIDDEN[0, [1, 2, 3]].mean(dim=0), HIDDEN[1, [1, 3, 5]].mean(dim=0)])
    gene = head.gene_vectors.weight
    projected = torch.stack(
        [1.0 * gene[7] + 2.0 * gene[21] + 0.5 * gene[58], 0.25 * gene[40] + 1.5 * gene[11] + 2.0 * gene[59]]
    )
    torch.testing.assert_close(head.pooled(*CELLS), torch.cat([HIDDEN[:, 0], means, projected], dim=1))


def test_the_latent_is_a_linear_map_of_what_is_pooled_and_standardised(latent_head: Callable) -> None:
    head = latent_head("anchor+tokens")
    state = (head.pooled(*CELLS) - head.center) * head.scale
    mu, logvar = head(*CELLS)
    torch.testing.assert_close(mu, state @ head.mu.weight.T + head.mu.bias)
    torch.testing.assert_close(logvar, (state @ head.logvar.weight.T + head.logvar.bias).clamp(-10, 4))
    for one, two in zip(head.from_pooled(head.pooled(*CELLS)), (mu, logvar), strict=True):
        assert torch.equal(one, two)


def test_tokens_that_are_not_read_do_not_matter(latent_head: Callable) -> None:
    """Neither their states, nor which genes they are, nor their values, nor that they are there."""
    head, expected = latent_head("anchor+tokens"), latent_head("anchor+tokens").pooled(*CELLS)
    hidden, genes, values = (tensor.clone() for tensor in CELLS[:3])
    hidden[:, 1:][~READ], genes[~READ], values[~READ] = 1e4, 33, 1e4
    torch.testing.assert_close(head.pooled(hidden, genes, values, READ), expected)
    longer = [F.pad(tensor, (0, 3), value=9) for tensor in (genes, values)]
    found = head.pooled(F.pad(hidden, (0, 0, 0, 3), value=7.0), *longer, F.pad(READ, (0, 3)))
    torch.testing.assert_close(found, expected)


def test_a_single_token_is_its_own_mean(latent_head: Callable) -> None:
    head, alone = latent_head("anchor+tokens"), torch.eye(2, 5, dtype=torch.bool)
    projected = head.gene_vectors.weight[[7, 7]] * torch.tensor([[1.0], [5.0]])
    expected = torch.cat([HIDDEN[:, 0], HIDDEN[[0, 1], [1, 2]], projected], dim=1)
    torch.testing.assert_close(head.pooled(HIDDEN, GENES, VALUES, alone), expected)


def test_without_a_token_to_read_mean_and_projection_are_zero(latent_head: Callable) -> None:
    found = latent_head("anchor+tokens").pooled(HIDDEN, GENES, VALUES, torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(found, F.pad(HIDDEN[:, 0], (0, 64)))


def test_the_linear_path_learns_for_the_genes_that_are_read(latent_head: Callable) -> None:
    head = latent_head("anchor+tokens")
    head(*CELLS)[0].square().sum().backward()
    learning = head.gene_vectors.weight.grad.any(dim=1).nonzero().flatten().tolist()
    assert learning == [7, 11, 21, 40, 58, 59]


def test_perturbation_regressor_gives_a_value_for_each_token(tiny_config: Callable) -> None:
    head = build_heads(tiny_config(heads=("perturbation",)))["perturbation"]
    assert head(torch.randn(3, 7, 32)).shape == (3, 7)
    assert head.pert.shape == (32,)


def test_only_the_named_heads_are_made(tiny_config: Callable) -> None:
    assert list(build_heads(tiny_config(heads=HEADS))) == list(HEADS)
    assert len(build_heads(tiny_config(heads=()))) == 0
