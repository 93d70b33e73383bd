"""Tokens hidden from the model, and what it puts in their places.

Two questions are asked, and they are not the same:

* *Which gene and what value stands at this place?* (`rebuild`), as published: gene and value share a mask, and the
  model is told the place, which is a rank. The rank alone tells much of the value.
* *What is the value of this gene, that is expressed?* (`named_values`): the gene is named and its token is taken away,
  so that no place tells its rank. This is what imputation and denoising ask, and what simple imputation is asked too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scdiva_core.data.tokenizer import TokenBatch, TokenRows
from scdiva_core.diffusion.sampler import sample
from scdiva_core.model.network import AnchorSource, ScDiVaModel
from scdiva_core.tasks.embedding import TokenBudget, encode_rows
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

_DECODER = "batch_integration"
_CPU_PLACES, _CUDA_PLACES = 1024, 16_384  # hidden places of a batch: each needs a probability of every gene


def random_mask(rows: TokenRows, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a share of each cell's tokens at random, so that one at least is hidden and one stays.

    Parameters
    ----------
    rows
        Cells.
    share
        Of a cell's tokens, in (0, 1); the number is rounded.
    rng
        Source of all randomness.

    Returns
    -------
    ndarray
        bool, one for each of ``rows.gene_ids``; nothing is hidden in cells of fewer than two tokens.
    """
    hidden = np.zeros(len(rows.gene_ids), bool)
    for start, length in zip(rows.indptr, rows.lengths, strict=False):
        if length > 1:
            wanted = int(np.clip(round(share * length), 1, length - 1))
            hidden[start + rng.choice(length, wanted, replace=False)] = True
    return hidden


def gene_mask(rows: TokenRows, gene_ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Hide the tokens of some genes, as `random_mask` returns it; cells that would lose all tokens keep them."""
    hidden = np.isin(rows.gene_ids, gene_ids)
    left = np.bincount(cell_of(rows)[~hidden], minlength=len(rows))
    return hidden & np.repeat(left > 0, rows.lengths)


def cell_of(rows: TokenRows) -> NDArray[np.int64]:
    """Row of each token, int64 ``[n_tokens]``."""
    return np.repeat(np.arange(len(rows)), rows.lengths)


def without(rows: TokenRows, hidden: NDArray[np.bool_]) -> TokenRows:
    """Take the hidden tokens away; those below move up."""
    indptr = np.concatenate([[0], np.cumsum(~hidden)])[rows.indptr]
    return TokenRows(indptr, rows.gene_ids[~hidden], rows.values[~hidden])


def rebuild(
    model: ScDiVaModel,
    rows: TokenRows,
    hidden: NDArray[np.bool_],
    *,
    anchor_from: AnchorSource = "visible",
    steps: int = 1,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> TokenRows:
    """Fill the hidden places with genes and values.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    rows, hidden
        Cells, and which of their tokens are masked.
    anchor_from
        ``"visible"``: the anchor is pooled from visible tokens. ``"clean"``, as published: from all, so that what is
        hidden reaches the model through it.
    steps
        1: one pass, each place gets its most probable gene that is not visible in the cell; a gene may come twice.
        More: iterative unmasking with `scdiva_core.diffusion.sampler.sample`, where no gene comes twice.
    progress, cancelled
        Called and asked once a batch.

    Returns
    -------
    TokenRows
        As `rows`, with other genes and values at the hidden places. Values are never below 0.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    gene_ids, values = rows.gene_ids.copy(), rows.values.copy()
    done = 0
    for batch, places in _batches(model, rows, hidden):
        stop_if(cancelled)
        progress(done, len(rows), "Rebuilding cells")
        tokens, masked = _on_device(model, rows, hidden, batch)
        if steps > 1:
            made = sample(model, tokens, masked, steps=steps, anchor_from=anchor_from)
            genes, amounts = made.gene_ids[masked], made.values[masked]
        else:
            genes, amounts = _one_pass(model, tokens.gene_ids, tokens.values, masked, anchor_from)
        gene_ids[places] = genes.cpu().numpy()
        values[places] = amounts.float().clamp(min=0).cpu().numpy()
        done += len(batch)
    progress(len(rows), len(rows), "Rebuilding cells")
    return TokenRows(rows.indptr, gene_ids, values)


@torch.inference_mode()
def _one_pass(
    model: ScDiVaModel, ids: torch.Tensor, values: torch.Tensor, masked: torch.Tensor, anchor_from: AnchorSource
) -> tuple[torch.Tensor, torch.Tensor]:
    """Most probable gene and the value at each masked place, row after row."""
    output = model(ids, values, mask=masked, anchor_from=anchor_from)
    states = output.tokens[masked]
    blocked = torch.zeros(len(ids), model.config.vocab_size, dtype=states.dtype, device=ids.device)
    blocked.scatter_(1, torch.where(masked, model.config.pad_id, ids), float("-inf"))
    blocked[:, list(model.config.reserved_ids)] = float("-inf")
    logits = model.gene_logits(states)
    logits += blocked[masked.nonzero()[:, 0]]
    return logits.argmax(dim=-1), model.gene_values(states)


@dataclass(frozen=True, eq=False)
class Levels:
    """How what the decoder says becomes a value of this file.

    The decoder's levels are those of an average study, and they count cells that lack the gene. So a value is the
    gene's mean in the file plus a share of how far the cell's decoded value lies from that of a mean cell (our choice).

    Attributes
    ----------
    means
        float32 ``[vocab_size]`` mean value of each gene's tokens in other cells of the file.
    centres
        float32 ``[vocab_size]`` mean decoded value over such cells.
    slope
        The share, by least squares over hidden tokens of such cells; never below 0.
    """

    means: NDArray[np.float32]
    centres: NDArray[np.float32]
    slope: float


def can_decode(model: ScDiVaModel) -> bool:
    """Whether the checkpoint has the heads to decode expression from a latent."""
    return {"latent", _DECODER} <= set(model.heads)


def fit_levels(
    model: ScDiVaModel,
    rows: TokenRows,
    hidden: NDArray[np.bool_],
    means: NDArray[np.floating],
    *,
    cancelled: IsCancelled = never,
) -> Levels:
    """Fit the levels of a file on cells that are not asked afterwards.

    Parameters
    ----------
    model
        With a decoder (`can_decode`).
    rows, hidden
        Cells, and tokens that are taken away, as many as from the cells that will be asked.
    means
        Mean value of each gene's tokens ``[vocab_size]``.
    cancelled
        Asked once a batch.
    """
    total, decoded = np.zeros(model.config.vocab_size), np.zeros(len(rows.gene_ids))
    for batch, expression in _decoded(model, without(rows, hidden), cancelled):
        total += expression.sum(axis=0, dtype=np.float64)
        for row, values in zip(batch, expression, strict=True):
            own = slice(*rows.indptr[row : row + 2])
            decoded[own] = values[rows.gene_ids[own]]
    centres, genes = total / max(len(rows), 1), rows.gene_ids[hidden]
    away, truth = decoded[hidden] - centres[genes], rows.values[hidden] - means[genes]
    slope = max(float(away @ truth) / max(float(away @ away), 1e-9), 0.0)
    return Levels(np.asarray(means, np.float32), centres.astype(np.float32), slope)


def named_values(
    model: ScDiVaModel,
    rows: TokenRows,
    hidden: NDArray[np.bool_],
    levels: Levels | None = None,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float32]:
    """Predict the values of hidden genes whose names are told.

    With a decoder the tokens are taken away and the cell's latent is decoded. Without one the tokens are masked, and a
    gene's value is the mean of the values at the hidden places, weighted by how probable the gene is at each; only the
    genes that are asked for are considered.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    rows, hidden
        Cells, and the tokens whose values are asked for.
    levels
        Of the file (`fit_levels`); needed if and only if the checkpoint has a decoder.
    progress, cancelled
        Called and asked once a batch.

    Returns
    -------
    ndarray
        float32 ``[hidden.sum()]``, log1p, never below 0, in the order of the tokens.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    values, done = np.zeros(len(rows.gene_ids), np.float32), 0
    if levels is not None:
        for batch, expression in _decoded(model, without(rows, hidden), cancelled):
            progress(done, len(rows), "Decoding cells")
            for row, decoded in zip(batch, expression, strict=True):
                own = np.arange(*rows.indptr[row : row + 2])[hidden[slice(*rows.indptr[row : row + 2])]]
                genes = rows.gene_ids[own]
                values[own] = levels.means[genes] + levels.slope * (decoded[genes] - levels.centres[genes])
            done += len(batch)
    else:
        for batch, places in _batches(model, rows, hidden):
            stop_if(cancelled)
            progress(done, len(rows), "Predicting values")
            values[places] = _expected(model, rows, hidden, batch)
            done += len(batch)
    progress(len(rows), len(rows), "Predicting values")
    return np.maximum(values[hidden], 0)


def _decoded(
    model: ScDiVaModel, rows: TokenRows, cancelled: IsCancelled
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows and their decoded expression, float32 ``[batch, vocab_size]``."""
    for batch, latents in encode_rows(model, rows, TokenBudget(model), cancelled=cancelled):
        with torch.inference_mode():
            decoded = model.heads[_DECODER](torch.from_numpy(latents).to(model.device))
        yield batch, decoded.float().cpu().numpy()


@torch.inference_mode()
def _expected(
    model: ScDiVaModel, rows: TokenRows, hidden: NDArray[np.bool_], batch: NDArray[np.int64]
) -> NDArray[np.float32]:
    tokens, masked = _on_device(model, rows, hidden, batch)
    output = model(tokens.gene_ids, tokens.values, mask=masked, anchor_from="visible")
    found = []
    for row in range(len(batch)):
        states, genes = output.tokens[row, masked[row]], tokens.gene_ids[row, masked[row]]
        chance = F.linear(states, model.gene_head.weight[genes]).softmax(dim=-1)
        found.append((chance.T @ model.gene_values(states).clamp(min=0)) / chance.sum(dim=0).clamp(min=1e-9))
    return torch.cat(found).float().cpu().numpy()


def _batches(
    model: ScDiVaModel, rows: TokenRows, hidden: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows with hidden tokens, those of like length together, and the places of these tokens, row after row."""
    counts = np.bincount(cell_of(rows)[hidden], minlength=len(rows))
    order = np.argsort(-rows.lengths, kind="stable")
    order = order[counts[order] > 0]
    tokens, most = TokenBudget(model).tokens, _CUDA_PLACES if model.device.type == "cuda" else _CPU_PLACES
    starts = np.concatenate([[0], np.cumsum(counts)])
    places, start = np.flatnonzero(hidden), 0
    while start < len(order):
        size = max(int(tokens // (rows.lengths[order[start]] + 1)), 1)
        fits = np.searchsorted(np.cumsum(counts[order[start : start + size]]), most, side="right")
        batch = order[start : start + max(int(fits), 1)]
        yield batch, np.concatenate([places[starts[row] : starts[row + 1]] for row in batch])
        start += len(batch)


def _on_device(
    model: ScDiVaModel, rows: TokenRows, hidden: NDArray[np.bool_], batch: NDArray[np.int64]
) -> tuple[TokenBatch, torch.Tensor]:
    pad_id = model.config.pad_id
    masked = replace(rows, values=hidden).batch(batch, pad_id=pad_id).values.bool()
    return rows.batch(batch, pad_id=pad_id).to(model.device), masked.to(model.device)
