"""Methods beside each other: every score has its dot, and dots can be told apart without colour."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.evaluation import Dots, dot_plot
from scdiva_core.figures.palette import DARK, category_style

ROWS = ["Blood <3k>", "Lung", "Mean over sets"]
METHODS = (
    Dots(
        "ScDiVa", np.array([0.90, 0.96, 0.93]), ["0.900 ± 0.010", "0.960 ± 0.010", "0.930 ± 0.007"], 0, prominent=True
    ),
    Dots("Harmony", np.array([np.nan, 0.91, np.nan]), ["", "0.910 <x>", ""], 3),
    Dots("PCA", np.array([0.92, 0.94, 0.93]), ["0.920", "0.940", "0.930"], 1, prominent=True),
)


@pytest.fixture
def drawn() -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in dot_plot(ROWS, METHODS, axis="kNN accuracy").data}


def test_every_score_has_a_dot_in_its_row(drawn: dict[str, go.Scatter]) -> None:
    assert list(zip(drawn["ScDiVa"].y, drawn["ScDiVa"].x, strict=True)) == [(2, 0.90), (1, 0.96), (0, 0.93)]
    assert (list(drawn["Harmony"].y), list(drawn["Harmony"].x)) == ([1], [0.91])


def test_what_is_said_of_a_dot_is_its_own(drawn: dict[str, go.Scatter]) -> None:
    assert list(drawn["Harmony"].customdata) == ["0.910 &lt;x&gt;"]
    assert drawn["PCA"].customdata[1] == "0.940"


def test_prominent_methods_are_larger_and_over_the_others(drawn: dict[str, go.Scatter]) -> None:
    assert list(drawn) == ["Harmony", "PCA", "ScDiVa"], "drawn in this order"
    assert drawn["PCA"].marker.size > drawn["ScDiVa"].marker.size > drawn["Harmony"].marker.size
    assert sorted(drawn, key=lambda name: drawn[name].legendrank) == ["ScDiVa", "Harmony", "PCA"]


def test_colour_and_shape_follow_the_style_and_not_the_place(drawn: dict[str, go.Scatter]) -> None:
    assert drawn["Harmony"].marker.color == category_style(3)[0]
    (alone,) = dot_plot(ROWS, [METHODS[1]], axis="").data
    assert alone.marker.symbol == drawn["Harmony"].marker.symbol
    nine = dot_plot(["a"], [Dots(str(i), np.ones(1), ["1"], i) for i in range(9)], axis="").data
    assert len({trace.marker.symbol for trace in nine}) == len({trace.marker.color for trace in nine}) == 9


def test_rows_are_named_above_their_dots_and_the_axis_below() -> None:
    figure = dot_plot(ROWS, METHODS, axis="A < B")
    assert [(label.text, label.y) for label in figure.layout.annotations] == [
        ("Blood &lt;3k&gt;", 2),
        ("Lung", 1),
        ("Mean over sets", 0),
    ]
    assert figure.layout.xaxis.title.text == "A &lt; B"
    assert figure.layout.xaxis.fixedrange, "a phone scrolls the page, not the figure"
    assert dot_plot(ROWS[:1], (), axis="").layout.height < figure.layout.height


def test_a_phone_gets_room_for_its_legend() -> None:
    wide, narrow = (dot_plot(ROWS, METHODS, axis="", narrow=narrow).layout for narrow in (False, True))
    assert narrow.height - wide.height == narrow.legend.maxheight - wide.legend.maxheight > 0


def test_dark_pages() -> None:
    figure = dot_plot(ROWS, METHODS, axis="", dark=True)
    assert figure.layout.paper_bgcolor == DARK.background
    assert {trace.name: trace.marker.color for trace in figure.data}["PCA"] == category_style(1, dark=True)[0]
