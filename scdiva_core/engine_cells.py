"""The cells that a perturbation is tried on: grouped, drawn, read once, and kept for the next perturbation of them."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.perturbation import CellSample, Perturbation, read_sample, reading_rows
from scdiva_core.tasks.perturbation_direction import change_towards, group_centroids
from scdiva_core.tasks.perturbation_null import ShiftCache
from scdiva_core.tasks.progress import IsCancelled, Progress
from scdiva_core.tasks.relabelled import texts

FEWEST_DRAWN = 20
"""Cells that a drawn sample keeps of each group that has as many (our choice: enough for a p-value of most genes)."""

MOST_GROUPS = 100
"""Groups of cells at most (our choice: a null of every pair of more would fill the memory)."""

_NAMED = 10  # values of a column in an error
_LOOKED_AT = 512  # cells that an estimate reads: the first of the file, wherever the set lies


@dataclass(frozen=True)
class Draw:
    """Which cells are asked, and how they are grouped.

    Parameters
    ----------
    cells
        Places in the file, int64 ascending; None for all.
    group_key
        Column of ``obs``; None for the Leiden clusters of the map.
    most_cells
        Cells drawn at most.
    seed
        Of the draw.
    projection
        How the map is drawn that the clusters belong to.
    """

    cells: NDArray[np.int64] | None
    group_key: str | None
    most_cells: int
    seed: int
    projection: ProjectionSettings

    @classmethod
    def of(
        cls,
        dataset: H5adDataset,
        cells: ArrayLike | None,
        group_key: str | None,
        most_cells: int,
        seed: int,
        projection: ProjectionSettings,
    ) -> Draw:
        """Check cells and column.

        Raises
        ------
        DataError
            No cells, places outside the file, or no such column.
        """
        if group_key is not None:
            column(dataset, group_key)
        places = None if cells is None else np.unique(np.asarray(cells, np.int64))
        if places is not None and (not len(places) or places[0] < 0 or places[-1] >= dataset.n_obs):
            found = f"cells {places[0]:,} to {places[-1]:,}" if len(places) else "no cells"
            msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
            raise DataError(msg, "Choose a cell set of this file.")
        if places is not None and len(places) == dataset.n_obs:
            places = None
        return cls(places, group_key, most_cells, seed, projection)

    def key(self) -> dict[str, Any]:
        """What a result's key needs of it, as plain values."""
        cells = "all" if self.cells is None else hashlib.sha256(self.cells.tobytes()).hexdigest()
        drawn = {"cells": cells, "group_key": self.group_key, "most_cells": self.most_cells, "seed": self.seed}
        return drawn if self.group_key is not None else {**drawn, "projection": asdict(self.projection)}

    def n_cells(self, dataset: H5adDataset) -> int:
        """Cells of the set, before any are drawn."""
        return dataset.n_obs if self.cells is None else len(self.cells)


@dataclass(frozen=True, eq=False)
class Ground:
    """Cells read once, with what every perturbation of them is compared with.

    Attributes
    ----------
    tokenizer
        Of the checkpoint, or of the data set where that has none.
    sample
        The cells that were drawn.
    groups
        Object ``[n]`` name of each cell's group, None where it has none.
    names, centroids
        Of `scdiva_core.tasks.perturbation_direction.group_centroids`, over the whole file.
    shifts
        What genes do to these cells; a second perturbation finds the random genes of the first there.
    n_cells
        Cells of the set that they were drawn from.
    """

    tokenizer: Tokenizer
    sample: CellSample
    groups: NDArray[np.object_]
    names: tuple[str, ...]
    centroids: NDArray[np.float32]
    shifts: ShiftCache
    n_cells: int


class Stages:
    """One bar over steps of known cost; ``stages[name]`` is the progress of a step.

    Parameters
    ----------
    progress
        Told of the whole, in the unit of the costs.
    costs
        Of each step, in their order, in cells through the network.
    words
        What goes on in each step, for people; the step's own message where it has none here.
    """

    def __init__(self, progress: Progress, costs: Mapping[str, float], words: Mapping[str, str]) -> None:
        self._progress, self._costs, self._words = progress, dict(costs), words

    def __getitem__(self, name: str) -> Progress:
        names = list(self._costs)
        before = sum(self._costs[each] for each in names[: names.index(name)])
        share, whole = self._costs[name], max(round(sum(self._costs.values())), 1)

        def report(done: int, total: int, message: str) -> None:
            part = share * done / total if total else share
            words = f"{self._words.get(name, message)}, {done:,} of {total:,}"
            self._progress(min(round(before + part), whole), whole, words)

        return report


_GROUNDS: weakref.WeakKeyDictionary[Engine, tuple[str, Ground]] = weakref.WeakKeyDictionary()
_KEEPING = threading.Lock()


def ground(engine: Engine, dataset: H5adDataset, draw: Draw, stages: Stages, cancelled: IsCancelled) -> Ground:
    """Embed, group, draw and read the cells; those of the last call are still there.

    Parameters
    ----------
    engine, dataset
        Checkpoint and open file.
    draw
        Which cells.
    stages
        Has ``"embedding"``, ``"groups"`` and ``"reading"``.
    cancelled
        Asked within each step.

    Raises
    ------
    DataError
        The column holds too many groups, or none of five cells.
    Cancelled
        The user stopped.
    """
    key = engine._key("ground", dataset, **draw.key())
    with _KEEPING:
        kept = _GROUNDS.get(engine)
    if kept is not None and kept[0] == key:
        return kept[1]
    embedding = engine.embed(dataset, progress=stages["embedding"], cancelled=cancelled)
    labels = _labels(engine, dataset, draw, stages["groups"], cancelled)
    cells = np.arange(dataset.n_obs) if draw.cells is None else draw.cells
    drawn = drawn_cells(cells, labels[cells], draw.most_cells, draw.seed)
    names, centroids = group_centroids(embedding, labels)
    tokenizer = engine._tokenizer(dataset)
    with engine._computing:
        sample = read_sample(
            engine.model,
            tokenizer,
            dataset,
            drawn,
            latents=embedding,
            progress=stages["reading"],
            cancelled=cancelled,
        )
    groups = labels[sample.cells]
    towards = partial(change_towards, centroids=centroids)
    shifts = ShiftCache(engine.model, tokenizer, sample, groups=groups, towards=towards, seed=draw.seed)
    made = Ground(tokenizer, sample, groups, names, centroids, shifts, len(cells))
    with _KEEPING:
        _GROUNDS[engine] = (key, made)
    return made


def column(dataset: H5adDataset, name: str) -> pd.Series:
    """Read a column of ``obs`` as text, indexed from 0; missing where a value is missing or blank.

    Raises
    ------
    DataError
        There is no such column.
    """
    if name not in dataset.obs:
        msg = f"{dataset.path.name} has no column {name!r}."
        raise DataError(msg, f"Columns of obs: {', '.join(map(str, dataset.obs)) or 'none'}.")
    return texts(dataset.obs[name])


def subset(dataset: H5adDataset, chosen: str) -> NDArray[np.int64]:
    """Places of the cells that have a value in a column of ``obs``, ascending.

    Parameters
    ----------
    dataset
        Open file.
    chosen
        ``COLUMN=VALUE``, as on the command line.

    Raises
    ------
    DataError
        It names no value, there is no such column, or no cell has the value.
    """
    name, equals, value = chosen.partition("=")
    if not equals:
        msg = f"{chosen!r} names no value."
        raise DataError(msg, "Write COLUMN=VALUE.")
    values = column(dataset, name)
    cells = np.flatnonzero(values == value)
    if not len(cells):
        there = ", ".join(map(repr, sorted(values.dropna().unique())[:_NAMED]))
        msg = f"No cell has {value!r} in the column {name!r}."
        raise DataError(msg, f"Values there: {there or 'none'}.")
    return cells


def drawn_cells(cells: NDArray[np.int64], groups: ArrayLike, most: int, seed: int) -> NDArray[np.int64]:
    """Draw cells so that each group keeps its share, and `FEWEST_DRAWN` cells where it has them (our choice).

    Parameters
    ----------
    cells
        Places in the file.
    groups
        Group of each of these cells.
    most
        Cells drawn at most; with more groups than a twentieth of it the groups get fewer.
    seed
        Of the draw.

    Returns
    -------
    ndarray
        int64 ascending; all cells where there are no more than `most`.
    """
    if len(cells) <= most:
        return np.sort(cells)
    codes, found = pd.factorize(np.asarray(groups, object), use_na_sentinel=False)
    sizes = np.bincount(codes)
    least = np.minimum(sizes, min(FEWEST_DRAWN, most // len(found)))
    small = np.zeros(len(sizes), bool)
    while True:  # each group that its share leaves too small takes some from the others, which may make more too small
        quota = np.where(small, least, 0.0)
        quota[~small] = sizes[~small] * (most - quota.sum()) / max(sizes[~small].sum(), 1)
        too_small = ~small & (quota < least)
        if not too_small.any():
            break
        small |= too_small
    taken = np.floor(quota).astype(np.int64)
    order = np.argsort(taken - quota, kind="stable")  # the largest remainder first
    taken[order[: most - taken.sum()]] += 1
    rng = np.random.default_rng(seed)
    parts = [rng.choice(cells[codes == code], n, replace=False) for code, n in enumerate(np.minimum(taken, sizes))]
    return np.sort(np.concatenate(parts))


def _labels(
    engine: Engine, dataset: H5adDataset, draw: Draw, progress: Progress, cancelled: IsCancelled
) -> NDArray[np.object_]:
    if draw.group_key is None:
        made = engine.project(dataset, settings=draw.projection, progress=progress, cancelled=cancelled)
        return np.array([f"cluster {number}" for number in made.leiden], object)
    labels = column(dataset, draw.group_key)
    if (n_groups := labels.nunique()) > MOST_GROUPS:
        msg = f"The column {draw.group_key!r} has {n_groups:,} different values; at most {MOST_GROUPS} can be groups."
        raise DataError(msg, "Choose a column of cell types or clusters.")
    return labels.where(labels.notna(), None).to_numpy(object)


def costs_before(engine: Engine, dataset: H5adDataset, draw: Draw) -> dict[str, float]:
    """Cost of what must be there before a sample is, in cells through the network; typical figures."""
    embedded = engine.stored_embedding(dataset) is not None
    mapped = draw.group_key is not None or (
        engine.stored_projection(dataset, representation="X_scdiva", settings=draw.projection) is not None
    )
    return {
        "embedding": 0.0 if embedded else float(dataset.n_obs),
        "groups": 0.0 if mapped else 1000 + 0.3 * dataset.n_obs,
        "reading": 0.01 * dataset.n_obs,
    }


@dataclass(frozen=True, eq=False)
class Look:
    """A few cells of a file, for what must be known before it is read.

    Attributes
    ----------
    tokenizer
        As for `Ground`.
    sample
        The first cells, without latents.
    seconds
        Of a forward pass, for a mean one of these cells.
    """

    tokenizer: Tokenizer
    sample: CellSample
    seconds: float

    def share(self, perturbation: Perturbation) -> float:
        """Share of the cells that read a perturbed gene.

        Raises
        ------
        DataError
            As for `CellSample.columns`.
        """
        return len(reading_rows(self.tokenizer, self.sample, perturbation)) / len(self.sample)


_LOOKS: weakref.WeakKeyDictionary[Engine, tuple[str, Look]] = weakref.WeakKeyDictionary()


def look(engine: Engine, dataset: H5adDataset) -> Look:
    """Read the first cells of a file, and time the network for half a second; the last file's are still there."""
    key = engine._key("look", dataset)
    with _KEEPING:
        kept = _LOOKS.get(engine)
    if kept is not None and kept[0] == key:
        return kept[1]
    _, block = next(dataset.chunks(_LOOKED_AT))
    tokenizer = engine._tokenizer(dataset)
    rows = tokenizer.serialize(block.indptr, block.indices, block.data, dataset.gene_ids)
    sample = CellSample(
        np.arange(len(rows)),
        block,
        rows,
        np.empty((len(rows), 0), np.float32),
        dataset.gene_ids,
        dataset.gene_symbols,
        engine.vocabulary,
        tokenizer.max_genes,
    )
    found = Look(tokenizer, sample, engine.estimate_seconds(1, float(rows.lengths.mean())))
    with _KEEPING:
        _LOOKS[engine] = (key, found)
    return found
