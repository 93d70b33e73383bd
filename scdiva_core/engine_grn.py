"""A regulatory network with all that stands beside it behind one call: computed once, kept, and found again."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages, look
from scdiva_core.engine_grn_making import MATRICES, Draw, Making, attention_choice, costs
from scdiva_core.engine_grn_result import GrnResult, GrnSettings, caption, warnings_of
from scdiva_core.errors import StoreError
from scdiva_core.store import StoredResult
from scdiva_core.store_tables import unpacked
from scdiva_core.tasks import regulon_activity as activity
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent

__all__ = [
    "GrnResult",
    "GrnSettings",
    "attention_choice",
    "estimate_seconds",
    "grn",
    "regulon_activity",
    "stored_activity",
    "stored_grn",
]

_FORMAT = 1  # part of every key: raise it when the same question gets another answer
_WORDS = {
    "reading": "Reading cells",
    "attention": "Reading attention, cells",
    "against": "Reading attention in the second set, cells",
    "evidence": "Correlating genes",
    "heads": "Comparing layers and heads, cells",
    "trees": "Growing trees for comparison, genes",
    "knockout": "Predicting knockouts, regulators",
}
_TABLES = ("edges", "regulons", "honesty", "heads", "contrast")


def grn(
    engine: Engine,
    dataset: H5adDataset,
    settings: GrnSettings,
    cells: ArrayLike | None = None,
    against: ArrayLike | None = None,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> GrnResult:
    """Make a network of a cell set, with its evidence and controls, or fetch what was made before.

    Parameters
    ----------
    engine
        Its model's attention is read.
    dataset
        Opened by this engine.
    settings
        What is made.
    cells
        Places of the cells in the file; all when None.
    against
        Those of the set that it is compared with; given if and only if the settings name one.
    progress
        One bar over everything.
    cancelled
        Asked once a batch.

    Raises
    ------
    DataError
        The cells are not there, or none of them reads a regulator often enough; or a head that the model has not.
    Cancelled
        The user stopped; nothing of it is kept.
    """
    draw = Draw.of(dataset, settings, cells, against)
    key = _key(engine, dataset, settings, draw)
    if engine.store.get(key) is None:
        stages = Stages(progress, costs(dataset, settings, draw), _WORDS)
        with engine._computing:
            arrays, meta = Making(engine, dataset, settings, draw, stages, cancelled).made()
        meta |= {**engine.provenance(dataset), "task": "grn", "settings": settings.to_dict()}
        engine.store.put(key, arrays, meta)
    found = stored_grn(engine, dataset, settings, cells, against)
    if found is None:
        msg = "The result was removed from the store as soon as it was written."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_grn(
    engine: Engine,
    dataset: H5adDataset,
    settings: GrnSettings,
    cells: ArrayLike | None = None,
    against: ArrayLike | None = None,
) -> GrnResult | None:
    """What `grn` would return, if it was computed before; else None.

    Raises
    ------
    DataError
        The cells are not there.
    """
    entry = engine.store.get(_key(engine, dataset, settings, Draw.of(dataset, settings, cells, against)))
    return None if entry is None else _result(entry, settings)


def estimate_seconds(
    engine: Engine,
    dataset: H5adDataset,
    settings: GrnSettings,
    cells: ArrayLike | None = None,
    against: ArrayLike | None = None,
) -> float:
    """Seconds that `grn` will take, typical for two cores; 0 when it was computed before.

    The first call for a file times the network for half a second.

    Raises
    ------
    DataError
        The cells are not there.
    """
    draw = Draw.of(dataset, settings, cells, against)
    if engine.store.get(_key(engine, dataset, settings, draw)) is not None:
        return 0.0
    return sum(costs(dataset, settings, draw).values()) * look(engine, dataset).seconds


def regulon_activity(
    engine: Engine, dataset: H5adDataset, *, progress: Progress = silent, cancelled: IsCancelled = never
) -> pd.DataFrame:
    """How active each regulator is in each cell of a file, computed or fetched.

    Returns
    -------
    DataFrame
        float32, a row for each cell, a column for each regulator; see
        `scdiva_core.tasks.regulon_activity.regulon_activity`.

    Raises
    ------
    DataError
        The file has too few genes of any regulon.
    Cancelled
        The user stopped.
    """
    found = stored_activity(engine, dataset)
    if found is None:
        found = activity.regulon_activity(dataset, progress=progress, cancelled=cancelled)
        meta = {**engine._meta("regulon-activity", dataset), "regulators": list(found.columns)}
        engine.store.put(_activity_key(engine, dataset), {"values": found.to_numpy(np.float32)}, meta)
    return found


def stored_activity(engine: Engine, dataset: H5adDataset) -> pd.DataFrame | None:
    """What `regulon_activity` would return, if it was computed before; else None."""
    entry = engine.store.get(_activity_key(engine, dataset))
    if entry is None:
        return None
    return pd.DataFrame(entry.arrays["values"], pd.Index(dataset.obs_names), entry.meta["regulators"], copy=False)


def _key(engine: Engine, dataset: H5adDataset, settings: GrnSettings, draw: Draw) -> str:
    asked = {name: value for name, value in settings.to_dict().items() if name not in ("cells", "against")}  # names
    return engine._key(
        "grn", dataset, format=_FORMAT, settings=asked, draw=draw.key(), choice=asdict(attention_choice(engine))
    )


def _activity_key(engine: Engine, dataset: H5adDataset) -> str:
    return engine._key("regulon-activity", dataset, format=_FORMAT)


def _result(entry: StoredResult, settings: GrnSettings) -> GrnResult:
    tables = {name: unpacked(entry, name) for name in _TABLES}
    matrices = {name: np.array(entry.arrays[name]) for name in MATRICES}
    counts = {name: entry.meta["counts"][name] for name in ("n_cells", "n_sampled", "n_against")}
    symbols = {name: tuple(entry.meta[name]) for name in ("regulators", "targets")}
    summary = dict(entry.meta["summary"])
    found = GrnResult(settings=settings, summary=summary, **counts, **symbols, **matrices, **tables)
    # Not stored, for the same cells may be called otherwise today.
    summary["caption"] = caption(found)
    summary["warnings"] = warnings_of(found, random_weights=entry.meta["random_weights"])
    return found
