"""Cells of evaluation sets rebuilt by a checkpoint and by what needs no model, as numbers and as a page."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction import ReconstructionResult, ReconstructionSettings, reconstruct
from scdiva_core.errors import DataError
from scdiva_core.evaluation.representations import Report
from scdiva_core.tasks.reconstruction_scores import MEASURES

SETS = ("tenx_pbmc3k", "baron2016_pancreas_donors2to4", "tabula_sapiens_lung_1k")
"""Sets that are rebuilt: blood, pancreas, lung."""

MASKS = (0.15, 0.5, 0.7, 0.95)
"""Shares hidden."""

CELLS, ITERATIVE_CELLS = 100, 8
"""Cells of each set, and those of them that are rebuilt iteratively too, which takes some twenty times as long."""

_LIBRARIES = ("numpy", "scipy", "torch")
_HEADS = {
    "identity": "identity",
    "l_dist": "L-Dist ↓",
    "bleu": "BLEU",
    "spearman": "Spearman",
    "mse": "MSE ↓",
    "r2": "R2",
}
_DEFINITIONS = (
    "Means over cells, in brackets 95 % bootstrap intervals over cells. Population and neighbours are cells of the "
    "same set that are not rebuilt. *Told*: a method is told the place that is hidden, hence its rank, or the name of "
    "the gene, never both, so compare within one kind. Identity: share of hidden genes named rightly. L-Dist: edit "
    "distance of the whole gene sequence over the number of hidden places, 0 to 1. BLEU: of the whole sequence, runs "
    "of one to four genes, so visible genes count; its level without knowledge is that of *random*. Spearman, MSE and "
    "R2: rebuilt against true log1p values of a cell's hidden tokens, at the place or of the gene as told. The paper "
    "prints L-Dist, BLEU and Spearman and, as far as we know, neither their definitions nor the share that was hidden, "
    "so its numbers cannot be set beside these."
)


def evaluate_reconstruction(
    engine: Engine,
    data: Path,
    studies: Studies,
    *,
    sets: Sequence[str] | None = None,
    masks: tuple[float, ...] = MASKS,
    cells: int = CELLS,
    iterative_cells: int = ITERATIVE_CELLS,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Rebuild cells of each set with and without leak, in one pass and iteratively, beside the baselines.

    Parameters
    ----------
    engine
        The checkpoint; results that were computed before are kept.
    data
        Folder of the sets.
    studies
        Their titles and label columns.
    sets
        Names; `SETS` when None.
    masks, cells, iterative_cells
        As in `ReconstructionSettings`.
    report
        Called with a line of progress.

    Returns
    -------
    dict
        Plain values for JSON: ``checkpoint``, ``versions``, ``settings`` and ``sets``, for each its ``title``, sizes,
        ``table``, ``comparisons``, ``types``, ``verdict`` and ``leak``.

    Raises
    ------
    DataError
        A set is not known, or its file is not there.
    """
    card = engine.card()
    result: dict[str, Any] = {
        "checkpoint": {"name": card.name, "sha256": card.sha256, "parameters": card.parameters_total},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "settings": {"masks": list(masks), "cells": cells, "iterative_cells": iterative_cells},
        "sets": {},
    }
    for name in SETS if sets is None else sets:
        path = data / f"{name}.h5ad"
        if name not in studies.studies or not path.is_file():
            msg = f"There is no evaluation set {name} in {data}."
            raise DataError(msg, f"Choose among {', '.join(SETS)}, and the folder that holds them.")
        study = studies.studies[name]
        settings = ReconstructionSettings(
            masks=masks, most_cells=cells, iterative_cells=iterative_cells, group_key=study.label_column
        )
        with engine.open(path) as dataset:
            report(f"{name}: rebuilding {min(cells, dataset.n_obs // 2):,} of {dataset.n_obs:,} cells")
            found = reconstruct(engine, dataset, settings)
        result["sets"][name] = _plain_set(study.title, found)
    return result


def _plain_set(title: str, found: ReconstructionResult) -> dict[str, Any]:
    sizes = {name: getattr(found, name) for name in ("n_cells", "n_rebuilt", "n_population")}
    tables = {name: _plain(getattr(found, name)) for name in ("table", "comparisons", "types")}
    words = {name: found.summary[name] for name in ("verdict", "leak")}
    return {"title": title, **sizes, **tables, **words}


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not defined as None."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()} for row in records]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write a result of `evaluate_reconstruction` as a Markdown page.

    Parameters
    ----------
    result
        As returned, or read back from JSON.
    """
    checkpoint = result["checkpoint"]
    lines = [
        "# Reconstruction, evaluated",
        "",
        f"Checkpoint: {checkpoint['name']}, {checkpoint['parameters']:,} parameters, SHA-256 `{checkpoint['sha256']}`.",
        "",
        "## In words",
        "",
    ]
    lines += [f"- {each['title']}: {each['verdict']}" for each in result["sets"].values()]
    lines += [f"- {each['title']}: {each['leak']}" for each in result["sets"].values()]
    lines += ["", _DEFINITIONS, ""]
    for each in result["sets"].values():
        lines += [
            f"## {each['title']}",
            "",
            f"{each['n_rebuilt']:,} of {each['n_cells']:,} cells rebuilt, {each['n_population']:,} others read.",
            "",
            f"| hidden | method | told | leaks | cells | {' | '.join(_HEADS.values())} |",
            "| ---: | --- | --- | --- |" + " ---: |" * (1 + len(_HEADS)),
            *(_row(row) for row in each["table"]),
            "",
        ]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*lines, f"Made with {versions}.", ""])


def _row(row: Mapping[str, Any]) -> str:
    texts = [f"{row['mask']:.0%}", row["method"], row["told"], "yes" if row["leaks"] else "", f"{row['n']:,}"]
    return f"| {' | '.join([*texts, *(_spread(row, measure) for measure in MEASURES)])} |"


def _spread(row: Mapping[str, Any], measure: str) -> str:
    """``0.123 (0.110 to 0.135)``."""
    numbers = [row[measure], row[f"{measure}_low"], row[f"{measure}_high"]]
    return "" if None in numbers else "{:.3f} ({:.3f} to {:.3f})".format(*numbers)
