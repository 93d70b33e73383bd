"""The forward process: what may be hidden, how much of it, and counts that are thinned."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiva_core.data.tokenizer import TokenBatch
from scdiva_core.diffusion.corruption import Corruption, corrupt, thin_counts
from scdiva_core.model.config import ScDiVaConfig


def config() -> ScDiVaConfig:
    """Reserved ids 0, 1, 57, 58 and 59, as in the published layout."""
    return ScDiVaConfig(vocab_size=60, hidden_size=8, num_heads=2, pad_fill_id=57, bos_id=58, eos_id=59, heads=())


def batch_of(ids: torch.Tensor) -> TokenBatch:
    return TokenBatch(ids, torch.ones(ids.shape), (ids != 0).sum(dim=1))


def draw(batch: TokenBatch, seed: int, t: float | None = None) -> Corruption:
    return corrupt(batch, config(), torch.Generator().manual_seed(seed), t=t)


def same(one: Corruption, two: Corruption) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("targets", "replaced", "t"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    t=st.none() | st.floats(0, 1),
)
def test_reserved_tokens_are_never_hidden_and_what_is_hidden_counts(
    rows: int, width: int, seed: int, t: float | None
) -> None:
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, 60, (rows, width)))
    drawn = draw(batch_of(ids), seed, t)
    reserved = torch.isin(ids, torch.tensor([0, 1, 57, 58, 59]))
    assert not (drawn.targets & reserved).any()
    assert not (drawn.replaced & ~drawn.targets).any()
    assert drawn.targets.shape == drawn.replaced.shape == ids.shape
    assert drawn.targets.dtype == drawn.replaced.dtype == torch.bool
    assert drawn.t.shape == (rows,)
    assert ((drawn.t >= 0) & (drawn.t <= 1)).all()
    assert same(drawn, draw(batch_of(ids), seed, t)), "one seed, one draw"


@pytest.fixture(scope="module")
def large() -> TokenBatch:
    return batch_of(torch.randint(2, 57, (40, 500), generator=torch.Generator().manual_seed(0)))


def within(successes: int, trials: int, share: float) -> bool:
    """Inside the central 1 - 1e-6 of the binomial distribution."""
    low, high = scipy.stats.binom.interval(1 - 1e-6, trials, share)
    return low <= successes <= high


@pytest.mark.parametrize("t", [0.05, 0.15, 0.5, 0.95])
def test_share_of_targets_is_t_and_a_tenth_of_them_is_kept(large: TokenBatch, t: float) -> None:
    drawn = draw(large, 1, t)
    targets, replaced = int(drawn.targets.sum()), int(drawn.replaced.sum())
    assert within(targets, 20_000, t)
    assert within(targets - replaced, targets, 0.1)
    assert (drawn.t == torch.tensor(t)).all()


def test_t_of_none_is_uniform_and_each_cell_follows_its_own(large: TokenBatch) -> None:
    rows = TokenBatch(large.gene_ids.repeat(10, 1), large.values.repeat(10, 1), large.lengths.repeat(10))
    drawn = draw(rows, 2)
    assert scipy.stats.kstest(drawn.t.numpy(), "uniform").pvalue > 1e-4
    for masked, t in zip(drawn.targets.sum(dim=1).tolist(), drawn.t.tolist(), strict=True):
        assert within(masked, 500, t)


def test_all_or_nothing(large: TokenBatch) -> None:
    assert draw(large, 3, 1.0).targets.all()
    assert not draw(large, 3, 0.0).targets.any()


def test_seeds_differ(large: TokenBatch) -> None:
    assert not same(draw(large, 4), draw(large, 5))


def test_drawing_leaves_the_global_generator_alone(large: TokenBatch) -> None:
    before = torch.get_rng_state()
    draw(large, 6)
    assert torch.equal(torch.get_rng_state(), before)


counts = st.lists(st.tuples(st.integers(0, 2000), st.floats(0.01, 1.0)), min_size=1, max_size=50)


@given(entries=counts, seed=st.integers(0, 2**31))
def test_thinned_counts_are_whole_and_never_above_the_counts(entries: list[tuple[int, float]], seed: int) -> None:
    before = np.array([entry[0] for entry in entries], np.uint16)
    factors = np.array([entry[1] for entry in entries])
    thinned = thin_counts(before, factors, np.random.default_rng(seed))
    assert thinned.dtype == np.int64
    assert ((thinned >= 0) & (thinned <= before)).all()
    assert (thinned[factors == 1] == before[factors == 1]).all()
    assert np.array_equal(thinned, thin_counts(before, factors, np.random.default_rng(seed)))


@pytest.mark.parametrize("factor", [0.25, 0.6])
def test_thinning_keeps_each_molecule_with_its_cell_s_probability(factor: float) -> None:
    before = np.random.default_rng(0).integers(0, 30, 20_000).astype(np.uint32)
    thinned = thin_counts(before, np.full(20_000, factor), np.random.default_rng(1))
    assert within(int(thinned.sum()), int(before.sum()), factor)
    variance = (thinned - factor * before).var()
    assert variance == pytest.approx(factor * (1 - factor) * before.mean(), rel=0.05), "binomial, not rounded"
