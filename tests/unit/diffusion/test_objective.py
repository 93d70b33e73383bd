"""The dual loss against its formula, written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.diffusion.corruption import Corruption
from scdiva_core.diffusion.objective import VALUE_WEIGHT, denoising_loss
from scdiva_core.model.network import ScDiVaModel


@pytest.fixture
def case(
    tiny_model: Callable[..., ScDiVaModel], token_batch: Callable[..., TokenBatch]
) -> tuple[ScDiVaModel, TokenBatch, Corruption]:
    batch = token_batch(12, 8)
    targets = torch.zeros(2, 12, dtype=torch.bool)
    targets[0, [0, 3, 11]] = targets[1, [2, 5]] = True
    replaced = targets.clone()
    replaced[0, 3] = False  # kept, yet scored
    return tiny_model(), batch, Corruption(targets, replaced, torch.tensor([0.3, 0.1]))


@pytest.mark.parametrize("anchor_from", ["clean", "visible"])
def test_loss_is_the_mean_over_targets_of_all_cells_together(case: tuple, anchor_from: str) -> None:
    model, batch, corruption = case
    loss = denoising_loss(model, batch, corruption, anchor_from=anchor_from)
    output = model(batch.gene_ids, batch.values, mask=corruption.replaced, anchor_from=anchor_from)
    logits = model.gene_logits(output.tokens).detach().double().numpy()
    predicted = model.gene_values(output.tokens).detach().double().numpy()
    surprise, errors = [], []
    for row, place in corruption.targets.nonzero().tolist():
        scores = logits[row, place]
        true = scores[batch.gene_ids[row, place]]
        surprise.append(np.log(np.exp(scores - scores.max()).sum()) + scores.max() - true)
        errors.append((predicted[row, place] - batch.values[row, place].item()) ** 2)
    assert len(surprise) == 5
    assert loss.identity.item() == pytest.approx(np.mean(surprise), rel=1e-5)
    assert loss.value.item() == pytest.approx(np.mean(errors), rel=1e-5)
    assert loss.total.item() == pytest.approx(np.mean(surprise) + 10 * np.mean(errors), rel=1e-5)
    assert VALUE_WEIGHT == 10
    torch.testing.assert_close(loss.output.hidden, output.hidden)


def test_positions_that_are_no_targets_do_not_count(case: tuple) -> None:
    model, batch, corruption = case
    alone = Corruption(corruption.targets.clone(), corruption.replaced, corruption.t)
    alone.targets[0, 3] = False
    one = denoising_loss(model, batch, corruption)
    two = denoising_loss(model, batch, alone)
    torch.testing.assert_close(one.output.hidden, two.output.hidden)
    assert one.identity.item() != pytest.approx(two.identity.item(), rel=1e-3)


def test_nothing_masked_costs_nothing_and_can_be_differentiated(case: tuple) -> None:
    model, batch, _ = case
    nothing = torch.zeros(2, 12, dtype=torch.bool)
    loss = denoising_loss(model, batch, Corruption(nothing, nothing, torch.zeros(2)))
    assert loss.identity == loss.value == loss.total == 0
    loss.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_every_published_parameter_learns_from_the_loss(case: tuple) -> None:
    model, batch, corruption = case
    denoising_loss(model, batch, corruption).total.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_fewer_identities_scored_is_an_unbiased_estimate(case: tuple) -> None:
    model, batch, _ = case
    everything = batch.gene_ids != 0
    corruption = Corruption(everything, everything, torch.ones(2))
    whole = denoising_loss(model, batch, corruption)
    torch.manual_seed(0)
    drawn = [denoising_loss(model, batch, corruption, max_identity_targets=7) for _ in range(150)]
    estimates = torch.stack([loss.identity for loss in drawn]).detach()
    assert estimates.std() > 0.1, "not always the same seven"
    error = estimates.std() / 150**0.5
    assert (estimates.mean() - whole.identity).abs() < 5 * error
    assert {loss.value.item() for loss in drawn} == {whole.value.item()}, "values are all scored"
    enough = denoising_loss(model, batch, corruption, max_identity_targets=20)
    torch.testing.assert_close(enough.identity, whole.identity)
