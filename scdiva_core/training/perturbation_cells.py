"""Cells of a Perturb-seq file, what each perturbation changed, and cells as the fine-tuned network reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import EPSILON, TokenBatch
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.lazy import cached_property
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.training.finetune_cells import IsCancelled, Progress

Kind = Literal["knockout", "activation"]
"""What was done to the genes that a perturbation names."""

MOST_TARGETS = 3
"""Genes perturbed at once at most; a row keeps so many places free for them."""

FEWEST = 10
"""Cells that a perturbation and the control need: a mean of fewer is mostly noise (our choice)."""

_CHUNK_CELLS = 2048


@dataclass(frozen=True, eq=False)
class PerturbationCells:
    """Control and perturbed cells of one file over a panel of genes.

    Attributes
    ----------
    expression
        float32 ``[n, g]`` log1p of counts per 10,000.
    names
        ``[n]`` perturbation of each cell, its genes sorted and joined by ``+``; empty for control cells.
    batches
        int64 ``[n]`` batch of each cell; all 0 where the file knows of none.
    gene_ids, symbols
        int64 ``[g]`` token id, ascending, and name of each gene.
    targets
        Perturbation -> token ids of its genes, ``+`` for ``+``.
    kind
        What was done to them.
    left_out
        Perturbations of the file that are not used -> why.
    """

    expression: NDArray[np.float32]
    names: NDArray[np.str_]
    batches: NDArray[np.int64]
    gene_ids: NDArray[np.int64]
    symbols: tuple[str, ...]
    targets: Mapping[str, tuple[int, ...]]
    kind: Kind
    left_out: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def control(self) -> NDArray[np.int64]:
        """Rows of the control cells."""
        return np.flatnonzero(self.names == "")

    def rows(self, name: str) -> NDArray[np.int64]:
        """Rows of a perturbation's cells."""
        return np.flatnonzero(self.names == name)

    def only(self, perturbations: Sequence[str]) -> PerturbationCells:
        """Keep the control cells and those of some perturbations; nothing of the others stays."""
        kept = np.isin(self.names, ["", *perturbations])
        return replace(
            self,
            expression=self.expression[kept],
            names=self.names[kept],
            batches=self.batches[kept],
            targets={name: self.targets[name] for name in perturbations},
        )

    def change(self, name: str) -> NDArray[np.float32]:
        """Mean expression of a perturbation's cells less that of control cells, float32 ``[g]``.

        Within batches, each weighing as many cells as it has of the perturbation. Batches without control cells are
        left out, unless there is no other.
        """
        rows = self.rows(name)
        total, weight = np.zeros(len(self.gene_ids)), 0
        for batch, controls in self._controls.items():
            there = rows[self.batches[rows] == batch]
            if len(there):
                base = self.expression[controls].mean(axis=0, dtype=np.float64)
                total += len(there) * (self.expression[there].mean(axis=0, dtype=np.float64) - base)
                weight += len(there)
        if not weight:
            base = self.expression[self.control].mean(axis=0, dtype=np.float64)
            return (self.expression[rows].mean(axis=0, dtype=np.float64) - base).astype(np.float32)
        return (total / weight).astype(np.float32)

    def draw_controls(self, name: str, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw rows of control cells, each from the batch of a perturbed cell where that has any."""
        batches = self.batches[rng.choice(self.rows(name), number)]
        return np.array([rng.choice(self._controls.get(batch, self.control)) for batch in batches.tolist()], np.int64)

    @cached_property
    def _controls(self) -> dict[int, NDArray[np.int64]]:
        """Batch -> rows of its control cells, where it has any."""
        batches = self.batches[self.control]
        return {int(batch): self.control[batches == batch] for batch in np.unique(batches)}


def read_perturbations(
    dataset: H5adDataset,
    vocabulary: GeneVocabulary,
    perturbations: ArrayLike,
    *,
    control: str,
    kind: Kind,
    max_genes: int,
    batches: ArrayLike | None = None,
    most_cells: int = 2000,
    seed: int = 0,
    progress: Progress = lambda *_: None,
    cancelled: IsCancelled = lambda: False,
) -> PerturbationCells:
    """Read a Perturb-seq file.

    Parameters
    ----------
    dataset
        The open file, over the model's vocabulary.
    vocabulary
        Of the model.
    perturbations
        ``[n_obs]`` what was done to each cell: genes joined by ``+``, or the control's name. A part that is the
        control's name or ``ctrl`` is no gene. Missing or blank cells are left out.
    control
        Name of the unperturbed cells.
    kind
        ``"knockout"`` or ``"activation"``.
    max_genes
        Longest row of the model. A file of more genes than fit beside the perturbed ones is read over those that vary
        most among its control cells (our choice; published sets hold 5,000).
    batches
        ``[n_obs]`` batch of each cell.
    most_cells
        Cells of a perturbation, or of the control, at most; of more some are drawn.
    seed
        Of the draws.
    progress, cancelled
        Called once a chunk.

    Raises
    ------
    DataError
        No or too few control cells, fewer than two usable perturbations, or columns of another length.
    Cancelled
        The user stopped.
    """
    if kind not in get_args(Kind):
        msg = f"Perturbations of the kind {kind!r} are not known."
        raise DataError(msg, f"Choose one of: {', '.join(get_args(Kind))}.")
    given = _texts(perturbations, dataset.n_obs, "perturbations")
    codes = pd.factorize(_texts(batches, dataset.n_obs, "batches"))[0] if batches is not None else None
    names, targets, left_out = usable_perturbations(given, control, vocabulary)
    cells = _drawn(names, [*targets, control], most_cells, seed)
    columns = _panel(dataset, np.flatnonzero(names == control), max_genes - MOST_TARGETS, progress, cancelled)
    blocks = []
    for start, block in dataset.chunks(_CHUNK_CELLS):
        _watch(start, dataset.n_obs, progress, cancelled)
        first, last = np.searchsorted(cells, [start, start + block.shape[0]])
        if last > first:
            blocks.append(block[cells[first:last] - start][:, columns].toarray())
    _watch(dataset.n_obs, dataset.n_obs, progress, cancelled)
    chosen = names[cells]
    return PerturbationCells(
        expression=np.concatenate(blocks).astype(np.float32),
        names=np.where(chosen == control, "", chosen).astype(str),
        batches=np.zeros(len(cells), np.int64) if codes is None else codes[cells].astype(np.int64),
        gene_ids=dataset.gene_ids[columns].astype(np.int64),
        symbols=tuple(dataset.gene_symbols[column] for column in columns),
        targets=targets,
        kind=kind,
        left_out=left_out,
    )


@dataclass(frozen=True, eq=False)
class MarkedRows:
    """Control cells as the network reads them, a perturbation marked in each.

    Attributes
    ----------
    tokens
        The perturbed genes first, then every other gene of the panel, zeros included.
    columns
        int64 ``[B, L]`` column of the panel that each place holds; -1 for padding and genes beyond the panel.
    n_marked
        int64 ``[B]`` how many places at the beginning are perturbed genes.
    """

    tokens: TokenBatch
    columns: NDArray[np.int64]
    n_marked: NDArray[np.int64]


def marked_rows(
    model: ScDiVaModel,
    gene_ids: NDArray[np.int64],
    expression: NDArray[np.float32],
    targets: Sequence[tuple[int, ...]],
    value: float,
) -> MarkedRows:
    """Serialise control cells with their perturbed genes in front.

    The place says which genes were perturbed, and their value how: 0 or high. Elsewhere the first places hold the
    genes that tell the cell from others, and never a zero. The other genes follow in the order of the tokenizer, then
    those that the cell does not express by token id. Without zeros a silent gene would have no place at which its
    change could be read. All of it is our choice.

    Parameters
    ----------
    model
        Brings entropies and the padding id.
    gene_ids
        int64 ``[g]`` token ids of the panel, ascending.
    expression
        float32 ``[B, g]`` log1p expression of the control cells.
    targets
        Token ids of the genes perturbed in each cell; one of them beyond the panel gets a token too.
    value
        Of the perturbed genes.
    """
    score = expression / np.maximum(model.tokenizer.entropy[gene_ids], EPSILON)
    order = np.argsort(-score, axis=1, kind="stable")
    width = len(gene_ids) + max((len(genes) for genes in targets), default=0)
    ids = np.full((len(expression), width), model.config.pad_id, np.int64)
    values = np.zeros(ids.shape, np.float32)
    columns = np.full(ids.shape, -1, np.int64)
    lengths = np.empty(len(expression), np.int64)
    for row, genes in enumerate(targets):
        places = np.searchsorted(gene_ids, genes)
        on_panel = gene_ids[np.minimum(places, len(gene_ids) - 1)] == np.array(genes)
        others = order[row][~np.isin(gene_ids[order[row]], genes)]
        n = len(genes)
        lengths[row] = end = n + len(others)
        ids[row, :n], values[row, :n], columns[row, :n] = genes, value, np.where(on_panel, places, -1)
        ids[row, n:end], values[row, n:end], columns[row, n:end] = gene_ids[others], expression[row, others], others
    longest = int(lengths.max(initial=1))
    tokens = TokenBatch(*map(torch.from_numpy, (ids[:, :longest].copy(), values[:, :longest].copy(), lengths)))
    return MarkedRows(tokens, columns[:, :longest], np.array([len(genes) for genes in targets], np.int64))


def parts(name: str, control: str) -> tuple[str, ...]:
    """Genes that a perturbation names, sorted, each once; ``ctrl`` and the control's name are none."""
    genes = {part.strip() for part in name.split("+")} - {"", "ctrl", control}
    return tuple(sorted(genes))


def _texts(values: ArrayLike, length: int, what: str) -> NDArray[np.str_]:
    series = pd.Series(np.asarray(values, object))
    if len(series) != length:
        msg = f"There are {len(series):,} {what}, but the file has {length:,} cells."
        raise DataError(msg, "Give one for every cell.")
    return series.where(series.notna(), "").astype(str).str.strip().to_numpy(str)


def usable_perturbations(
    perturbations: ArrayLike, control: str, vocabulary: GeneVocabulary
) -> tuple[NDArray[np.str_], dict[str, tuple[int, ...]], dict[str, str]]:
    """Find out which perturbations of a column can be learned or predicted.

    Parameters
    ----------
    perturbations, control, vocabulary
        As for `read_perturbations`.

    Returns
    -------
    tuple
        Perturbation of each cell in our spelling, the usable ones with their token ids, and why others are not.

    Raises
    ------
    DataError
        No or too few control cells, or fewer than two usable perturbations.
    """
    given = _texts(perturbations, np.size(perturbations), "perturbations")
    spelled = {name: name if name in ("", control) else "+".join(parts(name, control)) for name in np.unique(given)}
    # "A+ctrl" is A, but what names no gene at all is the control.
    spelled = {name: other or (control if name else "") for name, other in spelled.items()}
    names = np.array([spelled[name] for name in given])
    sizes = dict(zip(*(found.tolist() for found in np.unique(names[names != ""], return_counts=True)), strict=True))
    if control not in given or sizes.get(control, 0) < FEWEST:
        msg = f"{(given == control).sum():,} cells are {control!r}; at least {FEWEST} control cells are needed."
        there = pd.Series(given[given != ""]).value_counts().index[:8]
        raise DataError(msg, f"Name the control's value; the column holds: {', '.join(there)}.")
    targets: dict[str, tuple[int, ...]] = {}
    left_out: dict[str, str] = {}
    for name, size in sizes.items():
        genes = name.split("+")
        ids = vocabulary.match(genes).ids
        unknown = [gene for gene, token in zip(genes, ids.tolist(), strict=True) if token < 0]
        if name == control:
            continue
        if unknown:
            left_out[name] = f"the vocabulary lacks {', '.join(unknown)}"
        elif len(set(ids.tolist())) < len(genes):
            left_out[name] = "it names one gene twice"
        elif len(genes) > MOST_TARGETS:
            left_out[name] = f"{len(genes)} genes at once; at most {MOST_TARGETS} are read"
        elif size < FEWEST:
            left_out[name] = f"{size} cells; a perturbation needs {FEWEST}"
        else:
            targets[name] = tuple(ids.tolist())
    if len(targets) < 2:
        rest = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        msg = f"{len(targets)} perturbations can be used{f' (left out: {rest})' if rest else ''}."
        raise DataError(msg, "Choose the column that names the perturbed genes, two of them at least.")
    return names, targets, left_out


def _drawn(names: NDArray[np.str_], kept: Sequence[str], most: int, seed: int) -> NDArray[np.int64]:
    """Cells of the kept perturbations, ascending, no more than so many of each."""
    rng = np.random.default_rng(seed)
    chosen = (rng.permutation(np.flatnonzero(names == name))[:most] for name in kept)
    return np.sort(np.concatenate(list(chosen)))


def _panel(
    dataset: H5adDataset, controls: NDArray[np.int64], most: int, progress: Progress, cancelled: IsCancelled
) -> NDArray[np.int64]:
    """Columns to read, ascending: all, or those of greatest variance over the control cells."""
    if len(dataset.gene_ids) <= most:
        return np.arange(len(dataset.gene_ids))
    total, squares = np.zeros(len(dataset.gene_ids)), np.zeros(len(dataset.gene_ids))
    for start, block in dataset.chunks(_CHUNK_CELLS):
        _watch(start, dataset.n_obs, progress, cancelled)
        first, last = np.searchsorted(controls, [start, start + block.shape[0]])
        part = block[controls[first:last] - start].astype(np.float64)
        total += np.asarray(part.sum(axis=0)).ravel()
        squares += np.asarray(part.multiply(part).sum(axis=0)).ravel()
    variance = squares / len(controls) - (total / len(controls)) ** 2
    return np.sort(np.argsort(-variance, kind="stable")[:most])


def _watch(done: int, total: int, progress: Progress, cancelled: IsCancelled) -> None:
    if cancelled():
        raise Cancelled
    progress(done, total, "Reading perturbed cells")
