"""Many genes perturbed one at a time: rows kept on disk as they come, the finished table in the store."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Draw, Ground, Stages, costs_before, ground
from scdiva_core.errors import DataError, StoreError
from scdiva_core.store_entry import disk_errors
from scdiva_core.store_tables import packed, unpacked
from scdiva_core.tasks import screen as task
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.perturbation import Mode, Perturbation
from scdiva_core.tasks.perturbation_null import MOST_CELLS
from scdiva_core.tasks.predicted_expression import FOLDS, expression_change
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

TOP_GENES = 20
"""Genes of a screen whose predicted expression changes are named (our choice: half a minute on two cores)."""

_MOVED, _MOVED_CELLS = 5, 20  # genes named for each, and cells that their change is averaged over
_FORMAT = 1
_MAP = ProjectionSettings()
_WORDS = {
    "embedding": "Embedding cells",
    "screen": "Perturbing genes, random ones included, cells",
    "moved": "Predicting expression for the first genes",
}
_TYPICAL_READ = 0.2  # share of the cells that read a gene; for the bar
_COLUMNS = [
    *("gene", "effect", "z", "p", "q", "n_read", "detection", "direction", "word", "top_moved", "refused"),
    *("null_mean", "direction_change", "mean", "n_expressed", "n_cells", "n_null"),
]
_TEXTS = ("gene", "direction", "word", "top_moved", "refused")


@dataclass(frozen=True)
class ScreenSettings:
    """Which genes are perturbed in which cells.

    Parameters
    ----------
    genes
        Any names of genes, each perturbed alone.
    mode, factor
        As for `scdiva_core.tasks.perturbation.Perturbation`.
    group_key
        Column of ``obs`` with cell types, for the directions; None for the Leiden clusters of the map.
    cells
        What the set of cells is called; the cells themselves go beside it.
    most_cells
        Cells drawn of the set at most; of these no more than 200 that read a gene are perturbed for it.
    n_null
        Matched random genes for each.
    seed
        Of all that is drawn.

    Raises
    ------
    DataError
        No gene, a factor that makes no sense, or no cell or random gene.
    """

    genes: tuple[str, ...]
    mode: Mode = "knockout"
    factor: float = 0.0
    group_key: str | None = None
    cells: str = "all"
    most_cells: int = 1000
    n_null: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "genes", tuple(map(str, self.genes)))
        if not self.genes:
            msg = "No gene to screen."
            raise DataError(msg, "Choose at least one gene.")
        Perturbation(self.genes[:1], self.mode, self.factor)
        for name in ("n_null", "most_cells"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload, a link or a file."""
        return {**asdict(self), "genes": list(self.genes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ScreenSettings:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "genes": tuple(values["genes"])})


def screen(
    engine: Engine,
    dataset: H5adDataset,
    settings: ScreenSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> pd.DataFrame:
    """Perturb many genes one at a time, or fetch the table; goes on where an earlier run was stopped or killed.

    Parameters
    ----------
    engine
        Embeds the cells first when they are not embedded yet.
    dataset
        Opened by this engine.
    settings
        What is done.
    cells
        Places of the cells in the file; all when None.
    projection
        Map whose clusters are the groups.
    progress
        One bar over all that has to be computed.
    cancelled
        Asked once a batch.

    Returns
    -------
    DataFrame
        A row for each gene, the most beyond random genes first, refused ones last: ``gene``; ``effect``, the mean
        cosine shift of the reading cells; ``z``, ``p`` and ``q`` against its matched genes; ``n_read`` cells and
        ``detection``, their share; ``direction``, the group that they come closer to most, with ``word`` ``"towards"``
        (both empty where they come closer to none; not tested); ``top_moved``, of the first `TOP_GENES` the genes
        whose predicted expression changes most; ``refused``, the reason of a refusal, else empty; then ``null_mean``,
        ``direction_change``, ``mean``, ``n_expressed``, ``n_cells`` and ``n_null`` of `scdiva_core.tasks.screen`.

    Raises
    ------
    DataError
        The column or the cells are not there, or the column is none of groups.
    Cancelled
        The user stopped; rows that are done stay.
    """
    draw = _draw(dataset, settings, cells, projection)
    key = _key(engine, dataset, settings, draw)
    if (found := _stored(engine, key)) is not None:
        return found
    costs = costs_before(engine, dataset, draw)
    perturbed = min(_TYPICAL_READ * min(draw.n_cells(dataset), draw.most_cells), MOST_CELLS)
    costs["screen"] = (len(settings.genes) + min(task.NULL_POOL, settings.n_null * len(settings.genes))) * perturbed
    costs["moved"] = min(TOP_GENES, len(settings.genes)) * _MOVED_CELLS * FOLDS * 2
    stages = Stages(progress, costs, _WORDS)
    base = ground(engine, dataset, draw, stages, cancelled)
    kept = _Rows(_folder(engine, key))
    kept.begin(base.names)
    with engine._computing:
        table = task.screen(
            engine.model,
            base.tokenizer,
            base.sample,
            settings.genes,
            done=kept.rows(),
            write=kept.write,
            settings=_task_settings(settings),
            groups=base.groups,
            centroids=(base.names, base.centroids),
            progress=stages["screen"],
            cancelled=cancelled,
        )
        moved = _moved(engine, settings, base, table, kept, stages["moved"], cancelled)
    table = _told(table, moved)
    meta = {**engine.provenance(dataset), "task": "screen", "settings": settings.to_dict()}
    engine.store.put(key, {"table": packed(table)}, meta)
    shutil.rmtree(kept.folder, ignore_errors=True)
    found = _stored(engine, key)
    if found is None:
        msg = "The table was removed from the store as soon as it was written."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_screen(
    engine: Engine,
    dataset: H5adDataset,
    settings: ScreenSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
) -> pd.DataFrame | None:
    """What `screen` would return, if it was finished before; else None."""
    return _stored(engine, _key(engine, dataset, settings, _draw(dataset, settings, cells, projection)))


def screen_progress(
    engine: Engine,
    dataset: H5adDataset,
    settings: ScreenSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
) -> pd.DataFrame | None:
    """Rows so far of a screen that was begun and is not finished, the largest effect first; else None.

    The columns are those of `screen`; what needs the random genes (``z``, ``p``, ``q`` and more) is not there yet, NaN.
    """
    key = _key(engine, dataset, settings, _draw(dataset, settings, cells, projection))
    kept = _Rows(_folder(engine, key))
    names = kept.names()
    if names is None or _stored(engine, key) is not None:
        return None
    wanted = _symbols(engine, dataset, settings.genes)
    rows = [row for gene, row in kept.rows().items() if gene in wanted]
    table = pd.DataFrame(
        {
            "symbol": [row.gene for row in rows],
            "effect": np.array([row.effect for row in rows], float),
            "n_read": np.array([row.n_read for row in rows], np.int64),
            "n_cells": np.array([row.n_cells for row in rows], np.int64),
            "direction": [_direction(row, names) for row in rows],
            "reason": [row.reason for row in rows],
        }
    ).sort_values("effect", ascending=False, kind="stable", na_position="last", ignore_index=True)
    return _told(table, {})


def _draw(
    dataset: H5adDataset, settings: ScreenSettings, cells: ArrayLike | None, projection: ProjectionSettings
) -> Draw:
    return Draw.of(dataset, cells, settings.group_key, settings.most_cells, settings.seed, projection)


def _key(engine: Engine, dataset: H5adDataset, settings: ScreenSettings, draw: Draw) -> str:
    asked = {name: value for name, value in settings.to_dict().items() if name != "cells"}  # a name, nothing else
    return engine._key("screen", dataset, format=_FORMAT, settings=asked, draw=draw.key())


def _stored(engine: Engine, key: str) -> pd.DataFrame | None:
    entry = engine.store.get(key)
    return None if entry is None else unpacked(entry, "table")


def _folder(engine: Engine, key: str) -> Path:
    return engine.store.root / f"{key}.partial"  # where the store looks for unfinished work, and deletes it


def _task_settings(settings: ScreenSettings) -> task.ScreenSettings:
    return task.ScreenSettings(settings.mode, settings.factor, n_null=settings.n_null, seed=settings.seed)


def _symbols(engine: Engine, dataset: H5adDataset, genes: Sequence[str]) -> set[str]:
    """The genes as they are asked for, and their symbols in this file."""
    ids = engine.vocabulary.match(genes).ids
    places = np.flatnonzero(np.isin(dataset.gene_ids, ids))
    return {*genes, *(dataset.gene_symbols[place] for place in places)}


def _direction(row: task.ScreenRow, names: Sequence[str]) -> str:
    best = int(np.argmax(row.towards)) if row.towards else -1
    return names[best] if best >= 0 and row.towards[best] > 0 else ""


def _told(table: pd.DataFrame, moved: dict[str, str]) -> pd.DataFrame:
    """Columns by the names of this module, in its order; absent ones are NaN or empty."""
    table = table.rename(columns={"symbol": "gene", "reason": "refused"})
    table["word"] = np.where(table["direction"] == "", "", "towards")
    table["top_moved"] = [moved.get(gene, "") for gene in table["gene"]]
    table = table.reindex(columns=_COLUMNS)
    numbers = [name for name in _COLUMNS if name not in _TEXTS and table[name].dtype == object]
    return table.astype({**dict.fromkeys(_TEXTS, object), **dict.fromkeys(numbers, float)})


def _moved(
    engine: Engine,
    settings: ScreenSettings,
    base: Ground,
    table: pd.DataFrame,
    kept: _Rows,
    progress: Progress,
    cancelled: IsCancelled,
) -> dict[str, str]:
    """For the first genes of the table the genes that move most, in words such as ``"LYZ -0.12, CD14 -0.08"``."""
    moved, of = kept.moved(), _task_settings(settings).of
    first = table["symbol"][table["reason"] == ""][:TOP_GENES]
    for number, gene in enumerate(first):
        stop_if(cancelled)
        progress(number, len(first), "")
        if gene in moved:
            continue
        asked = (engine.model, base.tokenizer, base.sample, of(gene))
        found = expression_change(
            *asked, repeats=1, seed=settings.seed, most_cells=_MOVED_CELLS, cancelled=cancelled
        ).table[:_MOVED]
        pairs = zip(found["symbol"], found["change"], strict=True)
        moved[gene] = ", ".join(f"{symbol} {change:+.2g}" for symbol, change in pairs)
        kept.write_moved(gene, moved[gene])
    progress(len(first), len(first), "")
    return moved


class _Rows:
    """Rows of an unfinished screen: JSON lines, each on the disk before the next is computed.

    A line that was cut off by the end of a process is left out, and its gene computed again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "rows.jsonl"

    def begin(self, names: Sequence[str]) -> None:
        """Make the file with the groups' names, unless it is there."""
        with disk_errors(self._path):
            self.folder.mkdir(exist_ok=True)
        if self.names() is None:
            self._append({"names": list(names)})

    def names(self) -> tuple[str, ...] | None:
        """Names of the groups; None where no screen was begun."""
        return next((tuple(line["names"]) for line in self._lines() if "names" in line), None)

    def rows(self) -> dict[str, task.ScreenRow]:
        """Finished rows by gene."""
        found = [line["row"] for line in self._lines() if "row" in line]
        return {row["gene"]: task.ScreenRow(**{**row, "towards": tuple(row["towards"])}) for row in found}

    def moved(self) -> dict[str, str]:
        """What was written of the genes that move most, by perturbed gene."""
        return {line["moved"]: line["words"] for line in self._lines() if "moved" in line}

    def write(self, row: task.ScreenRow) -> None:
        """Keep a row."""
        self._append({"row": asdict(row)})

    def write_moved(self, gene: str, words: str) -> None:
        """Keep the genes that move most with one."""
        self._append({"moved": gene, "words": words})

    def _append(self, line: dict[str, Any]) -> None:
        with disk_errors(self._path), self._path.open("a+b") as file:
            # What a killed process left of a line must not swallow this one.
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            start = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(start + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        for text in self._path.read_bytes().splitlines():
            try:
                yield json.loads(text)
            except ValueError:
                continue
