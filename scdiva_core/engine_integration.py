"""Integration of a file's batches behind one call: computed once, kept, and found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from scdiva_core.baselines.harmony import harmonise
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages, look
from scdiva_core.engine_integration_making import Making, check_batch_column
from scdiva_core.engine_integration_making import stand_ins as _stand_ins
from scdiva_core.engine_integration_result import FINETUNED, IntegrateSettings, IntegrationResult
from scdiva_core.errors import DataError, StoreError
from scdiva_core.store import StoredResult
from scdiva_core.store_tables import unpacked
from scdiva_core.tasks.integration import METHODS
from scdiva_core.tasks.neighbors import Projection, ProjectionSettings, project
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent

__all__ = [
    "FINETUNED",
    "IntegrateSettings",
    "IntegrationResult",
    "check_batch_column",
    "checkpoint_folder",
    "estimate_seconds",
    "integrate",
    "integration_map",
    "is_integrated",
    "maps_seconds",
    "stand_ins",
    "stored_integration",
    "stored_map",
]

_FORMAT = 2  # part of every key: raise it when the same question gets another answer
_WORDS = {
    "embedding": "Embedding cells",
    "baselines": "Integrating without training, step",
    "reading": "Reading cells with the network",
    "tuning": "Fine-tuning, steps",
    "again": "Embedding with the new checkpoint, cells",
    "measuring": "Measuring, methods",
}
_TRAINING_COST = 0.5  # of the fine-tuning's steps, in passes over the cells
_MAP_SECONDS = 0.002  # a cell, of neighbours, clusters and UMAP
_SLACK = 3.0  # times what is expected, for a machine that does other work too


def integrate(
    engine: Engine,
    dataset: H5adDataset,
    settings: IntegrateSettings,
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
    keeping: Callable[[float], None] = lambda _: None,
) -> IntegrationResult:
    """Integrate the batches of a file in several ways and measure them, or fetch what was made before.

    The fine-tuned checkpoint is kept beside the results, see `checkpoint_folder`: opened like any other, its embedding
    is that of every page. Its embedding of this file is stored already.

    Parameters
    ----------
    engine
        Whose latent is compared and fine-tuned.
    dataset
        Opened by this engine; one file, or one of `scdiva_core.data.concatenate.concatenate`.
    settings
        What is made.
    progress
        One bar over everything.
    cancelled
        Asked within each step. True while the network is trained ends the training, and the best so far is kept,
        embedded and measured.
    keeping
        Called when the training begins, with the seconds that keeping the best so far may take: whoever stops the
        work from outside should wait for so long.

    Raises
    ------
    DataError
        A column is not there, or types and batches share too little.
    Cancelled
        The user stopped before there was anything to keep but the embedding.
    """
    if not is_integrated(engine, dataset, settings):
        stages = Stages(progress, _costs(engine, dataset, settings), _WORDS)
        folder = checkpoint_folder(engine, dataset, settings)
        making = Making(engine, dataset, settings, folder, stages, cancelled)
        making.trains = lambda: keeping(_SLACK * _keeping_seconds(engine, dataset, settings))
        arrays, meta = making.made()
        meta |= {**engine.provenance(dataset), "task": "integration", "settings": settings.to_dict()}
        engine.store.put(_key(engine, dataset, settings), arrays, meta)
    found = stored_integration(engine, dataset, settings)
    if found is None:
        msg = "The result was removed from the store as soon as it was written."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_integration(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> IntegrationResult | None:
    """What `integrate` would return, if it was computed before; else None."""
    entry = engine.store.get(_key(engine, dataset, settings))
    return None if entry is None else _result(entry, settings, checkpoint_folder(engine, dataset, settings))


def is_integrated(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> bool:
    """Whether there is a result, without reading it."""
    return engine.store.get(_key(engine, dataset, settings)) is not None


def estimate_seconds(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> float:
    """Seconds that `integrate` will take, typical for two cores; 0 when it was computed before.

    The first call for a file times the network for half a second.
    """
    if is_integrated(engine, dataset, settings):
        return 0.0
    costs, second = _costs(engine, dataset, settings), look(engine, dataset).seconds
    learned = ("reading", "tuning")  # what the budget is for
    tuning = min(sum(costs.get(name, 0.0) for name in learned) * second, 60 * settings.minutes)
    return sum(cost for name, cost in costs.items() if name not in learned) * second + tuning


def maps_seconds(n_obs: int, settings: IntegrateSettings) -> float:
    """Seconds that the maps of all methods will take, typical for two cores.

    Parameters
    ----------
    n_obs
        Cells.
    settings
        Which methods there are.
    """
    return (6 if settings.finetune else 5) * (1 + n_obs * _MAP_SECONDS)


def checkpoint_folder(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> Path:
    """Where the fine-tuned checkpoint of an integration lies, or will: ``checkpoints`` beside the results."""
    return engine.store.root.parent / "checkpoints" / f"integrated-{_key(engine, dataset, settings)[:12]}"


def integration_map(
    engine: Engine,
    dataset: H5adDataset,
    settings: IntegrateSettings,
    method: str,
    projection: ProjectionSettings = ProjectionSettings(),  # noqa: B008 - frozen
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Projection:
    """Draw the cells by the vectors of one method, or fetch the map.

    Parameters
    ----------
    engine, dataset, settings
        Of an integration that was made.
    method
        One of its vectors.
    projection
        How the map is drawn.
    progress, cancelled
        Called between the steps.

    Raises
    ------
    DataError
        The integration was not made, or has no such method.
    Cancelled
        The user stopped.
    """
    stored = stored_map(engine, dataset, settings, method, projection)
    if stored is not None:
        return stored
    found = stored_integration(engine, dataset, settings)
    if found is None or method not in found.vectors:
        there = "nothing was integrated yet" if found is None else f"there are {', '.join(found.vectors)}"
        msg = f"{METHODS.get(method, method)} cannot be drawn: {there}."
        raise DataError(msg, "Integrate first, or choose another method.")
    made = project(found.vectors[method], method, projection, progress=progress, cancelled=cancelled)
    arrays = {"coordinates": made.coordinates, "leiden": made.leiden}
    meta = {**engine._meta("integration-map", dataset), "sketched": made.sketched}
    engine.store.put(_map_key(engine, dataset, settings, method, projection), arrays, meta)
    return made


def stored_map(
    engine: Engine,
    dataset: H5adDataset,
    settings: IntegrateSettings,
    method: str,
    projection: ProjectionSettings = ProjectionSettings(),  # noqa: B008 - frozen
) -> Projection | None:
    """The map of `integration_map` if it was drawn before; else None."""
    stored = engine.store.get(_map_key(engine, dataset, settings, method, projection))
    if stored is None:
        return None
    arrays, sketched = stored.arrays, stored.meta.get("sketched")
    return Projection(arrays["coordinates"], arrays["leiden"], method, projection, sketched)


def stand_ins(engine: Engine, dataset: H5adDataset, batches: pd.Series, seed: int = 0) -> np.ndarray:
    """Clusters that stand in for labels, ``[n_obs]``: Leiden of the embedding after Harmony.

    Parameters
    ----------
    engine, dataset
        Whose embedding, computed or fetched.
    batches
        ``[n_obs]``.
    seed
        Of Harmony and Leiden.
    """
    return _stand_ins(harmonise(engine.embed(dataset), batches, seed), seed)


def _key(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> str:
    return engine._key("integration", dataset, format=_FORMAT, settings=settings.to_dict())


def _map_key(
    engine: Engine, dataset: H5adDataset, settings: IntegrateSettings, method: str, projection: ProjectionSettings
) -> str:
    asked = {"settings": settings.to_dict(), "method": method, "projection": asdict(projection)}
    return engine._key("integration-map", dataset, format=_FORMAT, **asked)


def _costs(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> dict[str, float]:
    """Cost of each step in cells through the network, in the order of the steps; typical figures."""
    n = float(dataset.n_obs)
    embedded = engine.stored_embedding(dataset) is not None
    costs = {"embedding": 0.0 if embedded else n, "baselines": 300 + 0.1 * n}
    if settings.finetune:
        costs |= {"reading": n, "tuning": _TRAINING_COST * n, "again": n}
    return costs | {"measuring": 500 + 0.2 * n * settings.seeds}


def _keeping_seconds(engine: Engine, dataset: H5adDataset, settings: IntegrateSettings) -> float:
    """Seconds from the end of the training to the result."""
    costs = _costs(engine, dataset, settings)
    return (costs["again"] + costs["measuring"]) * look(engine, dataset).seconds + 10


def _result(entry: StoredResult, settings: IntegrateSettings, folder: Path) -> IntegrationResult:
    vectors = {name: np.array(entry.arrays[f"x_{name}"]) for name in METHODS if f"x_{name}" in entry.arrays}
    tables = {name: unpacked(entry, name) for name in ("table", "judged", "apart")}
    there = FINETUNED in vectors and (folder / "model.safetensors").is_file()
    return IntegrationResult(
        settings=settings,
        vectors=vectors,
        judged_cells=np.array(entry.arrays["judged_cells"]),
        **tables,
        curve=tuple(entry.meta["curve"]),
        checkpoint=folder if there else None,
        summary=dict(entry.meta["summary"]),
    )
