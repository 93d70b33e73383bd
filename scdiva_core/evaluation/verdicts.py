"""What the tables say, in words that do not spare the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scdiva_core.evaluation.scores import Methods, Table

LEVEL = 0.01
"""Accuracies this close count as level."""

METHODS = {
    "scdiva": "ScDiVa",
    "head": "its head alone",
    "profiles": "its profiles alone",
    "pca": "PCA on the set",
    "pca_corpus": "PCA on the corpus",
    "harmony": "Harmony",
    "untrained_svd": "untrained, SVD genes",
    "untrained_random": "untrained, random genes",
    "hvg_lr": "variable genes + logistic regression",
    "majority": "commonest type",
    "chance": "chance",
}
"""Name of each method for people, in the order of the tables' columns."""

_ACCURACIES = ("knn_accuracy", "probe_accuracy")
_MEASURES = {
    "knn_accuracy": "kNN accuracy",
    "probe_accuracy": "Linear-probe accuracy",
    "macro_f1": "Annotation, macro-F1",
    "avg_batch": "Studies pooled, Avg-Batch",
    "avg_bio": "Studies pooled, Avg-Bio",
}


def verdicts(
    tables: Mapping[str, Table], means: Mapping[str, Methods], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Compare the model with its baselines, one plain sentence each.

    Accuracies are level within 0.01. Annotation and mixing are not: there any difference counts.

    Parameters
    ----------
    tables, means
        Group to sets, methods and measures; group to the methods' means over sets.
    titles
        Name of each set and pool for people.

    Returns
    -------
    list of dict
        ``group``, ``measure``, ``set`` (``"mean"`` for the mean), ``against``, ``scdiva``, ``other``, ``verdict``
        (``"above"``, ``"level"`` or ``"below"``) and ``words``.
    """
    found = []
    for measure in _ACCURACIES:
        for name, row in _rows(tables, means, "classification"):
            found.append(_verdict("classification", measure, name, row, "pca", LEVEL))
        for other in ("pca_corpus", "untrained_svd", "untrained_random"):
            found.append(_verdict("classification", measure, "mean", means["classification"], other, LEVEL))
    if {"scdiva", "hvg_lr"} <= set(means["annotation"]):
        found += [
            _verdict("annotation", "macro_f1", name, row, "hvg_lr", 0.0)
            for name, row in _rows(tables, means, "annotation")
        ]
    for name, row in _rows(tables, means, "mixing"):
        found += [_verdict("mixing", measure, name, row, "pca", 0.0) for measure in ("avg_batch", "avg_bio")]
    return [{**verdict, "words": _words(verdict, titles)} for verdict in found]


def _rows(tables: Mapping[str, Table], means: Mapping[str, Methods], group: str) -> Iterator[tuple[str, Methods]]:
    """Each set's row, and last the mean's where there are several."""
    yield from tables[group].items()
    if len(tables[group]) > 1:
        yield "mean", means[group]


def _verdict(group: str, measure: str, name: str, row: Methods, against: str, margin: float) -> dict[str, Any]:
    ours, other = row["scdiva"][measure].value, row[against][measure].value
    verdict = "above" if ours > other else "below"
    return {
        "group": group,
        "measure": measure,
        "set": name,
        "against": against,
        "scdiva": ours,
        "other": other,
        "verdict": "level" if abs(ours - other) <= margin else verdict,
    }


def _words(verdict: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    where = "mean" if verdict["set"] == "mean" else titles[verdict["set"]]
    relation = {"above": "is above", "level": "is level with", "below": "loses to"}[verdict["verdict"]]
    return (
        f"{_MEASURES[verdict['measure']]}, {where}: ScDiVa ({verdict['scdiva']:.3f}) {relation} "
        f"{METHODS[verdict['against']]} ({verdict['other']:.3f}; {verdict['scdiva'] - verdict['other']:+.3f})."
    )
