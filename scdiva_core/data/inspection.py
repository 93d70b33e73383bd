"""Deciding what to read from an ``.h5ad`` file: which matrix, what values, which column of gene names."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass

import h5py
import numpy as np

from scdiva_core.data.frames import Table
from scdiva_core.data.hdf5 import hdf5_errors, member, subgroup
from scdiva_core.data.headers import matrix_places, open_matrix
from scdiva_core.data.matrix import Matrix, Sample
from scdiva_core.data.values import detect_kind
from scdiva_core.data.vocabulary import GeneMatch, GeneVocabulary, human_genes
from scdiva_core.errors import DataError

_PREFERENCE = {"counts": 0, "log1p": 1, "normalised": 2, "unknown": 3, "scaled": 4}
# A layer of another name (spliced, ambient, ...) is not taken for the expression unless it is asked for.
_EXPRESSION_LAYER = re.compile(r"count|raw|umi|log|norm", re.IGNORECASE)
_MOST_LAYERS = 16
_GROUPS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "raw")
_WRITTEN = ("obsm", "uns")  # where results are put in a copy
_MOST_NAME_COLUMNS = 12
# Columns that know nearly as many genes as the best; among them the one spelled like the vocabulary is taken.
_NEARLY_AS_GOOD = 0.9


@dataclass(frozen=True)
class Candidate:
    """A matrix that could be read.

    Parameters
    ----------
    matrix, var
        The matrix and the table that names its genes.
    sample
        Values seen.
    kind, reason
        What they are and why, see `detect_kind`.
    """

    matrix: Matrix
    var: Table
    sample: Sample
    kind: str
    reason: str

    @property
    def preference(self) -> tuple[int, int]:
        """Smaller is better: counts first, then more genes (cells are normalised by all their genes)."""
        layer = self.matrix.info.name.partition("layers/")[2]
        other = len(_PREFERENCE) if layer and not _EXPRESSION_LAYER.search(layer) else 0
        return _PREFERENCE[self.kind] + other, -self.matrix.shape[1]


@dataclass(frozen=True)
class GeneNames:
    """The names chosen for the genes of a matrix.

    Parameters
    ----------
    column
        Column of ``var``; None for its index.
    names
        Object array of str [n_vars].
    match
        Their tokens; where the names were unknown, those of a second column.
    """

    column: str | None
    names: np.ndarray
    match: GeneMatch


@dataclass(frozen=True)
class Inspection:
    """What was found in an open file.

    Parameters
    ----------
    obs
        Table of cells.
    candidates
        Readable matrices, in the file's order.
    problems
        Matrices that cannot be read, with the reason.
    chosen
        The one that was asked for, or the recommended one.
    genes
        Names of its genes.
    """

    obs: Table
    candidates: tuple[Candidate, ...]
    problems: dict[str, str]
    chosen: Candidate
    genes: GeneNames


def inspect_file(
    file: h5py.File,
    vocabulary: GeneVocabulary | None = None,
    matrix: str | None = None,
    gene_column: str | None = None,
) -> Inspection:
    """Look at headers, gene names and a small sample of values.

    Parameters
    ----------
    file
        Open ``.h5ad`` file.
    vocabulary
        Genes to match against; all human genes when None.
    matrix
        Matrix to take; the best one when None.
    gene_column
        Column of ``var`` with the gene names, ``"index"`` for its index; the best one when None.

    Raises
    ------
    DataError
        A part is missing or damaged, parts disagree, or what was asked for is not there.
    """
    _check_groups(file)
    obs, var = Table.open(file, "obs"), Table.open(file, "var")
    candidates, problems = _candidates(file, obs, var)
    chosen = _choose(candidates, problems, matrix)
    genes = choose_genes(chosen.var, vocabulary or human_genes(), gene_column)
    return Inspection(obs, candidates, problems, chosen, genes)


def _check_groups(file: h5py.File) -> None:
    """Refuse links, and something else where groups must be.

    Of ``uns`` only our own results matter; what else it holds is copied as bytes and never looked at.
    """
    _refuse_links(file)
    for name in _WRITTEN:
        if member(file, name) is not None and subgroup(file, name) is None:
            message = f"{name} is no group."
            raise DataError(message, "It is not a complete .h5ad file: write it anew with anndata.")
    groups, uns = [subgroup(file, name) for name in _GROUPS], subgroup(file, "uns")
    with suppress(DataError):  # a link in that place: those who write there refuse it
        groups.append(subgroup(uns, "scdiva") if uns is not None else None)
    for group in groups:
        if group is not None:
            _refuse_links(group)


def _refuse_links(group: h5py.Group) -> None:
    """Refuse a name that leads to another place, even one never read: who writes into a copy would follow it."""

    def link(name: bytes, info: h5py.h5l.LinkInfo) -> bytes | None:
        return name if info.type != h5py.h5l.TYPE_HARD else None

    with hdf5_errors(f"The list of {group.name}"):
        found, _ = group.id.links.iterate(link, info=True)
    if found is not None:
        label = f"{group.name}/{found.decode('utf-8', 'replace')}".lstrip("/")
        message = f"{label} is a link to another place."
        raise DataError(message, "Links are not followed: write the file anew with the data inside.")


def _candidates(file: h5py.File, obs: Table, var: Table) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """Open every matrix; one that is damaged does not hinder the use of another."""
    found, problems = [], {}
    raw = subgroup(file, "raw")
    for parent, key, name in matrix_places(file)[: 2 + _MOST_LAYERS]:
        try:
            genes = Table.open(raw, "var") if parent == raw else var
            found.append(_candidate(open_matrix(parent, key, name), obs, genes))
        except DataError as error:
            problems[name] = error.message
    if not found:
        message = "The file has no matrix that can be read."
        message += "".join(f" {reason}" for reason in problems.values())
        hint = "An .h5ad file keeps cells x genes in X, raw/X or a layer: write it anew with anndata."
        raise DataError(message, hint)
    return tuple(found), problems


def _candidate(matrix: Matrix, obs: Table, var: Table) -> Candidate:
    if matrix.shape != (obs.length, var.length):
        message = (
            f"{matrix.info.name} has {matrix.shape[0]:,} cells and {matrix.shape[1]:,} genes, "
            f"but obs has {obs.length:,} rows and var {var.length:,}."
        )
        raise DataError(message)
    sample = matrix.sample()
    return Candidate(matrix, var, sample, *detect_kind(sample))


def _choose(candidates: tuple[Candidate, ...], problems: dict[str, str], name: str | None) -> Candidate:
    if name is None:
        return min(candidates, key=lambda candidate: candidate.preference)
    if name in problems:
        raise DataError(problems[name], "Choose another matrix of the file, or write it anew with anndata.")
    there = {candidate.matrix.info.name: candidate for candidate in candidates}
    if name not in there:
        message = f"The file has no matrix {name!r}."
        raise DataError(message, f"Choose one of: {', '.join(there)}.")
    return there[name]


def choose_genes(var: Table, vocabulary: GeneVocabulary, column: str | None = None) -> GeneNames:
    """Find the column of ``var`` that names the genes as the vocabulary knows them.

    Parameters
    ----------
    var
        Table of the genes.
    vocabulary
        Genes to match against.
    column
        Column to take and no other, ``"index"`` for the index; None to compare all columns of text.

    Raises
    ------
    DataError
        There is no such column.
    """
    if column is not None:
        known = [found.name for found in var.columns]
        if column not in known and column not in ("index", var.index_name):
            message = f"The table of genes has no column {column!r}."
            raise DataError(message, f"Choose 'index' or one of: {', '.join(known) or 'no other column'}.")
        names = _one_string_a_name(var.text(column) if column in known else var.index())
        return GeneNames(column if column in known else None, names, vocabulary.match(names))
    columns = {None: _one_string_a_name(var.index())} | _name_columns(var)
    matches = {name: vocabulary.match(names) for name, names in columns.items()}
    most = max(match.n_known for match in matches.values())
    tokens = set(vocabulary.tokens)
    best = max(
        (name for name, match in matches.items() if match.n_known >= _NEARLY_AS_GOOD * most),
        key=lambda name: len(tokens.intersection(columns[name])),
    )
    others = [name for name in columns if name != best and matches[name].n_known]
    if not others:
        return GeneNames(best, columns[best], matches[best])
    second = max(others, key=lambda name: matches[name].n_known)
    return GeneNames(best, columns[best], vocabulary.match(columns[best], columns[second]))


def _name_columns(var: Table) -> dict[str | None, np.ndarray]:
    """Read the columns of text that differ from gene to gene."""
    names: dict[str | None, np.ndarray] = {}
    for column in var.columns:
        distinct = column.n_unique is None or column.n_unique > var.length // 2
        if column.kind in ("text", "category") and distinct and len(names) < _MOST_NAME_COLUMNS:
            names[column.name] = _one_string_a_name(var.text(column.name))
    return names


def _one_string_a_name(names: np.ndarray) -> np.ndarray:
    """Share the strings with every open file that has the same genes: each session has one open, or three."""
    return np.array([sys.intern(name) for name in names], object)
