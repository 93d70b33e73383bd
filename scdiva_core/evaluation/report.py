"""An evaluation as Markdown: a table for each measure, footnotes, and what it comes to in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scdiva_core.evaluation.verdicts import METHODS

TITLES = {
    "classification": "Telling published cell types apart",
    "clusters": "Clusters and distances against published cell types",
    "integration": "Batches within a set",
    "annotation": "Naming cell types, no label of the set used",
    "mixing": "Studies pooled",
}
"""Groups of measures, with their headings, in their order."""

MEASURES = {
    "knn_accuracy": "kNN accuracy",
    "knn_macro_f1": "kNN macro-F1",
    "probe_accuracy": "Linear probe, accuracy",
    "probe_macro_f1": "Linear probe, macro-F1",
    "ari": "ARI of Leiden clusters",
    "nmi": "NMI of Leiden clusters",
    "silhouette": "Silhouette of the cell types",
    "avg_bio": "Avg-Bio",
    "avg_batch": "Avg-Batch",
    "batch_asw": "Batch ASW",
    "graph_connectivity": "Graph connectivity",
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "balanced_accuracy": "Balanced accuracy",
    "calibration_error": "Expected calibration error (lower is better)",
}
"""Name of each measure for people, in their order."""

_COLUMNS = {
    "scdiva": "the checkpoint's embedding; in the annotation its head and its profiles together (its head, where it "
    "has no profiles), which have seen the corpus' labels.",
    "profiles": "a linear discriminant over the genes that the set has, no part of the network.",
    "pca": "50 components of the 2,000 most variable genes, fitted on the very cells that are measured.",
    "pca_corpus": "the same, fitted on the corpus' training cells over the genes that the set has.",
    "harmony": "harmonypy on the PCA on the set; it alone is told the batches.",
    "untrained_svd": "the same network before training, its gene vectors from an SVD of the corpus.",
    "untrained_random": "the same network before training, its gene vectors random.",
}

LOWER_IS_BETTER = {"calibration_error"}

_NOTES = {
    "classification": (
        "Each cell's published type is predicted from the other cells of the same set, in {folds} stratified folds, "
        "{seeds} times with other folds; mean and standard deviation over these. kNN: majority of the 15 nearest "
        "cells. Linear probe: multinomial logistic regression on standardised coordinates, C = 1. Macro-F1 is the "
        "mean of the types' F1, so that a rare type counts as much as a common one. Types with fewer than {folds} "
        "cells are left out. Chance: always the commonest type."
    ),
    "clusters": (
        "Leiden clusters on 15 neighbours, {seeds} seeds, at whichever resolution from 0.1 to 2.0 gives the highest "
        "NMI with the types, as scib does: a privilege that every column has. ARI and NMI: 0 is chance, 1 perfect. "
        "Silhouette: from -1 to 1, how much nearer a cell lies to its own type than to the next. Chance: shuffled "
        "types against clusters of the PCA."
    ),
    "integration": (
        "Sets with technical batches. Avg-Bio: mean of NMI, ARI and (silhouette + 1) / 2. Avg-Batch: mean of batch "
        "ASW (1 where a type's batches cannot be told apart by distance, 0 where they are far apart) and graph "
        "connectivity (share of a type's cells that the neighbour graph joins). Definitions: scIB, Luecken 2022; "
        "averages: Cui 2024. What tells no type from another mixes batches perfectly: read Avg-Batch beside Avg-Bio."
    ),
    "annotation": (
        "A predicted term counts as the most specific of the set's terms that it is or lies below in the Cell "
        "Ontology; if there is none it is wrong. In brackets the middle 95 % of 1,000 bootstrap resamples of the "
        "cells; one that misses a type is scored on the others. Every cell whose label means a type is scored, also "
        "types that nothing in the corpus can name. {regression} "
        "Expected calibration error: mean distance between stated probability of the resolved term and accuracy, 15 "
        "bins. Commonest type: the best that one answer for all cells can do."
    ),
    "mixing": (
        "Cells of the types that two studies or more have (five cells each), labels rolled up until they match; a "
        "batch is a study. ScDiVa embeds each study by itself; PCA is fitted on all pooled cells. Measures as for "
        "batches within a set."
    ),
}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write a result of `scdiva_core.evaluation.embedding.evaluate_embedding` as a Markdown page.

    Parameters
    ----------
    result
        As returned, or read back from JSON.
    """
    checkpoint, corpus = result["checkpoint"], result["corpus"]
    lines = [
        "# Embedding, evaluated",
        "",
        f"Checkpoint: {checkpoint['name']}, {checkpoint['parameters']:,} parameters, "
        f"SHA-256 `{checkpoint['sha256']}`. Corpus: {corpus['training_cells']:,} training cells, "
        f"{corpus['classes']} cell types. In every table the best of a row is bold.",
        "",
        *_in_words(result),
        *_sets(result),
        "## Columns",
        "",
        *(f"- {METHODS[method]}: {words}" for method, words in _COLUMNS.items()),
        "",
        "All read the same cells, and of their genes those that the model knows.",
        "",
    ]
    for group, title in TITLES.items():
        if result[group]:
            lines += [f"## {title}", "", *_tables(result, group), note(result, group), ""]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join([*lines, f"Made with {versions}.", ""])


def _in_words(result: Mapping[str, Any]) -> list[str]:
    lines = ["## In words", ""]
    for verdict in result["verdicts"]:
        words = verdict["words"]
        lines.append(f"- **{words}**" if verdict["verdict"] == "below" else f"- {words}")
    if "scdiva" not in next(iter(result["annotation"].values()), {}):
        lines.append("- **This checkpoint names no cell types.**")
    return [*lines, "", "Accuracies within 0.01 of each other count as level. Losses are bold.", ""]


def _sets(result: Mapping[str, Any]) -> list[str]:
    lines = ["## Sets", "", "| set | cells | measured | types | genes known | batches | left out |"]
    lines.append("| --- |" + " ---: |" * 5 + " --- |")
    for name, cells in result["sets"].items():
        rare = cells["left_out"]["too_rare"]
        left_out = [f"{cells['left_out']['without_a_type']:,} without a type"]
        left_out += [f"{sum(rare.values()):,} of types too rare ({', '.join(rare)})"] if rare else []
        numbers = (
            f"{cells['cells']:,}",
            f"{cells['measured']:,}",
            str(cells["types"]),
            f"{cells['genes_known']:,} of {cells['genes_total']:,}",
            str(max(len(cells["batches"]), 1)),
        )
        lines.append(f"| {cells['title']} (`{name}`) | {' | '.join(numbers)} | {'; '.join(left_out)} |")
    for name, pool in result["pools"].items():
        numbers = (f"{pool['cells'] + pool['left_out']:,}", f"{pool['cells']:,}", str(len(pool["terms"])))
        batches = f"{len(pool['studies'])} studies"
        lines.append(
            f"| {pool['title']} (`{name}`) | {' | '.join(numbers)} | shared | {batches} | {pool['left_out']:,} |"
        )
    lines.append("")
    for name, cells in result["sets"].items():
        beyond = cells.get("annotation", {}).get("out_of_reach")
        if beyond:
            best = cells["annotation"]["best_accuracy"]
            lines += [f"No class of the model comes to these types of {name}: {', '.join(beyond.values())}. "]
            lines[-1] += f"The best accuracy it could reach there is {best:.3f}."
            lines.append("")
    return lines


def _tables(result: Mapping[str, Any], group: str) -> list[str]:
    rows = result[group]
    names = {name: (result["pools"] if group == "mixing" else result["sets"])[name]["title"] for name in rows}
    there = {method for row in rows.values() for method in row}
    methods = [method for method in METHODS if method in there]
    measures = [name for name in MEASURES if any(name in scores for row in rows.values() for scores in row.values())]
    lines = []
    for measure in measures:
        columns = [m for m in methods if any(measure in row.get(m, {}) for row in rows.values())]
        lines += [f"| {MEASURES[measure]} | {' | '.join(METHODS[method] for method in columns)} |"]
        lines += ["| --- |" + " ---: |" * len(columns)]
        lines += [_row(names[name], row, columns, measure) for name, row in rows.items()]
        if len(rows) > 1:
            lines += [_row("*mean*", result["means"][group], columns, measure)]
        lines += [""]
    return lines


def _row(title: str, row: Mapping[str, Any], columns: list[str], measure: str) -> str:
    scores = [row.get(method, {}).get(measure) for method in columns]
    values = [score["value"] for score in scores if score is not None]
    best = (min if measure in LOWER_IS_BETTER else max)(values, default=None)
    cells = []
    for score in scores:
        text = "" if score is None else score_text(score)
        # Ties as printed share the honour.
        bold = score is not None and len(columns) > 1 and f"{score['value']:.3f}" == f"{best:.3f}"
        cells.append(f"**{text}**" if bold else text)
    return f"| {title} | {' | '.join(cells)} |"


def score_text(score: Mapping[str, Any]) -> str:
    """Write a score, as `scdiva_core.evaluation.scores.Score.to_dict` gives it, with its spread."""
    if "std" in score:
        return f"{score['value']:.3f} ± {score['std']:.3f}"
    if "low" in score:
        return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
    return f"{score['value']:.3f}"


def note(result: Mapping[str, Any], group: str) -> str:
    """Say how a group's measures were taken.

    Parameters
    ----------
    result
        As `to_markdown` takes it.
    group
        One of `TITLES`.
    """
    settings, chosen = result["settings"], result["settings"]["regression"]
    regression = ""
    if chosen is not None:
        weights = "types weighted alike" if chosen["balanced"] else "cells weighted alike"
        regression = (
            f"Logistic regression: on the corpus' labelled training cells, at most {chosen['max_class_cells']} of a "
            f"type, over the 2,000 most variable genes that the set has; C = {chosen['strength']:g} and {weights}, "
            f"chosen on the corpus' validation cells."
        )
    return _NOTES[group].format(folds=settings["folds"], seeds=settings["seeds"], regression=regression)
