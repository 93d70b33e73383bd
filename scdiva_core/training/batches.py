"""Training batches: cells from the corpus, changed, normalised, serialised; one batch is prepared ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.corpus import CellDraws, Corpus
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.training.augmentation import Augmentation
from scdiva_core.training.settings import PretrainSettings


@dataclass(frozen=True)
class TrainingBatch:
    """Tokens of (perhaps changed) cells, and the expression they come from.

    Attributes
    ----------
    step
        Which batch of the run this is.
    tokens
        Serialised rows.
    expression
        float32 ``[B, vocab_size]`` log1p expression as it was measured, sparse.
    labels, batch_of
        int64 ``[B]`` label and technical batch of each cell, numbered as in the corpus.
    """

    step: int
    tokens: TokenBatch
    expression: torch.Tensor
    labels: torch.Tensor
    batch_of: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: slice) -> TrainingBatch:
        """Some consecutive rows alone, padded as the whole batch is."""
        tokens = TokenBatch(self.tokens.gene_ids[rows], self.tokens.values[rows], self.tokens.lengths[rows])
        expression = self.expression.narrow_copy(0, rows.start, rows.stop - rows.start)
        return TrainingBatch(self.step, tokens, expression, self.labels[rows], self.batch_of[rows])


def make_batch(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cells: NDArray[np.integer],
    rng: np.random.Generator,
    augmentation: Augmentation | None = None,
    *,
    step: int = 0,
) -> TrainingBatch:
    """Read, change and serialise cells; validation changes nothing."""
    rows = corpus.take(cells)
    n_genes = len(corpus.vocabulary)
    full = rows.log1p()
    seen = augmentation(rows, rng) if augmentation else rows
    values = seen.log1p() if augmentation else full
    tokens = tokenizer.serialize(seen.indptr, seen.gene_ids, values, np.arange(n_genes))
    return TrainingBatch(
        step,
        tokens.batch(np.arange(len(rows))),
        rows.sparse(full, n_genes),
        torch.from_numpy(corpus.labels[cells].astype(np.int64)),
        torch.from_numpy(corpus.batch_of[cells].astype(np.int64)),
    )


def training_batches(
    corpus: Corpus, settings: PretrainSettings, max_genes: int, augmentation: Augmentation, *, start: int
) -> Iterator[TrainingBatch]:
    """Batches of a run from ``start`` on; each depends on the seed and its number alone."""
    draws = CellDraws(corpus, settings.batch_size, settings.seed, settings.balance)
    long, short = Tokenizer(corpus.entropy, max_genes), Tokenizer(corpus.entropy, max((max_genes + 1) // 2, 1))

    def make(step: int) -> TrainingBatch:
        rng = np.random.default_rng([settings.seed, step, 1])
        tokenizer = short if rng.random() < settings.short_share else long
        return make_batch(corpus, tokenizer, draws.batch(step), rng, augmentation, step=step)

    with ThreadPoolExecutor(1) as pool:
        ahead: Future[TrainingBatch] | None = None
        for step in range(start, settings.steps):
            following = pool.submit(make, step)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()
