"""A perturbation with all that stands beside it behind one call: computed once, kept, and found again.

`scdiva_core.engine_screen` does the same for many genes one at a time; what it offers is offered here as well.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Draw, Ground, Stages, column, costs_before, ground, look
from scdiva_core.engine_knockout_result import (
    KnockoutResult,
    KnockoutSettings,
    caption,
    warnings_of,
)
from scdiva_core.engine_knockout_tables import (
    EXPRESSION_CELLS,
    EXPRESSION_NULL,
    REPEATS,
    cell_table,
    direction_tables,
    expression_table,
    group_table,
    summary_of,
)
from scdiva_core.engine_screen import ScreenSettings, screen, screen_progress, stored_screen
from scdiva_core.errors import DataError, StoreError
from scdiva_core.store import StoredResult
from scdiva_core.store_tables import packed, unpacked
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.perturbation import check_read, effect
from scdiva_core.tasks.perturbation_null import MOST_CELLS
from scdiva_core.tasks.perturbation_tests import controls
from scdiva_core.tasks.predicted_expression import FOLDS
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent
from scdiva_core.tasks.vector_field import CellMap, vector_field

__all__ = [
    "KnockoutResult",
    "KnockoutSettings",
    "ScreenSettings",
    "estimate_seconds",
    "knockout",
    "screen",
    "screen_progress",
    "stored_knockout",
    "stored_screen",
]

_FORMAT = 1  # part of every key: raise it when the same question gets another answer
_MAP = ProjectionSettings()
_WORDS = {
    "embedding": "Embedding cells",
    "effect": "Perturbing cells",
    "null": "Perturbing random genes for comparison",
    "control": "Perturbing one random gene for the map",
    "expression": "Predicting expression, rounds",
    "expression null": "Predicting expression for random genes",
}
_TABLES = ("cells", "groups", "directions", "transitions", "expression", "donors")


def knockout(
    engine: Engine,
    dataset: H5adDataset,
    settings: KnockoutSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> KnockoutResult:
    """Perturb genes in cells and compare that with random genes, or fetch what was found before.

    Parameters
    ----------
    engine
        Embeds the cells first when they are not embedded yet, and draws the map when its clusters are the groups.
    dataset
        Opened by this engine.
    settings
        What is done.
    cells
        Places of the cells in the file; all when None.
    projection
        Map whose clusters are the groups, and on which arrows are drawn.
    progress
        One bar over all that has to be computed, in cells through the network.
    cancelled
        Asked once a batch.

    Raises
    ------
    DataError
        No cell reads one of the genes, with the numbers; a gene, a column or the cells are not there; or the column
        is none of groups.
    Cancelled
        The user stopped; the embedding, the map and what is known of random genes are kept.
    """
    draw = _draw(dataset, settings, cells, projection)
    key = _key(engine, dataset, settings, draw)
    entry = engine.store.get(key)
    if entry is None:
        costs = _costs(engine, dataset, settings, draw)  # which refuses a gene that is not there
        stages = Stages(progress, costs, _WORDS)
        base = ground(engine, dataset, draw, stages, cancelled)
        with engine._computing:
            arrays, meta = _computed(engine, dataset, settings, base, stages, cancelled)
        meta |= {**engine.provenance(dataset), "task": "knockout", "settings": settings.to_dict()}
        entry = engine.store.put(key, arrays, meta)
    _draw_field(engine, dataset, entry, projection, cancelled)
    found = stored_knockout(engine, dataset, settings, cells, projection=projection)
    if found is None:
        msg = "The result was removed from the store as soon as it was written."
        raise StoreError(msg, "Run the step again.")
    return found


def stored_knockout(
    engine: Engine,
    dataset: H5adDataset,
    settings: KnockoutSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
) -> KnockoutResult | None:
    """What `knockout` would return, if it was computed before; else None.

    Raises
    ------
    DataError
        A column or the cells are not there.
    """
    draw = _draw(dataset, settings, cells, projection)
    entry = engine.store.get(_key(engine, dataset, settings, draw))
    if entry is None:
        return None
    field = engine.store.get(_field_key(engine, dataset, entry.key, projection))
    drawn = {name: unpacked(entry, name) for name in _TABLES}
    arrows = {name: None if field is None else unpacked(field, name) for name in ("field", "control")}
    counts = {name: entry.meta["counts"][name] for name in ("n_cells", "n_sampled", "n_expressing", "n_read")}
    null = np.array(entry.arrays["null"])
    summary = dict(entry.meta["summary"])
    result = KnockoutResult(settings=settings, summary=summary, null=null, **counts, **drawn, **arrows)
    # Not stored, for the same cells may be called otherwise today.
    summary["caption"] = caption(result)
    summary["warnings"] = warnings_of(result, random_weights=entry.meta["random_weights"])
    return result


def estimate_seconds(
    engine: Engine,
    dataset: H5adDataset,
    settings: KnockoutSettings,
    cells: ArrayLike | None = None,
    *,
    projection: ProjectionSettings = _MAP,
) -> float:
    """Seconds that `knockout` will take; 0 when it was computed before.

    How many cells read the genes is guessed from the first cells of the file. The first call for a file reads those and
    times the network for half a second; later ones take milliseconds.

    Raises
    ------
    DataError
        A gene, a column or the cells are not there.
    """
    draw = _draw(dataset, settings, cells, projection)
    if engine.store.get(_key(engine, dataset, settings, draw)) is not None:
        return 0.0
    return sum(_costs(engine, dataset, settings, draw).values()) * look(engine, dataset).seconds


def _draw(
    dataset: H5adDataset, settings: KnockoutSettings, cells: ArrayLike | None, projection: ProjectionSettings
) -> Draw:
    if settings.donor_key is not None:
        column(dataset, settings.donor_key)
    return Draw.of(dataset, cells, settings.group_key, settings.most_cells, settings.seed, projection)


def _key(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings, draw: Draw) -> str:
    asked = {name: value for name, value in settings.to_dict().items() if name != "cells"}  # a name, nothing else
    return engine._key("knockout", dataset, format=_FORMAT, settings=asked, draw=draw.key())


def _field_key(engine: Engine, dataset: H5adDataset, of: str, projection: ProjectionSettings) -> str:
    return engine._key("knockout-field", dataset, format=_FORMAT, of=of, projection=asdict(projection))


def _costs(engine: Engine, dataset: H5adDataset, settings: KnockoutSettings, draw: Draw) -> dict[str, float]:
    """Cells that go through the network in each step; guesses, for the bar and the estimate."""
    n_sampled = min(draw.n_cells(dataset), draw.most_cells)
    n_read = max(n_sampled * look(engine, dataset).share(settings.perturbation), 1.0)
    costs = costs_before(engine, dataset, draw)
    costs |= {"effect": n_read, "null": settings.n_null * min(n_read, MOST_CELLS), "control": n_read}
    if settings.expression:
        n_null, most = min(EXPRESSION_NULL[0], settings.n_null), EXPRESSION_NULL[1]
        costs["expression"] = 2 * FOLDS * REPEATS * min(n_read, EXPRESSION_CELLS)
        costs["expression null"] = 2 * FOLDS * n_null * min(n_read, most)
    return costs


def _computed(
    engine: Engine,
    dataset: H5adDataset,
    settings: KnockoutSettings,
    base: Ground,
    stages: Stages,
    cancelled: IsCancelled,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All numbers, as arrays and notes for the store."""
    sample, perturbation = base.sample, settings.perturbation
    _check_drawn(base, settings)
    asked = (engine.model, base.tokenizer, sample, perturbation)
    done = effect(*asked, progress=stages["effect"], cancelled=cancelled)
    beside = controls(
        base.shifts,
        done,
        groups=base.groups,
        donors=None if settings.donor_key is None else column(dataset, settings.donor_key).iloc[sample.cells],
        n_null=settings.n_null,
        seed=settings.seed,
        progress=stages["null"],
        cancelled=cancelled,
    )
    tables = {
        "cells": cell_table(dataset, base, done),
        "groups": group_table(base, beside),
        **direction_tables(base, done, beside),
    }
    arrays = {"null": beside.null.shifts, "before": sample.latents, "after": done.after}
    if beside.null.genes:
        # What the arrows of a perturbation are drawn beside: the gene expressed most like the perturbed one.
        other = replace(perturbation, genes=beside.null.genes[0])
        asked_other = (engine.model, base.tokenizer, sample, other)
        arrays["control_after"] = effect(*asked_other, progress=stages["control"], cancelled=cancelled).after
    if beside.donors is not None:
        tables["donors"] = beside.donors.table
    if settings.expression:
        tables["expression"] = expression_table(engine, settings, base, beside, stages, cancelled)
    counts = {
        "n_cells": base.n_cells,
        "n_sampled": len(sample),
        "n_expressing": int(done.expressed.sum()),
        "n_read": int(done.read.sum()),
    }
    attrs = {name: dict(table.attrs) for name, table in tables.items()}
    arrays |= {name: packed(table) for name, table in tables.items()}
    return arrays, {"counts": counts, "summary": summary_of(beside), "attrs": attrs}


def _check_drawn(base: Ground, settings: KnockoutSettings) -> None:
    """Refuse a gene that none of the cells reads, and say so where there are more cells than were drawn."""
    try:
        check_read(base.tokenizer, base.sample, settings.perturbation)
    except DataError as error:
        if len(base.sample) == base.n_cells:
            raise
        hint = f"They were drawn from {base.n_cells:,}: draw more, or choose the cells that express the gene."
        raise DataError(error.message, hint) from error


def _draw_field(
    engine: Engine,
    dataset: H5adDataset,
    entry: StoredResult,
    projection: ProjectionSettings,
    cancelled: IsCancelled,
) -> None:
    """Keep the arrows apart from the rest: the map may be drawn later, or drawn anew."""
    key = _field_key(engine, dataset, entry.key, projection)
    drawn = engine.stored_projection(dataset, representation="X_scdiva", settings=projection)
    embedding = engine.stored_embedding(dataset)
    if drawn is None or embedding is None or engine.store.get(key) is not None:
        return
    arrays = {
        name: np.array(entry.arrays[name]) for name in ("before", "after", "control_after") if name in entry.arrays
    }
    field, control = vector_field(
        CellMap(embedding, drawn.coordinates),
        np.array(entry.arrays["cells"]["cell"]),
        arrays["before"],
        arrays["after"],
        control_after=arrays.get("control_after"),
        seed=entry.meta["settings"]["seed"],
        cancelled=cancelled,
    )
    meta = {**engine.provenance(dataset), "task": "knockout-field", "attrs": {"control": control.attrs}}
    engine.store.put(key, {"field": packed(field), "control": packed(control)}, meta)
