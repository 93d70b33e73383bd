"""Figures as files: complete, readable and the same each time."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.scatter import Canvas, category_scatter, value_scatter
from scdiva_core.figures.static import render
from scdiva_core.figures.static_style import plain
from scdiva_core.figures.violin import violins

GENERATOR = np.random.default_rng(0)
XY = GENERATOR.normal(size=(200, 2))
NAMES = [f"cell{index}" for index in range(200)]


def categories(**options: object) -> go.Figure:
    codes = np.arange(200) % 3
    return category_scatter(XY, codes, ["T & B", "<NK>", "$5 cell"], names=NAMES, **options)


def texts(svg: bytes) -> str:
    return " ".join("".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("text"))


def test_png_has_the_size_and_the_colours_of_the_figure() -> None:
    picture = matplotlib.image.imread(io.BytesIO(render(categories(), "png", width=480, height=384, dpi=96)))
    assert picture.shape[:2] == (384, 480)
    blue = np.array([0x3A, 0x7C, 0xC9]) / 255
    assert (np.abs(picture[..., :3] - blue).max(axis=2) < 0.1).sum() > 50


def test_png_is_for_print_by_default() -> None:
    picture = matplotlib.image.imread(io.BytesIO(render(categories(), "png", width=480, height=384)))
    assert picture.shape[:2] == (1200, 1500)


def test_svg_keeps_text_and_makes_one_picture_of_the_points() -> None:
    figure = categories(canvas=Canvas(title="pbmc3k & co", note="Provisional weights"), names_on_picture=True)
    svg = render(figure, "svg")
    found = texts(svg)
    for text in ("pbmc3k & co", "Provisional weights", "UMAP 1", "T & B", "<NK>", "$5 cell"):
        assert text in found
    assert len(svg) < 300_000
    assert svg.count(b"<image") == 1


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert render(categories(), "svg") == render(categories(), "svg")
    assert render(categories(), "png", dpi=72) == render(categories(), "png", dpi=72)


def test_settings_that_others_left_behind_change_nothing() -> None:
    before = render(categories(), "png", width=480, height=384, dpi=96)
    with matplotlib.rc_context({"font.size": 20, "legend.frameon": True, "legend.handlelength": 9.0}):
        assert render(categories(), "png", width=480, height=384, dpi=96) == before
        assert matplotlib.rcParams["font.size"] == 20, "they stay as they were"


def test_values_have_a_colour_bar_with_their_unit() -> None:
    figure = value_scatter(XY, XY[:, 0], value_label="CD3D, log1p", names=NAMES)
    assert "CD3D, log1p" in texts(render(figure, "svg"))


def test_a_dark_figure_stays_dark() -> None:
    picture = matplotlib.image.imread(io.BytesIO(render(categories(canvas=Canvas(dark=True)), "png", dpi=50)))
    assert picture[0, 0, :3].max() < 0.2


def test_violins_are_drawn_with_their_labels() -> None:
    figure = violins({"Counts a cell": np.abs(XY[:, 0]) * 100, "% mitochondrial": np.zeros(200)}, title="QC")
    found = texts(render(figure, "svg"))
    for text in ("QC", "Counts a cell", "% mitochondrial"):
        assert text in found


def test_violins_leave_missing_values_out() -> None:
    figure = violins({"Counts a cell": np.array([1.0, np.nan, 3.0])})
    assert list(figure.data[0].y) == [1.0, 3.0]
    assert render(figure, "png", dpi=50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<br><span style='color:red'>b</span>", "a\nb"),
        ("&lt;b&gt; &amp; c", "<b> & c"),
        (None, ""),
    ],
)
def test_markup_of_plotly_is_resolved(text: str | None, expected: str) -> None:
    assert plain(text) == expected
