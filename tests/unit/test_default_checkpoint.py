"""What ships as the default checkpoint: its size, its labels, and that its card tells of these very weights."""

from __future__ import annotations

import json
from functools import cache

import pytest

from scdiva_core.data.ontology import cell_ontology
from scdiva_core.engine import DEFAULT_CHECKPOINT
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.markers import MARKERS_FILE, MarkerTable
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.model.profiles import PROFILES_FILE, Profiles
from scdiva_core.model.reference import REFERENCE_FILE, Reference

LARGEST = 25_000_000


@cache
def default_model() -> ScDiVaModel:
    return load_pretrained(DEFAULT_CHECKPOINT)


@cache
def evaluation() -> dict:
    return json.loads((DEFAULT_CHECKPOINT / "evaluation.json").read_text(encoding="utf-8"))


def test_it_fits_25_megabytes():
    assert sum(file.stat().st_size for file in DEFAULT_CHECKPOINT.iterdir()) <= LARGEST


def test_its_labels_are_cell_ontology_terms_with_their_names():
    labels = default_model().labels
    assert len(set(labels.ids)) == len(labels.ids) == default_model().config.num_cell_types
    assert labels.names == tuple(cell_ontology().name(term) for term in labels.ids)


def test_what_names_cells_beside_the_head_is_of_these_weights_and_types():
    """Loading refuses files of other weights."""
    types = set(default_model().labels.ids)
    reference = Reference.load(DEFAULT_CHECKPOINT / REFERENCE_FILE)
    assert set(reference.ids[label] for label in set(reference.labels.tolist())) == types
    profiles = Profiles.load(DEFAULT_CHECKPOINT / PROFILES_FILE)
    assert profiles.ids == default_model().labels.ids
    assert set(MarkerTable.load(DEFAULT_CHECKPOINT / MARKERS_FILE).names) == types


def test_its_evaluation_is_of_these_weights():
    assert evaluation()["checkpoint"]["sha256"] == default_model().sha256


@pytest.mark.parametrize("method", ["scdiva", "pca", "pca_corpus", "untrained_svd", "untrained_random", "chance"])
def test_its_card_holds_the_whole_table(method):
    """The card quotes every mean of kNN and probe as the evaluation measured it."""
    text = (DEFAULT_CHECKPOINT / "README.md").read_text(encoding="utf-8")
    for measure in ("knn_accuracy", "probe_accuracy"):
        assert f"{evaluation()['means']['classification'][method][measure]['value']:.3f}" in text


def test_it_is_provisional_unless_it_beats_pca_on_the_mean():
    means = evaluation()["means"]["classification"]
    earns = all(means["scdiva"][m]["value"] > means["pca"][m]["value"] for m in ("knn_accuracy", "probe_accuracy"))
    assert earns or default_model().card["provisional"]


def test_it_names_cells_better_than_regression_on_the_mean():
    means = evaluation()["means"]["annotation"]
    assert means["scdiva"]["macro_f1"]["value"] > means["hvg_lr"]["macro_f1"]["value"]


def test_it_mixes_studies_as_well_as_pca_and_keeps_types_apart():
    means = evaluation()["means"]["mixing"]
    for measure in ("avg_batch", "avg_bio"):
        assert means["scdiva"][measure]["value"] >= means["pca"][measure]["value"]


def test_no_evaluation_set_was_trained_on():
    trained = {dataset["name"] for dataset in default_model().card["training"]["datasets"]}
    assert trained
    assert not trained & set(evaluation()["sets"])
