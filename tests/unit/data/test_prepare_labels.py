"""Preparing a corpus with studies: labels as terms, classes, named donors, and tables that change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import MIN_CLASS_CELLS, prepare
from scdiva_core.data.studies import Studies
from scdiva_core.errors import DataError
from tests.labelled_corpus import DATASETS, LABELS, MEMBERS, write_labelled_files, write_tables


@pytest.fixture(scope="module")
def labelled_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_labelled_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return Studies.read(write_tables(tmp_path_factory.mktemp("tables")))


@pytest.fixture(scope="module")
def labelled_folder(labelled_files: list[Path], studies: Studies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    prepare(labelled_files, folder, studies=studies, min_cells=20, shard_cells=60)
    return folder


def test_manifest_says_what_is_in_it(labelled_folder: Path) -> None:
    manifest = json.loads((labelled_folder / "corpus.json").read_text())
    told = ("name", "n_cells", "validation_cells", "labelled_cells", "batches")
    assert [tuple(item[key] for key in told) for item in manifest["datasets"]] == [
        ("kang", 160, 40, 152, ["kang: CTRL", "kang: STIM"]),
        ("pbmc", 109, 0, 109, ["pbmc"]),
    ]
    assert manifest["class_names"][:3] == ["B cell", "dendritic cell", "natural killer cell"]


def test_a_type_needs_five_training_cells_to_be_a_class_and_a_coarse_label_has_those_below_it(
    labelled_folder: Path,
) -> None:
    manifest = json.loads((labelled_folder / "corpus.json").read_text())
    assert MIN_CLASS_CELLS == 5
    assert manifest["classes"] == sorted(below[0] for label, below in MEMBERS.items() if below == [label])
    found = {label: [manifest["classes"][i] for i in places] for label, places in manifest["labels"].items()}
    assert found == MEMBERS


def test_held_out_cells_do_not_make_a_class(labelled_files: list[Path], studies: Studies, tmp_path: Path) -> None:
    cells = anndata.read_h5ad(labelled_files[0])
    killers, held_out = (cells.obs["cell_type"] == "NK").to_numpy(), (cells.obs["person"] == "p2").to_numpy()
    for kept, expected in ((4, False), (5, True)):
        changed = cells.copy()
        surplus = changed.obs_names[np.flatnonzero(killers & ~held_out)[kept:]]
        changed.obs.loc[surplus, "cell_type"] = "CD14 Mono"
        changed.write_h5ad(tmp_path / "kang.h5ad")
        prepare([tmp_path / "kang.h5ad"], tmp_path / "out", studies=studies, min_cells=20)
        corpus = Corpus(tmp_path / "out")
        assert (killers & held_out).sum() + kept > MIN_CLASS_CELLS
        assert ("CL:0000623" in corpus.classes) is expected, kept
        assert "CL:0000451" not in corpus.classes, "no cell of this file carries it"


def test_donors_are_held_out_as_named(labelled_folder: Path, labelled_files: list[Path]) -> None:
    people = anndata.read_h5ad(labelled_files[0], backed="r").obs["person"].to_numpy()
    assert Corpus(labelled_folder).cells("validation").tolist() == np.flatnonzero(people == "p2").tolist()


def test_studies_that_hold_nobody_out_are_refused(labelled_files: list[Path], studies: Studies, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The studies name no donor of the 1 files to hold out") as caught:
        prepare(labelled_files[1:], tmp_path / "out", studies=studies, min_cells=20)
    assert "'held_out' of datasets.toml" in caught.value.hint


def test_a_donor_to_hold_out_that_the_file_lacks_is_named(labelled_files: list[Path], tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables", DATASETS.replace('["p2"]', '["p2", "p9"]'))
    with pytest.raises(DataError, match=r"kang\.h5ad has no donor 'p9' in 'person' to hold out") as caught:
        prepare(labelled_files, tmp_path / "out", studies=Studies.read(tables), min_cells=20)
    assert "the file's donors are p0, p1, p2, p3" in caught.value.hint
    with pytest.raises(DataError, match="unfinished"):
        Corpus(tmp_path / "out")


def test_holding_out_every_cell_is_refused(labelled_files: list[Path], tmp_path: Path) -> None:
    """Of all files together; one of them may be held out whole."""
    tables = write_tables(tmp_path / "tables", DATASETS.replace('["p2"]', '["p0", "p1", "p2", "p3"]'))
    with pytest.raises(DataError, match="Every cell of the 1 files is held out") as caught:
        prepare(labelled_files[:1], tmp_path / "out", studies=Studies.read(tables), min_cells=20)
    assert "Name fewer donors in 'held_out' of datasets.toml" in caught.value.hint
    prepare(labelled_files, tmp_path / "out", studies=Studies.read(tables), min_cells=20)
    assert Corpus(tmp_path / "out").cells("training").tolist() == list(range(160, 269))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"cell_type"', '"celltype"'), ('"condition"', '"lane"'), ('"person"', '"donor"')],
    ids=["label", "batch", "donor"],
)
def test_a_column_that_the_file_lacks_is_named(labelled_files: list[Path], tmp_path: Path, old: str, new: str) -> None:
    tables = write_tables(tmp_path / "tables", datasets=DATASETS.replace(old, new))
    with pytest.raises(DataError, match=rf"kang\.h5ad has no column '{new[1:-1]}' in obs"):
        prepare(labelled_files, tmp_path / "out", studies=Studies.read(tables), min_cells=20)
    with pytest.raises(DataError, match="unfinished"):
        Corpus(tmp_path / "out")


def test_a_label_without_a_meaning_is_named(labelled_files: list[Path], tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "tables", labels=tuple(row for row in LABELS if "kang\tNK" not in row))
    with pytest.raises(DataError, match="The label 'NK' of kang has no meaning yet"):
        prepare(labelled_files, tmp_path / "out", studies=Studies.read(tables), min_cells=20)


def test_a_file_that_the_studies_do_not_know_is_named(
    corpus_files: list[Path], studies: Studies, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="knows no 'kang2018'"):
        prepare(corpus_files, tmp_path / "out", studies=studies, min_cells=20)


def prepared_again(files: list[Path], folder: Path, studies: Studies | None) -> list[str]:
    """Prepare once more and return what was said of each data set."""
    lines: list[str] = []
    prepare(files, folder, studies=studies, min_cells=20, shard_cells=60, report=lines.append)
    return [line for line in lines if ".h5ad: " in line]


def test_a_changed_table_makes_the_data_set_anew_and_keeps_the_other(
    labelled_folder: Path, labelled_files: list[Path], studies: Studies, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(labelled_folder, tmp_path / "corpus"))
    kept = ["kang.h5ad: kept 160 cells", "pbmc.h5ad: kept 109 cells"]
    assert prepared_again(labelled_files, folder, studies) == kept
    active = (anndata.read_h5ad(labelled_files[0], backed="r").obs["cell_type"] == "B Activated").to_numpy()
    labels = tuple("kang\tB Activated\t\t\tnone\t" if "B Activated" in row else row for row in LABELS)
    without = Studies.read(write_tables(tmp_path / "tables", labels=labels))
    told = [f"kang.h5ad: 160 cells, {152 - active.sum()} labelled, 40 held out", kept[1]]
    assert prepared_again(labelled_files, folder, without) == told
    before, after = Corpus(labelled_folder).labels, Corpus(folder).labels
    expected = before.copy()
    expected[np.flatnonzero(active)] = -1
    assert active.sum() > 2
    assert np.array_equal(after, expected)
    other = Studies.read(write_tables(tmp_path / "tables", DATASETS.replace('["p2"]', '["p0", "p3"]'), labels))
    assert prepared_again(labelled_files, folder, other) == [told[0].replace("40 held", "80 held"), kept[1]]
    assert len(Corpus(folder).cells("validation")) == 80


def test_a_new_term_in_the_tables_numbers_all_labels_anew(
    labelled_folder: Path, labelled_files: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(labelled_folder, tmp_path / "corpus"))
    labels = tuple(row.replace("DC\t\t\tnone", "DC\tCL:0000094\tgranulocyte\tclass") for row in LABELS)
    told = prepared_again(labelled_files, folder, Studies.read(write_tables(tmp_path, labels=labels)))
    assert told == [
        "kang.h5ad: 160 cells, 160 labelled, 40 held out",
        "pbmc.h5ad: 109 cells, 109 labelled, 0 held out",
    ], "the other one too, although its own rows are as before"
    before, after = Corpus(labelled_folder), Corpus(folder)
    assert after.label_ids == tuple(sorted([*before.label_ids, "CL:0000094"]))
    named = [[corpus.label_ids[i] for i in corpus.labels[160:]] for corpus in (before, after)]
    assert named[0] == named[1]


def test_the_same_files_without_studies_lose_their_labels(
    labelled_folder: Path, labelled_files: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(labelled_folder, tmp_path / "corpus"))
    lines: list[str] = []
    prepare(labelled_files, folder, min_cells=20, shard_cells=60, donor_columns=["person"], report=lines.append)
    assert "kang.h5ad: 160 cells, 0 labelled, 40 held out" in lines
    found = Corpus(folder)
    assert found.label_ids == found.classes == ()
    assert (found.labels == -1).all()
    people = anndata.read_h5ad(labelled_files[0], backed="r").obs["person"].to_numpy()
    assert found.cells("validation").tolist() == np.flatnonzero(people == "p3").tolist(), (
        "the last, as nobody was named"
    )
