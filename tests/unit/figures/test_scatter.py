"""What a scatter figure draws, in which order, and how it treats names from a file."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.figures.palette import LIGHT, category_style
from scdiva_core.figures.sample import drawn_rows
from scdiva_core.figures.scatter import Canvas, category_scatter, point_style, value_scatter


@pytest.fixture
def coordinates() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(10, 2))


def cell_names(n_cells: int) -> list[str]:
    return [f"cell{index}" for index in range(n_cells)]


CODES = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, -1])
LABELS = ["T", "B", "NK"]


def test_every_cell_is_drawn_once_and_rare_categories_last(coordinates: np.ndarray) -> None:
    figure = category_scatter(coordinates, CODES, LABELS, names=cell_names(10))
    assert [trace.name for trace in figure.data] == ["no label", "T", "B", "NK"]
    assert sum(len(trace.x) for trace in figure.data) == 10
    assert list(figure.data[2].text) == ["cell5", "cell6", "cell7"]
    np.testing.assert_allclose(figure.data[2].x, coordinates[5:8, 0], rtol=1e-6)


def test_cells_without_label_are_grey(coordinates: np.ndarray) -> None:
    figure = category_scatter(coordinates, CODES, LABELS, names=cell_names(10))
    assert figure.data[0].marker.color == LIGHT.missing


def test_a_filter_dims_the_others_and_keeps_colours_and_axes(coordinates: np.ndarray) -> None:
    whole = category_scatter(coordinates, CODES, LABELS, names=cell_names(10))
    figure = category_scatter(coordinates, CODES, LABELS, names=cell_names(10), shown=CODES == 1)
    dimmed, kept = figure.data
    assert (dimmed.name, len(dimmed.x), dimmed.hoverinfo) == ("filtered out", 7, "skip")
    assert dimmed.marker.color == LIGHT.dimmed
    assert (kept.name, kept.marker.color) == ("B", category_style(1)[0])
    assert figure.layout.xaxis.range == whole.layout.xaxis.range


def test_the_smallest_of_too_many_categories_become_other() -> None:
    codes = np.concatenate([np.repeat(np.arange(71), 3), np.arange(71, 90)])
    labels = [f"type {index}" for index in range(90)]
    xy = np.zeros((len(codes), 2))
    figure = category_scatter(xy, codes, labels, names=cell_names(len(codes)))
    assert len(figure.data) == 72
    assert figure.data[-1].name == "other (19 categories)"
    assert len(figure.data[-1].x) == 19


def test_markup_in_names_is_shown_and_not_read(coordinates: np.ndarray) -> None:
    names = ["<b>bold</b> & <a href='x'>link</a>", *cell_names(9)]
    figure = category_scatter(
        coordinates, CODES, ["<i>T</i>", "B", "NK"], names=names, canvas=Canvas(title="<b>data</b>")
    )
    trace = figure.data[1]
    assert trace.name == "&lt;i&gt;T&lt;/i&gt;"
    assert trace.text[0] == "&lt;b&gt;bold&lt;/b&gt; &amp; &lt;a href='x'&gt;link&lt;/a&gt;"
    assert figure.layout.title.text == "&lt;b&gt;data&lt;/b&gt;"


def test_a_template_in_a_category_name_is_not_filled_in(coordinates: np.ndarray) -> None:
    figure = category_scatter(coordinates, CODES, ["%{x}", "B", "NK"], names=cell_names(10))
    assert figure.data[1].meta == "%{x}"
    assert "%{meta}" in figure.data[1].hovertemplate


def test_long_names_are_cut_in_the_legend_only(coordinates: np.ndarray) -> None:
    label = "CD8-positive, alpha-beta memory T cell, CD45RO-positive"
    figure = category_scatter(coordinates, CODES, [label, "B", "NK"], names=cell_names(10))
    assert figure.data[1].name == "CD8-positive, alpha-beta memo…"
    assert figure.data[1].meta == label


def test_names_on_the_picture_stand_at_the_median(coordinates: np.ndarray) -> None:
    figure = category_scatter(coordinates, CODES, LABELS, names=cell_names(10), names_on_picture=True)
    assert [note.text for note in figure.layout.annotations] == LABELS
    assert figure.layout.annotations[1].x == pytest.approx(np.median(coordinates[5:8, 0]), rel=1e-5)


def test_high_values_are_drawn_last_and_missing_ones_grey(coordinates: np.ndarray) -> None:
    values = np.array([3.0, np.nan, 1.0, 2.0, np.nan, 0.0, 5.0, 4.0, 1.5, 2.5])
    figure = value_scatter(coordinates, values, value_label="CD3D, log1p", names=cell_names(10))
    missing, known = figure.data
    assert (missing.name, len(missing.x), missing.marker.color) == ("no value", 2, LIGHT.missing)
    np.testing.assert_allclose(known.marker.color, np.sort(values[np.isfinite(values)]))
    assert known.text[-1] == "cell6"
    assert known.marker.colorbar.title.text == "CD3D, log1p"


def test_a_filter_does_not_move_the_colour_scale(coordinates: np.ndarray) -> None:
    values = np.arange(10.0)
    figure = value_scatter(coordinates, values, value_label="x", names=cell_names(10), shown=values < 3)
    assert (figure.data[-1].marker.cmin, figure.data[-1].marker.cmax) == (0, 9)
    assert len(figure.data[-1].x) == 3


def test_a_warning_is_part_of_the_title(coordinates: np.ndarray) -> None:
    canvas = Canvas(title="pbmc3k", note="Random weights: this picture means nothing")
    figure = category_scatter(coordinates, CODES, LABELS, names=cell_names(10), canvas=canvas)
    assert "Random weights: this picture means nothing" in figure.layout.title.text


def test_points_shrink_and_fade_with_their_number() -> None:
    sizes, opacities = zip(*(point_style(n) for n in (100, 3_000, 30_000, 100_000)), strict=True)
    assert sorted(sizes, reverse=True) == list(sizes)
    assert sorted(opacities, reverse=True) == list(opacities)
    assert min(sizes) >= 1.6


def test_no_cells_make_an_empty_figure() -> None:
    none = np.zeros((0, 2))
    assert not category_scatter(none, np.zeros(0, dtype=int), [], names=[]).data
    assert len(value_scatter(none, np.zeros(0), value_label="x", names=[]).data[0].x) == 0


def test_a_large_file_is_drawn_by_a_fixed_subset() -> None:
    rows = drawn_rows(250_000)
    assert len(rows) == len(np.unique(rows)) == 100_000
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, drawn_rows(250_000))
    np.testing.assert_array_equal(drawn_rows(5), np.arange(5))


def test_in_a_narrow_place_the_title_leaves_room_for_the_tool_bar(coordinates: np.ndarray) -> None:
    wide, narrow = (
        category_scatter(coordinates, CODES, LABELS, names=cell_names(10), canvas=Canvas("cells", narrow=narrow))
        for narrow in (False, True)
    )
    assert narrow.layout.title.text == wide.layout.title.text
    lowered = (wide.layout.title.y - narrow.layout.title.y) * narrow.layout.height
    added = narrow.layout.margin.t - wide.layout.margin.t
    assert 20 < lowered <= added
    assert narrow.layout.legend.orientation == "h"
    assert narrow.layout.legend.y < 0
