"""Training batches: which cells, how deep, how long, and that they repeat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from scdiva_core.data.corpus import CellDraws, Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.training.augmentation import SHALLOWEST, Augmentation
from scdiva_core.training.batches import TrainingBatch, make_batch, training_batches
from scdiva_core.training.settings import PretrainSettings

SETTINGS = PretrainSettings(steps=20, batch_size=16)
THINNED = Augmentation(thinned_share=0.5)


def drawn(corpus: Corpus, start: int = 0, max_genes: int = 40, **changes: float) -> list[TrainingBatch]:
    return list(training_batches(corpus, replace(SETTINGS, **changes), max_genes, THINNED, start=start))


@pytest.fixture(scope="module")
def halved(labelled: Corpus, labelled_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same cells, with every other gene left out of the vocabulary."""
    folder = tmp_path_factory.mktemp("halved")
    tokens = labelled.vocabulary.tokens
    vocabulary = GeneVocabulary([*tokens[:5], *tokens[5::2]])
    prepare(labelled_files, folder, vocabulary=vocabulary, donor_columns=["person"])
    return Corpus(folder)


def test_batches_depend_on_seed_and_number_alone(labelled: Corpus) -> None:
    whole, tail = drawn(labelled), drawn(labelled, start=15)
    assert [batch.step for batch in whole] == list(range(20))
    for one, two in zip(whole[15:], tail, strict=True):
        assert one.step == two.step
        assert torch.equal(one.tokens.gene_ids, two.tokens.gene_ids)
        assert torch.equal(one.tokens.values, two.tokens.values)
        assert torch.equal(one.expression.to_dense(), two.expression.to_dense())
        assert torch.equal(one.labels, two.labels)
        assert torch.equal(one.batch_of, two.batch_of)
    other = drawn(labelled, start=19, seed=1)[0]
    assert not torch.equal(other.expression.to_dense(), whole[19].expression.to_dense())


def test_a_finished_run_has_no_batches_left(labelled: Corpus) -> None:
    assert drawn(labelled, start=20) == []


def test_a_batch_knows_what_its_cells_are(labelled: Corpus) -> None:
    draws = CellDraws(labelled, 16, SETTINGS.seed, SETTINGS.balance)
    for batch in drawn(labelled, steps=3):
        cells = draws.batch(batch.step)
        assert batch.labels.tolist() == labelled.labels[cells].tolist()
        assert batch.batch_of.tolist() == labelled.batch_of[cells].tolist()
        assert batch.labels.dtype == batch.batch_of.dtype == torch.int64
        rows = labelled.take(cells)
        expected = rows.sparse(rows.log1p(), len(labelled.vocabulary))
        assert torch.equal(batch.expression.to_dense(), expected.to_dense())


def test_short_batches_keep_the_first_half_of_each_row(labelled: Corpus) -> None:
    plain = Augmentation()
    long, short = (
        list(training_batches(labelled, replace(SETTINGS, steps=4, short_share=share), 41, plain, start=0))
        for share in (0.0, 1.0)
    )
    for one, two in zip(long, short, strict=True):
        assert one.tokens.gene_ids.shape == (16, 41)
        assert torch.equal(two.tokens.gene_ids, one.tokens.gene_ids[:, :21])
        assert torch.equal(two.tokens.values, one.tokens.values[:, :21])
        assert torch.equal(one.expression.to_dense(), two.expression.to_dense()), "the target stays whole"


def test_a_share_of_batches_is_short(labelled: Corpus) -> None:
    widths = [batch.tokens.gene_ids.shape[1] for batch in drawn(labelled, steps=60, batch_size=2, short_share=0.3)]
    assert set(widths) == {20, 40}
    assert scipy.stats.binomtest(widths.count(20), 60, 0.3).pvalue > 1e-3


def test_a_row_of_one_gene_cannot_be_halved(labelled: Corpus) -> None:
    (batch,) = drawn(labelled, max_genes=1, steps=1, short_share=1.0)
    assert (batch.tokens.lengths == 1).all()


def test_thinned_cells_keep_their_full_depth_as_the_target(labelled: Corpus) -> None:
    tokenizer, cells = Tokenizer(labelled.entropy, 700), np.arange(30)
    rng = np.random.default_rng(0)
    plain = make_batch(labelled, tokenizer, cells, rng)
    thinned = make_batch(labelled, tokenizer, cells, rng, Augmentation(thinned_share=1.0))
    assert torch.equal(plain.expression.to_dense(), thinned.expression.to_dense())
    assert (thinned.tokens.lengths <= plain.tokens.lengths).all()
    assert (thinned.tokens.lengths < plain.tokens.lengths).float().mean() > 0.9
    full = plain.expression.to_dense()
    ids, values = plain.tokens.gene_ids, plain.tokens.values
    assert torch.equal(full.gather(1, ids)[values > 0], values[values > 0])


def test_thinning_lowers_genes_without_a_token_by_the_same_factor(halved: Corpus) -> None:
    """A thinned cell looks as one sequenced less deeply would: its unseen genes lost as much as its seen ones."""
    cells = np.arange(len(halved))
    tokenizer = Tokenizer(halved.entropy, 700)
    thinned = make_batch(halved, tokenizer, cells, np.random.default_rng(0), Augmentation(thinned_share=1.0)).tokens
    rows = halved.take(cells)
    known = np.bincount(rows.rows, rows.counts, minlength=len(rows))
    unknown = rows.totals - known
    assert (unknown > 0.2 * rows.totals).all()
    # Per-ten-thousands; the lowest of a cell is one molecule.
    shares = [row[:n].double().expm1().numpy() for row, n in zip(thinned.values, thinned.lengths, strict=True)]
    counts = [share / share.min() for share in shares]
    left = np.array([count.sum() for count in counts])
    totals = np.array([10_000 / share.min() for share in shares])
    factors = (totals - left) / unknown
    assert ((factors > SHALLOWEST - 0.01) & (factors < 1.01)).all()
    assert scipy.stats.kstest(factors, scipy.stats.uniform(SHALLOWEST, 1 - SHALLOWEST).cdf).pvalue > 1e-3
    deviation = np.sqrt(known * factors * np.clip(1 - factors, 0.01, 1))
    assert (np.abs(left - factors * known) < 5 * deviation).all()


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_share_of_cells_is_thinned(labelled: Corpus, share: float) -> None:
    tokenizer, cells = Tokenizer(labelled.entropy, 700), np.arange(len(labelled))
    batch = make_batch(labelled, tokenizer, cells, np.random.default_rng(3), Augmentation(thinned_share=share))
    full, values = batch.expression.to_dense(), batch.tokens.values
    as_before = torch.isclose(full.gather(1, batch.tokens.gene_ids), values) | (values == 0)
    whole = as_before.all(dim=1) & (batch.tokens.lengths == (full > 0).sum(dim=1))
    assert (~whole).float().mean().item() == pytest.approx(share, abs=0.1 if share else 0)
