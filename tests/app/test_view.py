"""What becomes of columns, sets and tables before they are drawn or written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pages._ui import export, view, words
from pages._ui.project import Project
from scdiva_core.data.spreadsheet import as_csv
from scdiva_core.errors import StoreError
from scdiva_core.figures.raster import Window
from scdiva_core.figures.scatter import Canvas


def test_categories_keep_their_order_and_missing_labels_have_none() -> None:
    column = pd.Series(pd.Categorical(["b", None, "a"], categories=["b", "unused", "a"]))
    found = view.column_colouring(column, "type")
    assert found.names == ("b", "a")
    assert list(found.codes) == [0, -1, 1]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9", ""], ("10", "9")),
        ([True, False, True], ("False", "True")),
        ([10, 9, 9], ("9", "10")),
        ([2.0, np.nan, 1.0], ("1", "2")),
    ],
)
def test_text_booleans_and_few_whole_numbers_are_groups(values: list[object], names: tuple[str, ...]) -> None:
    found = view.column_colouring(pd.Series(values), "group")
    assert isinstance(found, view.Categories)
    assert found.names == names
    assert [found.names[code] if code >= 0 else None for code in found.codes][0] == str(values[0]).split(".")[0]


def test_other_numbers_are_numbers() -> None:
    found = view.column_colouring(pd.Series([0.5, np.nan, 3]), "age")
    assert isinstance(found, view.Numbers)
    np.testing.assert_array_equal(found.values, [0.5, np.nan, 3])


def test_a_column_of_cell_names_is_no_grouping() -> None:
    assert view.column_colouring(pd.Series([f"cell{index}" for index in range(501)]), "barcode") is None


def test_cells_in_several_sets_are_a_group_of_their_own() -> None:
    masks = {"a": np.array([True, True, False, False]), "b": np.array([False, True, True, False])}
    found = view.set_colouring(masks, 4)
    assert [found.names[code] if code >= 0 else None for code in found.codes] == [
        "a",
        "in several sets",
        "b",
        None,
    ]


def test_the_cells_that_are_looked_at_are_drawn_when_not_all_can_be() -> None:
    xy = np.column_stack([np.arange(100), np.zeros(100)]).astype(np.float32)
    cells, colouring = view.CellMap("map", "X_scdiva", xy, ("x", "y")), view.Numbers("value", np.arange(100.0))
    options = {"canvas": Canvas(title="", axes=("x", "y")), "names_on_picture": False, "limit": 20}
    names = np.array([f"cell {number}" for number in range(100)], object)

    def drawn(shown: np.ndarray | None) -> set[float]:
        figure = view.draw(cells, colouring, names, shown=shown, **options)
        return {float(x) for trace in figure.data if trace.x is not None for x in trace.x if x is not None}

    assert len(drawn(None)) == 20
    few = np.isin(np.arange(100), [3, 57, 91])
    assert {3.0, 57.0, 91.0} <= drawn(few)
    assert len(drawn(few)) <= 20


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> view.CellMap:
    """200 cells on a line, more than are drawn as points here."""
    monkeypatch.setattr(view, "MAX_DRAWN", 100)
    xy = np.column_stack([np.arange(200), np.zeros(200)]).astype(np.float32)
    return view.CellMap("map", "X_scdiva", xy, ("x", "y"))


NAMES = np.array([f"cell {number}" for number in range(200)], object)
OPTIONS = {"shown": None, "canvas": Canvas(), "names_on_picture": False}


@pytest.mark.parametrize(
    "colouring",
    [view.Numbers("value", np.arange(200.0)), view.Categories("group", np.arange(200) % 2, ("a", "b"))],
)
def test_very_many_cells_are_one_picture_without_names(crowd: view.CellMap, colouring: view.Colouring) -> None:
    figure = view.draw(crowd, colouring, NAMES, **OPTIONS)
    assert len(figure.layout.images) == 1
    assert "cell 7" not in figure.to_json()
    assert not view.draw(crowd, colouring, NAMES, limit=150, **OPTIONS).layout.images, "a subset was asked for"


def test_a_part_with_fewer_cells_shows_them_as_points_on_the_scale_of_all(crowd: view.CellMap) -> None:
    window = Window(19.5, 50.5, -1, 1)
    figure = view.draw(crowd, view.Numbers("value", np.arange(200.0)), NAMES, window=window, **OPTIONS)
    assert not figure.layout.images
    (points,) = figure.data
    assert sorted(points.text) == sorted(NAMES[20:51])
    assert (points.marker.cmin, points.marker.cmax) == (0, 199)
    assert list(figure.layout.xaxis.range) == [19.5, 50.5]
    assert [view.is_raster(crowd), view.is_raster(crowd, window)] == [True, False]


def test_logarithm_leaves_negative_values_out() -> None:
    found = view.logarithm(view.Numbers("score", np.array([0.0, -1.0, np.e - 1])))
    np.testing.assert_allclose(found.values, [0, np.nan, 1])
    assert found.label == "log(1 + score)"


def test_text_that_a_spreadsheet_would_run_is_written_as_text() -> None:
    table = pd.DataFrame({"note": ["=1+1", "fine", None], "value": [-1.5, 2, 3]}, index=["@a", "b", "c"])
    assert as_csv(table, "cell").decode().splitlines() == ["cell,note,value", "'@a,'=1+1,-1.5", "b,fine,2.0", "c,,3.0"]


@pytest.mark.parametrize("kind", ["object", "category"])
def test_a_column_with_very_many_values_is_no_grouping(kind: str) -> None:
    names = pd.Series([f"cell {number}" for number in range(200_000)], dtype=kind)
    assert view.column_colouring(names, "barcode") is None
    few = names.where(names.index < view.MOST_LABELS)
    assert len(view.column_colouring(few, "barcode").names) == view.MOST_LABELS


def test_file_names_are_plain() -> None:
    assert export.file_name("PBMC 3k", "../x: y") == "PBMC-3k-..-x-y"
    assert export.file_name("///") == "scdiva"


def test_names_from_a_file_are_no_markdown() -> None:
    assert words.as_text("[a](http://b) **c** :red[d]\n# e") == (r"\[a\]\(http\://b\) \*\*c\*\* \:red\[d\] \# e")


def test_a_project_keeps_names_and_cell_sets(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    Project("00000000000000ff").remember_upload("a" * 64, "mine.h5ad")
    Project("00000000000000ff").change_cell_sets("b" * 64, lambda kept: {"sets": []})
    again = Project("00000000000000ff")
    assert again.upload_name("a" * 64) == "mine.h5ad"
    assert again.cell_sets("b" * 64) == {"sets": []}
    assert again.cell_sets("c" * 64) is None
    assert Project("00000000000000fe").upload_name("a" * 64) is None


def test_a_damaged_project_file_is_an_error_with_a_hint(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    folder = tmp_path / "projects" / "00000000000000ff"
    folder.mkdir(parents=True)
    (folder / "project.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be read") as caught:
        Project("00000000000000ff").upload_name("a" * 64)
    assert "project=" in caught.value.hint
