"""What integration learns from: cells with their batches and groups, and what a frozen network makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray

from scdiva_core.baselines.expression import variable_genes
from scdiva_core.data.concatenate import measured_in_all
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer, TokenRows
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_cells import IsCancelled, Progress, read_tokens

FEWEST = 5
"""Cells that a batch needs: one of five judges."""

JUDGED = 5
"""One cell of so many of each group and batch judges."""

TARGET_GENES = 500
"""Variable genes that are reconstructed (our choice: more cost time and are mostly sampling noise)."""

TaughtBy = Literal["labels", "clusters"]
"""Whose groups are drawn together: the user's labels, or clusters that stand in for them."""

_EMBEDDED_CELLS = {"cuda": 256}  # of a batch; 16 elsewhere: more falls out of a CPU's cache and is slower


@dataclass(frozen=True, eq=False)
class IntegrationCells:
    """Cells of several batches, read once.

    Attributes
    ----------
    places
        int64 ``[n]`` their numbers in the file, ascending.
    rows
        Token rows, one a cell.
    expression
        log1p expression of the variable genes, float32 ``[n, n_target]``.
    gene_ids
        Token id of each of these genes, ascending.
    batches, groups
        int64 ``[n]`` number of the batch, and of the group; -1 for a cell of no group.
    batch_names, group_names
        What the numbers mean.
    taught_by
        What the groups are.
    validation
        bool ``[n]``, True for the cells that judge; all of them have a group.
    """

    places: NDArray[np.int64]
    rows: TokenRows
    expression: NDArray[np.float32]
    gene_ids: NDArray[np.int64]
    batches: NDArray[np.int64]
    groups: NDArray[np.int64]
    batch_names: tuple[str, ...]
    group_names: tuple[str, ...]
    taught_by: TaughtBy
    validation: NDArray[np.bool_]

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Cells whose group is in two batches or more, bool ``[n]``: only these are asked to hide their batch."""
        pairs = np.unique(np.stack([self.groups, self.batches]), axis=1)[0]
        counts = np.bincount(pairs[pairs >= 0], minlength=len(self.group_names))
        return np.append(counts, 0)[self.groups] > 1  # the last is that of no group


def read_integration(
    dataset: H5adDataset,
    tokenizer: Tokenizer,
    batches: ArrayLike,
    groups: ArrayLike,
    *,
    taught_by: TaughtBy,
    most: int,
    seed: int,
    progress: Progress,
    cancelled: IsCancelled,
) -> IntegrationCells:
    """Read the cells of all batches, and hold a fifth of each group and batch out.

    Parameters
    ----------
    dataset
        The open file.
    tokenizer
        Of the checkpoint.
    batches
        ``[n_obs]`` batch of each cell; cells without one are left out.
    groups
        ``[n_obs]`` type, or cluster, of each cell; missing or blank is of no group.
    taught_by
        What the groups are.
    most
        Cells to use, drawn at random where there are more.
    seed
        Of both draws.
    progress, cancelled
        Called once a chunk.

    Raises
    ------
    DataError
        Fewer than two batches of `FEWEST` cells, no group in two batches, or only one group.
    Cancelled
        The user stopped.
    """
    batch_codes, batch_names = _codes(batches, dataset.n_obs)
    group_codes, group_names = _codes(groups, dataset.n_obs)
    check_batches(batches)
    places = np.flatnonzero(batch_codes >= 0)
    if len(places) > most:
        places = np.sort(np.random.default_rng(seed).choice(places, most, replace=False))
    batch_codes, group_codes = batch_codes[places], group_codes[places]
    found = IntegrationCells(
        places=places,
        rows=read_tokens(dataset, tokenizer, places, progress=progress, cancelled=cancelled),
        expression=np.empty((0, 0), np.float32),
        gene_ids=np.empty(0, np.int64),
        batches=batch_codes,
        groups=group_codes,
        batch_names=batch_names,
        group_names=group_names,
        taught_by=taught_by,
        validation=_judging(batch_codes, group_codes, seed),
    )
    if not _can_judge(batch_codes[found.validation], group_codes[found.validation]):
        what = {"labels": "type", "clusters": "cluster"}[taught_by]
        msg = f"No {what} has cells enough in two of the {len(batch_names)} batches, among {len(group_names)} of them."
        raise DataError(msg, "Choose another batch column, or other labels: what batches do not share cannot be mixed.")
    cells = sp.vstack([block for _, block in dataset.chunks()], format="csr")[places]
    columns = np.flatnonzero(measured_in_all(dataset))
    columns = columns[variable_genes(cells[:, columns], TARGET_GENES)]
    expression = cells[:, columns].toarray()
    return IntegrationCells(**{**vars(found), "expression": expression, "gene_ids": dataset.gene_ids[columns]})


def check_batches(batches: ArrayLike) -> None:
    """Make sure that there is something to integrate.

    Raises
    ------
    DataError
        Fewer than two batches, or one of fewer than `FEWEST` cells.
    """
    codes, names = _codes(batches, np.size(batches))
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    if len(names) < 2:
        msg = f"The cells are of {len(names)} batch: there is nothing to integrate."
        raise DataError(msg, "Choose a column with two batches or more.")
    if sizes.min() < FEWEST:
        msg = f"The batch {names[int(sizes.argmin())]} has {sizes.min()} cells; {FEWEST} are needed."
        raise DataError(msg, "Choose a coarser batch column, or leave these cells out.")


@torch.no_grad()
def pooled_states(model: ScDiVaModel, rows: TokenRows, watch: Callable[[int, int], None]) -> NDArray[np.float32]:
    """What the latent head reads of each cell, float32 ``[n, d]``; like lengths go together.

    Parameters
    ----------
    model
        With a latent head, in evaluation mode, on its device.
    rows
        Serialised cells.
    watch
        Called with cells done and in all before each batch.
    """
    order = np.argsort(-rows.lengths, kind="stable")
    size, parts = _EMBEDDED_CELLS.get(model.device.type, 16), []
    for start in range(0, len(order), size):
        watch(start, len(order))
        batch = rows.batch(order[start : start + size], pad_id=model.config.pad_id).to(model.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
            output = model(batch.gene_ids, batch.values, anchor_from="visible")
            read = model.is_gene(batch.gene_ids)
            pooled = model.heads["latent"].pooled(output.hidden, batch.gene_ids, batch.values, read)
        parts.append(pooled.float().cpu().numpy())
    watch(len(order), len(order))
    return np.concatenate(parts)[np.argsort(order)]


def _codes(values: ArrayLike, n_obs: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number of each text in sorted order, -1 where missing or blank."""
    if np.shape(values) != (n_obs,):
        msg = f"There are {np.size(values):,} values, but the file has {n_obs:,} cells."
        raise DataError(msg, "Give one for every cell.")
    texts = pd.Series(np.asarray(values, object))
    missing = texts.isna() | (texts.astype(str).str.strip() == "")
    codes, names = pd.factorize(texts.astype(str).str.strip().mask(missing), sort=True)
    return codes.astype(np.int64), tuple(names)


def _can_judge(batches: NDArray[np.int64], groups: NDArray[np.int64]) -> bool:
    """Whether cells have two groups or more, and one of these cells enough in two batches to see them mixed."""
    found = pd.Series(batches).groupby(groups)
    return found.ngroups > 1 and bool(((found.nunique() > 1) & (found.nunique() < found.size())).any())


def _judging(batches: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Mark every fifth cell of each group and batch, in random order."""
    order = np.random.default_rng(seed).permutation(len(batches))
    place = pd.DataFrame({"batch": batches[order], "group": groups[order]}).groupby(["batch", "group"]).cumcount()
    marked = np.zeros(len(batches), bool)
    marked[order] = (place.to_numpy() % JUDGED) == JUDGED - 1
    return marked & (groups >= 0)
