"""Terms that several studies share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.studies import Studies
from scdiva_core.errors import DataError
from scdiva_core.evaluation.pools import POOLS, Member, Pool, common_terms, pooled_cells
from scdiva_core.evaluation.sets import EvaluationSet, read_set
from tests.unit.evaluation.conftest import Small

NAIVE_CD4, CD4, CD8, T_CELL = "CL:0000895", "CL:0000624", "CL:0000625", "CL:0000084"
B_CELL, MAST = "CL:0000236", "CL:0000097"


def rolled(cells: dict[str, list[tuple[str, int]]]) -> dict[str, list[tuple[str, int]]]:
    """Study -> (term, cells), before and after."""
    terms = np.array([term for parts in cells.values() for term, n in parts for _ in range(n)])
    studies = np.array([study for study, parts in cells.items() for _, n in parts for _ in range(n)])
    found = common_terms(terms, studies, cell_ontology())
    result = {}
    for study in cells:
        names, sizes = np.unique(found[(studies == study) & (found != "")], return_counts=True)
        result[study] = list(zip(names.tolist(), sizes.tolist(), strict=True))
    return result


def test_a_finer_term_becomes_the_other_studys_coarser_one() -> None:
    found = rolled({"one": [(NAIVE_CD4, 6), (B_CELL, 7)], "two": [(CD4, 9), (B_CELL, 5)]})
    assert found == {"one": [(B_CELL, 7), (CD4, 6)], "two": [(B_CELL, 5), (CD4, 9)]}


def test_a_term_that_both_have_stays_although_one_has_a_coarser_one_too() -> None:
    found = rolled({"one": [(CD4, 6), (T_CELL, 5)], "two": [(CD4, 9)]})
    assert found == {"one": [(CD4, 6)], "two": [(CD4, 9)]}


def test_terms_are_rolled_up_as_far_as_any_study_asks() -> None:
    found = rolled({"one": [(NAIVE_CD4, 6)], "two": [(CD4, 7)], "three": [(T_CELL, 8)]})
    assert found == {"one": [(T_CELL, 6)], "two": [(T_CELL, 7)], "three": [(T_CELL, 8)]}


def test_types_of_one_study_or_of_too_few_cells_are_left_out() -> None:
    found = rolled({"one": [(CD4, 5), (MAST, 50), (B_CELL, 4)], "two": [(CD4, 5), (B_CELL, 90)], "three": [(CD4, 4)]})
    assert found == {"one": [(CD4, 5)], "two": [(CD4, 5)], "three": []}


def test_related_types_without_a_common_term_stay_apart() -> None:
    assert rolled({"one": [(CD4, 9)], "two": [(CD8, 9)]}) == {"one": [], "two": []}


@pytest.fixture(scope="module")
def sets(small: Small) -> dict[str, EvaluationSet]:
    found = {}
    for name in ("blood", "stimulated"):
        with small.engine.open(small.data / f"{name}.h5ad") as dataset:
            found[name] = read_set(dataset, small.studies, len(small.engine.vocabulary))
    return found


def test_pooled_cells_are_those_of_shared_types(sets: dict[str, EvaluationSet], small: Small) -> None:
    cells = pooled_cells(small.pools[0], sets, cell_ontology())
    blood, stimulated = sets["blood"], sets["stimulated"]
    assert [part.name for part in cells.sets] == ["blood", "stimulated"]
    assert "Megakaryocytes" not in blood.labels[cells.rows[0]]
    assert set(stimulated.obs["condition"].to_numpy()[cells.rows[1]]) == {"CTRL"}
    assert set(cells.studies) == {"blood", "stimulated: CTRL"}
    # Naive and memory CD4 T cells of the one are CD4 T cells of the other.
    here = np.isin(stimulated.labels[cells.rows[1]], ["CD4 Naive T", "CD4 Memory T"])
    assert here.any()
    assert set(cells.terms[len(cells.rows[0]) :][here]) == {CD4}
    assert len(cells.terms) == len(cells.studies) == sum(map(len, cells.rows))
    assert cells.left_out == 600 - len(cells.terms)


def test_a_pool_that_shares_nothing_is_refused(sets: dict[str, EvaluationSet]) -> None:
    other = replace(sets["stimulated"], terms=np.full(300, MAST))
    pool = Pool("none", "Nothing in common", (Member("blood"), Member("stimulated")))
    with pytest.raises(DataError, match="Nothing in common: 0 cell types are present in two studies"):
        pooled_cells(pool, {**sets, "stimulated": other}, cell_ontology())


def test_a_pool_without_its_column_is_refused(sets: dict[str, EvaluationSet]) -> None:
    pool = Pool("x", "X", (Member("blood", "tech"), Member("stimulated")))
    with pytest.raises(DataError, match="blood has no column 'tech'"):
        pooled_cells(pool, sets, cell_ontology())


def test_the_projects_pools_name_its_evaluation_sets() -> None:
    studies = Studies.read(Path(__file__).resolve().parents[3] / "assets" / "evaluation")
    members = [member for pool in POOLS for member in pool.members]
    assert {member.dataset for member in members} <= set(studies.studies)
    split = {member.dataset: member.study_column for member in members if member.study_column}
    assert split == {"panc8_five_technologies_500": "tech"}
    assert all(studies.study(name).batch_column == column for name, column in split.items())
