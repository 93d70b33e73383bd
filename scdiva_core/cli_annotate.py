"""Command ``annotate``: name the cells of a file, in a copy of it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scdiva_core.cli_progress import TerminalProgress, warn

if TYPE_CHECKING:  # other commands start without it, and 'pretrain' where pandas is not installed
    import pandas as pd

    from scdiva_core.data.h5ad import H5adDataset
    from scdiva_core.engine import Engine
    from scdiva_core.engine_annotation import Annotated
    from scdiva_core.tasks.annotation import LabelCalls
    from scdiva_core.tasks.annotation_export import Annotation

AUTHOR = "ScDiVa Explorer, reviewed by nobody"
"""Who answers for labels that no person has looked at."""

_LONGEST_TITLE = 200  # characters, by the Cell Annotation Schema
_NAMED = 5  # cell types in a warning


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser(
        "annotate",
        help="name the cells of an .h5ad file",
        description=(
            "Write a copy of the input with obs['scdiva_label'], its Cell Ontology id, confidence and source, the log "
            "of the annotation in uns['scdiva'] and the Cell Annotation Schema in uns['cas']. Of several sources their "
            "consensus is written. Cells unlike the checkpoint's reference are called unknown. The input is never "
            "changed, and what was computed before is kept."
        ),
    )
    parser.add_argument("input", type=Path, help="an .h5ad file with raw counts or log1p values")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new .h5ad file")
    parser.add_argument(
        "--source",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="scdiva, head, profiles, knn or markers, several with commas between (default: the checkpoint's best)",
    )
    parser.add_argument(
        "--column", nargs="+", default=(), metavar="NAME", help="columns of obs with labels, as sources beside these"
    )
    parser.add_argument("--donor", metavar="COLUMN", help="column of obs with donors: count those of each cell type")
    parser.add_argument(
        "--batch", metavar="COLUMN", help="column of obs with batches: each may lie off the reference as a whole"
    )
    parser.add_argument("--no-unknown", action="store_true", help="name cells unlike the reference all the same")
    parser.add_argument(
        "--checkpoint", default="default", help="'default', a folder, a weights file, or a hub id OWNER/NAME"
    )
    parser.add_argument("--device", default="auto", help="'auto', 'cpu', 'cuda' or 'mps' (default: auto)")
    parser.add_argument("--matrix", help="'X', 'raw/X' or 'layers/NAME'; recognised when left out")
    parser.add_argument("--gene-column", help="column of var with gene names, 'index' for its index")
    parser.add_argument(
        "--values",
        choices=("auto", "counts", "log1p"),
        default="auto",
        help="what the values are, if they are not recognised correctly (default: auto)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Annotate, write the new file, and print what was found and where it is."""
    from scdiva_core.engine import Engine
    from scdiva_core.engine_annotation import annotate, available_sources
    from scdiva_core.tasks.annotation_export import write_annotation
    from scdiva_core.tasks.export import checked_target

    engine = Engine(options.checkpoint, options.device)
    if engine.card().random_weights:
        warn("these weights are random; the labels mean nothing")
    sources = options.source or available_sources(engine)[:1]
    with engine.open(
        options.input, matrix=options.matrix, gene_column=options.gene_column, values=options.values
    ) as dataset:
        checked_target(dataset.path, options.output)
        donors = None if options.donor is None else _donors(dataset, options.donor)
        for warning in dataset.preflight.warnings:
            warn(warning)
        progress = TerminalProgress()
        options_of_labels = {"columns": options.column, "unknown": not options.no_unknown, "batch_key": options.batch}
        found = annotate(engine, dataset, sources, **options_of_labels, progress=progress)
        progress.end()
        if found.novelty is None and not options.no_unknown:
            warn("this checkpoint has no reference, so that no cell is called unknown")
        labels = found.labels("consensus") if found.consensus else next(iter(found.calls.values()))
        title = dataset.path.stem[:_LONGEST_TITLE]
        review = _unreviewed(engine, dataset, labels, _origin(found))
        written = write_annotation(dataset, options.output, review, author=AUTHOR, title=title)
    types = cell_types(labels, donors)
    _print_table(types, len(labels), _origin(found))
    if donors is not None:
        _warn_of_single_donors(types, donors)
    print(written)


@dataclass(frozen=True)
class CellType:
    """A type among the cells of a data set.

    Attributes
    ----------
    name, ontology_id
        As its source calls it; the id of free text and of unknown cells is empty.
    cells
        How many there are.
    confidence
        Their mean probability; None for unknown cells.
    donors
        In how many donors it is seen; None when donors are not told.
    """

    name: str
    ontology_id: str
    cells: int
    confidence: float | None
    donors: int | None


def cell_types(labels: LabelCalls, donors: pd.Series | None = None) -> list[CellType]:
    """Count the cells of each type, the commonest first, unknown cells last.

    Parameters
    ----------
    labels
        Of one source, or a consensus.
    donors
        Donor of each cell; missing ones do not count.
    """
    names, ids = (*labels.names, "unknown"), (*labels.ids, "")
    seen_in = {} if donors is None else donors.groupby(labels.best).nunique().to_dict()
    found = []
    for label in np.unique(labels.best).tolist():
        cells = labels.best == label
        confidence = float(labels.probability[cells].mean(dtype=np.float64)) if label >= 0 else None
        found.append(CellType(names[label], ids[label], int(cells.sum()), confidence, seen_in.get(label)))
    return sorted(found, key=lambda one: (one.confidence is None, -one.cells, one.name))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _donors(dataset: H5adDataset, column: str) -> pd.Series:
    from scdiva_core.errors import DataError

    if column not in dataset.obs:
        msg = f"{dataset.path.name} has no column {column!r}."
        raise DataError(msg, f"Columns of obs: {', '.join(map(str, dataset.obs)) or 'none'}.")
    return dataset.obs[column]


def _origin(found: Annotated) -> str:
    """The sources in words."""
    from scdiva_core.engine_annotation import TITLES

    names = [TITLES.get(source, source) for source in found.calls]
    return names[0] if found.consensus is None else f"consensus of {len(names)}: {', '.join(names)}"


def _unreviewed(engine: Engine, dataset: H5adDataset, labels: LabelCalls, origin: str) -> Annotation:
    """Labels with a log that has only begun, so that a review can go on from the file."""
    from scdiva_core.annotations.events import StartingLabels
    from scdiva_core.annotations.log import AnnotationLog
    from scdiva_core.tasks.annotation_export import Annotation

    starting = StartingLabels(labels.source, labels.ids, labels.names, labels.best)
    with tempfile.TemporaryDirectory() as folder:
        log = AnnotationLog(
            Path(folder) / "log.sqlite",
            data_sha256=dataset.sha256,
            n_obs=dataset.n_obs,
            who=AUTHOR,
            model_sha256=engine.model.sha256 or "",
        )
        log.begin(starting, why=f"command line; {origin}")
        return Annotation(starting, labels.probability, log.events())


def _print_table(found: Sequence[CellType], n_obs: int, origin: str) -> None:
    rows = [["cell type", "ontology id", "cells", "share", "confidence", "donors"]]
    for one in found:
        confidence = "" if one.confidence is None else f"{one.confidence:.2f}"
        share = f"{one.cells / n_obs:.1%}"
        rows.append([one.name, one.ontology_id, f"{one.cells:,}", share, confidence, f"{one.donors}"])
    if found[0].donors is None:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join([*texts, *numbers]).rstrip())
    n_named = sum(one.confidence is not None for one in found)
    n_unknown = sum(one.cells for one in found if one.confidence is None)
    print(f"{n_obs:,} cells, {n_named} types, {n_unknown:,} cells unknown; {origin}")
    print("confidence: mean probability of the label; of a consensus, sources that say another thing count as 0")


def _warn_of_single_donors(found: Sequence[CellType], donors: pd.Series) -> None:
    if donors.nunique() < 2:
        warn(f"the column {donors.name!r} names fewer than two donors, so that no type can be seen in a second one")
        return
    single = [one for one in found if one.confidence is not None and one.donors < 2]
    if single:
        names = ", ".join(f"{one.name} ({one.cells:,})" for one in single[:_NAMED])
        rest = f" and {len(single) - _NAMED} more" if len(single) > _NAMED else ""
        warn(f"seen in one donor alone, so perhaps that donor's doing: {names}{rest}")
