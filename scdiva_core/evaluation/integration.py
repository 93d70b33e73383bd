"""Integration in every way that is offered, on sets of several batches that chose nothing."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.engine_integration import FINETUNED, IntegrateSettings, integrate
from scdiva_core.errors import DataError
from scdiva_core.evaluation.representations import Report
from scdiva_core.tasks.integration import METHODS, apart_in_words, measure, verdict

SETS = ("baron2016_pancreas_donors2to4", "tabula_sapiens_lung_1k")
"""Evaluated unless others are named."""

UNLABELLED = "scdiva_finetuned_clusters"
"""Fine-tuned with clusters in place of labels."""

_TITLES = {**METHODS, FINETUNED: "ScDiVa, fine-tuned with labels", UNLABELLED: "ScDiVa, fine-tuned without labels"}
_COLUMNS = {
    "avg_bio": "Avg-Bio",
    "avg_batch": "Avg-Batch",
    "nmi": "NMI",
    "ari": "ARI",
    "type_asw": "type ASW",
    "batch_asw": "batch ASW",
    "graph_connectivity": "connectivity",
    "ilisi": "iLISI",
    "clisi": "cLISI",
    "kbet": "kBET",
}
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "scanpy", "igraph", "harmonypy", "torch")
_NOTES = (
    "All measures are higher the better. Avg-Bio: mean of NMI, ARI (Leiden at the resolution that suits the labels "
    "best, mean of {seeds} seeds, ± standard deviation) and type ASW. Avg-Batch: mean of batch ASW and graph "
    "connectivity. iLISI, cLISI and kBET (acceptance within types) are scaled to 0 .. 1.",
    "Fine-tuning with labels learns from four fifths of them: the table of the held-out cells is the one that counts. "
    "Fine-tuning without labels draws clusters together and sees no label.",
)


def evaluate_integration(
    engine: Engine,
    data: Path,
    studies: Studies,
    *,
    sets: Sequence[str] | None = None,
    minutes: float = 5.0,
    seeds: int = 3,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Compare PCA, Harmony and the checkpoint, as it is and fine-tuned with and without labels.

    Parameters
    ----------
    engine
        The checkpoint; its store keeps what was computed.
    data
        Folder of the sets.
    studies
        Their batch and label columns.
    sets
        Names; `SETS` when None.
    minutes
        Budget of each fine-tuning.
    seeds
        Repetitions of Leiden.
    report
        Called with a line of progress.

    Returns
    -------
    dict
        Plain values for JSON: ``checkpoint``, ``versions``, ``settings`` and ``sets``, for each its size, ``table`` and
        ``judged`` (lists of rows), ``apart``, and ``words``.

    Raises
    ------
    DataError
        A set is not there, or has no batches or labels.
    """
    card = engine.card()
    result: dict[str, Any] = {
        "checkpoint": {"name": card.name, "sha256": card.sha256, "parameters": card.parameters_total},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "settings": {"minutes": minutes, "seeds": seeds},
        "sets": {},
    }
    for name in sets or SETS:
        path, study = data / f"{name}.h5ad", studies.studies.get(name)
        if study is None or not path.is_file() or not (study.batch_column and study.label_column):
            msg = f"{name} is no set with batches and labels in {data}."
            raise DataError(msg, "Give the folder of the evaluation sets, and sets of several batches.")
        settings = IntegrateSettings(study.batch_column, study.label_column, minutes=minutes, seeds=seeds)
        with engine.open(path, values=study.values) as dataset:
            report(f"{name}: with labels")
            taught = integrate(engine, dataset, settings)
            report(f"{name}: without labels")
            blind = integrate(engine, dataset, replace(settings, label_key=None))
            sha256 = dataset.sha256
            labels, batches = (dataset.obs[key].astype(object) for key in (study.label_column, study.batch_column))
        own, apart = measure({UNLABELLED: blind.vectors[FINETUNED]}, labels, batches, seeds=seeds)
        table = pd.concat([taught.table, own], ignore_index=True)
        rows = taught.judged_cells
        held, _ = measure(
            {UNLABELLED: blind.vectors[FINETUNED][rows]}, labels.iloc[rows], batches.iloc[rows], seeds=seeds
        )
        judged = pd.concat([taught.judged, held], ignore_index=True)
        apart = pd.concat([taught.apart, apart], ignore_index=True)
        result["sets"][name] = {
            "title": study.title,
            "sha256": sha256,
            "batches": taught.summary["batches"],
            "table": _records(table),
            "judged": _records(judged),
            "apart": _records(apart),
            "words": [
                f"With labels, on held-out cells: {verdict(judged, FINETUNED)}",
                f"Without labels: {verdict(table, UNLABELLED)}",
                f"As it is: {verdict(table, 'scdiva')}",
                f"With labels: {apart_in_words(apart, FINETUNED)}",
                f"Without labels: {apart_in_words(apart, UNLABELLED)}",
                taught.summary["taught"],
                blind.summary["taught"],
            ],
        }
    return result


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write a result of `evaluate_integration` as a Markdown page.

    Parameters
    ----------
    result
        As returned, or read back from JSON.
    """
    checkpoint = result["checkpoint"]
    lines = [
        "# Integration, evaluated",
        "",
        f"Checkpoint: {checkpoint['name']}, {checkpoint['parameters']:,} parameters, "
        f"SHA-256 `{checkpoint['sha256']}`. At most {result['settings']['minutes']:g} minutes of fine-tuning a set.",
        "",
        *(line for note in _NOTES for line in (note.format(**result["settings"]), "")),
    ]
    for found in result["sets"].values():
        sizes = ", ".join(f"{name} {size:,}" for name, size in found["batches"].items())
        lines += [f"## {found['title']}", "", f"Batches: {sizes}.", "", *(f"- {line}" for line in found["words"]), ""]
        for name, title in (("table", "All cells"), ("judged", "Cells whose labels fine-tuning never learned from")):
            lines += [f"### {title} ({found[name][0]['n_cells']:,})", "", *_table(found[name]), ""]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*lines, f"Made with {versions}.", ""])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| method | {' | '.join(_COLUMNS.values())} |", "| --- |" + " ---: |" * len(_COLUMNS)]
    for row in rows:
        cells = [_number(row[name], row.get(f"{name}_std")) for name in _COLUMNS]
        lines.append(f"| {_TITLES[row['method']]} | {' | '.join(cells)} |")
    return lines


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values, None for NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
