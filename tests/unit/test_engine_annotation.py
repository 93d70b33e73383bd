"""Sources of labels behind one call: what each says, that nothing is computed twice, and that nothing is mixed up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.engine_annotation import (
    SOURCES,
    TITLES,
    Annotated,
    annotate,
    available_sources,
    preselected,
    stored_annotation,
)
from scdiva_core.errors import Cancelled, CheckpointError, DataError
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.markers import MARKERS_FILE, MarkerTable
from scdiva_core.model.network import CellLabels
from scdiva_core.model.profiles import PROFILES_FILE
from scdiva_core.model.reference import REFERENCE_FILE, Reference
from scdiva_core.store import ResultStore
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls
from scdiva_core.tasks.consensus import consensus
from scdiva_core.tasks.label_sources import column_calls, head_calls, marker_calls, neighbor_calls
from scdiva_core.tasks.neighbors import nearest_cells
from scdiva_core.tasks.novelty import novelty, strangeness
from scdiva_core.tasks.profile_sources import joint_calls, profile_calls, profile_scores
from scdiva_core.training.companions import write_companions
from tests.labelled_corpus import write_labelled_files, write_tables
from tests.unit.training.test_reference import saved


def write_naming_checkpoint(folder: Path, tiny_config: Callable[..., ScDiVaConfig]) -> Path:
    """Write ``kang.h5ad`` and ``pbmc.h5ad``, and a checkpoint made of them into ``checkpoint``: it names eight types.

    The network is untrained; profiles, reference and markers are what the cells make them.
    """
    files = write_labelled_files(folder)
    studies = Studies.read(write_tables(folder / "tables"))
    prepare(files, folder / "corpus", studies=studies, min_cells=20, shard_cells=60)
    corpus = Corpus(folder / "corpus")
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16}
    heads = {"heads": ("latent", "annotation", "batch_integration"), "num_cell_types": len(corpus.classes)}
    config = tiny_config(len(corpus.vocabulary), latent_pooling="anchor+tokens", **heads, **sizes)
    model = load_pretrained(saved(config, corpus, folder / "checkpoint"))
    model.labels = CellLabels(corpus.classes, tuple(corpus.manifest["class_names"]), 1.5)
    save_pretrained(model, folder / "checkpoint")
    write_companions(folder / "checkpoint", corpus, seed=0)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def checkpoint(tiny_config: Callable[..., ScDiVaConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with every source, beside the two files that it was made of; do not alter."""
    return write_naming_checkpoint(tmp_path_factory.mktemp("naming"), tiny_config)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def engine(checkpoint: Path, store: ResultStore) -> Engine:
    return Engine(checkpoint, "cpu", store)


@pytest.fixture
def dataset(engine: Engine, checkpoint: Path) -> Iterator[H5adDataset]:
    """160 blood cells by 500 genes, four people, with labels in ``cell_type``."""
    with engine.open(checkpoint.parent / "kang.h5ad") as opened:
        yield opened


@pytest.fixture
def altered(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that may be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "altered"))


def same(one: LabelCalls, two: LabelCalls) -> None:
    for field in fields(LabelCalls):
        first, second = getattr(one, field.name), getattr(two, field.name)
        assert np.array_equal(first, second), field.name
        assert getattr(first, "dtype", None) == getattr(second, "dtype", None), field.name


def all_same(one: Annotated, two: Annotated) -> None:
    assert list(one.calls) == list(two.calls)
    for source in one.calls:
        same(one.calls[source], two.calls[source])
    assert np.array_equal(one.novelty, two.novelty)
    assert (one.consensus is None) == (two.consensus is None)
    if one.consensus is not None:
        same(one.consensus.calls, two.consensus.calls)


def count_cells(engine: Engine) -> list[int]:
    """Sizes of the batches that go through the network from now on."""
    sizes: list[int] = []
    engine.model.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    return sizes


def test_sources_are_those_that_the_checkpoint_has_files_and_a_head_for(
    engine: Engine, altered: Path, tiny_checkpoint: Path
) -> None:
    assert available_sources(engine) == SOURCES == ("scdiva", "head", "profiles", "knn", "markers")
    assert set(TITLES) == {*SOURCES, "consensus"}
    for file, left in (
        (PROFILES_FILE, ("head", "knn", "markers")),
        (REFERENCE_FILE, ("head", "markers")),
        (MARKERS_FILE, ("head",)),
    ):
        (altered / file).unlink()
        assert available_sources(Engine(altered, "cpu", engine.store)) == left
    assert available_sources(Engine(tiny_checkpoint, "cpu", engine.store)) == (), "its head's outputs have no names"
    nameless = Engine(engine.checkpoint, "cpu", engine.store)
    nameless.model.labels = None
    assert available_sources(nameless) == ("profiles", "knn", "markers")


def said_by(source: str, engine: Engine, dataset: H5adDataset) -> LabelCalls:
    """Labels of a source, by its own function."""
    latents, profiles = engine.embed(dataset), engine.profiles
    if source == "head":
        return head_calls(engine.model, latents)
    if source == "knn":
        return neighbor_calls(Reference.load(engine.folder / REFERENCE_FILE), latents)
    if source == "markers":
        return marker_calls(MarkerTable.load(engine.folder / MARKERS_FILE), dataset)
    scores = profile_scores(profiles, dataset)
    return (
        profile_calls(profiles, scores)
        if source == "profiles"
        else joint_calls(engine.model, profiles, latents, scores)
    )


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_says_what_its_own_function_says(source: str, engine: Engine, dataset: H5adDataset) -> None:
    found = annotate(engine, dataset, [source], unknown=False)
    assert list(found.calls) == [source]
    assert found.consensus is None
    same(found.labels(source), said_by(source, engine, dataset))
    assert len(np.unique(found.labels(source).best)) > 1 or source == "head", "the untrained head may know one type"
    reference = Reference.load(engine.folder / REFERENCE_FILE)
    latents = engine.embed(dataset)
    np.testing.assert_array_equal(found.novelty, novelty(strangeness(reference, latents, nearest_cells(latents))))


def test_sources_and_columns_come_in_the_order_asked_for_with_their_consensus(
    engine: Engine, dataset: H5adDataset
) -> None:
    found = annotate(engine, dataset, ["markers", "scdiva"], columns=["condition", "cell_type"], unknown=False)
    assert list(found.calls) == ["markers", "scdiva", "obs: condition", "obs: cell_type"]
    ontology = cell_ontology()
    same(found.labels("obs: cell_type"), column_calls(dataset.obs["cell_type"], ontology))
    expected = consensus([found.calls[source] for source in found.calls], ontology)
    same(found.labels("consensus"), expected.calls)
    assert found.consensus.n_sources == 4
    assert np.array_equal(found.consensus.count, expected.count)
    with pytest.raises(DataError, match="These labels hold no 'knn'. Choose from markers, scdiva,"):
        found.labels("knn")


def test_columns_alone_are_enough_and_one_has_no_consensus(engine: Engine, dataset: H5adDataset) -> None:
    found = annotate(engine, dataset, [], columns=["cell_type"])
    same(found.labels("obs: cell_type"), column_calls(dataset.obs["cell_type"], cell_ontology()))
    with pytest.raises(DataError, match="These labels hold no 'consensus'"):
        found.labels("consensus")


def test_a_second_call_computes_nothing_also_after_a_restart(
    engine: Engine, dataset: H5adDataset, checkpoint: Path, store: ResultStore
) -> None:
    assert stored_annotation(engine, dataset, SOURCES) is None
    first = annotate(engine, dataset, SOURCES)
    restarted = Engine(checkpoint, "cpu", ResultStore(store.root))
    sizes, told = count_cells(restarted), []
    dataset.close()  # no expression can be read any more
    again = annotate(restarted, dataset, SOURCES, progress=lambda *state: told.append(state), cancelled=lambda: True)
    assert (sizes, told) == ([], [])
    all_same(again, first)
    all_same(stored_annotation(restarted, dataset, SOURCES), first)


def test_what_is_stored_is_found_piece_by_piece(engine: Engine, dataset: H5adDataset) -> None:
    annotate(engine, dataset, ["scdiva"])
    assert stored_annotation(engine, dataset, ["scdiva"]) is not None
    assert stored_annotation(engine, dataset, ["profiles", "knn"]) is not None, "both were made on the way"
    assert stored_annotation(engine, dataset, ["scdiva", "markers"]) is None
    steps: list[str] = []
    annotate(engine, dataset, ["scdiva", "markers"], progress=lambda *state: steps.append(state[2]))
    assert {words.split(",")[0] for words in steps} == {"Reading marker genes"}
    (labels,) = (entry for entry in engine.store.entries() if entry.meta.get("source") == "markers")
    assert labels.arrays["calls"].dtype == np.int32
    assert labels.arrays["calls"].shape == (6, 160)
    assert labels.meta["data_sha256"] == dataset.sha256
    assert not [entry for entry in engine.store.entries() if "obs" in entry.meta.get("source", "")]


def test_one_bar_runs_over_all_steps_in_words(engine: Engine, dataset: H5adDataset) -> None:
    told: list[tuple[int, int, str]] = []
    annotate(engine, dataset, ["scdiva", "markers"], progress=lambda *state: told.append(state))
    shares = [done / total for done, total, _ in told]
    assert (shares[0], shares[-1]) == (0, 1)
    assert shares == sorted(shares)
    words = [message for _, _, message in told]
    assert words[0] == "Embedding cells, 0 of 160 cells (step 1 of 4)"
    assert "Comparing expression with cell type profiles, 160 of 160 cells (step 2 of 4)" in words
    assert "Comparing cells with the reference, 0 of 160 cells (step 3 of 4)" in words
    assert words[-1] == "Reading marker genes, 160 of 160 cells (step 4 of 4)"


def test_one_step_alone_is_not_numbered(engine: Engine, dataset: H5adDataset) -> None:
    annotate(engine, dataset, ["knn"])
    words: list[str] = []
    annotate(engine, dataset, ["head"], progress=lambda *state: words.append(state[2]))
    assert words == ["Asking the trained head, 0 of 160 cells", "Asking the trained head, 160 of 160 cells"]


def test_what_was_finished_before_a_cancel_is_kept(engine: Engine, dataset: H5adDataset) -> None:
    with pytest.raises(Cancelled):
        annotate(engine, dataset, SOURCES, cancelled=lambda: True)
    assert engine.stored_embedding(dataset) is None
    words: list[str] = []
    with pytest.raises(Cancelled):
        annotate(
            engine,
            dataset,
            ["scdiva", "knn", "markers"],
            progress=lambda *state: words.append(state[2]),
            cancelled=lambda: any("with the reference, 160 of 160" in line for line in words),
        )
    assert stored_annotation(engine, dataset, ["scdiva", "knn"]) is not None
    assert stored_annotation(engine, dataset, ["markers"]) is None
    sizes = count_cells(engine)
    assert list(annotate(engine, dataset, ["scdiva", "knn", "markers"]).calls) == ["scdiva", "knn", "markers"]
    assert sizes == []


def nearer(folder: Path, share: float) -> None:
    """Rewrite a reference as if the cells of each type lay nearer to each other."""
    reference = Reference.load(folder / REFERENCE_FILE)
    latents = reference.latents.copy()
    for label in np.unique(reference.labels):
        own = reference.labels == label
        latents[own] = latents[own].mean(axis=0) * (1 - share) + latents[own] * share
    replace(reference, latents=latents).save(folder / REFERENCE_FILE)


def test_cells_beyond_the_reference_are_unknown_to_every_source_but_the_users(
    altered: Path, store: ResultStore, dataset: H5adDataset
) -> None:
    nearer(altered, 0.3)
    engine = Engine(altered, "cpu", store)
    plain = annotate(engine, dataset, SOURCES, columns=["cell_type"], unknown=False)
    found = annotate(engine, dataset, SOURCES, columns=["cell_type"])
    strange = found.novelty > 1
    assert 0 < strange.sum() < 160
    for source in SOURCES:
        before, now = plain.labels(source), found.labels(source)
        assert (before.best != UNKNOWN).all()
        assert (now.best[strange] == UNKNOWN).all()
        assert np.array_equal(now.runner_up[strange], before.best[strange])
        assert np.array_equal(now.best[~strange], before.best[~strange])
        assert np.array_equal(now.probability, before.probability)
    same(plain.labels("obs: cell_type"), found.labels("obs: cell_type"))
    assert (found.labels("consensus").best[strange] == UNKNOWN).all(), "five sources against the column"


def test_batches_are_compared_with_the_reference_one_by_one(
    altered: Path, store: ResultStore, dataset: H5adDataset
) -> None:
    nearer(altered, 0.3)
    engine = Engine(altered, "cpu", store)
    whole = annotate(engine, dataset, ["knn"])
    apart = annotate(engine, dataset, ["knn"], batch_key="cell_type")
    reference, latents = Reference.load(engine.folder / REFERENCE_FILE), engine.embed(dataset)
    strange = strangeness(reference, latents, engine.neighbors(dataset))
    np.testing.assert_array_equal(apart.novelty, novelty(strange, dataset.obs["cell_type"]))
    assert not np.array_equal(apart.novelty, whole.novelty)
    with pytest.raises(DataError, match="has no column 'site'"):
        annotate(engine, dataset, ["knn"], batch_key="site")


def test_a_review_begins_with_sources_that_can_contradict_each_other() -> None:
    assert preselected(SOURCES) == ("scdiva", "profiles", "knn")
    assert preselected(("head", "knn", "markers")) == ("knn",)
    assert preselected(("head", "markers")) == ("head",)
    assert preselected(()) == ()


def test_without_a_reference_there_is_no_novelty_and_nothing_is_unknown(
    altered: Path, store: ResultStore, dataset: H5adDataset
) -> None:
    (altered / REFERENCE_FILE).unlink()
    engine = Engine(altered, "cpu", store)
    found = annotate(engine, dataset, ["head", "markers"])
    assert found.novelty is None
    assert all((calls.best != UNKNOWN).all() for calls in found.calls.values())


def test_markers_need_no_embedding_when_there_is_no_reference(
    altered: Path, store: ResultStore, dataset: H5adDataset
) -> None:
    (altered / REFERENCE_FILE).unlink()
    engine = Engine(altered, "cpu", store)
    sizes = count_cells(engine)
    annotate(engine, dataset, ["markers"])
    assert sizes == []


def test_another_reference_markers_or_temperature_are_another_result(
    altered: Path, engine: Engine, store: ResultStore, dataset: H5adDataset
) -> None:
    first = annotate(engine, dataset, ["scdiva", "head", "knn", "markers"])
    nearer(altered, 0.3)
    markers = MarkerTable.load(altered / MARKERS_FILE)
    MarkerTable(tuple(row for row in markers.rows if row.ontology_id != "CL:0000236")).save(altered / MARKERS_FILE)
    other = Engine(altered, "cpu", store)
    sizes = count_cells(other)
    other.model.labels = replace(other.model.labels, temperature=9.0)
    for source in ("scdiva", "head", "knn", "markers"):
        assert stored_annotation(other, dataset, [source]) is None
    second = annotate(other, dataset, ["scdiva", "head", "knn", "markers"])
    assert sizes == [], "the weights are the same, and so is the embedding"
    assert not np.allclose(second.novelty, first.novelty)
    assert "CL:0000236" not in second.labels("markers").ids
    assert second.labels("head").entropy.mean() > first.labels("head").entropy.mean()
    all_same(annotate(engine, dataset, ["scdiva", "head", "knn", "markers"]), first)


def test_choices_that_are_refused(engine: Engine, altered: Path, dataset: H5adDataset) -> None:
    with pytest.raises(DataError, match="'popv' is no source of labels. Choose from scdiva, head,"):
        annotate(engine, dataset, ["knn", "popv"])
    with pytest.raises(DataError, match=r"kang.h5ad has no column 'celltype'. Columns of obs: .*cell_type"):
        annotate(engine, dataset, ["knn"], columns=["celltype"])
    with pytest.raises(DataError, match="No source of labels is chosen. This checkpoint offers scdiva, head"):
        annotate(engine, dataset, [])
    (altered / PROFILES_FILE).unlink()
    lacking = Engine(altered, "cpu", engine.store)
    with pytest.raises(CheckpointError, match="does not offer the source 'scdiva'. It offers: head, knn, markers"):
        annotate(lacking, dataset, ["head", "scdiva"])
    assert stored_annotation(lacking, dataset, ["scdiva"]) is None
    assert engine.store.entries() == [], "refused before any work"


def test_a_damaged_file_of_the_checkpoint_is_told_of(altered: Path, store: ResultStore, dataset: H5adDataset) -> None:
    (altered / MARKERS_FILE).write_text("gene\nCD3D\n")
    engine = Engine(altered, "cpu", store)
    with pytest.raises(CheckpointError, match="markers.tsv, line 1"):
        annotate(engine, dataset, ["markers"])
    assert annotate(engine, dataset, ["scdiva"]).labels("scdiva").source == "scdiva"
