"""The reverse process: fills what is masked, leaves the rest, repeats no gene, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.diffusion.sampler import sample
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel

Make = Callable[..., ScDiVaModel]
Draw = Callable[..., TokenBatch]
RESERVED = torch.arange(5)


def random_mask(batch: TokenBatch, share: float, seed: int) -> torch.Tensor:
    drawn = torch.rand(batch.gene_ids.shape, generator=torch.Generator().manual_seed(seed)) < share
    return drawn & (batch.gene_ids != 0)


def check(before: TokenBatch, after: TokenBatch, mask: torch.Tensor) -> None:
    """What holds of every sample."""
    assert torch.equal(after.gene_ids[~mask], before.gene_ids[~mask])
    assert torch.equal(after.values[~mask], before.values[~mask])
    assert not torch.isin(after.gene_ids[mask], RESERVED).any()
    assert torch.isfinite(after.values).all()
    for row in after.gene_ids:
        genes = row[row != 0]
        assert len(genes.unique()) == len(genes), "a gene twice in one cell"
    assert torch.equal(after.lengths, before.lengths)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    share=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    steps=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.5, 5.0]),
    seed=st.integers(0, 1000),
)
def test_every_sample_is_a_cell(
    tiny_model: Make,
    token_batch: Draw,
    lengths: list[int],
    share: float,
    steps: int,
    temperature: float,
    seed: int,
) -> None:
    model, batch = tiny_model(seed=seed % 3), token_batch(*lengths, seed=seed)
    mask = random_mask(batch, share, seed)
    before = TokenBatch(batch.gene_ids.clone(), batch.values.clone(), batch.lengths.clone())
    generator = torch.Generator().manual_seed(seed)
    found = sample(model, batch, mask, steps=steps, temperature=temperature, generator=generator)
    check(before, found, mask)
    assert torch.equal(batch.gene_ids, before.gene_ids), "the input is left alone"
    assert torch.equal(batch.values, before.values)


@pytest.mark.parametrize("anchor_from", ["visible", "clean"])
def test_one_step_takes_the_most_probable_gene_everywhere(
    tiny_model: Make, token_batch: Draw, anchor_from: str
) -> None:
    for seed in range(20):
        model, batch = tiny_model(seed=seed), token_batch(6, 5, seed=seed)
        mask = torch.zeros(2, 6, dtype=torch.bool)
        mask[0, [1, 4]] = mask[1, 2] = True
        output = model(batch.gene_ids, batch.values, mask=mask, anchor_from=anchor_from)
        logits = model.gene_logits(output.tokens).detach()
        logits[..., RESERVED] = -torch.inf
        for row in range(2):
            logits[row, :, batch.gene_ids[row][~mask[row]]] = -torch.inf  # the cell has them already
        genes = logits.argmax(dim=-1)
        if genes[0, 1] == genes[0, 4]:
            continue
        found = sample(model, batch, mask, steps=1, anchor_from=anchor_from)
        assert torch.equal(found.gene_ids[mask], genes[mask])
        torch.testing.assert_close(found.values[mask], model.gene_values(output.tokens).detach()[mask])
        return
    pytest.fail("each of twenty networks wants one gene at both positions")


def test_surest_positions_are_filled_first(tiny_model: Make, token_batch: Draw) -> None:
    """With as many steps as positions, the first forward pass commits its surest position alone."""
    model, batch = tiny_model(), token_batch(8)
    mask = torch.ones(1, 8, dtype=torch.bool)
    mask[0, 0] = False
    output = model(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
    logits = model.gene_logits(output.tokens).detach()[0]
    logits[:, [*RESERVED.tolist(), batch.gene_ids[0, 0].item()]] = -torch.inf
    confidence, genes = logits.softmax(dim=-1).max(dim=-1)
    confidence[0] = -1
    place = confidence.argmax()
    found = sample(model, batch, mask, steps=7)
    assert found.gene_ids[0, place] == genes[place]
    torch.testing.assert_close(found.values[0, place], model.gene_values(output.tokens).detach()[0, place])


class Counted(torch.nn.Module):
    """A real model whose forward passes are counted."""

    def __init__(self, model: ScDiVaModel) -> None:
        super().__init__()
        self.model, self.passes = model, []
        self.config, self.gene_logits, self.gene_values = model.config, model.gene_logits, model.gene_values

    def forward(self, *arguments: torch.Tensor, mask: torch.Tensor, **options: str) -> object:
        self.passes.append(int(mask.sum()))
        return self.model(*arguments, mask=mask, **options)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_masked_positions_shrink_in_equal_shares(tiny_model: Make, token_batch: Draw, steps: int) -> None:
    model, batch = Counted(tiny_model()), token_batch(16)
    sample(model, batch, torch.ones(1, 16, dtype=torch.bool), steps=steps)
    assert model.passes[0] == 16
    assert len(model.passes) >= steps
    assert sorted(set(model.passes), reverse=True) == model.passes, "each pass commits something"
    for done, left in enumerate(model.passes):
        assert left >= 16 * (1 - done / steps), "conflicts may put some off, nothing comes early"


def test_many_positions_that_want_one_gene_end_one_by_one(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(20)
    with torch.no_grad():  # every position has the same logits: a fixed order of preference
        model.final_norm.weight.zero_()
        model.final_norm.weight[0] = 1e-3
    counted = Counted(model)
    mask = torch.ones(1, 20, dtype=torch.bool)
    found = sample(counted, batch, mask, steps=1)
    check(batch, found, mask)
    assert len(counted.passes) <= 20


def test_all_genes_of_the_vocabulary_can_be_used_up(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(25, max_genes=20), token_batch(20, vocab_size=25)
    mask = torch.ones(1, 20, dtype=torch.bool)
    found = sample(model, batch, mask, steps=3)
    assert sorted(found.gene_ids[0].tolist()) == list(range(5, 25))


def test_what_stands_under_the_mask_is_not_read(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(14, 9)
    mask = random_mask(batch, 0.5, 1)
    other = TokenBatch(torch.where(mask, 59, batch.gene_ids), torch.where(mask, 7.0, batch.values), batch.lengths)
    one, two = sample(model, batch, mask), sample(model, other, mask)
    assert torch.equal(one.gene_ids, two.gene_ids)
    assert torch.equal(one.values, two.values)


def test_one_seed_one_sample(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(20, 20)
    mask = random_mask(batch, 0.8, 2)

    def drawn(seed: int, temperature: float = 3.0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(model, batch, mask, temperature=temperature, generator=generator).gene_ids

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    assert torch.equal(drawn(0, temperature=0), drawn(1, temperature=0))
    assert torch.equal(drawn(0, temperature=0), sample(model, batch, mask).gene_ids)


def test_noise_follows_the_softmax(tiny_model: Make, token_batch: Draw) -> None:
    """Gumbel noise of scale 1 draws from the network's own distribution."""
    model, batch = tiny_model(12), token_batch(3, vocab_size=12)
    mask = torch.tensor([[False, True, False]])
    output = model(batch.gene_ids, batch.values, mask=mask, anchor_from="visible")
    logits = model.gene_logits(output.tokens).detach()[0, 1]
    logits[[0, 1, 2, 3, 4, *batch.gene_ids[0, [0, 2]].tolist()]] = -torch.inf
    expected = logits.softmax(dim=-1)
    many = TokenBatch(batch.gene_ids.repeat(4000, 1), batch.values.repeat(4000, 1), batch.lengths.repeat(4000))
    generator = torch.Generator().manual_seed(0)
    found = sample(model, many, mask.repeat(4000, 1), steps=1, temperature=1.0, generator=generator)
    shares = found.gene_ids[:, 1].bincount(minlength=12) / 4000
    assert expected.max() < 0.97
    torch.testing.assert_close(shares, expected, atol=0.04, rtol=0)


def test_choices_that_are_refused(tiny_model: Make, token_batch: Draw) -> None:
    model, batch = tiny_model(), token_batch(4)
    mask = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(DataError, match="steps is 0"):
        sample(model, batch, mask, steps=0)
    with pytest.raises(DataError, match=r"temperature 0\.7 needs a generator"):
        sample(model, batch, mask, temperature=0.7)
