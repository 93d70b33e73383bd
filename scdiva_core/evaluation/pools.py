"""Cells of one type from several studies, brought to common terms, to see whether the studies mix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import DataError
from scdiva_core.evaluation.sets import EvaluationSet

FEWEST_CELLS = 5
"""Cells that a type must have in a study to count as present there."""


@dataclass(frozen=True)
class Member:
    """Part of a pool.

    Parameters
    ----------
    dataset
        Name of an evaluation set.
    study_column
        Column of its ``obs`` that tells studies apart; without one the set is one study.
    without
        Studies of that column that are left out.
    """

    dataset: str
    study_column: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Evaluation sets that share cell types.

    Parameters
    ----------
    name, title
        In results, and for people.
    members
        Its parts.
    """

    name: str
    title: str
    members: tuple[Member, ...]


POOLS = (
    Pool(
        "pancreas_across_studies",
        "Pancreas across studies",
        # Its inDrop cells are Baron's own: they would be compared with themselves.
        (
            Member("panc8_five_technologies_500", "tech", ("indrop",)),
            Member("baron2016_pancreas_donors2to4"),
        ),
    ),
    Pool(
        "blood_and_lung_immune_cells",
        "Blood and lung immune cells",
        (Member("tenx_pbmc3k"), Member("tabula_sapiens_lung_1k")),
    ),
)
"""The pooled sets; a batch is a study."""


@dataclass(frozen=True)
class PooledCells:
    """Cells of a pool, set after set.

    Attributes
    ----------
    sets, rows
        The sets, and the cells taken from each.
    terms, studies
        Common Cell Ontology id and study of each cell, ``[n_cells]``.
    left_out
        Cells of these sets whose type is not present in two studies, or that belong to a study left out.
    """

    sets: list[EvaluationSet]
    rows: list[NDArray[np.int64]]
    terms: NDArray[np.str_]
    studies: NDArray[np.str_]
    left_out: int


def pooled_cells(pool: Pool, sets: Mapping[str, EvaluationSet], ontology: CellOntology) -> PooledCells:
    """Collect a pool's cells.

    Parameters
    ----------
    pool
        All of its sets must be in ``sets``.
    sets
        Evaluation sets by name.
    ontology
        Brings their terms together; see `common_terms`.

    Raises
    ------
    DataError
        Fewer than two types are present in two studies, or a set lacks its study column.
    """
    members = [sets[member.dataset] for member in pool.members]
    studies = np.concatenate([_studies(member, sets[member.dataset]) for member in pool.members])
    terms = np.concatenate([cells.terms for cells in members])
    terms = np.where(studies == "", "", terms)
    common = common_terms(terms, studies, ontology)
    kept = common != ""
    if len(np.unique(common[kept])) < 2:
        msg = f"{pool.title}: {len(np.unique(common[kept]))} cell types are present in two studies."
        raise DataError(msg, "Leave out one of its sets with --sets.")
    starts = np.cumsum([0] + [len(cells.terms) for cells in members])
    rows = [np.flatnonzero(kept[first:last]) for first, last in zip(starts[:-1], starts[1:], strict=True)]
    return PooledCells(members, rows, common[kept], studies[kept], int((~kept).sum()))


def common_terms(terms: NDArray[np.str_], studies: NDArray[np.str_], ontology: CellOntology) -> NDArray[np.str_]:
    """Roll terms up until studies match, and keep the types that two studies have.

    A term becomes the most specific term of another study that it is or lies below, again and again. Without one it
    stays as it is.

    Parameters
    ----------
    terms, studies
        Cell Ontology id (empty for none) and study of each cell, ``[n_cells]``.
    ontology
        Says what lies below what.

    Returns
    -------
    ndarray
        Common id of each cell, empty where fewer than two studies have five cells of that type; cells of a study
        that has fewer are left out too.
    """
    common = terms.astype(object)
    while True:
        of_study = {study: set(common[(studies == study) & (common != "")].tolist()) for study in np.unique(studies)}
        before = common.copy()
        for study, own in of_study.items():
            others = set().union(*(found for other, found in of_study.items() if other != study))
            for term in own:
                rolled = ontology.nearest(term, others) or term
                common[(studies == study) & (before == term)] = rolled
        if (common == before).all():
            break
    for term in np.unique(common[common != ""]):
        here = common == term
        present, sizes = np.unique(studies[here], return_counts=True)
        enough = present[sizes >= FEWEST_CELLS]
        common[here & ~np.isin(studies, enough if len(enough) > 1 else [])] = ""
    return common.astype(str)


def _studies(member: Member, cells: EvaluationSet) -> NDArray[np.str_]:
    """Study of each cell; empty for a study that is left out."""
    if member.study_column is None:
        return np.full(len(cells.terms), cells.name)
    if member.study_column not in cells.obs:
        msg = f"{cells.name} has no column {member.study_column!r} in obs."
        raise DataError(msg, "Use the file that the table of data sets describes.")
    studies = cells.obs[member.study_column].astype(str).to_numpy(str)
    named = np.array([f"{cells.name}: {study}" for study in studies])
    return np.where(np.isin(studies, member.without), "", named)
