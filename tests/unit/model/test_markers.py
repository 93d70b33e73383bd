"""The table of marker genes: given back as it was, and refused with the line where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scdiva_core.errors import CheckpointError
from scdiva_core.model.markers import MARKERS_FILE, MOST, Marker, MarkerTable

B, NK = ("CL:0000236", "B cell"), ("CL:0000623", "natural killer cell")
ROWS = (
    Marker(*B, "MS4A1", "positive", 5.1234, 0.75, 0.0123),
    Marker(*B, "CD79A", "positive", 4.0, 1.0, 0.0),
    Marker(*B, "NKG7", "negative", -8.25, 0.0, 0.5),
    Marker(*NK, "GNLY", "positive", 0.1 + 0.2, 0.9, 0.1),
)
TABLE = MarkerTable(ROWS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    TABLE.save(tmp_path / MARKERS_FILE)
    return tmp_path / MARKERS_FILE


def test_a_table_is_given_back(path: Path) -> None:
    assert MarkerTable.load(path) == TABLE
    assert [file.name for file in path.parent.iterdir()] == [MARKERS_FILE]


def test_the_file_is_a_table_for_people(path: Path) -> None:
    assert path.read_bytes().decode().split("\n")[:3] == [
        "ontology_id\tname\tsymbol\tsign\tlog2_fold_change\tshare_inside\tshare_outside",
        "CL:0000236\tB cell\tMS4A1\tpositive\t5.1234\t0.75\t0.0123",
        "CL:0000236\tB cell\tCD79A\tpositive\t4.0\t1.0\t0.0",
    ]


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    MarkerTable(()).save(tmp_path / MARKERS_FILE)
    assert MarkerTable.load(tmp_path / MARKERS_FILE).names == {}


def test_markers_are_found_by_type_and_sign() -> None:
    assert TABLE.names == dict([B, NK])
    assert [row.symbol for row in TABLE.of(B[0], "positive")] == ["MS4A1", "CD79A"]
    assert [row.symbol for row in TABLE.of(B[0], "negative")] == ["NKG7"]
    assert TABLE.of(NK[0], "negative") == TABLE.of("CL:0000084", "positive") == ()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"markers\.tsv cannot be read") as caught:
        MarkerTable.load(tmp_path / MARKERS_FILE)
    assert "own file" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ontology_id\t", "id\t", "line 1: the header is another one"),
        ("\tMS4A1\t", "\tMS4A1", "line 2: 6 columns instead of 7"),
        ("\tMS4A1\t", "\tMS4A1\t\t", "line 2: 8 columns instead of 7"),
        ("\tCD79A\t", "\t\t", "line 3: a column is empty"),
        ("\tCD79A\t", "\tMS4A1\t", "line 3: MS4A1 is there twice for B cell"),
        ("\tNKG7\t", "\tMS4A1\t", "line 4: MS4A1 is there twice for B cell"),
        ("negative", "minus", "line 4: the sign is 'minus', expected positive or negative"),
        ("5.1234", "high", "line 2: a number cannot be read"),
        ("5.1234", "nan", "line 2: a fold change is not finite"),
        ("\t0.75\t", "\t1.75\t", "line 2: a fold change is not finite, or a share not from 0 to 1"),
        ("\t0.0123\n", "\t-0.1\n", "line 2: .* a share not"),
        ("\t0.0123\n", "\tnan\n", "line 2: .* a share not"),
        ("B cell\tNKG7", "b cell\tNKG7", "line 4: CL:0000236 is called 'b cell' and 'B cell'"),
    ],
)
def test_a_damaged_table_is_refused_with_its_line(path: Path, old: str, new: str, message: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        MarkerTable.load(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x00" * 40])
def test_another_kind_of_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"markers\.tsv"):
        MarkerTable.load(path)


@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_a_type_has_only_so_many_markers(path: Path, sign: str) -> None:
    rows = [replace(ROWS[0], symbol=f"G{i}", sign=sign) for i in range(MOST[sign] + 1)]
    MarkerTable(tuple(rows[:-1])).save(path)
    assert len(MarkerTable.load(path).rows) == MOST[sign] == {"positive": 20, "negative": 10}[sign]
    MarkerTable(tuple(rows)).save(path)
    with pytest.raises(CheckpointError, match=f"line {MOST[sign] + 2}: B cell has more than {MOST[sign]} {sign}"):
        MarkerTable.load(path)
