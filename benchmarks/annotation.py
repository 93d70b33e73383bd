"""Annotation: planted mistakes found, types that the reference lacks, sources beside their consensus, 100,000 cells."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.timing import best_seconds, markdown
from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.engine_annotation import Annotated, annotate, preselected
from scdiva_core.evaluation.annotation import resolve
from scdiva_core.evaluation.sets import EvaluationSet, read_set
from scdiva_core.metrics.classification import expected_calibration_error, score_predictions
from scdiva_core.model.reference import REFERENCE_FILE, Reference
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.label_sources import column_calls
from scdiva_core.tasks.neighbors import ProjectionSettings, nearest_cells
from scdiva_core.tasks.novelty import novelty, strangeness
from scdiva_core.tasks.review_session import open_items, prepare_review, starting_labels

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("SCDIVA_DATA") or ROOT / ".." / "shared" / "data") / "eval"
FEWEST = 20  # cells of a type that is taken out
MANY = 100_000


def tables() -> Iterator[str]:
    """One table after the other; a sentence where the evaluation sets are not there."""
    if not DATA.is_dir():
        yield f"No evaluation sets in {DATA}: set SCDIVA_DATA for the tables on annotation."
        return
    engine = Engine("default", "cpu")
    yield from (planted_table(engine), removed_table(engine), source_table(engine), speed_table(engine))


@contextmanager
def _opened(engine: Engine, path: Path, studies: Studies) -> Iterator[tuple[H5adDataset, EvaluationSet]]:
    with engine.open(path, values=studies.study(path.stem).values) as dataset:
        yield dataset, read_set(dataset, studies, len(engine.vocabulary))


def _sets(engine: Engine) -> Iterator[tuple[H5adDataset, EvaluationSet]]:
    studies = Studies.read(ROOT / "assets" / "evaluation")
    for path in sorted(DATA.glob("*.h5ad")):
        if path.stem in studies.studies and studies.study(path.stem).label_column:
            with _opened(engine, path, studies) as found:
                yield found


def planted_table(engine: Engine) -> str:
    """5 % of a file's own labels exchanged, and the share of them in the first tenth of the queue; ten draws."""
    rows = []
    for path, column in (
        (DATA / "tenx_pbmc3k.h5ad", "cell_type"),
        (ROOT / "assets" / "demo" / "kang2018_pbmc_ifnb_3k.h5ad", "cell_type"),
        (DATA / "baron2016_pancreas_donors2to4.h5ad", "cell_type"),
    ):
        with engine.open(path) as dataset:
            labels = dataset.obs[column].astype(str).to_numpy(str)
            found = [_first_tenth(engine, dataset, labels, seed) for seed in range(10)]
        rows.append([path.stem, f"{len(labels):,}", f"{np.mean(found):.3f}", f"{min(found):.3f}", "0.100"])
    header = ["set", "cells", "in the first tenth, mean", "lowest of 10", "in random order"]
    return markdown("5 % of the labels planted wrong, reviewed as the page does it", header, rows)


def _first_tenth(engine: Engine, dataset: H5adDataset, labels: np.ndarray, seed: int) -> float:
    rng, names = np.random.default_rng(seed), np.unique(labels)
    wrong = rng.choice(len(labels), round(0.05 * len(labels)), replace=False)
    planted = labels.copy()
    planted[wrong] = [rng.choice(names[names != labels[cell]]) for cell in wrong]
    found = annotate(engine, dataset, preselected(("scdiva", "profiles", "knn")))
    mine = column_calls(pd.Series(planted, name="mine"), cell_ontology())
    review = prepare_review(
        mine,
        list(found.calls.values()),
        neighbors=engine.neighbors(dataset),
        clusters=engine.project(dataset, settings=ProjectionSettings()).leiden,
        novelty=found.novelty,
        ontology=cell_ontology(),
    )
    first = np.concatenate([item.cells for item in review.items])[: len(labels) // 10]
    return float(np.isin(wrong, first).mean())


def removed_table(engine: Engine) -> str:
    """Each type taken out of the reference in turn, with its kinds; cells of it and of the others called unknown."""
    reference, ontology, rows = Reference.load(engine.folder / REFERENCE_FILE), cell_ontology(), []
    for dataset, cells in _sets(engine):
        latents, neighbors = engine.embed(dataset), engine.neighbors(dataset)
        terms, sizes = np.unique(cells.terms[cells.typed], return_counts=True)
        meaning = resolve(reference.ids, terms, ontology)
        for batches, words in ((None, "no"), (cells.batches, "yes")):
            if words == "yes" and batches is None:
                continue
            found = []
            for term in terms[(sizes >= FEWEST) & np.isin(terms, meaning)]:
                left = ~np.array([term in ontology.ancestors(one) for one in reference.ids])[reference.labels]
                parts = {name: getattr(reference, name)[left] for name in ("latents", "labels", "study_of")}
                strange = novelty(strangeness(replace(reference, **parts), latents, neighbors), batches) > 1
                others = np.isin(cells.terms, meaning) & (cells.terms != term)
                found.append((strange[cells.terms == term].mean(), strange[others].mean()))
            gone, kept = np.mean(found, axis=0)
            most = np.mean(np.array(found)[:, 0] >= 0.7)
            rows.append([cells.name, words, f"{len(found)}", f"{gone:.2f}", f"{most:.2f}", f"{kept:.3f}"])
    header = ["set", "batch column", "types", "unknown of the type", "types above 0.70", "unknown of the others"]
    return markdown("A type taken out of the reference, mean over types", header, rows)


def source_table(engine: Engine) -> str:
    """Macro-F1, and calibration error of all and of named cells, by source and for the consensus of the first three."""
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for dataset, cells in _sets(engine):
        key = Studies.read(ROOT / "assets" / "evaluation").study(cells.name).batch_column or None
        found = annotate(engine, dataset, ("scdiva", "profiles", "knn"), unknown=False, batch_key=key)
        more = annotate(engine, dataset, ("head", "markers"), unknown=False, batch_key=key)
        for name, calls in (found.calls | more.calls | {"consensus of the first three": found.consensus.calls}).items():
            scores.setdefault(name, []).append(_score(calls, cells, found))
    rows = [
        [name, *(f"{one:.3f}, {two:.3f}, {three:.3f}" for one, two, three in [*per_set, np.mean(per_set, axis=0)])]
        for name, per_set in scores.items()
    ]
    header = ["source", *(cells.name for _, cells in _sets(engine)), "mean"]
    return markdown("Macro-F1, calibration error of all cells, of those not called unknown", header, rows)


def _score(calls: LabelCalls, cells: EvaluationSet, found: Annotated) -> tuple[float, float, float]:
    rows, truth = cells.typed, cells.terms[cells.typed]
    meaning = resolve(calls.ids, np.unique(truth), cell_ontology())
    said, confidence = meaning[calls.best[rows]], calls.probability[rows].astype(float)
    if calls.probabilities is not None:
        confidence = np.where(meaning[None] == said[:, None], calls.probabilities[rows].astype(float), 0).sum(axis=1)
    confidence, right, named = np.minimum(confidence, 1), said == truth, found.novelty[rows] <= 1
    errors = (expected_calibration_error(confidence[some], right[some]) for some in (slice(None), named))
    return float(score_predictions(truth, said).macro_f1[0]), *errors


def speed_table(engine: Engine) -> str:
    """The queue and a decision on 100,000 cells, the pbmc3k demo many times over with noise."""
    path = ROOT / "assets" / "demo" / "tenx_pbmc3k.h5ad"
    with engine.open(path) as dataset:
        found = annotate(engine, dataset, ("scdiva", "profiles", "knn"))
        latents, clusters = engine.embed(dataset), engine.project(dataset, settings=ProjectionSettings()).leiden
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(latents), MANY)
    cells = latents[rows] + rng.normal(0, 0.05, (MANY, latents.shape[1])).astype(np.float32)
    calls = [_rows_of(source, rows) for source in found.calls.values()]
    began = time.perf_counter()
    neighbors = nearest_cells(cells)
    searched = time.perf_counter() - began
    given = {"neighbors": neighbors, "clusters": clusters[rows], "novelty": found.novelty[rows]}
    (queued,) = best_seconds([lambda: prepare_review(calls[0], calls[1:], **given, ontology=cell_ontology())], turns=3)
    review = prepare_review(calls[0], calls[1:], **given, ontology=cell_ontology())
    starting, _ = starting_labels(calls[0])
    with tempfile.TemporaryDirectory() as folder:
        log = AnnotationLog(Path(folder) / "log.sqlite", data_sha256="0" * 64, n_obs=MANY, who="bench")
        log.begin(starting)
        seconds = []
        for item in review.items[:20]:
            began = time.perf_counter()
            log.label(np.isin(np.arange(MANY), item.cells), "relabel", label_name="mine")
            open_items(review.items, log.replay(starting))
            seconds.append(time.perf_counter() - began)
    times = {
        "nearest cells of each (found with the embedding; reference)": searched,
        f"queue of {len(review.items)} items": queued,
        "one decision: log, replay, what is left (slowest of 20)": max(seconds),
    }
    table = [[what, f"{taken:.2f}", f"{taken / searched:.2f}"] for what, taken in times.items()]
    return markdown(f"Review of {MANY:,} cells", ["what", "seconds", "ratio"], table)


def _rows_of(calls: LabelCalls, rows: np.ndarray) -> LabelCalls:
    arrays = ("best", "runner_up", "third", "probability", "margin", "entropy", "probabilities")
    return replace(calls, **{name: getattr(calls, name)[rows] for name in arrays})
