"""Tables of a perturbation as pages and files show them: from what the tasks return, by the names of this layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Ground, Stages
from scdiva_core.engine_knockout_result import KnockoutSettings
from scdiva_core.tasks.perturbation import Effect
from scdiva_core.tasks.perturbation_direction import change_towards, direction_table, mean_changes, transitions
from scdiva_core.tasks.perturbation_tests import Controls, null_changes
from scdiva_core.tasks.predicted_expression import expression_change
from scdiva_core.tasks.predicted_expression import null_changes as expression_null
from scdiva_core.tasks.progress import IsCancelled

EXPRESSION_CELLS = 200
"""Reading cells that the predicted expression is averaged over at most."""

EXPRESSION_NULL = (50, 20)
"""Matched genes, and cells of each, that predicted changes are compared with (our choice: about a minute on two cores;
all matched genes over all cells would take many)."""

NO_DONORS = "No column of donors was chosen; cells of one donor are alike and no replicates."
"""What is said of the test over donors when there is none."""

REPEATS = 2
"""Random cuts into folds of the predicted expression, for its noise."""


def cell_table(dataset: H5adDataset, base: Ground, done: Effect) -> pd.DataFrame:
    """Shift of each drawn cell: ``KnockoutResult.cells``."""
    cells = base.sample.cells
    return pd.DataFrame(
        {
            "cell": cells,
            "name": dataset.obs_names[cells],
            "group": base.groups,
            "expressed": done.expressed,
            "read": done.read,
            "cosine": done.cosine,
            "l2": done.l2,
        }
    )


def group_table(base: Ground, beside: Controls) -> pd.DataFrame:
    """Shift of each group, those in which no cell reads the genes included: ``KnockoutResult.groups``."""
    sizes = pd.Series(base.groups).value_counts().sort_index().rename("n_cells").rename_axis("group").reset_index()
    named = beside.groups.rename(columns={"n": "n_read", "mean": "shift"})
    table = sizes.merge(named, how="left", on="group")
    table["n_read"] = table["n_read"].fillna(0).astype(np.int64)
    numbers = ["shift", "null_mean", "null_low", "null_high", "p", "q"]
    return table[["group", "n_cells", "n_read", *numbers]].astype(dict.fromkeys(numbers, float))


def direction_tables(base: Ground, done: Effect, beside: Controls) -> dict[str, pd.DataFrame]:
    """Where the groups go: ``directions`` and ``transitions`` of a `KnockoutResult`."""
    read, before = done.read, base.sample.latents
    own = base.groups[read]
    change = change_towards(before[read], done.after[read], base.centroids)
    means, sizes = mean_changes(change, own, base.names)
    null = null_changes(beside.null_shifts, base.groups, base.names)
    table = direction_table(means, sizes, base.names, null)
    moved = transitions(before[read], done.after[read], base.centroids, base.names)
    return {
        "directions": table.rename(columns={"own": "group", "mean": "change"})[
            ["group", "target", "change", "null_mean", "p", "q", "word", "n"]
        ],
        "transitions": moved.rename(columns={"from": "before", "to": "after"}),
    }


def expression_table(
    engine: Engine, settings: KnockoutSettings, base: Ground, beside: Controls, stages: Stages, cancelled: IsCancelled
) -> pd.DataFrame:
    """Predict the other genes' expression, with p and q against matched genes: ``KnockoutResult.expression``."""
    asked = (engine.model, base.tokenizer, base.sample)
    found = expression_change(
        *asked,
        settings.perturbation,
        repeats=REPEATS,
        seed=settings.seed,
        most_cells=EXPRESSION_CELLS,
        progress=stages["expression"],
        cancelled=cancelled,
    )
    n_null, most = EXPRESSION_NULL
    others = [replace(settings.perturbation, genes=genes) for genes in beside.null.genes[:n_null]]
    null = expression_null(
        *asked,
        others,
        seed=settings.seed,
        most_cells=most,
        progress=stages["expression null"],
        cancelled=cancelled,
    )
    columns = ["symbol", "before", "after", "change", "noise", "n", "p", "q", "detection"]
    table = found.against(null)[columns]
    table.attrs["words"] = f"{found.words} p from the same with {len(others)} random genes."
    return table


def summary_of(beside: Controls) -> dict[str, Any]:
    """Plain values of ``KnockoutResult.summary``, all but the words."""
    null, ranks, donors = beside.null, beside.ranks, beside.donors
    low, high = np.quantile(null.shifts, (0.05, 0.95)) if len(null.shifts) else (np.nan, np.nan)
    numbers = {
        "shift": null.observed,
        "z": null.z,
        "p": null.p,
        "null_mean": null.shifts.mean() if len(null.shifts) else np.nan,
        "null_low": low,
        "null_high": high,
        "masked": np.nan if ranks is None else ranks.masked,
        "remaining": np.nan if ranks is None else ranks.share,
    }
    told: dict[str, Any] = {name: _plain(number) for name, number in numbers.items()}
    told |= {"n_null": len(null.genes), "words": beside.words, "donors": NO_DONORS}
    if donors is not None:
        tested = {"words": donors.words, "p": _plain(donors.p), "n": len(donors.table)}
        told["donors"] = donors.words if tested["p"] is None else tested
    return told


def _plain(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
