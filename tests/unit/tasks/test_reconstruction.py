"""Tokens hidden from a model and rebuilt: what it sees, what it does not, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.diffusion.sampler import sample
from scdiva_core.errors import Cancelled
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.reconstruction import (
    can_decode,
    cell_of,
    fit_levels,
    gene_mask,
    named_values,
    random_mask,
    rebuild,
    without,
)


@pytest.fixture(scope="module")
def rows() -> TokenRows:
    """Cells of 12, 1, 30 and 7 tokens over genes 5 to 59."""
    rng = np.random.default_rng(1)
    lengths = np.array([12, 1, 30, 7])
    ids = np.concatenate([rng.permutation(np.arange(5, 60))[:n] for n in lengths]).astype(np.int32)
    values = rng.gamma(2, 0.7, lengths.sum()).astype(np.float32)
    return TokenRows(np.concatenate([[0], np.cumsum(lengths)]), ids, values)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., ScDiVaModel]) -> ScDiVaModel:
    return tiny_model(heads=("latent", "batch_integration"))


@pytest.fixture(scope="module")
def hidden(rows: TokenRows) -> np.ndarray:
    return random_mask(rows, 0.4, np.random.default_rng(0))


def test_a_share_of_each_cell_is_hidden(rows: TokenRows) -> None:
    for share, expected in ((0.4, [5, 0, 12, 3]), (0.01, [1, 0, 1, 1]), (0.99, [11, 0, 29, 6])):
        made = random_mask(rows, share, np.random.default_rng(0))
        assert np.bincount(cell_of(rows)[made], minlength=4).tolist() == expected
    other = random_mask(rows, 0.4, np.random.default_rng(1))
    assert not np.array_equal(other, random_mask(rows, 0.4, np.random.default_rng(0)))


def test_tokens_of_genes_are_hidden_but_never_all_of_a_cell(rows: TokenRows) -> None:
    first, alone = rows.gene_ids[0], rows.gene_ids[12]
    made = gene_mask(rows, np.array([first, alone]))
    np.testing.assert_array_equal(made, np.isin(rows.gene_ids, [first, alone]) & (np.arange(50) != 12))
    kept = without(rows, made)
    assert first not in kept.gene_ids
    assert kept.lengths.sum() == (~made).sum()


def test_one_pass_is_the_best_gene_that_is_not_visible(model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray) -> None:
    made = rebuild(model, rows, hidden)
    np.testing.assert_array_equal(made.gene_ids[~hidden], rows.gene_ids[~hidden])
    np.testing.assert_array_equal(made.values[~hidden], rows.values[~hidden])
    for row in range(len(rows)):
        own = slice(*rows.indptr[row : row + 2])
        if not hidden[own].any():
            continue
        tokens, masked = rows.batch(np.array([row])), torch.from_numpy(hidden[own])[None]
        with torch.inference_mode():
            states = model(tokens.gene_ids, tokens.values, mask=masked, anchor_from="visible").tokens[masked]
            logits, values = model.gene_logits(states).numpy(), model.gene_values(states)
        logits[:, [*model.config.reserved_ids, *rows.gene_ids[own][~hidden[own]]]] = -np.inf
        np.testing.assert_array_equal(made.gene_ids[own][hidden[own]], logits.argmax(axis=1))
        np.testing.assert_allclose(made.values[own][hidden[own]], values.clamp(min=0), atol=1e-5)


def test_hidden_content_reaches_the_clean_anchor_only(model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray) -> None:
    other = replace(rows, values=np.where(hidden, rows.values + 2, rows.values).astype(np.float32))
    other = replace(other, gene_ids=np.where(hidden, 64 - rows.gene_ids, rows.gene_ids).astype(np.int32))
    for steps in (1, 3):
        seen, unseen = (rebuild(model, each, hidden, steps=steps) for each in (rows, other))
        np.testing.assert_array_equal(seen.gene_ids[hidden], unseen.gene_ids[hidden])
        np.testing.assert_array_equal(seen.values[hidden], unseen.values[hidden])
        leaked, changed = (rebuild(model, each, hidden, steps=steps, anchor_from="clean") for each in (rows, other))
        assert not np.allclose(leaked.values[hidden], changed.values[hidden])


def test_iterative_unmasking_is_the_samplers(model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray) -> None:
    made = rebuild(model, rows, hidden, steps=4)
    own = slice(*rows.indptr[2:4])
    one = sample(model, rows.batch(np.array([2])), torch.from_numpy(hidden[own])[None], steps=4)
    np.testing.assert_array_equal(made.gene_ids[own], one.gene_ids[0])
    np.testing.assert_allclose(made.values[own], one.values[0].clamp(min=0), atol=1e-5)
    for row in range(len(rows)):
        ids = made.gene_ids[slice(*rows.indptr[row : row + 2])]
        assert len(set(ids)) == len(ids)


def test_small_batches_change_nothing(
    model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rebuild(model, rows, hidden)
    monkeypatch.setattr("scdiva_core.tasks.reconstruction._CPU_PLACES", 4)
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    parts = rebuild(model, rows, hidden)
    handle.remove()
    assert sizes == [1, 1, 1], "a batch is one cell at least, and the cell of one token needs none"
    np.testing.assert_array_equal(parts.gene_ids, whole.gene_ids)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)


def test_levels_and_named_values_by_hand(model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray) -> None:
    assert can_decode(model)
    means = np.linspace(0, 3, 60)
    levels = fit_levels(model, rows, hidden, means)
    kept = without(rows, hidden)
    with torch.inference_mode():
        latents = torch.cat([model.encode(kept.batch(np.array([row])))["latent"] for row in range(4)])
        decoded = model.heads["batch_integration"](latents).numpy()
    np.testing.assert_allclose(levels.centres, decoded.mean(axis=0), atol=1e-5)
    cells, genes = cell_of(rows)[hidden], rows.gene_ids[hidden]
    away = decoded[cells, genes] - decoded.mean(axis=0)[genes]
    truth = rows.values[hidden] - means[genes]
    slope = max((away * truth).sum() / np.square(away).sum(), 0)
    assert levels.slope == pytest.approx(slope, abs=1e-4)
    steep = replace(levels, slope=0.7)
    expected = np.maximum(means[genes] + 0.7 * away, 0)
    np.testing.assert_allclose(named_values(model, rows, hidden, steep), expected, atol=1e-4)


def test_named_values_see_no_hidden_value(
    model: ScDiVaModel, tiny_model: Callable[..., ScDiVaModel], rows: TokenRows, hidden: np.ndarray
) -> None:
    other = replace(rows, values=np.where(hidden, rows.values + 2, rows.values).astype(np.float32))
    levels = replace(fit_levels(model, rows, hidden, np.ones(60)), slope=1.0)
    for network, scale in ((model, levels), (tiny_model(), None)):
        made = named_values(network, rows, hidden, scale)
        np.testing.assert_array_equal(made, named_values(network, other, hidden, scale))
        assert made.min() >= 0
        assert np.ptp(made) > 0


def test_without_a_decoder_places_are_weighed(
    tiny_model: Callable[..., ScDiVaModel], rows: TokenRows, hidden: np.ndarray
) -> None:
    bare = tiny_model()
    assert not can_decode(bare)
    made = named_values(bare, rows, hidden)
    own = slice(*rows.indptr[:2])
    tokens, masked = rows.batch(np.array([0])), torch.from_numpy(hidden[own])[None]
    with torch.inference_mode():
        states = bare(tokens.gene_ids, tokens.values, mask=masked, anchor_from="visible").tokens[masked]
        chance = bare.gene_logits(states)[:, rows.gene_ids[own][hidden[own]].astype(int)].softmax(dim=1)
        values = bare.gene_values(states).clamp(min=0)
    expected = [(chance[:, gene] * values).sum() / chance[:, gene].sum() for gene in range(len(values))]
    np.testing.assert_allclose(made[: len(values)], expected, rtol=1e-4)


def test_the_user_may_stop(model: ScDiVaModel, rows: TokenRows, hidden: np.ndarray) -> None:
    with pytest.raises(Cancelled):
        rebuild(model, rows, hidden, cancelled=lambda: True)
    with pytest.raises(Cancelled):
        fit_levels(model, rows, hidden, np.ones(60), cancelled=lambda: True)
