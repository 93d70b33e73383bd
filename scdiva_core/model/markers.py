"""Marker genes that ship with a checkpoint: those a cell type shows, and those that tell it from its likes."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, NoReturn

from scdiva_core.errors import CheckpointError
from scdiva_core.lazy import cached_property

MARKERS_FILE = "markers.tsv"

Sign = Literal["positive", "negative"]

MOST: dict[Sign, int] = {"positive": 20, "negative": 10}
"""Markers of a cell type at most."""


@dataclass(frozen=True)
class Marker:
    """A gene that speaks for a cell type, or against it.

    Attributes
    ----------
    ontology_id, name
        Cell Ontology id and name of the type.
    symbol
        The gene.
    sign
        ``"positive"`` for a gene of the type, ``"negative"`` for one of the most similar type that this one lacks.
    log2_fold_change
        Of the type's mean counts per 10,000 over those of what it is compared with; see
        `scdiva_core.training.markers.marker_genes`.
    share_inside, share_outside
        Share of cells that detect the gene: of the type, and of what it is compared with.
    """

    ontology_id: str
    name: str
    symbol: str
    sign: Sign
    log2_fold_change: float
    share_inside: float
    share_outside: float


_COLUMNS = tuple(field.name for field in fields(Marker))


@dataclass(frozen=True)
class MarkerTable:
    """Markers of many cell types.

    Attributes
    ----------
    rows
        The best of each type first; positive before negative ones.
    """

    rows: tuple[Marker, ...]

    @cached_property
    def names(self) -> dict[str, str]:
        """Name of each Cell Ontology id that has a marker, in the order of the rows."""
        return {row.ontology_id: row.name for row in self.rows}

    def of(self, ontology_id: str, sign: Sign) -> tuple[Marker, ...]:
        """Markers of one type and sign, the best first; empty for a type without.

        Parameters
        ----------
        ontology_id
            Cell Ontology id.
        sign
            ``"positive"`` or ``"negative"``.
        """
        return self._grouped.get((ontology_id, sign), ())

    @cached_property
    def _grouped(self) -> dict[tuple[str, Sign], tuple[Marker, ...]]:
        grouped: dict[tuple[str, Sign], tuple[Marker, ...]] = {}
        for row in self.rows:
            grouped[row.ontology_id, row.sign] = (*grouped.get((row.ontology_id, row.sign), ()), row)
        return grouped

    def save(self, path: str | Path) -> None:
        """Write tab-separated text in one step, numbers in full.

        Parameters
        ----------
        path
            `MARKERS_FILE` in the checkpoint's folder; an older file is replaced.
        """
        lines = ["\t".join(_COLUMNS), *("\t".join(map(str, astuple(row))) for row in self.rows)]
        path = Path(path)
        with tempfile.TemporaryDirectory(dir=path.parent) as stage:
            partial = Path(stage) / path.name
            partial.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")
            os.replace(partial, path)

    @classmethod
    def load(cls, path: str | Path) -> MarkerTable:
        """Read and check the file.

        Parameters
        ----------
        path
            Written by `save`.

        Raises
        ------
        CheckpointError
            The file is missing or no such table; it has a number that cannot be, the same gene twice for a type, or
            more genes of a type than `MOST`. The line is named.
        """
        path = Path(path)
        rows, names = [], {}
        genes: set[tuple[str, str]] = set()
        sizes: Counter[tuple[str, Sign]] = Counter()
        for number, row in _rows(path):
            if (row.ontology_id, row.symbol) in genes:
                _refuse(path, number, f"{row.symbol} is there twice for {row.name}")
            if names.setdefault(row.ontology_id, row.name) != row.name:
                _refuse(path, number, f"{row.ontology_id} is called {row.name!r} and {names[row.ontology_id]!r}")
            if sizes[row.ontology_id, row.sign] == MOST[row.sign]:
                _refuse(path, number, f"{row.name} has more than {MOST[row.sign]} {row.sign} markers")
            genes.add((row.ontology_id, row.symbol))
            sizes[row.ontology_id, row.sign] += 1
            rows.append(row)
        return cls(tuple(rows))


def _rows(path: Path) -> Iterator[tuple[int, Marker]]:
    """Rows with their line's number, each sound in itself."""
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path.name} cannot be read."
        raise CheckpointError(msg, "Restore the checkpoint's own file.") from error
    if tuple(header.split("\t")) != _COLUMNS:
        _refuse(path, 1, f"the header is another one; expected {', '.join(_COLUMNS)}, separated by tabs")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(_COLUMNS):
            _refuse(path, number, f"{len(cells)} columns instead of {len(_COLUMNS)}")
        if not all(cells):
            _refuse(path, number, "a column is empty")
        *texts, fold, inside, outside = cells
        if texts[3] not in MOST:
            _refuse(path, number, f"the sign is {texts[3]!r}, expected {' or '.join(MOST)}")
        try:
            row = Marker(*texts, float(fold), float(inside), float(outside))
        except ValueError:
            _refuse(path, number, "a number cannot be read")
        if not (math.isfinite(row.log2_fold_change) and 0 <= row.share_inside <= 1 and 0 <= row.share_outside <= 1):
            _refuse(path, number, "a fold change is not finite, or a share not from 0 to 1")
        yield number, row


def _refuse(path: Path, line: int, problem: str) -> NoReturn:
    msg = f"{path.name}, line {line}: {problem}."
    raise CheckpointError(msg, "Restore the checkpoint's own file.")
