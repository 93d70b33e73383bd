"""What a picture of very many cells shows, pixel by pixel, and that it keeps the frame of the small view."""

from __future__ import annotations

import base64
import io

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from scdiva_core.figures.palette import LIGHT, category_style
from scdiva_core.figures.raster import Window, category_raster, value_raster
from scdiva_core.figures.scatter import Canvas, category_scatter, value_scatter
from scdiva_core.figures.static import CannotDrawError, render

XY = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0], [5.0, 5.0]])
CODES = np.array([0, 1, 2, -1, 0])
LABELS = ["T", "B", "NK"]


def picture(figure: go.Figure) -> np.ndarray:
    """The layout image, float ``[rows, columns, 4]``."""
    return imread(io.BytesIO(base64.b64decode(figure.layout.images[0].source.split(",")[1])), format="png")


def at(figure: go.Figure, x: float, y: float) -> np.ndarray:
    """Red, green, blue and opacity, 0 to 255, of the pixel at a place of the map."""
    image = figure.layout.images[0]
    pixels = picture(figure)
    rows, columns, _ = pixels.shape
    row, column = (image.y - y) / image.sizey * rows, (x - image.x) / image.sizex * columns
    return np.round(255 * pixels[int(row), int(column)])


def colour(name: str) -> np.ndarray:
    return np.round(255 * np.array(to_rgb(name)))


def test_each_cell_is_where_it_is_in_the_colour_of_its_category() -> None:
    figure = category_raster(XY, CODES, LABELS)
    for place, code in zip(XY[:3], CODES[:3], strict=True):
        np.testing.assert_array_equal(at(figure, *place)[:3], colour(category_style(code)[0]))
    np.testing.assert_array_equal(at(figure, 10, 10)[:3], colour(LIGHT.missing))
    assert at(figure, 5, 1)[3] == 0


def test_a_pixel_has_the_colour_of_most_of_its_cells_and_grey_ones_lie_below() -> None:
    crowd = np.concatenate([np.tile([5.0, 5.0], (6, 1)), [[0.0, 0.0], [10.0, 10.0]]])
    codes = np.array([2, 1, 2, -1, -1, -1, 0, 0])
    figure = category_raster(crowd, codes, LABELS)
    np.testing.assert_array_equal(at(figure, 5, 5)[:3], colour(category_style(2)[0]))
    assert at(figure, 5, 5)[3] > at(figure, 0, 0)[3], "three cells are stronger than one"


def test_a_filter_dims_what_it_leaves_out() -> None:
    figure = category_raster(XY, CODES, LABELS, shown=CODES == 1)
    np.testing.assert_array_equal(at(figure, 0, 0), [*colour(LIGHT.dimmed), 255])
    np.testing.assert_array_equal(at(figure, 10, 0)[:3], colour(category_style(1)[0]))
    assert [trace.name for trace in figure.data if trace.name and trace.showlegend is not False] == ["B · 1"]


def test_axes_title_and_names_are_those_of_the_small_view() -> None:
    canvas = Canvas(title="1 M", axes=("a", "b"), note="Provisional", dark=True, narrow=True)
    small = category_scatter(XY, CODES, LABELS, names=[""] * 5, names_on_picture=True, canvas=canvas)
    large = category_raster(XY, CODES, LABELS, names_on_picture=True, canvas=canvas)
    assert large.layout.title == small.layout.title
    assert (large.layout.xaxis, large.layout.yaxis) == (small.layout.xaxis, small.layout.yaxis)
    assert [(note.text, note.x, note.y) for note in large.layout.annotations] == [
        (note.text, note.x, note.y) for note in small.layout.annotations
    ]
    assert {trace.name: trace.legendrank for trace in small.data} == {
        trace.name.split(" · ")[0]: trace.legendrank for trace in large.data if trace.name
    }


def test_the_legend_counts_the_cells_and_a_click_on_it_does_nothing() -> None:
    figure = category_raster(XY, CODES, LABELS)
    named = {trace.name for trace in figure.data if trace.showlegend is not False}
    assert named == {"T · 2", "B · 1", "NK · 1", "no label · 1"}
    assert figure.layout.legend.itemclick is False
    assert all(x is None for trace in figure.data if trace.name for x in trace.x)


def test_more_colours_than_there_are_become_shades_and_more_than_those_one_grey() -> None:
    labels = [f"type {index}" for index in range(90)]
    codes = np.concatenate([np.repeat(np.arange(71), 3), np.arange(71, 90)])
    xy = np.column_stack([codes % 10, codes // 10]).astype(float)
    figure = category_raster(xy, codes, labels)
    named = [trace for trace in figure.data if trace.showlegend is not False]
    assert len(named) == 72
    assert {trace.name for trace in named} >= {"type 70 · 3", "other (19 categories) · 19"}
    colours = [trace.marker.color for trace in named]
    assert len(set(colours)) == 72
    np.testing.assert_array_equal(at(figure, *xy[-1])[:3], colour(LIGHT.missing))


def test_numbers_are_means_on_the_scale_of_the_small_view() -> None:
    xy = np.array([[0, 0], [10, 0], [10, 10], [10, 10], [0, 10]], float)
    values = np.array([0.0, 8.0, 2.0, 6.0, np.nan])
    figure = value_raster(xy, values, value_label="score")
    small = value_scatter(xy, values, value_label="score", names=[""] * 5)
    bar = next(trace for trace in figure.data if trace.marker.colorscale is not None).marker
    assert bar.to_plotly_json()["colorbar"] == small.data[-1].marker.to_plotly_json()["colorbar"]
    assert (bar.cmin, bar.cmax) == (0, 8)
    np.testing.assert_allclose(at(figure, 0, 0)[:3], colour("#440154"), atol=1)
    np.testing.assert_allclose(at(figure, 10, 0)[:3], colour("#fde725"), atol=1)
    np.testing.assert_allclose(at(figure, 10, 10)[:3], colour("#21918c"), atol=4)  # 4, half way
    np.testing.assert_array_equal(at(figure, 0, 10)[:3], colour(LIGHT.missing))
    assert [trace.name for trace in figure.data if trace.showlegend is not False and trace.name] == ["no value · 1"]


def test_a_part_keeps_the_scale_of_the_whole_and_leaves_the_others_out() -> None:
    values = np.array([0.0, 8.0, 2.0, 6.0, 4.0])
    figure = value_raster(XY, values, value_label="score", window=Window(-1, 6, -1, 6))
    assert list(figure.layout.xaxis.range) == [-1, 6]
    bar = next(trace for trace in figure.data if trace.marker.colorscale is not None).marker
    assert (bar.cmin, bar.cmax) == (0, 8)
    np.testing.assert_allclose(at(figure, 5, 5)[:3], colour("#21918c"), atol=4)
    drawn = category_raster(XY, CODES, LABELS, window=Window(-1, 6, -1, 6))
    assert {trace.name for trace in drawn.data if trace.showlegend is not False} == {"T · 2"}


def test_what_is_sent_stays_below_a_megabyte() -> None:
    rng = np.random.default_rng(0)
    xy, values = rng.random((400_000, 2)), rng.random(400_000)  # noise over the whole picture: the worst there is
    assert len(value_raster(xy, values, value_label="v").to_json()) < 1_000_000
    assert picture(value_raster(xy, values, value_label="v", fine=True)).shape[:2] == (2000, 3200)


@pytest.mark.parametrize("shown", [None, np.zeros(5, bool)])
def test_nothing_to_see_is_still_a_picture(shown: np.ndarray | None) -> None:
    nowhere = np.full((5, 2), np.nan)
    assert category_raster(nowhere, CODES, LABELS, shown=shown).layout.images
    assert value_raster(nowhere, np.full(5, np.nan), value_label="v", shown=shown).layout.images


def test_it_can_be_drawn_around() -> None:
    points = category_raster(XY, CODES, LABELS).data[-1]
    assert (len(points.x), points.marker.opacity, points.mode) == (2, 0, "markers")


def test_a_browser_need_not_start_webgl_for_it() -> None:
    drawn = category_raster(XY, CODES, LABELS), value_raster(XY, np.arange(5.0), value_label="n")
    assert {trace.type for figure in drawn for trace in figure.data} == {"scatter"}


def test_for_print_the_picture_lies_where_it_lies_on_the_page() -> None:
    figure = category_raster(XY, CODES, LABELS, canvas=Canvas(title="all", point_size=3), fine=True)
    drawn = imread(io.BytesIO(render(figure, "png", dpi=96)), format="png")[:, :, :3]
    blue = np.argwhere(np.abs(255 * drawn - colour(category_style(1)[0])).max(axis=2) < 90)
    assert len(blue), "the cell at the right, below, is there"
    assert b"<image" in render(figure, "svg")


def test_a_picture_from_elsewhere_is_not_fetched_for_print() -> None:
    figure = go.Figure(go.Scatter(x=[0], y=[0]))
    figure.add_layout_image(source="https://example.org/a.png", xref="x", yref="y", x=0, y=1, sizex=1, sizey=1)
    with pytest.raises(CannotDrawError, match="cannot be drawn for print"):
        render(figure, "png")
