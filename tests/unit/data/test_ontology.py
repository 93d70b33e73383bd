"""Cell Ontology: kinship, search, and that the table that ships is the release it says it is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.errors import DataError

CELL, LYMPHOCYTE, T_CELL = "CL:0000000", "CL:0000542", "CL:0000084"
CD4, CD4_NAIVE, CD8, REGULATORY = "CL:0000624", "CL:0000895", "CL:0000625", "CL:0000815"
ALPHA_BETA, MATURE_ALPHA_BETA = "CL:0000789", "CL:0000791"

ontology = cell_ontology()
terms = st.sampled_from(ontology.ids)


def test_a_term_has_its_name_synonyms_and_direct_parents() -> None:
    assert ontology.name(T_CELL) == "T cell"
    assert ontology.synonyms(T_CELL) == ("T lymphocyte", "T-cell", "T-lymphocyte")
    assert ontology.parents(T_CELL) == (LYMPHOCYTE,)
    assert ontology.parents("CL:0000895") == (CD4, "CL:0000898")  # CD4-positive, and naive T cell
    assert ontology.parents(CELL) == ()


def test_ancestors_and_descendants_hold_the_term_itself_and_every_generation() -> None:
    assert {CD4, MATURE_ALPHA_BETA, ALPHA_BETA, T_CELL, LYMPHOCYTE, CELL} < ontology.ancestors(CD4)
    assert CD8 not in ontology.ancestors(CD4)
    assert {T_CELL, CD4, CD4_NAIVE, CD8, REGULATORY} < ontology.descendants(T_CELL)
    assert LYMPHOCYTE not in ontology.descendants(T_CELL)
    assert ontology.descendants(CELL) == set(ontology.ids)


@given(term=terms)
def test_every_ancestor_counts_the_term_among_its_descendants(term: str) -> None:
    assert all(term in ontology.descendants(ancestor) for ancestor in ontology.ancestors(term))


@given(term=terms)
def test_every_descendant_counts_the_term_among_its_ancestors(term: str) -> None:
    assert all(term in ontology.ancestors(descendant) for descendant in ontology.descendants(term))


@given(term=terms)
def test_the_parents_are_the_ancestors_that_none_other_stands_before(term: str) -> None:
    above = ontology.ancestors(term) - {term}
    direct = {one for one in above if not any(one in ontology.ancestors(other) - {other} for other in above)}
    assert set(ontology.parents(term)) == direct


def test_obsolete_and_foreign_ids_are_not_in_it() -> None:
    assert T_CELL in ontology
    assert "CL:0000555" not in ontology  # obsolete neuronal brush cell
    assert "CL:9999999" not in ontology
    assert None not in ontology


@pytest.mark.parametrize("look_up", ["name", "synonyms", "parents", "ancestors", "descendants"])
def test_an_unknown_id_is_refused_with_what_to_do(look_up: str) -> None:
    with pytest.raises(DataError, match=r"'T cell' is no current term.*search for the cell type by its name"):
        getattr(ontology, look_up)("T cell")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("CL:0000084", T_CELL),
        ("cl:0000084", T_CELL),
        (" t CELL ", T_CELL),
        ("T-lymphocyte", T_CELL),
        ("Treg", REGULATORY),
        ("regulatory T", REGULATORY),
        ("histiocyt", "CL:0000235"),  # macrophage, by the beginning of a synonym
    ],
)
def test_search_finds_by_id_name_and_synonym(text: str, first: str) -> None:
    assert ontology.search(text)[0] == first


def test_search_puts_exact_names_before_beginnings_before_insides() -> None:
    found = ontology.search("mast cell", limit=1000)
    spellings = [
        [spelling.casefold() for spelling in (term, ontology.name(term), *ontology.synonyms(term))] for term in found
    ]
    ranks = [
        min(0 if one == "mast cell" else 1 if one.startswith("mast cell") else 2 for one in names if "mast cell" in one)
        for names in spellings
    ]
    assert found[0] == "CL:0000097"
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}


@given(text=st.text(max_size=12), limit=st.integers(-2, 40))
def test_search_takes_any_text(text: str, limit: int) -> None:
    found = ontology.search(text, limit)
    assert len(found) <= max(limit, 0)
    assert len(set(found)) == len(found)
    wanted = text.strip().casefold()
    for term in found:
        assert any(wanted in one.casefold() for one in (term, ontology.name(term), *ontology.synonyms(term)))


def test_search_of_nothing_finds_nothing() -> None:
    assert ontology.search("") == ontology.search("  ") == ontology.search("no such cell") == ()


@pytest.mark.parametrize(
    ("among", "expected"),
    [
        ([T_CELL, CD4, CD8, CELL], CD4),
        ([CD4_NAIVE, CD4], CD4_NAIVE),
        ([CELL, LYMPHOCYTE], LYMPHOCYTE),
        ([CD8, REGULATORY], None),
        (["not an id", T_CELL], T_CELL),
        ([], None),
    ],
)
def test_nearest_is_the_most_specific_that_the_term_is(among: list[str], expected: str | None) -> None:
    assert ontology.nearest(CD4_NAIVE, among) == expected
    assert ontology.nearest(CD4_NAIVE, reversed(among)) == expected


def test_nearest_breaks_ties_by_id() -> None:
    somatostatin_secreting, pancreatic_endocrine = "CL:0000172", "CL:0008024"
    sizes = {len(ontology.descendants(term)) for term in (somatostatin_secreting, pancreatic_endocrine)}
    assert sizes == {6}
    delta = "CL:0000173"
    assert ontology.nearest(delta, [pancreatic_endocrine, somatostatin_secreting]) == somatostatin_secreting


def test_nearest_refuses_an_unknown_term_instead_of_finding_none() -> None:
    with pytest.raises(DataError, match="'CL:9999999' is no current term"):
        ontology.nearest("CL:9999999", [T_CELL])


def test_the_table_that_ships_is_the_release_it_says_it_is(reference_root: Path) -> None:
    with (reference_root / "tables" / "cell_ontology_terms.tsv").open(encoding="utf-8", newline="") as file:
        rows = {row["cl_id"]: row for row in csv.DictReader(file, delimiter="\t") if row["deprecated"] == "False"}
    assert list(ontology.ids) == sorted(rows)
    for term, row in rows.items():
        assert ontology.name(term) == row["label"]
        assert "|".join(ontology.synonyms(term)) == row["synonyms"]
        assert ontology.ancestors(term) - {term} == set(filter(None, row["parents"].split("|")))
