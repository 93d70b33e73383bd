"""Which labelled cells of a file teach and which judge, and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import EntropyAccumulator, Tokenizer, TokenRows
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel

FEWEST = 5
"""Labelled cells that a class needs: one of five judges."""

FOLDS = 5
"""One part of so many judges, or as near to that as whole donors allow."""

ALWAYS_KEPT = 50
"""Cells of a class that stay when there are more labelled cells than are used."""

_CHUNK_CELLS = 4096

Progress = Callable[[int, int, str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """Labelled cells of one file, and what each is for.

    Attributes
    ----------
    cells
        int64 ``[n]`` their numbers in the file, ascending.
    codes
        int64 ``[n]`` class of each.
    classes
        Labels as the file spells them, sorted.
    validation
        bool ``[n]``, True for the cells that judge. Every class has cells that teach.
    held_out
        Donors or batches whose cells judge, sorted; empty where the split knows of none.
    left_out
        Labels that are not learned -> why.
    """

    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: NDArray[np.bool_]
    held_out: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def training_rows(self) -> NDArray[np.int64]:
        """Positions in `cells` of those that teach."""
        return np.flatnonzero(~self.validation)

    @property
    def validation_rows(self) -> NDArray[np.int64]:
        """Positions in `cells` of those that judge."""
        return np.flatnonzero(self.validation)


def split_cells(labels: ArrayLike, batches: ArrayLike | None, *, most: int, seed: int) -> LabelledSplit:
    """Choose labelled cells and hold a fifth of them out.

    With donors or batches, whole ones are held out: cells of one donor resemble each other more than those of the next
    one, so that a split through donors promises too much. Of the folds of scikit-learn's `StratifiedGroupKFold` that
    one is taken which lets most classes be learned, and of those the one that judges most classes (our choice).

    Parameters
    ----------
    labels
        ``[n_obs]`` label of each cell; missing or blank is unlabelled.
    batches
        ``[n_obs]`` donor or batch of each cell; cells without one are left out. None splits within the classes.
    most
        Cells to use; of more, each class keeps its share, but at least `ALWAYS_KEPT`.
    seed
        Of the draws.

    Raises
    ------
    DataError
        There are fewer than two classes to learn or to judge, fewer than two donors, or other numbers of labels and
        donors.
    """
    texts = _texts(labels)
    groups = None if batches is None else _texts(batches)
    if groups is not None and len(groups) != len(texts):
        msg = f"There are {len(texts):,} labels, but {len(groups):,} donors or batches."
        raise DataError(msg, "Give one of each for every cell.")
    usable = texts != "" if groups is None else (texts != "") & (groups != "")
    found, sizes = np.unique(texts[usable], return_counts=True)
    left_out = {
        label: f"{size} labelled cells; a class needs {FEWEST}"
        for label, size in zip(found.tolist(), sizes.tolist(), strict=True)
        if size < FEWEST
    }
    kept = found[sizes >= FEWEST]
    _check_classes(len(kept), "the labels name", left_out)
    cells = np.flatnonzero(usable & np.isin(texts, kept))
    cells = cells[_drawn(np.searchsorted(kept, texts[cells]), most, seed)]
    codes = np.searchsorted(kept, texts[cells])
    if groups is None:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(codes, codes)
        validation = _marked(next(iter(folds))[1], len(cells))
        return LabelledSplit(cells, codes, tuple(kept.tolist()), validation, left_out=left_out)
    validation = _whole_groups(codes, groups[cells], seed)
    held_out = tuple(np.unique(groups[cells][validation]).tolist())
    return _learnable(LabelledSplit(cells, codes, tuple(kept.tolist()), validation, held_out, left_out))


def tokenizer_of(model: ScDiVaModel, dataset: H5adDataset) -> Tokenizer:
    """Serialise with the checkpoint's entropies; with the file's own where it brings none."""
    if model.has_entropy:
        return model.tokenizer
    entropy = EntropyAccumulator(model.config.vocab_size)
    for _, block in dataset.chunks(_CHUNK_CELLS):
        present = block.data > 0
        entropy.add(block.shape[0], dataset.gene_ids[block.indices[present]], block.data[present])
    return Tokenizer(entropy.entropy(), model.config.max_genes)


def read_tokens(
    dataset: H5adDataset,
    tokenizer: Tokenizer,
    cells: NDArray[np.int64],
    *,
    progress: Progress,
    cancelled: IsCancelled,
) -> TokenRows:
    """Read and serialise some cells, in one pass over the file; a few kilobytes a cell are kept.

    Parameters
    ----------
    dataset
        The open file.
    tokenizer
        Of the checkpoint.
    cells
        int64 ``[n]`` numbers of the cells, ascending.
    progress, cancelled
        Called once a chunk.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    parts = []
    for start, block in dataset.chunks(_CHUNK_CELLS):
        if cancelled():
            raise Cancelled
        progress(start, dataset.n_obs, "Reading labelled cells")
        first, last = np.searchsorted(cells, [start, start + block.shape[0]])
        if last > first:
            part = block[cells[first:last] - start]
            parts.append(tokenizer.serialize(part.indptr, part.indices, part.data, dataset.gene_ids))
    progress(dataset.n_obs, dataset.n_obs, "Reading labelled cells")
    lengths = np.concatenate([part.lengths for part in parts])
    return TokenRows(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.gene_ids for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _texts(values: ArrayLike) -> NDArray[np.object_]:
    """Values as stripped text, empty where missing."""
    codes, found = pd.factorize(pd.Series(values))
    # A code of -1, for a missing value, finds the empty text at the end.
    return np.array([*(str(value).strip() for value in found), ""], object)[codes]


def _check_classes(number: int, what: str, left_out: dict[str, str]) -> None:
    if number < 2:
        rest = f" (left out: {', '.join(list(left_out)[:5])})" if left_out else ""
        msg = f"At least two classes are needed, but {what} {number} with {FEWEST} cells or more{rest}."
        raise DataError(msg, "Choose a column with cell types, or label more cells.")


def _drawn(codes: NDArray[np.int64], most: int, seed: int) -> NDArray[np.bool_]:
    """Mark about ``most`` cells, each class by its share, but rare ones whole."""
    if len(codes) <= most:
        return np.ones(len(codes), bool)
    quota = np.maximum(np.ceil(np.bincount(codes) * (most / len(codes))), ALWAYS_KEPT)
    order = np.random.default_rng(seed).permutation(len(codes))
    place = np.empty(len(codes), np.int64)
    place[order] = pd.Series(codes[order]).groupby(codes[order]).cumcount().to_numpy()
    return place < quota[codes]


def _marked(rows: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    mask = np.zeros(length, bool)
    mask[rows] = True
    return mask


def _whole_groups(codes: NDArray[np.int64], groups: NDArray[np.object_], seed: int) -> NDArray[np.bool_]:
    """Mark the cells of the donors that judge."""
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        msg = f"The labelled cells are of {len(names)} donor or batch, so that none can be held out."
        raise DataError(msg, "Choose another column, or none: then cells are split within the classes.")
    folds = StratifiedGroupKFold(min(FOLDS, len(names)), shuffle=True, random_state=seed)
    n_classes = codes.max() + 1

    def missing(rows: NDArray[np.int64]) -> int:
        return n_classes - len(np.unique(codes[rows]))

    sides = [(train, test) for train, test in folds.split(codes, codes, numbers) if len(train) and len(test)]
    best = min(sides, key=lambda side: (missing(side[0]), missing(side[1])))
    return _marked(best[1], len(codes))


def _learnable(split: LabelledSplit) -> LabelledSplit:
    """Leave out the classes that only held-out donors have."""
    learned = np.unique(split.codes[~split.validation])
    _check_classes(len(learned), "the donors that teach have", split.left_out)
    known = np.isin(split.codes, learned)
    judged = np.unique(split.codes[split.validation & known])
    if len(judged) < 2:
        donors = ", ".join(split.held_out)
        msg = f"Of the classes that the others teach, the held-out donors ({donors}) have {len(judged)}."
        raise DataError(msg, "Choose a column of donors that share cell types, or none.")
    lost = {split.classes[code]: "only held-out donors have it" for code in np.unique(split.codes[~known])}
    return replace(
        split,
        cells=split.cells[known],
        codes=np.searchsorted(learned, split.codes[known]),
        classes=tuple(split.classes[code] for code in learned),
        validation=split.validation[known],
        left_out=split.left_out | lost,
    )
