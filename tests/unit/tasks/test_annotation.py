"""What a source says of each cell, votes of clusters, and labels at another level of the ontology."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import LabelCalls, cluster_votes, roll_down, roll_up, with_unknown

LYMPHOCYTE, T_CELL, CD4, CD8, NAIVE_CD4 = "CL:0000542", "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000895"
B_CELL, MONOCYTE, CLASSICAL = "CL:0000236", "CL:0000576", "CL:0000860"
IDS, NAMES = (B_CELL, CD4, CLASSICAL), ("B cell", "CD4 T cell", "classical monocyte")
ontology = cell_ontology()


def calls(*rows: list[float]) -> LabelCalls:
    return LabelCalls.from_probabilities("head", IDS, NAMES, np.array(rows))


def test_labels_are_ranked_by_probability() -> None:
    made = calls([0.1, 0.7, 0.2], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3])
    assert (made.source, made.ids, made.names, len(made)) == ("head", IDS, NAMES, 4)
    assert made.best.tolist() == [1, 0, 2, 0]
    assert made.runner_up.tolist() == [2, 2, -1, 1]
    assert made.third.tolist() == [0, -1, -1, 2]
    assert made.probability.tolist() == pytest.approx([0.7, 0.5, 1, 1 / 3])
    assert made.margin.tolist() == pytest.approx([0.5, 0, 1, 0])
    three = -(0.1 * np.log(0.1) + 0.7 * np.log(0.7) + 0.2 * np.log(0.2)) / np.log(3)
    assert made.entropy.tolist() == pytest.approx([three, np.log(2) / np.log(3), 0, 1])
    kinds = {name: getattr(made, name).dtype for name in ("best", "runner_up", "third", "probability", "entropy")}
    assert set(kinds.values()) == {np.dtype(np.int32), np.dtype(np.float32)}


def test_a_source_of_one_label_is_sure_of_it() -> None:
    made = LabelCalls.from_probabilities("knn", (B_CELL,), ("B cell",), np.ones((2, 1), np.float32))
    assert made.best.tolist() == [0, 0]
    assert made.runner_up.tolist() == made.third.tolist() == [-1, -1]
    assert made.margin.tolist() == [1, 1]
    assert made.entropy.tolist() == [0, 0]


def test_no_cells_have_no_labels() -> None:
    assert len(LabelCalls.from_probabilities("knn", IDS, NAMES, np.zeros((0, 3)))) == 0


@pytest.mark.parametrize(
    ("ids", "names", "shape"), [(IDS[:2], NAMES, 3), (IDS, NAMES[:2], 3), (IDS, NAMES, 2), ((), (), 0)]
)
def test_each_label_has_its_column(ids: tuple, names: tuple, shape: int) -> None:
    with pytest.raises(DataError, match=f"{len(ids)} ids and {len(names)} names for {shape} columns"):
        LabelCalls.from_probabilities("knn", ids, names, np.full((4, shape), 1 / max(shape, 1)))


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.5], [0, 0, 0], [1.5, -0.5, 0], [np.nan, 0.5, 0.5]])
def test_rows_that_are_no_distribution_are_refused(row: list[float]) -> None:
    with pytest.raises(DataError, match="'head' gives probabilities that are negative or do not sum to 1"):
        calls([1, 0, 0], row)


weights = st.integers(1, 6).flatmap(
    lambda k: arrays(np.float32, st.tuples(st.integers(0, 8), st.just(k)), elements=st.floats(0, 1, width=32))
)


@given(weights=weights)
def test_probabilities_margins_and_entropies_keep_their_bounds(weights: np.ndarray) -> None:
    k = weights.shape[1]
    weights = weights + np.where(weights.sum(axis=1, keepdims=True) == 0, np.float32(1), np.float32(0))
    given_ = weights / weights.sum(axis=1, keepdims=True)
    before = given_.copy()
    made = LabelCalls.from_probabilities("knn", [f"CL:{i}" for i in range(k)], ["x"] * k, given_)
    assert np.array_equal(given_, before)
    rows = np.arange(len(given_))
    assert np.array_equal(made.probability, given_.max(axis=1, initial=0))
    assert np.array_equal(given_[rows, made.best], made.probability)
    assert (made.probability >= np.float32(0.999 / k)).all()
    assert ((made.margin >= 0) & (made.margin <= made.probability)).all()
    assert ((made.entropy >= 0) & (made.entropy <= 1)).all()
    for later, earlier in ((made.runner_up, made.best), (made.third, made.runner_up)):
        assert ((later >= -1) & (later < k)).all()
        assert (later[earlier == -1] == -1).all()
        assert (later[later >= 0] != earlier[later >= 0]).all()
        assert (given_[rows, later] <= given_[rows, earlier])[later >= 0].all()


def test_cells_beyond_the_reference_become_unknown_and_keep_what_they_would_be() -> None:
    before = calls([0.1, 0.7, 0.2], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.2, 0.2, 0.6])
    after = with_unknown(before, np.array([1.01, 1.0, 7.0, 0.0], np.float32))
    assert after.best.tolist() == [-1, 0, -1, 2]
    assert after.runner_up.tolist() == [1, 1, 2, 0]
    assert after.third.tolist() == [2, -1, -1, 1]
    assert after.best.dtype == np.int32
    for name in ("probability", "margin", "entropy"):
        assert np.array_equal(getattr(after, name), getattr(before, name))
    assert before.best.tolist() == [1, 0, 2, 2], "the source's own labels are left alone"
    again = with_unknown(after, np.full(4, 9.0))
    assert again.best.tolist() == [-1] * 4
    assert again.runner_up.tolist() == [1, 0, 2, 2], "a cell that was unknown already does not lose its candidates"


def test_clusters_vote() -> None:
    """Cluster b: two of three B cells. Cluster a: one each, the earlier label wins. Cluster c: unknown twice."""
    labels = replace(
        calls(*[[1, 0, 0]] * 9),
        best=np.array([0, 1, 0, 2, 1, -1, -1, 2, 0], np.int32),
        probability=np.array([0.5, 0.9, 0.7, 0.3, 0.4, 0.2, 0.1, 1.0, 1.0], np.float32),
    )
    clusters = np.array(["b", "b", "b", "a", "a", "c", "c", "c", None], object)
    votes = cluster_votes(labels, clusters)
    assert votes.index.tolist() == ["a", "b", "c"]
    assert votes["label"].tolist() == [1, 0, -1]
    assert votes["ontology_id"].tolist() == [CD4, B_CELL, ""]
    assert votes["name"].tolist() == ["CD4 T cell", "B cell", ""]
    assert votes["purity"].tolist() == pytest.approx([1 / 2, 2 / 3, 2 / 3])
    assert votes["probability"].tolist() == pytest.approx([0.4, 0.6, 0.15])
    assert votes["n_cells"].tolist() == [2, 3, 3]


def test_a_known_label_wins_over_unknown_at_equal_numbers() -> None:
    labels = replace(calls([1, 0, 0], [1, 0, 0]), best=np.array([-1, 2], np.int32))
    assert cluster_votes(labels, [4, 4])["label"].to_dict() == {4: 2}


def test_votes_need_the_clusters_of_the_same_cells() -> None:
    with pytest.raises(DataError, match="3 cells have a cluster, but 1 a label"):
        cluster_votes(calls([1, 0, 0]), [0, 0, 1])


def test_labels_are_rolled_up_to_the_nearest_term_above() -> None:
    ids = [NAIVE_CD4, CD8, T_CELL, B_CELL, CLASSICAL, ""]
    assert roll_up(ids, [T_CELL, CD4, MONOCYTE], ontology) == (CD4, T_CELL, T_CELL, "", MONOCYTE, "")
    assert roll_up(ids, [], ontology) == ("",) * 6


def test_labels_are_rolled_down_where_there_is_one_way() -> None:
    level = [CD4, NAIVE_CD4, B_CELL, CLASSICAL]
    ids = [MONOCYTE, T_CELL, LYMPHOCYTE, CD4, NAIVE_CD4, CD8, ""]
    assert roll_down(ids, level, ontology) == (CLASSICAL, CD4, "", CD4, NAIVE_CD4, "", ""), (
        "of a lymphocyte it is not said whether it is a T or a B cell; a CD8 cell is neither"
    )
    assert roll_down([T_CELL], [CD4, CD8], ontology) == ("",)


@pytest.mark.parametrize("roll", [roll_up, roll_down])
def test_a_term_that_is_none_is_refused(roll: Callable[..., tuple[str, ...]]) -> None:
    with pytest.raises(DataError, match="'T cell' is no current term"):
        roll(["T cell"], [T_CELL], ontology)


@given(term=st.sampled_from(ontology.ids), level=st.lists(st.sampled_from(ontology.ids), max_size=30))
def test_rolled_labels_are_kin_and_of_the_level(term: str, level: list[str]) -> None:
    (up,), (down,) = roll_up([term], level, ontology), roll_down([term], level, ontology)
    assert not up or (up in level and term in ontology.descendants(up))
    assert not down or (down in level and down in ontology.descendants(term))
    if term in level:
        assert (up, down) == (term, term)
