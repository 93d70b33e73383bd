"""Attention sums against a plain loop over the weights, and what they must not depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import AttentionSums, Block, accumulate, choose_block

Read = Callable[..., AttentionSums]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture
def sample(model: ScDiVaModel, dataset: H5adDataset) -> CellSample:
    return read_cells(model.tokenizer, dataset, np.arange(160), model.vocabulary)


@pytest.fixture
def block(sample: CellSample) -> Block:
    """The eight most read genes against the next twelve and four of them."""
    often = np.argsort(-np.diff(sample.tokens.indptr), kind="stable")
    return Block(np.sort(often[:8]), np.sort(often[4:20]))


@pytest.fixture
def read(model: ScDiVaModel, sample: CellSample, block: Block) -> Read:
    return lambda **how: accumulate(model, how.pop("cells", sample), block, **how)


def rank_bin(rank: int) -> int:
    """Bins of 8, 16, 24 ... ranks."""
    number, first = 0, 0
    while rank >= first + 8 * (number + 1):
        number += 1
        first += 8 * number
    return number


def enrichments(model: ScDiVaModel, sample: CellSample, cell: int) -> np.ndarray:
    """Log of each gene token's attention to each, over even attention: ``[layers, heads, n, n]``."""
    batch, layers = sample.rows.batch(np.array([cell])), []
    with torch.no_grad():
        model(batch.gene_ids, batch.values, on_attention=lambda _, weights: layers.append(weights[0].double()))
    between = torch.stack(layers)[..., 1:, 1:]
    return (between / between.sum(-1, keepdim=True) * between.shape[-1]).log().numpy()


def by_hand(model: ScDiVaModel, sample: CellSample, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """Sums ``[layers, heads, 2, R, T]`` and counts ``[R, T]``, pair by pair."""
    layers, heads = model.config.num_layers, model.config.num_heads
    cells = [enrichments(model, sample, cell) for cell in range(len(sample))]
    n_bins = 1 + max(rank_bin(cell.shape[-1] - 1) for cell in cells)
    seen = [[[] for _ in range(n_bins)] for _ in range(n_bins)]
    for cell in cells:
        for q in range(cell.shape[-1]):
            for k in range(cell.shape[-1]):
                if q != k:
                    seen[rank_bin(q)][rank_bin(k)].append(cell[..., q, k])
    every = np.array([value for row in seen for each in row for value in each])
    mean, spread = np.empty((2, n_bins, n_bins, layers, heads))
    for q in range(n_bins):
        for k in range(n_bins):
            values, n = np.array(seen[q][k]).reshape(-1, layers, heads), len(seen[q][k])
            # 100 pairs like all pairs stand beside those of the bins.
            mean[q, k] = (values.sum(0) + 100 * every.mean(0)) / (n + 100)
            squares = ((values**2).sum(0) + 100 * (every**2).mean(0)) / (n + 100)
            spread[q, k] = np.sqrt(squares - mean[q, k] ** 2)
    sums, counts = np.zeros((layers, heads, 2, *block.shape)), np.zeros(block.shape, int)
    for cell, logs in enumerate(cells):
        ids = sample.rows.gene_ids[sample.rows.indptr[cell] : sample.rows.indptr[cell + 1]].tolist()
        for r, regulator in enumerate(sample.gene_ids[block.regulators]):
            for t, target in enumerate(sample.gene_ids[block.targets]):
                if regulator == target or regulator not in ids or target not in ids:
                    continue
                a, b = ids.index(regulator), ids.index(target)
                counts[r, t] += 1
                for side, (q, k) in enumerate([(a, b), (b, a)]):
                    at = rank_bin(q), rank_bin(k)
                    sums[:, :, side, r, t] += (logs[..., q, k] - mean[at]) / spread[at]
    return sums, counts


def test_sums_are_those_of_a_plain_loop(model: ScDiVaModel, sample: CellSample, block: Block) -> None:
    few = sample.take(np.array([3, 8, 40, 77, 90, 151]))
    sums, counts = by_hand(model, few, block)
    found = accumulate(model, few, block, apart=True, folds=1)
    assert found.heads == tuple((layer, head) for layer in range(2) for head in range(4))
    assert counts.max() == 6
    assert counts.min() == 0
    np.testing.assert_array_equal(found.counts[0], counts)
    np.testing.assert_allclose(found.sums[:, :, 0], sums.reshape(8, 2, *block.shape), atol=2e-3)
    mean = accumulate(model, few, block, folds=1)
    assert mean.sums.shape == (1, 2, 1, *block.shape)
    np.testing.assert_allclose(mean.sums[0, :, 0], sums.mean((0, 1)), atol=2e-3)


def test_chosen_heads_are_read_in_their_order(read: Read) -> None:
    every = read(apart=True, folds=1)
    some = read(apart=True, folds=1, heads=[(1, 2), (0, 0)])
    assert some.heads == ((1, 2), (0, 0))
    np.testing.assert_allclose(some.sums, every.sums[[6, 0]], atol=1e-4)
    together = read(folds=1, heads=[(1, 2), (0, 0)])
    np.testing.assert_allclose(together.sums[0], some.sums.mean(0), atol=1e-4)


def test_batches_and_the_order_of_cells_do_not_matter(read: Read, sample: CellSample) -> None:
    once = read(folds=3)
    np.testing.assert_allclose(read(folds=3, batch_size=7).sums, once.sums, atol=1e-3)
    turned = read(folds=3, cells=sample.take(np.arange(160)[::-1]))
    np.testing.assert_array_equal(turned.counts, once.counts)
    np.testing.assert_allclose(turned.sums, once.sums, atol=1e-3)


def test_folds_add_up(read: Read) -> None:
    whole, folds = read(folds=1), read(folds=5)
    assert (folds.counts.sum(axis=(1, 2)) > 0).all()
    np.testing.assert_array_equal(folds.counts.sum(axis=0), whole.counts[0])
    np.testing.assert_allclose(folds.sums.sum(axis=2), whole.sums[:, :, 0], atol=1e-3)
    other = read(folds=5, seed=1)
    assert (other.counts != folds.counts).any()


def test_without_one_cell_the_others_stay_in_their_folds(read: Read, sample: CellSample) -> None:
    whole, less = read(folds=5), read(folds=5, cells=sample.take(np.delete(np.arange(160), 31)))
    gone = whole.counts - less.counts
    assert gone.min() == 0
    assert gone.max() == 1
    assert (gone.any(axis=(1, 2))).sum() == 1


def test_a_gene_has_no_attention_to_itself(read: Read, block: Block) -> None:
    same = ~block.pairs()
    assert same.sum() == 4
    found = read()
    assert not found.counts[:, same].any()
    assert not found.sums[..., same].any()
    assert (found.counts.sum(axis=0)[~same] > 0).all()


def test_what_every_pair_has_is_taken_away(model: ScDiVaModel, sample: CellSample) -> None:
    """Over all pairs of all genes the z scores of each head have mean 0."""
    every = np.flatnonzero(np.diff(sample.tokens.indptr) > 0)
    few = sample.take(np.arange(0, 160, 4))
    found = accumulate(model, few, Block(every, every), apart=True, folds=1)
    np.testing.assert_allclose(found.sums.sum(axis=(2, 3, 4)) / found.counts.sum(), 0, atol=5e-3)
    np.testing.assert_allclose(found.sums[:, 0, 0], found.sums[:, 1, 0].transpose(0, 2, 1), atol=1e-3)


def test_genes_are_chosen_by_the_cells_that_read_them(sample: CellSample) -> None:
    read = np.diff(sample.tokens.indptr)
    names = ["FTL", "CD74", "LYZ", "NO-SUCH-GENE", "NKG7"]
    among = sorted(set(names) & set(sample.symbols), key=lambda name: (-read[sample.symbols.index(name)], name))
    chosen = choose_block(sample, names, most_regulators=2, most_targets=30)
    assert [sample.symbols[i] for i in chosen.regulators] == sorted(among[:2], key=sample.symbols.index)
    assert (np.diff(chosen.targets) > 0).all()
    best = sorted(range(len(read)), key=lambda column: (-read[column], sample.symbols[column]))[:30]
    assert set(chosen.targets) == set(best)
    every = choose_block(sample, names)
    assert read[every.targets].min() >= 10
    assert len(every.targets) == (read >= 10).sum()
    asked = choose_block(sample, names, targets=["LYZ", "CD74", "NOTHING"])
    assert sorted(sample.symbols[i] for i in asked.targets) == ["CD74", "LYZ"]


def test_genes_that_too_few_cells_read_are_refused(sample: CellSample) -> None:
    rare = sample.symbols[int(np.flatnonzero(np.diff(sample.tokens.indptr) == 3)[0])]
    with pytest.raises(DataError, match=r"None of 1 regulators is read by 10 of the 160 cells \(the most.* by 3\)"):
        choose_block(sample, [rare])
    with pytest.raises(DataError, match=r"None of 0 targets .*none of them is in the file"):
        choose_block(sample, ["LYZ"], targets=["NOTHING"])


def test_heads_and_folds_that_cannot_be_are_refused(read: Read) -> None:
    with pytest.raises(DataError, match=r"Heads 2\.0 of a model of 2 layers with 4 heads"):
        read(heads=[(2, 0)])
    with pytest.raises(DataError, match=r"Heads 0\.1, 0\.1 of"):
        read(heads=[(0, 1), (0, 1)])
    with pytest.raises(DataError, match="Heads none of"):
        read(heads=[])
    with pytest.raises(DataError, match="0 folds"):
        read(folds=0)


def test_progress_reaches_its_end_and_the_user_may_stop(read: Read) -> None:
    said: list[tuple[int, int]] = []
    read(progress=lambda done, total, _: said.append((done, total)), batch_size=50)
    assert said[-1] == (320, 320)
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    with pytest.raises(Cancelled):
        read(cancelled=lambda: len(said) > 0)
