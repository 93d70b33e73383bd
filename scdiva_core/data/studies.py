"""Tables that say what the data sets of a folder are, and what their labels mean in the Cell Ontology.

A folder holds ``datasets.toml``, one ``[[dataset]]`` table for each file, and ``labels.tsv``, one row for each value of
each label column: data set, label, ontology id and name, use and note. A label's use is

- ``class``: it names a final cell type;
- ``group``: a coarse one, so that the cell is of one of the classes below the term, it is not said of which;
- ``none``: it names no cell type that can be used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.errors import DataError
from scdiva_core.lazy import cached_property

Use = Literal["class", "group", "none"]

_COLUMNS = ("dataset", "label", "ontology_id", "ontology_name", "use", "note")
_VALUES = ("auto", "counts", "log1p")
_LISTS = ("held_out", "seen")
_REQUIRED = ("name", "title", "source")


@dataclass(frozen=True)
class Study:
    """One data set.

    Attributes
    ----------
    name
        Name of its file without ``.h5ad``.
    title
        Short name for people.
    label_column, batch_column, donor_column
        Columns of ``obs``: published cell types, technical batches, and people; None where there is no such column.
    held_out
        Values of ``donor_column`` whose cells are kept for validation.
    seen_column, seen
        Column of ``obs``, and its values whose cells the training corpus holds too: they are no test of anything.
    source
        The study, and where this copy is from.
    accession
        Where the study deposited its data; empty when not known.
    licence
        What the origin states.
    values
        How `scdiva_core.data.h5ad.open_h5ad` is to read the values.
    excluded
        Why none of its cells may be used; empty for a data set that is sound.
    """

    name: str
    title: str
    label_column: str | None = None
    batch_column: str | None = None
    donor_column: str | None = None
    held_out: tuple[str, ...] = ()
    seen_column: str | None = None
    seen: tuple[str, ...] = ()
    source: str = ""
    accession: str = ""
    licence: str = "not stated"
    values: Literal["auto", "counts", "log1p"] = "auto"
    excluded: str = ""


class _Row(NamedTuple):
    """A row of ``labels.tsv``, with its place."""

    line: int
    dataset: str
    label: str
    ontology_id: str
    ontology_name: str
    use: Use


@dataclass(frozen=True)
class Studies:
    """The data sets of a folder; made by `Studies.read`.

    Attributes
    ----------
    studies
        Name -> study, in the order of the table.
    labels
        Name -> label as published -> ontology id (empty when unused) and use.
    """

    studies: dict[str, Study]
    labels: dict[str, dict[str, tuple[str, Use]]]

    @classmethod
    def read(cls, folder: str | Path) -> Studies:
        """Read and check ``datasets.toml`` and ``labels.tsv``.

        Parameters
        ----------
        folder
            Where both lie.

        Raises
        ------
        DataError
            A file is missing or malformed, or contradicts itself, the other one or the ontology; with file and line.
        """
        studies = _read_studies(Path(folder) / "datasets.toml")
        rows = _read_rows(Path(folder) / "labels.tsv", studies)
        labels = {name: {} for name, study in studies.items() if study.label_column}
        for row in rows:
            labels[row.dataset][row.label] = (row.ontology_id, row.use)
        return cls(studies, labels)

    def study(self, name: str) -> Study:
        """Look up a study.

        Parameters
        ----------
        name
            Name of its file without ``.h5ad``.

        Raises
        ------
        DataError
            There is none of that name.
        """
        if name not in self.studies:
            msg = f"The table of data sets knows no {name!r}."
            raise DataError(msg, f"Add it to datasets.toml; known are {', '.join(self.studies)}.")
        return self.studies[name]

    def label(self, dataset: str, label: str) -> tuple[str, Use]:
        """Look up what a published label means.

        Parameters
        ----------
        dataset
            Name of the study.
        label
            Value of its label column, verbatim.

        Returns
        -------
        tuple of str
            Ontology id, empty when the label is unused, and use.

        Raises
        ------
        DataError
            There is no such study, or no row for that label of it.
        """
        self.study(dataset)
        if label not in self.labels.get(dataset, {}):
            msg = f"The label {label!r} of {dataset} has no meaning yet."
            raise DataError(msg, "Add a row to labels.tsv; its use is 'none' when the label cannot be used.")
        return self.labels[dataset][label]

    def table(self, name: str) -> list[list[str]]:
        """List all labels of a study with their meaning, sorted; empty when it has no labels.

        Parameters
        ----------
        name
            Name of the study.

        Returns
        -------
        list of list of str
            Label, ontology id and use.
        """
        self.study(name)
        return sorted([label, *meaning] for label, meaning in self.labels.get(name, {}).items())

    @cached_property
    def ontology_ids(self) -> tuple[str, ...]:
        """Ids of all classes and groups, ascending."""
        return tuple(sorted({term for meanings in self.labels.values() for term, _ in meanings.values()} - {""}))

    @cached_property
    def classes(self) -> frozenset[str]:
        """Ids of all classes."""
        uses = (meaning for meanings in self.labels.values() for meaning in meanings.values())
        return frozenset(term for term, use in uses if use == "class")


def _read_studies(path: Path) -> dict[str, Study]:
    text = _text(path)
    try:
        tables = tomllib.loads(text).get("dataset", [])
    except tomllib.TOMLDecodeError as error:
        msg = f"{path.name} cannot be read: {error}."
        raise DataError(msg, "Correct it; it is a TOML file of [[dataset]] tables.") from error
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.strip() == "[[dataset]]"]
    if not tables or len(lines) != len(tables):
        msg = f"{path.name} has {len(lines):,} lines [[dataset]] for {len(tables):,} data sets."
        raise DataError(msg, "Begin each data set with a line [[dataset]].")
    studies: dict[str, Study] = {}
    for line, table in zip(lines, tables, strict=True):
        study = _study(path, line, table)
        if study.name in studies:
            _refuse(path, line, f"{study.name} is there twice", "Remove one of the two.")
        studies[study.name] = study
    return studies


def _study(path: Path, line: int, table: dict[str, Any]) -> Study:
    known = [field.name for field in fields(Study)]
    if unknown := [key for key in table if key not in known]:
        _refuse(path, line, f"a data set has no {unknown[0]!r}", f"Choose among {', '.join(known)}.")
    if missing := [key for key in _REQUIRED if not table.get(key)]:
        _refuse(path, line, f"the data set has no {missing[0]!r}", "Add it.")
    lists = {key: table.get(key, []) for key in _LISTS}
    texts = [value for key, value in table.items() if key not in _LISTS]
    if not all(isinstance(values, list) for values in lists.values()) or not all(
        isinstance(value, str) for value in [*texts, *(value for values in lists.values() for value in values)]
    ):
        _refuse(path, line, "a value is no text", "Write text in quotes; held_out and seen are lists of such.")
    if lists["held_out"] and not table.get("donor_column"):
        _refuse(path, line, "donors are held out, but no column names donors", "Add donor_column.")
    if lists["seen"] and not table.get("seen_column"):
        _refuse(path, line, "cells were seen, but no column names them", "Add seen_column.")
    if table.get("values", "auto") not in _VALUES:
        _refuse(path, line, f"values cannot be read as {table['values']!r}", f"Choose among {', '.join(_VALUES)}.")
    return Study(**table | {key: tuple(values) for key, values in lists.items()})


def _read_rows(path: Path, studies: dict[str, Study]) -> list[_Row]:
    rows = list(_rows(path))
    seen: set[tuple[str, str]] = set()
    for row in rows:
        study = studies.get(row.dataset)
        if study is None or not study.label_column:
            _refuse(path, row.line, f"datasets.toml knows no labels of {row.dataset!r}", "Add it there.")
        if (row.dataset, row.label) in seen:
            _refuse(path, row.line, f"{row.label!r} of {row.dataset} is there twice", "Remove one of the two.")
        seen.add((row.dataset, row.label))
        _check_term(path, row)
    labelled = {row.dataset for row in rows}
    if missing := [name for name, study in studies.items() if study.label_column and name not in labelled]:
        msg = f"{path.name} has no row for {missing[0]}, which has a label column."
        raise DataError(msg, "Add a row for each of its labels.")
    _check_groups(path, rows)
    return rows


def _rows(path: Path) -> Iterator[_Row]:
    header, *lines = _text(path).splitlines() or [""]
    if tuple(header.split("\t")) != _COLUMNS:
        _refuse(path, 1, "the header is another one", f"Write {', '.join(_COLUMNS)}, separated by tabs.")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(_COLUMNS):
            _refuse(path, number, f"{len(cells)} columns instead of {len(_COLUMNS)}", "Separate them by single tabs.")
        yield _Row(number, *cells[:5])


def _check_term(path: Path, row: _Row) -> None:
    if row.use not in ("class", "group", "none"):
        _refuse(path, row.line, f"the use is {row.use!r}", "Choose among class, group and none.")
    if row.use == "none":
        if row.ontology_id or row.ontology_name:
            _refuse(path, row.line, "an unused label has a term", "Leave id and name empty, or choose another use.")
        return
    if row.ontology_id not in cell_ontology():
        hint = "Search the ontology for the cell type by its name."
        _refuse(path, row.line, f"{row.ontology_id!r} is no current term of the Cell Ontology", hint)
    name = cell_ontology().name(row.ontology_id)
    if row.ontology_name != name:
        _refuse(path, row.line, f"{row.ontology_id} is called {name!r}, not {row.ontology_name!r}", "Correct one.")


def _check_groups(path: Path, rows: list[_Row]) -> None:
    classes = {row.ontology_id for row in rows if row.use == "class"}
    for row in rows:
        if row.use != "group":
            continue
        if row.ontology_id in classes:
            problem = f"{row.ontology_name} is a group here and a class elsewhere"
            _refuse(path, row.line, problem, "Give a term one use.")
        below = classes & cell_ontology().descendants(row.ontology_id)
        if len(below) < 2:
            problem = f"the group {row.ontology_name} has {len(below)} of the classes below it, not two or more"
            _refuse(path, row.line, problem, "Make it a class.")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read."
        raise DataError(msg, "The folder needs datasets.toml and labels.tsv, both in UTF-8.") from error


def _refuse(path: Path, line: int, problem: str, hint: str) -> NoReturn:
    msg = f"{path.name}, line {line}: {problem}."
    raise DataError(msg, hint)
