"""The optional heads, and above all the sign of the reversed gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from scdiva_core.model.config import HEADS
from scdiva_core.model.heads import build_heads


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


def test_log_variance_is_clamped_so_that_exp_stays_finite(tiny_config: Callable) -> None:
    head = build_heads(tiny_config(heads=("latent",)))["latent"]
    mu, logvar = head(torch.full((1, 32), 1e6))
    assert mu.shape == logvar.shape == (1, 8)
    assert logvar.min() >= -10
    assert logvar.max() <= 4


def test_perturbation_regressor_gives_a_value_for_each_token(tiny_config: Callable) -> None:
    head = build_heads(tiny_config(heads=("perturbation",)))["perturbation"]
    assert head(torch.randn(3, 7, 32)).shape == (3, 7)
    assert head.pert.shape == (32,)


def test_only_the_named_heads_are_made(tiny_config: Callable) -> None:
    assert list(build_heads(tiny_config(heads=HEADS))) == list(HEADS)
    assert len(build_heads(tiny_config(heads=()))) == 0
