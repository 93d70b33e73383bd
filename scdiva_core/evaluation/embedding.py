"""The whole comparison of embeddings: every set, every representation, every measure, with its spread."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiva_core.baselines.annotation import MAX_CLASS_CELLS, HvgRegression, LabelledCells, choose_settings
from scdiva_core.data.corpus import Corpus
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.errors import DataError
from scdiva_core.evaluation.annotation import annotate, reachable
from scdiva_core.evaluation.measures import measure_pool, measure_set
from scdiva_core.evaluation.pools import POOLS, Pool, pooled_cells
from scdiva_core.evaluation.representations import Report, Representations, Vectors
from scdiva_core.evaluation.scores import Table, mean_over_sets, plain
from scdiva_core.evaluation.sets import FOLDS, EvaluationSet, read_set
from scdiva_core.evaluation.verdicts import verdicts

GROUPS = ("classification", "clusters", "integration", "annotation", "mixing")
"""Tables of a result, in their order."""

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "scanpy", "igraph", "harmonypy", "torch")


def evaluate_embedding(
    engine: Engine,
    data: Path,
    corpus: Corpus,
    studies: Studies,
    *,
    sets: Sequence[str] | None = None,
    seeds: int = 5,
    pools: Sequence[Pool] = POOLS,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Compare a checkpoint's embedding with what it must beat.

    Parameters
    ----------
    engine
        The checkpoint.
    data
        Folder of the ``.h5ad`` files that ``studies`` describes.
    corpus
        Prepared corpus over the checkpoint's genes; fits two baselines and the untrained networks.
    studies
        Labels of the evaluation sets as Cell Ontology terms.
    sets
        Names of the sets to use; all labelled ones that are in the folder when None.
    seeds
        Repetitions of the cross-validation and of Leiden.
    pools
        Sets to pool across studies; a pool that lacks a set is passed over.
    report
        Called with a line of progress.

    Returns
    -------
    dict
        Plain values for JSON: ``checkpoint``, ``corpus``, ``versions``, ``settings``, ``sets`` and ``pools`` (sizes,
        left-out cells), one table for each of `GROUPS` (set, method, measure), ``means`` over sets, ``verdicts``.

    Raises
    ------
    DataError
        A set is not there or does not fit its description, or the corpus has other genes.
    """
    if seeds < 1:
        msg = f"seeds is {seeds}."
        raise DataError(msg, "Choose at least 1.")
    files = _files(data, studies, sets)
    run = _Run(engine, corpus, studies, seeds, report)
    with tempfile.TemporaryDirectory() as folder:
        represent = Representations(engine, corpus, Path(folder), report)
        for name, path in files.items():
            run.measure_set(name, path, represent)
        for pool in pools:
            if all(member.dataset in run.sets for member in pool.members):
                run.measure_pool(pool, represent)
    run.name_types()
    return run.result()


class _Run:
    """Tables of one evaluation as they fill up."""

    def __init__(self, engine: Engine, corpus: Corpus, studies: Studies, seeds: int, report: Report) -> None:
        self.engine, self.corpus, self.studies = engine, corpus, studies
        self.seeds, self.report = seeds, report
        self.sets: dict[str, EvaluationSet] = {}
        self.vectors: dict[str, Vectors] = {}
        self.tables: dict[str, Table] = {group: {} for group in GROUPS}
        self.described: dict[str, dict[str, Any]] = {"sets": {}, "pools": {}}
        self.regression: dict[str, Any] | None = None

    def measure_set(self, name: str, path: Path, represent: Representations) -> None:
        """Fill in a set's rows, all but the annotation's."""
        with self.engine.open(path, values=self.studies.study(name).values) as dataset:
            cells = read_set(dataset, self.studies, len(self.engine.vocabulary))
            self.vectors[name] = represent.of_set(dataset, cells)
        self.sets[name] = cells
        self.report(f"{name}: measuring")
        for group, methods in measure_set(cells, self.vectors[name], self.seeds).items():
            self.tables[group][name] = methods
        self.described["sets"][name] = _described(cells)

    def measure_pool(self, pool: Pool, represent: Representations) -> None:
        """Fill in a pool's row."""
        self.report(f"{pool.title}: measuring")
        cells = pooled_cells(pool, self.sets, cell_ontology())
        vectors = represent.of_pool(cells.sets, cells.rows, self.vectors)
        self.tables["mixing"][pool.name] = measure_pool(vectors, cells.terms, cells.studies, self.seeds)
        self.described["pools"][pool.name] = {
            "title": pool.title,
            "cells": len(cells.terms),
            "left_out": cells.left_out,
            "studies": _counts(cells.studies),
            "terms": {cell_ontology().name(term): count for term, count in _counts(cells.terms).items()},
        }

    def name_types(self) -> None:
        """Fill in the annotation's rows; its baseline is chosen on the corpus alone."""
        training = chosen = None
        if self.corpus.classes:
            self.report("Choosing the regression on the corpus")
            training = LabelledCells(self.corpus, "training", most=MAX_CLASS_CELLS)
            chosen = choose_settings(self.corpus, training)
            self.regression = {**asdict(chosen), "max_class_cells": MAX_CLASS_CELLS}
        for name, cells in self.sets.items():
            self.report(f"{name}: naming cell types")
            regression = None
            if chosen is not None:
                regression = HvgRegression(
                    self.corpus, training, cells.gene_ids, strength=chosen.strength, balanced=chosen.balanced
                )
            embedding = self.vectors[name]["scdiva"]
            self.tables["annotation"][name] = annotate(self.engine, cells, embedding, regression, cell_ontology())
            labels = self.engine.model.labels
            if labels is not None:
                self.described["sets"][name]["annotation"] = reachable(cells, labels.ids, cell_ontology())

    def result(self) -> dict[str, Any]:
        """Everything as plain values."""
        titles = {name: entry["title"] for part in self.described.values() for name, entry in part.items()}
        means = {group: mean_over_sets(table) for group, table in self.tables.items()}
        return {
            **_provenance(self.engine, self.corpus),
            "settings": {"seeds": self.seeds, "folds": FOLDS, "regression": self.regression},
            **self.described,
            **{group: plain(table) for group, table in self.tables.items()},
            "means": plain(means),
            "verdicts": verdicts(self.tables, means, titles),
        }


def _files(data: Path, studies: Studies, names: Sequence[str] | None) -> dict[str, Path]:
    labelled = [study.name for study in studies.studies.values() if study.label_column]
    unknown = [name for name in names or () if name not in labelled]
    if unknown:
        msg = f"There are no labels for {', '.join(unknown)}."
        raise DataError(msg, f"Choose from: {', '.join(labelled)}.")
    wanted = {name: data / f"{name}.h5ad" for name in (names if names is not None else labelled)}
    found = {name: path for name, path in wanted.items() if path.is_file()}
    if not found or (names is not None and len(found) < len(wanted)):
        missing = ", ".join(path.name for name, path in wanted.items() if name not in found)
        msg = f"These files are not in {data}: {missing}."
        raise DataError(msg, "Give the folder that holds the evaluation sets with --data.")
    return found


def _described(cells: EvaluationSet) -> dict[str, Any]:
    measured = cells.measured
    kept = set(cells.labels[measured])
    rare = {label: count for label, count in _counts(cells.labels[cells.typed]).items() if label not in kept}
    return {
        "title": cells.title,
        "sha256": cells.sha256,
        "cells": len(cells.terms),
        "measured": len(measured),
        "types": len(kept),
        "left_out": {"without_a_type": len(cells.terms) - len(cells.typed), "too_rare": rare},
        "genes_known": len(cells.gene_ids),
        "genes_total": cells.genes_total,
        "batches": {} if cells.batches is None else _counts(cells.batches[measured]),
    }


def _counts(values: NDArray[np.str_]) -> dict[str, int]:
    names, sizes = np.unique(values, return_counts=True)
    return dict(zip(names.tolist(), sizes.tolist(), strict=True))


def _provenance(engine: Engine, corpus: Corpus) -> dict[str, Any]:
    card = engine.card()
    return {
        "checkpoint": {"name": card.name, "sha256": card.sha256, "parameters": card.parameters_total},
        "corpus": {
            "cells": len(corpus),
            "training_cells": len(corpus.cells("training")),
            "classes": len(corpus.classes),
            "vocabulary_sha256": corpus.vocabulary.sha256,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }
