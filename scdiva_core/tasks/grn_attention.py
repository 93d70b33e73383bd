"""Attention between regulators and targets, added up over the cells of a set.

What a pair gets from one cell and one head: the weight with which one gene's token attends to the other's, over even
attention to all gene tokens (the anchor left out), as a logarithm, and that as a z score among the pairs of genes of
like ranks. A gene high up in the cell attracts attention whatever it is; the ranks' mean and spread, fitted on some of
the same cells first, take that away. The paper is silent on networks: all of this is our choice.

A network is regulators by targets, not all genes by all genes, so that memory does not depend on the model. The cells
are dealt into folds whose sums are kept apart: to draw cells anew is to draw folds anew, without another pass.
`scdiva_core.tasks.grn_scores` makes scores, stability and contrasts of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

Head = tuple[int, int]
"""Layer and head, both from 0."""

Direction = Literal["from", "to", "both"]
"""Whose attention is read: the regulator's to the target, the target's to the regulator, or the mean of both."""

FOLDS = 20
"""Parts into which the cells are dealt."""

LEAST_CELLS, LEAST_SHARE = 10, 0.01
"""A gene takes part if at least so many cells, and so large a share of them, have it among their tokens."""

FIT_CELLS = 200
"""Cells that the mean and spread of ranks are fitted on."""

_PRIOR_PAIRS = 100.0  # pairs of the overall mean and spread, added to each pair of rank bins
_SMALLEST = 1e-12  # weights below are rounding
_CPU_WEIGHTS, _CUDA_WEIGHTS = 2_500_000, 400_000_000  # attention weights of one layer formed at a time


@dataclass(frozen=True, eq=False)
class Block:
    """Genes of a network; made by `choose_block`.

    Attributes
    ----------
    regulators
        int64 ``[R]`` columns of the `CellSample`, ascending.
    targets
        int64 ``[T]``, likewise; a regulator may be among them.
    """

    regulators: NDArray[np.int64]
    targets: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """``R, T``."""
        return len(self.regulators), len(self.targets)

    def pairs(self) -> NDArray[np.bool_]:
        """Bool ``[R, T]``, False where regulator and target are one gene."""
        return self.regulators[:, None] != self.targets


@dataclass(frozen=True, eq=False)
class AttentionSums:
    """Attention z scores added up over cells; made by `accumulate`.

    Attributes
    ----------
    block
        The genes.
    heads
        Heads that were read.
    sums
        float32 ``[C, 2, F, R, T]`` sums of z over the cells in which both genes are tokens. C is 1 (the mean over the
        heads) or the number of heads; then attention from the regulator, and to it; F folds of the cells.
    counts
        int32 ``[F, R, T]`` cells in which both genes are tokens; 0 where regulator and target are one gene.
    """

    block: Block
    heads: tuple[Head, ...]
    sums: NDArray[np.float32]
    counts: NDArray[np.int32]


def choose_block(
    sample: CellSample,
    regulators: Sequence[str],
    *,
    most_regulators: int = 300,
    most_targets: int = 2000,
    targets: Sequence[str] | None = None,
) -> Block:
    """Choose the genes of a network: those that most cells have among their tokens, ties by symbol.

    Parameters
    ----------
    sample
        The cells.
    regulators
        Any names of the genes that may be regulators; those unknown to the file or the model are left out.
    most_regulators, most_targets
        How many of each at most.
    targets
        Names of the genes that may be targets; all by default.

    Raises
    ------
    DataError
        No regulator, or no target, is among the tokens of `LEAST_CELLS` cells and `LEAST_SHARE` of them.
    """
    read = np.diff(sample.tokens.indptr)
    least = max(LEAST_CELLS, int(np.ceil(LEAST_SHARE * len(sample))))
    enough = read >= least

    def chosen(names: Sequence[str] | None, most: int, role: str) -> NDArray[np.int64]:
        known = np.arange(len(read)) if names is None else _known_columns(sample, names)
        among = [int(column) for column in known if enough[column]]
        if not among:
            reached = f"the most read one by {read[known].max():,}" if len(known) else "none of them is in the file"
            msg = f"None of {len(known):,} {role} is read by {least:,} of the {len(sample):,} cells ({reached})."
            raise DataError(msg, f"Choose a larger cell set, or other {role}.")
        among.sort(key=lambda column: (-read[column], sample.symbols[column]))
        return np.sort(np.array(among[:most], np.int64))

    return Block(chosen(regulators, most_regulators, "regulators"), chosen(targets, most_targets, "targets"))


@torch.inference_mode()
def accumulate(
    model: ScDiVaModel,
    sample: CellSample,
    block: Block,
    *,
    heads: Sequence[Head] | None = None,
    apart: bool = False,
    folds: int = FOLDS,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> AttentionSums:
    """Add up the attention between regulators and targets over all cells of a sample.

    Parameters
    ----------
    model
        In evaluation mode, on its device; computes in float32.
    sample
        The cells. A cell's fold, and whether the ranks are fitted on it, hang on its place in the file alone: without
        one cell, all others stay where they are.
    block
        The genes.
    heads
        Which to read; all by default.
    apart
        Keep a channel for each head. The sums then take as many times the memory: use fewer folds.
    folds
        F.
    seed
        Of the folds, and of the cells that the ranks are fitted on.
    batch_size
        Cells at a time; by default as many as the weights of one layer allow.
    progress, cancelled
        Called once a batch.

    Raises
    ------
    DataError
        A head that the model does not have, or one twice; fewer than one fold.
    Cancelled
        The user stopped.
    """
    heads = _checked_heads(model, heads)
    if folds < 1:
        msg = f"{folds} folds of the cells."
        raise DataError(msg, "Use 1 or more.")
    draws = np.random.default_rng(seed).random((int(sample.cells.max()) + 1, 2))[sample.cells]
    fold_of, fitted = (draws[:, 0] * folds).astype(np.int64), np.argsort(draws[:, 1], kind="stable")[:FIT_CELLS]
    total = len(fitted) + len(sample)
    reader = _Reader(model, sample, heads, batch_size)
    ranks = _RankFit(reader)
    done = 0
    for rows in reader.batches(np.sort(fitted)):
        stop_if(cancelled)
        reader.run(rows, ranks.add)
        done += len(rows)
        progress(done, total, "Reading attention by rank")
    sums = _Sums(reader, block, *ranks.mean_and_spread(), apart=apart, folds=folds)
    for rows in reader.batches(np.arange(len(sample))):
        stop_if(cancelled)
        sums.begin(rows)
        reader.run(rows, sums.add)
        sums.end(fold_of[rows])
        done += len(rows)
        progress(done, total, "Reading attention between genes")
    return sums.result(heads)


def _known_columns(sample: CellSample, names: Sequence[str]) -> NDArray[np.int64]:
    """Columns of the genes that model and file know, ascending."""
    ids = np.unique(sample.vocabulary.match(names).ids)
    places = np.minimum(np.searchsorted(sample.gene_ids, ids), len(sample.gene_ids) - 1)
    return places[sample.gene_ids[places] == ids]


def _checked_heads(model: ScDiVaModel, heads: Sequence[Head] | None) -> tuple[Head, ...]:
    config = model.config
    every = [(layer, head) for layer in range(config.num_layers) for head in range(config.num_heads)]
    chosen = every if heads is None else [(int(layer), int(head)) for layer, head in heads]
    if not chosen or not set(chosen) <= set(every) or len(set(chosen)) < len(chosen):
        names = ", ".join(f"{layer}.{head}" for layer, head in chosen) or "none"
        msg = f"Heads {names} of a model of {config.num_layers} layers with {config.num_heads} heads each."
        raise DataError(msg, "Choose different heads as (layer, head), both from 0; None reads all.")
    return tuple(chosen)


class _Reader:
    """Runs cells through the model and hands on the log enrichment of the heads that are read, a layer at a time."""

    def __init__(self, model: ScDiVaModel, sample: CellSample, heads: Sequence[Head], batch_size: int | None) -> None:
        self.model, self.rows = model, sample.rows
        self.columns = np.searchsorted(sample.gene_ids, sample.rows.gene_ids)
        self.heads, self.batch_size = heads, batch_size
        # Channels of a layer, and its heads.
        self.of_layer = {
            layer: [(channel, head) for channel, (at, head) in enumerate(heads) if at == layer] for layer, _ in heads
        }

    def batches(self, cells: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Cut into batches of like length, the longest first; cells without a pair of tokens are left out."""
        lengths = self.rows.lengths[cells]
        order = cells[np.argsort(-lengths, kind="stable")]
        order = order[self.rows.lengths[order] > 1]
        room = _CUDA_WEIGHTS if self.model.device.type == "cuda" else _CPU_WEIGHTS
        start = 0
        while start < len(order):
            weights = self.model.config.num_heads * (int(self.rows.lengths[order[start]]) + 1) ** 2
            size = self.batch_size or max(room // weights, 1)
            yield order[start : start + size]
            start += size

    def run(self, cells: NDArray[np.int64], use: Callable[[int, int, Tensor, Tensor], None]) -> None:
        """Call ``use`` with place in the batch, layer, weights ``[heads, n, n]`` and log of what evens each row."""
        batch = self.rows.batch(cells, pad_id=self.model.config.pad_id).to(self.model.device)

        def on_attention(layer: int, weights: Tensor) -> None:
            if layer not in self.of_layer:
                return
            heads = [head for _, head in self.of_layer[layer]]
            for place, n in enumerate(batch.lengths.tolist()):
                between = weights[place, :, 1 : n + 1, 1 : n + 1]
                if len(heads) < len(between):
                    between = between[heads]
                use(place, layer, between, torch.log(n / between.sum(dim=-1).clamp_min(_SMALLEST)))

        self.model(batch.gene_ids, batch.values, on_attention=on_attention)

    def channels(self, layer: int) -> list[int]:
        return [channel for channel, _ in self.of_layer[layer]]


def _rank_bins(length: int) -> NDArray[np.int64]:
    """Bin of each rank from 0: bins of 8, 16, 24 ... ranks, for attention changes fastest at the top."""
    return ((np.sqrt(np.arange(length) + 1.0) - 1) // 2).astype(np.int64)


class _RankFit:
    """Mean and spread of the log enrichment by rank bins of query and key, over all pairs of different genes."""

    def __init__(self, reader: _Reader) -> None:
        self._channels = reader.channels
        longest = int(reader.rows.lengths.max(initial=1))
        bins = torch.from_numpy(_rank_bins(longest)).to(reader.model.device)
        self._inside = torch.nn.functional.one_hot(bins).float()  # [longest, bins]
        n_bins = self._inside.shape[1]
        shape = (3, len(reader.heads), n_bins, n_bins)
        self._moments = torch.zeros(shape, dtype=torch.float64, device="cpu")

    def add(self, _: int, layer: int, weights: Tensor, evened: Tensor) -> None:
        n = weights.shape[-1]
        inside = self._inside[:n]
        logs = weights.clamp_min(_SMALLEST).log_().add_(evened.unsqueeze(-1))
        logs.diagonal(dim1=-2, dim2=-1).zero_()
        counts = torch.outer(inside.sum(0), inside.sum(0)) - torch.diag(inside.sum(0))
        moments = [counts.expand(len(logs), -1, -1), inside.T @ logs @ inside, inside.T @ logs.square() @ inside]
        self._moments[:, self._channels(layer)] += torch.stack(moments).double().cpu()

    def mean_and_spread(self) -> tuple[Tensor, Tensor]:
        """Both float32 ``[heads, bins, bins]``; a pair of bins that few pairs fell into leans on all pairs."""
        overall = self._moments.sum(dim=(-2, -1), keepdim=True)
        prior = _PRIOR_PAIRS * overall / overall[:1].clamp_min(1)
        n, total, squares = self._moments + prior
        mean = total / n.clamp_min(1)
        spread = (squares / n.clamp_min(1) - mean.square()).clamp_min(1e-12).sqrt()
        return mean.float(), spread.float()


class _Sums:
    """Adds up z scores of the block's pairs."""

    def __init__(self, reader: _Reader, block: Block, mean: Tensor, spread: Tensor, *, apart: bool, folds: int) -> None:
        device = reader.model.device
        self._reader, self._block, self._apart = reader, block, apart
        self._mean, self._scale = mean.to(device), (1 / spread).to(device)
        self._bins = torch.from_numpy(_rank_bins(int(reader.rows.lengths.max(initial=1)))).to(device)
        n_genes = int(reader.columns.max(initial=0)) + 1
        n_genes = max(n_genes, int(block.regulators.max()) + 1, int(block.targets.max()) + 1)
        self._place = np.full((2, n_genes), -1)
        for roles, genes in zip(self._place, (block.regulators, block.targets), strict=True):
            roles[genes] = np.arange(len(genes))
        channels = len(reader.heads) if apart else 1
        self._sums = np.zeros((channels, 2, folds, *block.shape), np.float32)
        self._counts = np.zeros((folds, *block.shape), np.int32)

    def begin(self, cells: NDArray[np.int64]) -> None:
        """Find the block's genes among the tokens of each cell of a batch."""
        indptr, device = self._reader.rows.indptr, self._bins.device
        self._genes, self._ranks, self._cell_sums = [], [], []
        for cell in cells:
            places = self._place[:, self._reader.columns[indptr[cell] : indptr[cell + 1]]]
            ranks = [np.flatnonzero(role >= 0) for role in places]
            self._genes.append(tuple(role[at] for role, at in zip(places, ranks, strict=True)))
            self._ranks.append(tuple(torch.from_numpy(at).to(device) for at in ranks))
            shape = (len(self._sums), 2, len(ranks[0]), len(ranks[1]))
            self._cell_sums.append(torch.zeros(shape, device=device))

    def add(self, place: int, layer: int, weights: Tensor, evened: Tensor) -> None:
        regulators, targets = self._ranks[place]
        channels, into = self._reader.channels(layer), self._cell_sums[place]
        for side, (query, key) in enumerate([(regulators, targets), (targets, regulators)]):
            z = self._z(channels, weights, evened, query, key)
            z = z if side == 0 else z.transpose(-2, -1)
            if self._apart:
                into[channels, side] = z
            else:
                into[0, side] += z.sum(dim=0) / len(self._reader.heads)

    def _z(self, channels: list[int], weights: Tensor, evened: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Z scores ``[heads, queries, keys]`` of one cell."""
        picked = weights.index_select(1, query).index_select(2, key)
        logs = picked.clamp_min_(_SMALLEST).log_().add_(evened.index_select(1, query).unsqueeze(-1))
        rows, columns = self._bins[query], self._bins[key]
        mean, scale = (
            table[channels].index_select(1, rows).index_select(2, columns) for table in (self._mean, self._scale)
        )
        return logs.sub_(mean).mul_(scale)

    def end(self, folds: NDArray[np.int64]) -> None:
        """Put the batch's sums into the folds of its cells."""
        for fold, (regulators, targets), part in zip(folds, self._genes, self._cell_sums, strict=True):
            at = np.ix_(regulators, targets)
            self._counts[fold][at] += 1
            for channel, both in enumerate(part.cpu().numpy()):
                for side, z in enumerate(both):
                    self._sums[channel, side, fold][at] += z

    def result(self, heads: tuple[Head, ...]) -> AttentionSums:
        same = ~self._block.pairs()
        self._sums[..., same] = 0
        self._counts[:, same] = 0
        return AttentionSums(self._block, heads, self._sums, self._counts)
