"""What the review page computes: evidence by hand, items that are left, sub-clusters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.annotations.replay import replay
from scdiva_core.data.ontology import CellOntology, cell_ontology
from scdiva_core.errors import DataError
from scdiva_core.tasks.annotation import LabelCalls, with_unknown
from scdiva_core.tasks.label_sources import column_calls
from scdiva_core.tasks.review_session import (
    LabelSettings,
    disagreement,
    open_items,
    prepare_review,
    starting_labels,
    sub_clusters,
    unreviewed,
)

T_CELL, CD4, CD8, B_CELL = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236"
IDS = (CD4, CD8, B_CELL)
NAMES = ("CD4 T", "CD8 T", "B")

# Six cells: three CD4 T, one CD8 T, two B, of which the last is unsure.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0, 0.1, 0.9], [0.35, 0.2, 0.45]]
)
CLUSTERS = np.array([0, 0, 0, 0, 1, 1])
NEIGHBORS = np.array([[1, 2], [0, 2], [0, 1], [0, 1], [5, 2], [4, 0]])


@pytest.fixture(scope="module")
def ontology() -> CellOntology:
    return cell_ontology()


@pytest.fixture
def head() -> LabelCalls:
    return LabelCalls.from_probabilities("head", IDS, NAMES, PROBABILITIES)


def column(ontology: CellOntology, *values: str | None) -> LabelCalls:
    return column_calls(pd.Series(values, name="mine"), ontology)


def test_settings_survive_as_text_and_other_text_is_none() -> None:
    settings = LabelSettings(("scdiva", "knn"), ("cell_type",), unknown=False, batch_key="donor")
    assert LabelSettings.from_text(settings.to_text()) == settings
    for text in ("", "because", "[]", "{}", '{"sources": 1, "columns": [], "unknown": true}'):
        assert LabelSettings.from_text(text) is None


def test_a_coarser_or_finer_label_does_not_disagree_and_unknown_does(head: LabelCalls, ontology: CellOntology) -> None:
    mine = column(ontology, "T cell", "T cell", "B cell", None, "naive B cell", "my B")
    np.testing.assert_array_equal(disagreement(head, [mine], ontology), [0, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(disagreement(head, [mine, head], ontology), [0, 0, 0.5, 0.5, 0, 0.5])
    nameless = with_unknown(head, np.full(6, 2.0))
    np.testing.assert_array_equal(disagreement(nameless, [mine], ontology), [1, 1, 1, 0, 1, 1])


def test_free_text_agrees_in_either_case(ontology: CellOntology) -> None:
    one, two = column(ontology, "my Kind", "other"), column(ontology, "MY KIND", "mine")
    np.testing.assert_array_equal(disagreement(one, [two], ontology), [0, 1])


def test_doubt_is_that_of_the_labels_and_of_sources_that_contradict(head: LabelCalls, ontology: CellOntology) -> None:
    mine = column(ontology, "T cell", "T cell", "B cell", "CD8", "B cell", None)
    found = prepare_review(head, [mine], neighbors=NEIGHBORS, clusters=CLUSTERS, novelty=None, ontology=ontology)
    assert found.labels.tolist() == [0, 0, 0, 1, 2, 2]
    entropy = head.entropy.astype(float)
    # Of nine parts 3 are neighbours, 3 the column, 1 each probability, margin and entropy.
    first = (0 + 0 + 0.1 + 0.2 + entropy[0]) / 9
    third = (0 + 3 + 0.3 + 0.5 + entropy[2]) / 9
    # The only other B is a neighbour of each B; a CD8 that is alone has no support.
    assert found.doubts[[0, 2]] == pytest.approx([first, third], abs=1e-6)
    assert found.doubts[3] == pytest.approx((3 + 3 + 0.4 + 0.7 + entropy[3]) / 9, abs=1e-6)


def test_candidates_are_what_all_witnesses_say_in_equal_parts(head: LabelCalls, ontology: CellOntology) -> None:
    found = prepare_review(head, [], neighbors=NEIGHBORS, clusters=CLUSTERS, novelty=None, ontology=ontology)
    assert np.array_equal(np.sort(np.concatenate([item.cells for item in found.items])), np.arange(6))
    (alone,) = [item for item in found.items if item.cells.tolist() == [3]]
    # The head says CD8 0.6 and CD4 0.3, the two neighbours say CD4.
    assert [code for code, _ in alone.candidates] == [0, 1]
    np.testing.assert_allclose([share for _, share in alone.candidates], [(0.3 + 1) / 2, 0.6 / 2], rtol=1e-5)


def test_the_consensus_is_no_witness(head: LabelCalls, ontology: CellOntology) -> None:
    agreed = replace(head, source="consensus")
    options = {"neighbors": NEIGHBORS, "clusters": CLUSTERS, "novelty": None, "ontology": ontology}
    (alone,) = [item for item in prepare_review(agreed, [head], **options).items if item.cells.tolist() == [3]]
    np.testing.assert_allclose([share for _, share in alone.candidates], [(0.3 + 1) / 2, 0.6 / 2], rtol=1e-5)


def test_an_unknown_cell_keeps_its_former_labels_as_candidates(head: LabelCalls, ontology: CellOntology) -> None:
    novelty = np.array([0, 0, 0, 1.5, 0, 0])
    strange = with_unknown(head, novelty)
    found = prepare_review(strange, [], neighbors=NEIGHBORS, clusters=CLUSTERS, novelty=novelty, ontology=ontology)
    (alone,) = [item for item in found.items if item.cells.tolist() == [3]]
    assert (alone.label, found.labels[3]) == (-1, -1)
    np.testing.assert_allclose([share for _, share in alone.candidates], [(0.3 + 1) / 2, 0.6 / 2], rtol=1e-5)


def test_wrong_labels_of_a_column_alone_come_first(ontology: CellOntology) -> None:
    """A column states no probability: its neighbours are what speaks against it."""
    mine = column(ontology, "B cell", "T cell", "T cell", "T cell", "B cell", "B cell")
    neighbors = np.array([[1, 2, 3], [2, 3, 0], [1, 3, 0], [1, 2, 0], [5, 0, 1], [4, 0, 1]])
    clusters = np.array([0, 0, 0, 0, 1, 1])
    found = prepare_review(mine, [], neighbors=neighbors, clusters=clusters, novelty=None, ontology=ontology)
    first = found.items[0]
    assert first.cells.tolist() == [0]
    assert {found.names[code] for code, _ in first.candidates} == {"B cell", "T cell"}
    assert found.doubts[0] == pytest.approx(1)


def decisions(tmp_path: Path, head: LabelCalls) -> tuple[AnnotationLog, object]:
    starting, _ = starting_labels(head)
    log = AnnotationLog(tmp_path / "log.sqlite", data_sha256="d" * 64, n_obs=6, who="me")
    log.begin(starting)
    return log, starting


def test_what_is_decided_leaves_the_queue_and_what_is_skipped_comes_last(
    head: LabelCalls, ontology: CellOntology, tmp_path: Path
) -> None:
    items = prepare_review(head, [], neighbors=NEIGHBORS, clusters=CLUSTERS, novelty=None, ontology=ontology).items
    log, starting = decisions(tmp_path, head)
    everything = open_items(items, log.replay(starting))
    assert [one.place for one in everything] == list(range(len(items)))
    first = everything[0]
    log.label(first.mask(6), "skip")
    after = open_items(items, log.replay(starting))
    assert [one.place for one in after] == [*range(1, len(items)), 0]
    assert [one.skipped for one in after] == [False] * (len(items) - 1) + [True]
    most = max(after, key=lambda one: len(one.cells))
    part = np.zeros(6, bool)
    part[most.cells[0]] = True
    log.label(part, "split", label_name="some")
    (left,) = [one for one in open_items(items, log.replay(starting)) if one.place == most.place]
    assert left.cells.tolist() == most.cells[1:].tolist()
    log.label(np.ones(6, bool), "reject")
    assert open_items(items, log.replay(starting)) == []
    log.undo()
    assert sum(len(one.cells) for one in open_items(items, log.replay(starting))) == 5


def test_labels_can_be_exported_before_a_review_begins(head: LabelCalls, ontology: CellOntology) -> None:
    starting, confidence = starting_labels(with_unknown(head, np.array([0, 0, 0, 0, 0, 2.0])))
    np.testing.assert_allclose(confidence, [0.9, 0.8, 0.7, 0.6, 0.9, np.nan], rtol=1e-6)
    event = unreviewed(starting, data_sha256="d", model_sha256="m", who="me")
    state = replay((event,), starting)
    assert state.names.tolist() == ["CD4 T"] * 3 + ["CD8 T", "B", "unknown"]
    assert not state.can_undo
    _, of_column = starting_labels(column(ontology, "B cell", None))
    assert np.isnan(of_column).all()


def test_two_kinds_of_cells_are_two_sub_clusters() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 0.1, (40, 3)), rng.normal(5, 0.1, (25, 3))])
    codes = sub_clusters(vectors, 0.1)
    assert codes.dtype == np.int32
    assert codes.tolist() == [0] * 40 + [1] * 25
    assert np.array_equal(codes, sub_clusters(vectors, 0.1))
    with pytest.raises(DataError, match=r"9 cells are too few.*at least 10"):
        sub_clusters(vectors[:9])
