"""Figures around a network: numbers, marks and words that they must show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.grn_panels import difference_scatter, head_agreement, honesty_intervals, module_heat
from scdiva_core.figures.palette import DARK, LIGHT
from scdiva_core.figures.static import render
from tests.unit.figures.test_static import texts
from tests.unit.figures.test_static_figures import picture

RATIOS = np.array([[1.25, 0.9], [np.nan, 1.0], [1.1, 1.05]])
SCORES = pd.DataFrame(
    [[2.0, -1.0, 2.1], [np.nan, 3.0, -1.0], [2.2, -1.1, 2.0], [-1.0, 2.8, -1.2]],
    index=["SPI1", "PAX5", "<CEBPA>", "EBF1"],
    columns=["CD14", "CD79A", "LYZ"],
)
HONESTY = pd.DataFrame(
    {
        "method": ["attention", "co-expression & more", "not measured"],
        "auprc_ratio": [1.1, 1.5, np.nan],
        "auprc_low": [0.95, 1.3, np.nan],
        "auprc_high": [1.3, 1.75, np.nan],
        "epr_ratio": [1.2, 2.0, np.nan],
        "epr_low": [0.9, 1.6, np.nan],
        "epr_high": [1.6, 2.5, np.nan],
    }
)
CHANGES = pd.DataFrame(
    [
        ("SPI1", "CD14", "both", 2.0, 1.5, -0.5),
        ("SPI1", "LYZ", "only a", 1.0, -0.5, -1.5),
        ("STAT1", "<ISG15>", "only b", 0.2, 2.2, 2.0),
        ("STAT1", "GONE", "only b", np.nan, 3.0, np.nan),
    ],
    columns=["regulator", "target", "where", "attention_a", "attention_b", "change"],
)

FULL: dict[str, tuple[Callable[..., go.Figure], tuple[str, ...]]] = {
    "heads": (
        lambda **options: head_agreement(RATIOS, chosen=[(0, 1)], reference="CollecTRI", **options),
        ("1.25", "0.90", "1.00", "layer", "head", "1 random", "AUPRC against CollecTRI", "framed: in use"),
    ),
    "module": (
        lambda **options: module_heat(SCORES, **options),
        ("SPI1", "<CEBPA>", "CD79A", "regulator", "target", "attention z", "4 regulators by 3 targets"),
    ),
    "honesty": (
        lambda **options: honesty_intervals(HONESTY, **options),
        (
            "attention",
            "co-expression & more",
            "AUPRC ratio",
            "early precision ratio",
            "2.00",
            "times as good as random",
        ),
    ),
    "difference": (
        lambda **options: difference_scatter(CHANGES, ("resting", "with <IFN>"), **options),
        (
            "attention z in resting",
            "attention z in with <IFN>",
            "only resting (1)",
            "STAT1 → <ISG15>",
            "3 edges; 1 that",
        ),
    ),
}
EMPTY: dict[str, Callable[..., go.Figure]] = {
    "No head was compared with the reference.": lambda: head_agreement(np.full((2, 2), np.nan)),
    "No cell shows a pair of this module.": lambda: module_heat(SCORES * np.nan),
    "No method was compared with the reference.": lambda: honesty_intervals(HONESTY.iloc[2:]),
    "The two sets share no edge.": lambda: difference_scatter(CHANGES.iloc[3:]),
}


@pytest.mark.parametrize("sentence", EMPTY)
def test_nothing_to_draw_is_said(sentence: str) -> None:
    figure = EMPTY[sentence]()
    assert [note.text for note in figure.layout.annotations] == [sentence]


@pytest.mark.parametrize("name", FULL)
def test_every_figure_says_whose_it_is_on_either_page(name: str) -> None:
    draw = FULL[name][0]
    figure = draw(title="B <cells>")
    assert figure.layout.title.text.startswith("B &lt;cells&gt;<br>")
    assert figure.layout.paper_bgcolor == LIGHT.background
    assert draw(title="x", dark=True).layout.paper_bgcolor == DARK.background


@pytest.mark.parametrize("width", [800, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", FULL)
def test_a_figure_is_whole_as_a_file(name: str, dark: bool, width: int) -> None:
    draw, words = FULL[name]
    figure = draw(title="B cells", dark=dark)
    svg = texts(render(figure, "svg", width=width, height=int(figure.layout.height))).replace("\n", " ")
    found = " ".join(svg.split())
    assert [word for word in words if word not in found] == []
    drawn = picture(figure, width)
    other = np.abs(drawn - drawn[0, 0]).max(axis=2) > 0.1
    assert not any(edge.any() for edge in (other[:2], other[-2:], other[:, :2], other[:, -2:])), "nothing is cut"


def test_random_has_no_colour_whichever_way_the_others_lie() -> None:
    heat = head_agreement(RATIOS).data[0]
    assert (heat.zmin + heat.zmax) / 2 == 1
    assert (heat.zmin, heat.zmax) == pytest.approx((0.75, 1.25))
    assert heat.colorscale[1] == (0.5, LIGHT.background)
    assert list(map(list, heat.text)) == [["1.25", "0.90"], ["", "1.00"], ["1.10", "1.05"]]


def test_heads_in_use_are_framed_and_counted_from_one() -> None:
    figure = head_agreement(RATIOS, chosen=[(0, 1), (2, 0)])
    frames = [(shape.x0, shape.x1, shape.y0, shape.y1) for shape in figure.layout.shapes]
    assert frames == [(0.5, 1.5, -0.5, 0.5), (-0.5, 0.5, 1.5, 2.5)]
    assert figure.data[0].customdata[2][0] == "layer 3, head 1"
    assert list(figure.layout.yaxis.range) == [2.5, -0.5], "the first layer on top"


def test_a_module_has_those_alike_beside_each_other_and_its_longer_side_down() -> None:
    heat = module_heat(SCORES).data[0]
    figure = module_heat(SCORES)
    rows, columns = list(figure.layout.yaxis.ticktext), list(figure.layout.xaxis.ticktext)
    assert {frozenset(rows[:2]), frozenset(rows[2:])} == {
        frozenset({"SPI1", "&lt;CEBPA&gt;"}),
        frozenset({"PAX5", "EBF1"}),
    }
    assert abs(columns.index("CD14") - columns.index("LYZ")) == 1
    for row, regulator in enumerate(rows):
        for column, target in enumerate(columns):
            value = SCORES.loc[regulator.replace("&lt;", "<").replace("&gt;", ">"), target]
            assert heat.z[row][column] == pytest.approx(value, nan_ok=True)
            assert heat.customdata[row][column] == f"{regulator} → {target}"
    turned = module_heat(SCORES.T)
    assert turned.layout.yaxis.title.text == "target", "now the targets are more"
    assert turned.data[0].customdata[0][0].endswith(f"→ {turned.layout.yaxis.ticktext[0]}")
    assert -heat.zmin == heat.zmax <= 3


def test_names_that_find_no_room_are_left_to_the_hover_text() -> None:
    wide = pd.DataFrame(np.arange(40.0 * 20).reshape(40, 20) % 7)
    shown, hidden = module_heat(wide), module_heat(wide, narrow=True)
    assert len(set(shown.layout.xaxis.ticktext)) == 20
    assert set(hidden.layout.xaxis.ticktext) == {""}
    assert hidden.layout.xaxis.title.text == "20 targets"
    assert len(set(hidden.layout.yaxis.ticktext)) == 40
    one = module_heat(SCORES.iloc[:1])
    assert set(one.layout.yaxis.ticktext) == {"CD14", "LYZ", "CD79A"}
    assert np.shape(one.data[0].z) == (3, 1)


def test_each_method_has_both_ratios_with_their_intervals_and_random_is_a_line() -> None:
    figure = honesty_intervals(HONESTY)
    auprc, epr = (trace for trace in figure.data if trace.mode == "markers")
    assert (auprc.name, epr.name) == ("AUPRC ratio", "early precision ratio")
    assert auprc.marker.symbol != epr.marker.symbol
    assert list(auprc.x) == [1.1, 1.5]
    assert list(auprc.error_x.array) == pytest.approx([0.2, 0.25])
    assert list(epr.error_x.arrayminus) == pytest.approx([0.3, 0.4])
    assert list(np.floor(np.array(auprc.y) + 0.5)) == [1, 0], "the first on top"
    assert auprc.customdata[1] == "<b>co-expression &amp; more</b><br>AUPRC ratio 1.50 (1.30 to 1.75)"
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1, line.line.dash) == (1, 1, "dot")
    assert figure.layout.xaxis.range[1] > 2.5, "room for the longest interval"


def test_a_difference_shows_which_set_has_an_edge() -> None:
    figure = difference_scatter(CHANGES, ("resting", "treated"))
    points = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert points == {
        "both (1)": ([2.0], [1.5]),
        "only resting (1)": ([1.0], [-0.5]),
        "only treated (1)": ([0.2], [2.2]),
    }
    assert len({trace.marker.symbol for trace in figure.data}) == 3
    assert figure.layout.xaxis.range == figure.layout.yaxis.range
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (line.y0, line.y1) == tuple(figure.layout.xaxis.range), "no change"
    assert figure.data[2].text[0] == "STAT1 → &lt;ISG15&gt;"
    everything = difference_scatter(CHANGES.iloc[:3])
    assert "are not drawn" not in everything.layout.title.text
