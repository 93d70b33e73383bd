"""Training batches: cells from the corpus, thinned, normalised, serialised; one batch is prepared ahead."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scdiva_core.data.corpus import Corpus, batches
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.diffusion.corruption import thin_counts

SHALLOWEST = 0.25
"""Lowest thinning factor."""


@dataclass(frozen=True)
class TrainingBatch:
    """Tokens of (perhaps thinned) cells, and the full-depth expression they come from.

    Attributes
    ----------
    step
        Which batch of the run this is.
    tokens
        Serialised rows.
    expression
        float32 ``[B, vocab_size]`` log1p expression at full depth, sparse.
    """

    step: int
    tokens: TokenBatch
    expression: torch.Tensor


def make_batch(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cells: NDArray[np.integer],
    rng: np.random.Generator,
    *,
    thinned_share: float,
    step: int = 0,
) -> TrainingBatch:
    """Read, thin and serialise cells; validation passes ``thinned_share=0``."""
    rows = corpus.take(cells)
    vocabulary = np.arange(len(corpus.vocabulary))
    full = rows.log1p()
    values = full
    if thinned_share > 0:
        factors = np.where(rng.random(len(rows)) < thinned_share, rng.uniform(SHALLOWEST, 1, len(rows)), 1.0)
        values = rows.log1p(thin_counts(rows.counts, factors[rows.rows], rng))
    tokens = tokenizer.serialize(rows.indptr, rows.gene_ids, values, vocabulary)
    return TrainingBatch(step, tokens.batch(np.arange(len(rows))), rows.sparse(full, len(vocabulary)))


def training_batches(
    corpus: Corpus, tokenizer: Tokenizer, *, size: int, seed: int, start: int, stop: int, thinned_share: float
) -> Iterator[TrainingBatch]:
    """Batches ``start`` to ``stop`` of a run; each depends on the seed and its number alone."""
    cells = corpus.cells("training")

    def make(step: int, chosen: NDArray[np.integer]) -> TrainingBatch:
        rng = np.random.default_rng([seed, step])
        return make_batch(corpus, tokenizer, chosen, rng, thinned_share=thinned_share, step=step)

    draws = batches(cells, size, seed, start)
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[TrainingBatch] | None = None
        for step in range(start, stop):
            following = pool.submit(make, step, next(draws))
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()
