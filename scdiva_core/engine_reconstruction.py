"""Cells rebuilt from part of their genes behind one call: computed once, kept, and found again."""

from __future__ import annotations

from numpy.typing import ArrayLike

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages, column, look
from scdiva_core.engine_reconstruction_making import Draw, Making, costs
from scdiva_core.engine_reconstruction_result import (
    ReconstructionResult,
    ReconstructionSettings,
    caption,
    warnings_of,
)
from scdiva_core.errors import StoreError
from scdiva_core.store import StoredResult
from scdiva_core.store_tables import unpacked
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent

__all__ = [
    "ReconstructionResult",
    "ReconstructionSettings",
    "estimate_seconds",
    "reconstruct",
    "stored_reconstruction",
]

_FORMAT = 2  # part of every key: raise it when the same question gets another answer
_TABLES = ("table", "comparisons", "types", "genes", "profiles")


def reconstruct(
    engine: Engine,
    dataset: H5adDataset,
    settings: ReconstructionSettings,
    cells: ArrayLike | None = None,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ReconstructionResult:
    """Hide part of the tokens of cells and rebuild them, beside baselines, or fetch what was made before.

    Parameters
    ----------
    engine
        Its model rebuilds.
    dataset
        Opened by this engine.
    settings
        What is hidden, and in how many cells.
    cells
        Places of the cells in the file; all when None. Baselines learn from the whole file but the cells drawn.
    progress
        One bar over everything.
    cancelled
        Asked once a batch.

    Raises
    ------
    DataError
        The cells, the column or a gene are not there, or no cell has a token to hide.
    Cancelled
        The user stopped; nothing of it is kept.
    """
    if settings.group_key is not None:
        column(dataset, settings.group_key)
    draw = Draw.of(dataset, settings, cells)
    key = _key(engine, dataset, settings, draw)
    if engine.store.get(key) is None:
        stages = Stages(progress, costs(dataset, settings, draw), {})
        with engine._computing:
            arrays, meta = Making(engine, dataset, settings, draw, stages, cancelled).made()
        meta |= {**engine.provenance(dataset), "task": "reconstruction", "settings": settings.to_dict()}
        engine.store.put(key, arrays, meta)
    found = stored_reconstruction(engine, dataset, settings, cells)
    if found is None:
        msg = "The result was removed from the store as soon as it was written."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_reconstruction(
    engine: Engine, dataset: H5adDataset, settings: ReconstructionSettings, cells: ArrayLike | None = None
) -> ReconstructionResult | None:
    """What `reconstruct` would return, if it was computed before; else None.

    Raises
    ------
    DataError
        The cells are not there.
    """
    entry = engine.store.get(_key(engine, dataset, settings, Draw.of(dataset, settings, cells)))
    return None if entry is None else _result(entry, settings)


def estimate_seconds(
    engine: Engine, dataset: H5adDataset, settings: ReconstructionSettings, cells: ArrayLike | None = None
) -> float:
    """Seconds that `reconstruct` will take, typical for two cores; 0 when it was computed before.

    The first call for a file times the network for half a second.

    Raises
    ------
    DataError
        The cells are not there.
    """
    draw = Draw.of(dataset, settings, cells)
    if engine.store.get(_key(engine, dataset, settings, draw)) is not None:
        return 0.0
    return sum(costs(dataset, settings, draw).values()) * look(engine, dataset).seconds


def _key(engine: Engine, dataset: H5adDataset, settings: ReconstructionSettings, draw: Draw) -> str:
    asked = {name: value for name, value in settings.to_dict().items() if name != "cells"}  # a name
    return engine._key("reconstruction", dataset, format=_FORMAT, settings=asked, draw=draw.key())


def _result(entry: StoredResult, settings: ReconstructionSettings) -> ReconstructionResult:
    tables = {name: unpacked(entry, name) for name in _TABLES}
    summary = dict(entry.meta["summary"])
    found = ReconstructionResult(settings=settings, summary=summary, **entry.meta["counts"], **tables)
    # Not stored, for the same cells may be called otherwise today.
    summary["caption"] = caption(found)
    summary["warnings"] = warnings_of(found, random_weights=entry.meta["random_weights"])
    return found
