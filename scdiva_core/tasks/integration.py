"""What integration is worth: types held together, batches mixed, and nothing mixed that has no match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.errors import DataError
from scdiva_core.metrics.classification import frequent
from scdiva_core.metrics.integration import (
    average_batch,
    average_bio,
    batch_silhouette,
    best_clustering,
    graph_connectivity,
    label_silhouette,
    neighbor_graph,
)
from scdiva_core.metrics.mixing import batch_only, clisi, clusters_of, ilisi, kbet
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

METHODS = {
    "pca": "PCA",
    "pca_centred": "PCA, centred in each batch",
    "harmony": "Harmony",
    "scdiva": "ScDiVa",
    "scdiva_harmony": "ScDiVa with Harmony",
    "scdiva_finetuned": "ScDiVa, fine-tuned",
    "scdiva_finetuned_clusters": "ScDiVa, fine-tuned without labels",
}
"""Names of the representations that are compared, for people; the last in evaluations only."""

MEASURES = (
    "nmi",
    "ari",
    "type_asw",
    "avg_bio",
    "batch_asw",
    "graph_connectivity",
    "avg_batch",
    "ilisi",
    "clisi",
    "kbet",
)
"""Columns of the table, all higher the better and at most 1."""

APART = 0.9
"""Purity from which on a type of one batch counts as kept apart."""

MOST_CELLS = 5000
"""Cells measured at most, drawn at random (our choice: silhouettes compare every cell with every other)."""

_FEWEST = 3  # cells of a type that is measured


def measure(
    vectors: Mapping[str, NDArray[np.float32]],
    labels: ArrayLike,
    batches: ArrayLike,
    *,
    seeds: int = 3,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure representations of the same cells.

    Parameters
    ----------
    vectors
        Name -> float ``[n_cells, d]``.
    labels, batches
        ``[n_cells]`` type and batch; cells without either, and types of fewer than three cells, are left out.
    seeds
        Repetitions of Leiden.
    progress, cancelled
        Called once a method.

    Returns
    -------
    table : DataFrame
        A row for each name: ``method``, `MEASURES`, ``nmi_std``, ``ari_std``, ``avg_bio_std`` (over the seeds), and
        ``n_cells``. kBET may be NaN.
    apart : DataFrame
        Types of one batch alone: ``method``, ``label``, ``batch``, ``n_cells``, ``purity`` and ``kept`` (`APART`).

    Raises
    ------
    DataError
        No type is in two batches.
    Cancelled
        The user stopped.
    """
    labels, batches = pd.Series(np.asarray(labels, object)), pd.Series(np.asarray(batches, object))
    there = np.flatnonzero(labels.notna() & batches.notna() & (labels.astype(str).str.strip() != ""))
    if len(there) > MOST_CELLS:
        there = np.sort(np.random.default_rng(0).choice(there, MOST_CELLS, replace=False))
    kinds, groups = labels.iloc[there].astype(str).to_numpy(str), batches.iloc[there].astype(str).to_numpy(str)
    kept = frequent(kinds, _FEWEST)
    places, kinds, groups = there[kept], kinds[kept], groups[kept]
    found = pd.Series(groups).groupby(kinds)
    if found.ngroups < 2 or not ((found.nunique() > 1) & (found.nunique() < found.size())).any():
        msg = f"Of {found.ngroups} types with {_FEWEST} cells or more, none is in two batches: nothing can be measured."
        raise DataError(msg, "Choose another column of types or of batches.")
    rows, apart = [], []
    for number, (name, X) in enumerate(vectors.items()):
        stop_if(cancelled)
        progress(number, len(vectors), "Measuring")
        scores, only = _scores(np.asarray(X)[places], kinds, groups, seeds)
        rows.append({"method": name, **scores, "n_cells": len(places)})
        apart += [{"method": name, **row} for row in only]
    progress(len(vectors), len(vectors), "Measuring")
    columns = ["method", "label", "batch", "n_cells", "purity", "kept"]
    return pd.DataFrame(rows), pd.DataFrame(apart, columns=columns)


def verdict(table: pd.DataFrame, method: str = "scdiva_finetuned") -> str:
    """Say whether a method mixes batches as well as Harmony and holds types together as well as PCA, with numbers.

    Parameters
    ----------
    table
        Of `measure`, with ``"pca"`` and ``"harmony"`` among the methods.
    method
        Whose verdict.
    """
    scores = table.set_index("method")
    own, harmony, pca = scores.loc[method], scores.loc["harmony"], scores.loc["pca"]
    mixes, holds = own["avg_batch"] >= harmony["avg_batch"], own["avg_bio"] >= pca["avg_bio"]
    mixing = (
        f"{'mixes batches at least as well as Harmony' if mixes else 'mixes batches less well than Harmony'} "
        f"(Avg-Batch {own['avg_batch']:.3f}, Harmony {harmony['avg_batch']:.3f})"
    )
    holding = (
        f"{'holds types together at least as well as PCA' if holds else 'holds types together less well than PCA'} "
        f"(Avg-Bio {own['avg_bio']:.3f}, PCA {pca['avg_bio']:.3f}, Harmony {harmony['avg_bio']:.3f})"
    )
    best = scores[["avg_bio", "avg_batch"]].mean(axis=1).idxmax()
    joined = "and" if mixes == holds else "but"
    return (
        f"{METHODS.get(method, method)} {mixing} {joined} {holding}. Best by the mean of both: "
        f"{METHODS.get(best, best)} ({scores.loc[best, ['avg_bio', 'avg_batch']].mean():.3f})."
    )


def apart_in_words(apart: pd.DataFrame, method: str) -> str:
    """Say whether types that only one batch has kept their own clusters.

    Parameters
    ----------
    apart
        Of `measure`.
    method
        Whose.
    """
    own = apart[apart["method"] == method]
    if not len(own):
        return "Every type with enough cells is in two batches or more, so that over-correction cannot be checked."
    lost = own[~own["kept"]].sort_values("purity")
    told = (
        f"{len(own) - len(lost)} of {len(own)} types that only one batch has keep their own cluster (purity {APART:g})"
    )
    if not len(lost):
        return f"{told}."
    names = ", ".join(f"{row.label} ({row.purity:.2f})" for row in lost.head(5).itertuples())
    return f"{told}; mixed into others: {names}{' and more' if len(lost) > 5 else ''}."


def _scores(
    X: NDArray[np.float32], labels: NDArray[np.str_], batches: NDArray[np.str_], seeds: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    graph = neighbor_graph(X)
    found = [best_clustering(graph, labels, seed=seed) for seed in range(seeds)]
    nmi, ari = (np.array([getattr(each, name) for each in found]) for name in ("nmi", "ari"))
    silhouette = label_silhouette(X, labels)
    bio = average_bio(nmi, ari, silhouette)
    asw, connectivity = batch_silhouette(X, labels, batches), graph_connectivity(graph, labels)
    spread = {name: float(values.std()) for name, values in (("nmi", nmi), ("ari", ari), ("avg_bio", bio))}
    scores = {
        "nmi": float(nmi.mean()),
        "ari": float(ari.mean()),
        "type_asw": (silhouette + 1) / 2,
        "avg_bio": float(bio.mean()),
        "batch_asw": asw,
        "graph_connectivity": connectivity,
        "avg_batch": average_batch(asw, connectivity),
        "ilisi": ilisi(X, batches),
        "clisi": clisi(X, labels),
        "kbet": kbet(X, labels, batches),
        **{f"{name}_std": value for name, value in spread.items()},
    }
    only = batch_only(clusters_of(graph, found[0].resolution), labels, batches)
    return scores, [{**asdict(each), "kept": each.purity >= APART} for each in only]
