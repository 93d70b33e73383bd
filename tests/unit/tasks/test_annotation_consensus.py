"""What most sources say: by hand on a table, and whatever the sources say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.consensus import Consensus, consensus

T_CELL, CD4, CD8, NAIVE_CD4 = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000895"
B_CELL, CLASSICAL, CELL = "CL:0000236", "CL:0000860", "CL:0000000"
ontology = cell_ontology()


def source(name: str, terms: list[str], probabilities: list[float]) -> LabelCalls:
    """Calls of the given terms or, where it is no id, free text; None is unknown."""
    known = sorted({term for term in terms if term})
    best = np.array([known.index(term) if term else -1 for term in terms], np.int32)
    ids = tuple(term if term.startswith("CL:") else "" for term in known)
    names = tuple(ontology.name(term) if term in ontology else term for term in known)
    stated = np.array(probabilities, np.float32)
    nothing = np.full(len(terms), -1, np.int32)
    return LabelCalls(name, ids, names, best, nothing, nothing, stated, stated, 1 - stated)


def term(made: Consensus, place: int) -> str | None:
    """Id, or free text, of a label; None for unknown."""
    return None if place < 0 else made.calls.ids[place] or made.calls.names[place]


TABLE = [
    # three sources with their probabilities -> label, sources behind it, runner-up, third
    ([B_CELL, B_CELL, B_CELL], [0.9, 0.6, 0.3], B_CELL, 3, None, None),
    ([B_CELL, CD4, B_CELL], [0.2, 0.9, 0.2], B_CELL, 2, CD4, None),
    ([T_CELL, CD4, NAIVE_CD4], [0.9, 0.8, 0.1], NAIVE_CD4, 3, None, None),
    ([T_CELL, CD4, CD8], [0.9, 0.3, 0.4], CD8, 2, CD4, None),
    ([T_CELL, CD4, CD8], [0.1, 0.4, 0.3], CD4, 2, CD8, None),
    ([CELL, CD4, B_CELL], [1.0, 0.4, 0.5], B_CELL, 2, CD4, None),
    ([B_CELL, CD4, CLASSICAL], [0.3, 0.5, 0.4], CD4, 1, CLASSICAL, B_CELL),
    ([B_CELL, CD4, CLASSICAL], [0.5, 0.5, 0.5], B_CELL, 1, CD4, CLASSICAL),
    ([None, None, B_CELL], [0.1, 0.1, 0.9], None, 2, B_CELL, None),
    ([None, CELL, B_CELL], [0.9, 0.1, 0.2], B_CELL, 2, None, None),
    ([None, "mine", B_CELL], [0.2, 0.9, 0.3], "mine", 1, B_CELL, None),
    (["My t", B_CELL, "my T"], [0.1, 0.9, 0.1], "My t", 2, B_CELL, None),
    ([T_CELL, "T cell", None], [0.5, 0.6, 0.7], None, 1, "T cell", T_CELL),
    (["CL:9999999", "CL:9999999", T_CELL], [0.1, 0.1, 0.7], "CL:9999999", 2, T_CELL, None),
]


@pytest.fixture(scope="module")
def voted() -> Consensus:
    columns = [([row[0][i] for row in TABLE], [row[1][i] for row in TABLE]) for i in range(3)]
    named = zip(("head", "knn", "obs: mine"), columns, strict=True)
    return consensus([source(name, *column) for name, column in named], ontology)


@pytest.mark.parametrize("row", range(len(TABLE)))
def test_the_label_that_most_sources_stand_behind_wins(voted: Consensus, row: int) -> None:
    _, _, label, count, runner_up, third = TABLE[row]
    calls = voted.calls
    assert [term(voted, int(places[row])) for places in (calls.best, calls.runner_up, calls.third)] == [
        label,
        runner_up,
        third,
    ]
    assert voted.count[row] == count


def test_the_table_comes_back_as_calls(voted: Consensus) -> None:
    calls = voted.calls
    assert (calls.source, voted.n_sources, voted.count.dtype) == ("consensus", 3, np.int8)
    assert (calls.best.dtype, calls.probability.dtype) == (np.int32, np.float32)
    assert calls.names[calls.ids.index(NAIVE_CD4)] == ontology.name(NAIVE_CD4)


def test_dissent_lowers_probability_and_margin_and_raises_entropy(voted: Consensus) -> None:
    """All agree; two against one; a camp of three kinsmen; each another."""
    rows = [0, 1, 2, 6]
    assert voted.calls.probability[rows].tolist() == pytest.approx([1.8 / 3, 0.4 / 3, 1.8 / 3, 0.5 / 3])
    assert voted.calls.margin[rows].tolist() == pytest.approx([1.8 / 3, 0, 1.8 / 3, 0.1 / 3], abs=1e-6)
    two_to_one = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(3)
    assert voted.calls.entropy[rows].tolist() == pytest.approx([0, two_to_one, 0, 1], abs=1e-6)


def test_one_source_is_its_own_consensus() -> None:
    alone = consensus([source("knn", [B_CELL, None, CD4], [0.5, 0.2, 1.0])], ontology)
    assert [term(alone, int(place)) for place in alone.calls.best] == [B_CELL, None, CD4]
    assert alone.calls.probability.tolist() == pytest.approx([0.5, 0.2, 1.0])
    assert alone.count.tolist() == [1, 1, 1]
    assert alone.calls.entropy.tolist() == [0, 0, 0]


def test_sources_must_be_there_and_of_the_same_cells() -> None:
    with pytest.raises(DataError, match=r"\(cells: none\)"):
        consensus([], ontology)
    with pytest.raises(DataError, match=r"\(cells: head: 1, knn: 2\)"):
        consensus([source("head", [CD4], [1.0]), source("knn", [CD4, CD4], [1.0, 1.0])], ontology)


said = st.sampled_from([None, CELL, T_CELL, CD4, CD8, NAIVE_CD4, B_CELL, "mine"])
votes = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(st.tuples(said, st.floats(0, 1, width=32)), min_size=n, max_size=n), max_size=6)
)


@given(votes=votes.filter(bool))
def test_whatever_the_sources_say(votes: list[list[tuple[str | None, float]]]) -> None:
    """Rows are cells, columns sources."""
    columns = [list(zip(*column, strict=True)) for column in zip(*votes, strict=True)]
    sources = [source(str(i), list(terms), list(stated)) for i, (terms, stated) in enumerate(columns)]
    made = consensus(sources, ontology)
    calls = made.calls
    for values in (calls.probability, calls.margin, calls.entropy):
        assert ((values >= 0) & (values <= 1)).all()
    assert (calls.margin <= calls.probability).all()
    for cell, row in enumerate(votes):
        said_ = [one for one, _ in row]
        label = term(made, int(calls.best[cell]))
        assert label in said_
        assert made.count[cell] == behind(label, said_) == max(behind(one, said_) for one in said_)
        assert (calls.entropy[cell] == 0) == (made.count[cell] == len(row))
    turned = consensus(sources[::-1], ontology)
    assert np.array_equal(turned.count, made.count)


def behind(label: str | None, said_: list[str | None]) -> int:
    """Sources that say the label or something above it."""
    if label not in ontology:
        return said_.count(label)
    return sum(one in ontology.ancestors(label) for one in said_)
