"""Tables of data sets and labels: what is read, and what is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from scdiva_core.data.studies import Studies
from scdiva_core.errors import DataError

HEADER = "dataset\tlabel\tontology_id\tontology_name\tuse\tnote"
DATASETS = """\
[[dataset]]
name = "blood"
title = "Blood"
label_column = "cell_type"
batch_column = "lane"
donor_column = "person"
held_out = ["p2"]
source = "Somebody 2020"
accession = "GSE1"
licence = "CC BY 4.0"
values = "counts"

[[dataset]]
name = "marrow"
title = "Bone marrow"
source = "Somebody 2021"
"""
LABELS = [
    "blood\tNK\tCL:0000623\tnatural killer cell\tclass\t",
    "blood\tB\tCL:0000236\tB cell\tclass\t",
    "blood\tL\tCL:0000542\tlymphocyte\tgroup\tcoarse",
    "blood\t?\t\t\tnone\tno type given",
]


def folder_with(path: Path, datasets: str = DATASETS, labels: list[str] = LABELS, header: str = HEADER) -> Path:
    (path / "datasets.toml").write_text(datasets, encoding="utf-8")
    (path / "labels.tsv").write_text("\n".join([header, *labels, ""]), encoding="utf-8")
    return path


def test_a_study_is_read_with_every_field(tmp_path: Path) -> None:
    study = Studies.read(folder_with(tmp_path)).study("blood")
    assert (study.name, study.title, study.source) == ("blood", "Blood", "Somebody 2020")
    assert (study.label_column, study.batch_column, study.donor_column) == ("cell_type", "lane", "person")
    assert study.held_out == ("p2",)
    assert (study.accession, study.licence, study.values) == ("GSE1", "CC BY 4.0", "counts")


def test_what_is_not_given_is_not_made_up(tmp_path: Path) -> None:
    study = Studies.read(folder_with(tmp_path)).study("marrow")
    assert (study.label_column, study.batch_column, study.donor_column, study.held_out) == (None, None, None, ())
    assert (study.accession, study.licence, study.values) == ("", "not stated", "auto")
    assert (study.seen_column, study.seen, study.excluded) == (None, (), "")


def test_a_study_names_cells_that_were_seen_and_why_it_is_not_used(tmp_path: Path) -> None:
    more = 'seen_column = "person"\nseen = ["p1", "p3"]\nexcluded = "all of it is noise"\n'
    study = Studies.read(folder_with(tmp_path, DATASETS + more)).study("marrow")
    assert (study.seen_column, study.seen, study.excluded) == ("person", ("p1", "p3"), "all of it is noise")


def test_labels_have_a_term_and_a_use(tmp_path: Path) -> None:
    studies = Studies.read(folder_with(tmp_path))
    assert studies.label("blood", "NK") == ("CL:0000623", "class")
    assert studies.label("blood", "L") == ("CL:0000542", "group")
    assert studies.label("blood", "?") == ("", "none")
    assert studies.table("blood") == [
        ["?", "", "none"],
        ["B", "CL:0000236", "class"],
        ["L", "CL:0000542", "group"],
        ["NK", "CL:0000623", "class"],
    ]
    assert studies.table("marrow") == []
    assert list(studies.studies) == ["blood", "marrow"]
    assert studies.ontology_ids == ("CL:0000236", "CL:0000542", "CL:0000623")
    assert studies.classes == {"CL:0000236", "CL:0000623"}


def test_what_is_unknown_is_refused_with_what_to_do(tmp_path: Path) -> None:
    studies = Studies.read(folder_with(tmp_path))
    with pytest.raises(DataError, match=r"knows no 'lung'. Add it to datasets.toml; known are blood, marrow"):
        studies.study("lung")
    with pytest.raises(DataError, match="knows no 'lung'"):
        studies.label("lung", "NK")
    with pytest.raises(DataError, match=r"'nk' of blood has no meaning yet. Add a row to labels.tsv"):
        studies.label("blood", "nk")
    with pytest.raises(DataError, match="'NK' of marrow has no meaning yet"):
        studies.label("marrow", "NK")
    with pytest.raises(DataError, match="knows no 'lung'"):
        studies.table("lung")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("blood\tX\tCL:9999999\tX cell\tclass\t", "'CL:9999999' is no current term of the Cell Ontology"),
        ("blood\tX\t\tT cell\tclass\t", "'' is no current term of the Cell Ontology"),
        ("blood\tX\tCL:0000084\tT lymphocyte\tclass\t", "CL:0000084 is called 'T cell', not 'T lymphocyte'"),
        ("blood\tX\tCL:0000084\tT cell\tmaybe\t", "the use is 'maybe'"),
        ("blood\tX\tCL:0000084\tT cell\tnone\t", "an unused label has a term"),
        ("blood\tNK\tCL:0000084\tT cell\tclass\t", "'NK' of blood is there twice"),
        ("marrow\tX\tCL:0000084\tT cell\tclass\t", "datasets.toml knows no labels of 'marrow'"),
        ("lung\tX\tCL:0000084\tT cell\tclass\t", "datasets.toml knows no labels of 'lung'"),
        ("blood\tX\tCL:0000084\tT cell\tclass", "5 columns instead of 6"),
        ("blood\tX\tCL:0000084\tT cell\tclass\t\t", "7 columns instead of 6"),
        ("blood\tX\tCL:0000236\tB cell\tgroup\t", "B cell is a group here and a class elsewhere"),
        ("blood\tX\tCL:0000084\tT cell\tgroup\t", "the group T cell has 0 of the classes below it, not two or more"),
        ("blood\tX\tCL:0000945\tlymphocyte of B lineage\tgroup\t", "lymphocyte of B lineage has 1 of the classes"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, row: str, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        Studies.read(folder_with(tmp_path, labels=[*LABELS, row]))
    assert caught.value.message.startswith("labels.tsv, line 6: ")
    assert problem in caught.value.message
    assert caught.value.hint


def test_another_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.tsv, line 1: the header is another one. Write dataset, label,"):
        Studies.read(folder_with(tmp_path, header="dataset\tlabel"))
    (tmp_path / "labels.tsv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels.tsv, line 1"):
        Studies.read(tmp_path)


def test_a_label_column_without_labels_is_refused(tmp_path: Path) -> None:
    labelled = DATASETS + 'label_column = "cell_type"\n'
    with pytest.raises(DataError, match=r"labels.tsv has no row for marrow, which has a label column"):
        Studies.read(folder_with(tmp_path, labelled))


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        ('donor = "person"', "a data set has no 'donor'"),
        ('seen = ["p1"]', "cells were seen, but no column names them"),
        ('seen_column = "person"\nseen = "p1"', "a value is no text"),
        ('held_out = ["p2"]', "donors are held out, but no column names donors"),
        ('donor_column = "person"\nheld_out = "p2"', "a value is no text"),
        ('donor_column = "person"\nheld_out = [2]', "a value is no text"),
        ("licence = true", "a value is no text"),
        ('values = "scaled"', "values cannot be read as 'scaled'"),
    ],
)
def test_a_wrong_data_set_is_refused_with_its_line(tmp_path: Path, addition: str, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        Studies.read(folder_with(tmp_path, DATASETS + addition + "\n"))
    assert caught.value.message == f"datasets.toml, line 13: {problem}."
    assert caught.value.hint


def test_a_data_set_needs_name_title_and_source_and_is_there_once(tmp_path: Path) -> None:
    for key in ("name", "title", "source"):
        lines = [line for line in DATASETS.splitlines() if not line.startswith(key)]
        with pytest.raises(DataError, match=f"line 1: the data set has no '{key}'"):
            Studies.read(folder_with(tmp_path, "\n".join(lines)))
    with pytest.raises(DataError, match=r"datasets.toml, line 13: blood is there twice"):
        Studies.read(folder_with(tmp_path, DATASETS.replace("marrow", "blood")))


@pytest.mark.parametrize("text", ["", "[dataset]\nname = 'blood'\n", "[other]\nname = 'blood'\n", "dataset = [1]\n"])
def test_a_table_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"Begin each data set with a line \[\[dataset\]\]"):
        Studies.read(folder_with(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"datasets.toml cannot be read. The folder needs datasets.toml and labels.tsv"):
        Studies.read(tmp_path)
    with pytest.raises(DataError, match=r"datasets.toml cannot be read: .*\(at line 2, column"):
        Studies.read(folder_with(tmp_path, "[[dataset]]\nname = blood\n"))
    folder_with(tmp_path)
    (tmp_path / "labels.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"labels.tsv cannot be read"):
        Studies.read(tmp_path)
