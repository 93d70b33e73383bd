"""Reviewed labels in a new file: readable by everybody, and the whole review comes back from it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from cas_schema import schema_validator, schemas

from scdiva_core.annotations.events import Event, StartingLabels
from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.annotations.replay import AnnotationState
from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.paths import file_sha256
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError, StoreError
from scdiva_core.tasks.annotation_export import (
    Annotation,
    annotation_table,
    cell_annotation_schema,
    read_annotation,
    write_annotation,
)
from scdiva_core.tasks.export import write_result

B, T, NK = "CL:0000236", "CL:0000084", "CL:0000623"
BEST = np.array([0, 1, 1, -1, 0, 1, 0, 1] * 20, np.int32)
STARTING = StartingLabels("head", (B, T), ("B cell", "T cell"), BEST)
CONFIDENCE = np.linspace(0.2, 0.99, 160).astype(np.float32)


def open_log(folder: Path, file: Path, who: str = "Ada Lovelace") -> AnnotationLog:
    return AnnotationLog(
        folder / "log.sqlite", data_sha256=file_sha256(file), n_obs=160, who=who, model_sha256="e" * 64
    )


def cells(*places: int) -> np.ndarray:
    mask = np.zeros(160, bool)
    mask[list(places)] = True
    return mask


@pytest.fixture(scope="module")
def events(small_h5ad: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Event, ...]:
    """Five decisions, the last two of them taken back and one of those made again."""
    log = open_log(tmp_path_factory.mktemp("project"), small_h5ad)
    log.begin(STARTING)
    log.label(cells(0, 4), "accept", label_id=B, label_name="B cell")
    log.label(cells(1, 2), "relabel", label_id=NK, label_name="NK cell", why="NKG7, no CD3")
    log.label(cells(5), "reject", why="doublet?")
    log.label(cells(6, 7), "split", label_name="odd ones", why="CD3 and CD79A")
    log.label(cells(8), "relabel", label_name="never mind")
    log.undo()
    log.undo()
    log.redo()
    return log.events()


@pytest.fixture
def log(events: tuple[Event, ...], small_h5ad: Path, tmp_path: Path) -> AnnotationLog:
    log = open_log(tmp_path / "project", small_h5ad)
    log.restore(events)
    return log


@pytest.fixture
def annotation(events: tuple[Event, ...]) -> Annotation:
    return Annotation(STARTING, CONFIDENCE, events)


@pytest.fixture
def exported(dataset: H5adDataset, annotation: Annotation, tmp_path: Path) -> Path:
    return write_annotation(dataset, tmp_path / "out.h5ad", annotation, author="Ada Lovelace", title="Blood")


def same(one: AnnotationState, two: AnnotationState) -> None:
    for name in ("names", "ids", "sources", "events"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    assert one.applied == two.applied
    assert one.undone == two.undone


def test_labels_are_columns_beside_all_that_was_there(exported: Path, small_cells: anndata.AnnData) -> None:
    found = anndata.read_h5ad(exported)
    added = ["scdiva_label", "scdiva_label_ontology_id", "scdiva_label_confidence", "scdiva_label_source"]
    assert list(found.obs) == ["cell_type", "donor", *added]
    label, term, confidence, source = (found.obs[name] for name in added)
    words = ["B cell", "NK cell", "NK cell", "unknown", "B cell", "unknown", "odd ones", "odd ones", "B cell", "T cell"]
    assert label[:10].tolist() == words
    assert term[:3].tolist() == [B, NK, NK]
    assert term[:10].isna().tolist() == [False, False, False, True, False, True, True, True, False, False]
    assert source[:6].tolist() == ["accepted", "relabelled", "relabelled", "head", "accepted", "rejected"]
    assert confidence.dtype == np.float32
    np.testing.assert_array_equal(confidence.iloc[[0, 4, 8, 9]], CONFIDENCE[[0, 4, 8, 9]])
    assert confidence.iloc[[1, 2, 3, 5, 6, 7]].isna().all(), (
        "neither a person's own choice nor unknown has a probability"
    )
    assert found.uns["note"] == "kept"
    assert (found.X != small_cells.X).nnz == 0
    assert list(found.obs_names) == list(small_cells.obs_names)


def test_the_input_is_untouched_byte_for_byte(
    small_h5ad: Path, dataset: H5adDataset, annotation: Annotation, tmp_path: Path
) -> None:
    before = hashlib.sha256(small_h5ad.read_bytes()).hexdigest()
    write_annotation(dataset, tmp_path / "out.h5ad", annotation, author="Ada", title="Blood")
    assert hashlib.sha256(small_h5ad.read_bytes()).hexdigest() == before
    with pytest.raises(DataError, match="is the input file, which is never changed"):
        write_annotation(dataset, small_h5ad, annotation, author="Ada", title="Blood")


def test_labels_log_and_undo_come_back_as_they_were(exported: Path, annotation: Annotation) -> None:
    found = read_annotation(exported)
    same(found.state, annotation.state)
    assert found.events == annotation.events
    assert [event.label_name for event in found.state.undone] == ["never mind"]
    assert found.starting.sha256 == STARTING.sha256
    np.testing.assert_array_equal(found.confidence, CONFIDENCE)
    np.testing.assert_array_equal(found.label_confidence, annotation.label_confidence)


def test_a_review_goes_on_from_its_export(exported: Path, log: AnnotationLog, small_h5ad: Path, tmp_path: Path) -> None:
    found = read_annotation(exported)
    other = open_log(tmp_path / "other", small_h5ad, "Grace Hopper")
    other.restore(found.events)
    for step in ("redo", "undo", "undo", "undo"):
        getattr(log, step)()
        getattr(other, step)()
        one, two = log.replay(STARTING), other.replay(found.starting)
        assert one.names.tolist() == two.names.tolist()
        assert (one.applied, one.undone) == (two.applied, two.undone)
    assert other.replay(found.starting).names[5] == "T cell", "even the rejection is taken back"


def test_a_file_written_anew_by_anndata_still_holds_the_review(
    exported: Path, annotation: Annotation, tmp_path: Path
) -> None:
    anndata.read_h5ad(exported).write_h5ad(tmp_path / "again.h5ad", compression="gzip")
    same(read_annotation(tmp_path / "again.h5ad").state, annotation.state)


def test_labels_without_any_term_or_name_come_back_too(dataset: H5adDataset, tmp_path: Path) -> None:
    nothing = StartingLabels("mine", (), (), np.full(160, -1, np.int32))
    log = open_log(tmp_path, dataset.path)
    log.begin(nothing)
    none = Annotation(nothing, np.full(160, np.nan, np.float32), log.events())
    path = write_annotation(dataset, tmp_path / "out.h5ad", none, author="Ada", title="Blood")
    assert set(anndata.read_h5ad(path).obs["scdiva_label"]) == {"unknown"}
    same(read_annotation(path).state, none.state)


def change_label(file: anndata.AnnData) -> anndata.AnnData:
    file.obs["scdiva_label"] = file.obs["scdiva_label"].astype(str).replace("odd ones", "T cell").astype("category")
    return file


def drop_label(file: anndata.AnnData) -> anndata.AnnData:
    del file.obs["scdiva_label"]
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_label, "differ from their log: they were changed after the export"),
        (drop_label, "differ from their log"),
        (lambda file: file[::-1].copy(), "differ from their log"),
        (lambda file: file[:100].copy(), "The file has 100 cells, its annotation log 160"),
    ],
)
def test_a_file_changed_after_its_export_does_not_pass_for_the_review(
    exported: Path, tmp_path: Path, change: Callable[[anndata.AnnData], anndata.AnnData], message: str
) -> None:
    change(anndata.read_h5ad(exported)).write_h5ad(tmp_path / "changed.h5ad")
    with pytest.raises(DataError, match=message):
        read_annotation(tmp_path / "changed.h5ad")


def test_a_file_without_a_log_says_so(small_h5ad: Path) -> None:
    with pytest.raises(DataError, match=r"'small\.h5ad' holds no annotation log"):
        read_annotation(small_h5ad)


def with_starting(record: dict[str, Any], **values: Any) -> dict[str, Any]:
    return record | {"starting": record["starting"] | values}


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda record: [], StoreError, "The annotation log is damaged"),
        (lambda record: {}, StoreError, "The annotation log is damaged .*'format'"),
        (lambda record: record | {"format": 2}, StoreError, "has format 2; this program knows 1"),
        (lambda record: record | {"events": []}, StoreError, "No review has begun"),
        (lambda record: record | {"events": [{}]}, StoreError, "The annotation log is damaged"),
        (lambda record: record | {"events": [1]}, StoreError, "The annotation log is damaged"),
        (lambda record: record | {"events": record["events"][:7:6]}, StoreError, "nothing to undo"),
        (lambda record: with_starting(record, best="?"), StoreError, "The annotation log is damaged"),
        (lambda record: with_starting(record, best=3), StoreError, "The annotation log is damaged"),
        (lambda record: with_starting(record, names=["B cell"]), DataError, "2 ids and 1 names"),
        (lambda record: with_starting(record, source="knn"), StoreError, "The review began with other labels"),
    ],
)
def test_a_damaged_log_is_refused(
    exported: Path, damage: Callable[[dict[str, Any]], Any], error: type[Exception], message: str
) -> None:
    with h5py.File(exported, "r+") as file:
        record = json.loads(file["uns/scdiva/annotation_log"].asstr()[()])
        del file["uns/scdiva/annotation_log"]
        file["uns/scdiva/annotation_log"] = json.dumps(damage(record))
    with pytest.raises(error, match=message):
        read_annotation(exported)


@pytest.mark.parametrize("content", [3.5, "{not json", "[" * 100_000])
def test_a_log_that_is_no_log_is_refused(exported: Path, content: object) -> None:
    with h5py.File(exported, "r+") as file:
        del file["uns/scdiva/annotation_log"]
        file["uns/scdiva/annotation_log"] = content
    with pytest.raises((DataError, StoreError), match="cannot be read|damaged"):
        read_annotation(exported)


def test_a_damaged_decision_is_found_even_when_it_is_undone(exported: Path) -> None:
    with h5py.File(exported, "r+") as file:
        record = json.loads(file["uns/scdiva/annotation_log"].asstr()[()])
        (undone,) = (event for event in record["events"] if event["label_name"] == "never mind")
        undone["cells"] = undone["cells"][:8]
        del file["uns/scdiva/annotation_log"]
        file["uns/scdiva/annotation_log"] = json.dumps(record)
    with pytest.raises(StoreError, match=f"The annotation log is damaged .*entry {undone['id']}"):
        read_annotation(exported)


def test_an_embedding_written_later_leaves_the_review_in_the_file(
    exported: Path, annotation: Annotation, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    with open_h5ad(exported, small_vocabulary) as dataset:
        both = write_result(
            dataset, tmp_path / "both.h5ad", embedding=np.ones((160, 2), np.float32), provenance={"model": "tiny"}
        )
    same(read_annotation(both).state, annotation.state)
    assert json.loads(anndata.read_h5ad(both).uns["scdiva"]["model"]) == "tiny"


def test_a_later_export_replaces_the_earlier_one(
    exported: Path, log: AnnotationLog, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    log.redo()
    later = Annotation(STARTING, CONFIDENCE, log.events())
    with open_h5ad(exported, small_vocabulary) as dataset:
        second = write_annotation(dataset, tmp_path / "second.h5ad", later, author="Ada", title="Blood")
    same(read_annotation(second).state, later.state)
    assert list(anndata.read_h5ad(second).obs) == list(anndata.read_h5ad(exported).obs)


def test_no_other_file_is_written_to_through_a_link(
    annotation: Annotation, small_h5ad: Path, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    victim, source = tmp_path / "victim.h5", Path(shutil.copy(small_h5ad, tmp_path / "input.h5ad"))
    with h5py.File(victim, "w") as file:
        file.create_group("precious")
    with h5py.File(source, "r+") as file:
        file["uns/scdiva"] = h5py.ExternalLink(victim, "precious")
    before = victim.read_bytes()
    with open_h5ad(source, small_vocabulary) as dataset, pytest.raises(DataError, match="is a link to another place"):
        write_annotation(dataset, tmp_path / "out.h5ad", annotation, author="Ada", title="Blood")
    assert victim.read_bytes() == before
    assert not (tmp_path / "out.h5ad").exists()


def test_labels_of_other_cells_are_refused(dataset: H5adDataset, annotation: Annotation, tmp_path: Path) -> None:
    few = StartingLabels("head", (B,), ("B cell",), np.zeros(7, np.int32))
    log = AnnotationLog(tmp_path / "few.sqlite", data_sha256="f" * 64, n_obs=7, who="Ada")
    log.begin(few)
    with pytest.raises(DataError, match="7 cells, but the file has 160"):
        write_annotation(
            dataset, tmp_path / "o.h5ad", Annotation(few, np.ones(7), log.events()), author="Ada", title="Blood"
        )
    with pytest.raises(DataError, match=r"There are 160 labels, but probabilities \(159,\)"):
        Annotation(STARTING, CONFIDENCE[1:], annotation.events)


def test_the_table_has_a_row_a_cell_and_says_who_decided(dataset: H5adDataset, annotation: Annotation) -> None:
    table = annotation_table(dataset.obs_names, annotation)
    assert table.index.tolist() == dataset.obs_names.tolist()
    assert table.index.name == "cell"
    relabelled = table.iloc[1]
    event = annotation.state.applied[1]
    assert relabelled.drop("scdiva_label_confidence").to_dict() == {
        "scdiva_label": "NK cell",
        "scdiva_label_ontology_id": NK,
        "scdiva_label_source": "relabelled",
        "starting_label": "T cell",
        "decided_by": "Ada Lovelace",
        "decided_at": event.time,
        "reason": "NKG7, no CD3",
    }
    assert np.isnan(relabelled["scdiva_label_confidence"])
    assert table.iloc[9][["scdiva_label", "decided_by", "decided_at", "reason"]].tolist() == ["T cell", "", "", ""]
    read = pd.read_csv(io.StringIO(table.to_csv()), index_col="cell", keep_default_na=False)
    assert read["scdiva_label"].tolist() == table["scdiva_label"].tolist()


def is_valid(schema: dict[str, Any], values: dict[str, Any], path: Path) -> bool:
    path.write_text(json.dumps(values))
    return schema_validator.validate(schema, "general_schema.json", str(path))


def test_the_cell_annotation_schema_is_valid_and_says_what_was_done(
    exported: Path, annotation: Annotation, dataset: H5adDataset, tmp_path: Path
) -> None:
    schema = json.loads((resources.files(schemas) / "general_schema.json").read_text())
    found = json.loads(anndata.read_h5ad(exported).uns["cas"])
    assert found == cell_annotation_schema(dataset.obs_names, annotation, author="Ada Lovelace", title="Blood")
    assert is_valid(schema, found, tmp_path / "cas.json")
    with pytest.warns(UserWarning, match="'author_name' is a required property"):
        assert not is_valid(schema, {k: v for k, v in found.items() if k != "author_name"}, tmp_path / "bad.json")
    assert (found["author_name"], found["title"]) == ("Ada Lovelace", "Blood")
    assert [entry["name"] for entry in found["labelsets"]] == ["scdiva_label"]
    assert found["labelsets"][0]["annotation_method"] == "both"
    assert "2 accepted, 153 head, 1 rejected, 2 relabelled, 2 split" in found["labelsets"][0]["description"]
    entries = {entry["cell_label"]: entry for entry in found["annotations"]}
    assert sorted(entries) == ["B cell", "NK cell", "T cell", "odd ones", "unknown"]
    names = dataset.obs_names.tolist()
    assert entries["NK cell"] == {
        "labelset": "scdiva_label",
        "cell_label": "NK cell",
        "cell_fullname": "NK cell",
        "cell_ontology_term_id": NK,
        "cell_ontology_term": "natural killer cell",
        "rationale": "NKG7, no CD3",
        "cell_ids": names[1:3],
    }
    assert entries["odd ones"]["cell_ids"] == names[6:8]
    assert "cell_ontology_term_id" not in entries["odd ones"]
    assert entries["unknown"]["rationale"] == "doublet?"
    assert sorted(name for entry in entries.values() for name in entry["cell_ids"]) == sorted(names)


def test_the_timestamp_is_that_of_the_last_entry(dataset: H5adDataset, annotation: Annotation) -> None:
    found = cell_annotation_schema(dataset.obs_names, annotation, author="Ada", title="Blood")
    assert found["cellannotation_timestamp"] == annotation.events[-1].time[:19].replace("T", " ")


@pytest.mark.parametrize(("author", "title"), [(" ", "Blood"), ("Ada", ""), ("Ada", "x" * 201)])
def test_author_and_title_are_what_the_schema_can_take(
    dataset: H5adDataset, annotation: Annotation, author: str, title: str
) -> None:
    with pytest.raises(DataError, match="Name an author, and a title of 1 to 200 characters"):
        cell_annotation_schema(dataset.obs_names, annotation, author=author, title=title)


@pytest.mark.parametrize(("chosen", "method"), [(0, "algorithmic"), (1, "both"), (160, "manual")])
def test_the_method_says_whether_people_decided(dataset: H5adDataset, tmp_path: Path, chosen: int, method: str) -> None:
    log = open_log(tmp_path, dataset.path)
    log.begin(STARTING)
    if chosen:
        log.label(cells(*range(chosen)), "relabel", label_name="mine")
    found = cell_annotation_schema(
        dataset.obs_names, Annotation(STARTING, CONFIDENCE, log.events()), author="Ada", title="Blood"
    )
    assert found["labelsets"][0]["annotation_method"] == method


def test_reasons_are_named_once_and_cut_where_the_schema_wants_it(dataset: H5adDataset, log: AnnotationLog) -> None:
    for cell, why in ((20, "CD3"), (21, "CD3"), (22, "x" * 3000)):
        log.label(cells(cell), "relabel", label_name="many reasons", why=why)
    found = cell_annotation_schema(
        dataset.obs_names, Annotation(STARTING, CONFIDENCE, log.events()), author="Ada", title="Blood"
    )
    (entry,) = (entry for entry in found["annotations"] if entry["cell_label"] == "many reasons")
    assert entry["rationale"].startswith("CD3; xxx")
    assert entry["rationale"].endswith("x…")
    assert len(entry["rationale"]) == 2000
