"""What figures to come may hold: drawn like plotly draws it, or refused in words."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from scdiva_core.figures.layout import base_layout
from scdiva_core.figures.static import render
from scdiva_core.figures.static_style import CannotDrawError, css, dashes, number, symbol, weight
from tests.unit.figures.test_static import texts

RED, BLUE = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


def sheet(*traces: Any, **options: Any) -> go.Figure:
    """Figure on white without grid, its axes from 0 to 10 at the edges of 100 by 100 pixels."""
    figure = go.Figure(traces, layout=base_layout(title="", note="", height=100, dark=False))
    hidden = {"visible": False, "range": [0, 10]}
    margin = dict.fromkeys("lrtb", 0)
    return figure.update_layout({"xaxis": hidden, "yaxis": hidden, "margin": margin, "showlegend": False} | options)


def pixels(figure: go.Figure) -> np.ndarray:
    """RGB ``[100, 100, 3]``; the margins are the 6 pixels that stay free."""
    return matplotlib.image.imread(io.BytesIO(render(figure, "png", width=100, height=100, dpi=96)))[..., :3]


def extent(drawn: np.ndarray, colour: np.ndarray) -> tuple[int, int, int, int]:
    """Left, right, top and bottom pixel of a colour."""
    rows, columns = np.nonzero(np.abs(drawn - colour).max(axis=2) < 0.1)
    return int(columns.min()), int(columns.max()) + 1, int(rows.min()), int(rows.max()) + 1


def near(found: tuple[int, ...], expected: tuple[float, ...]) -> bool:
    return np.abs(np.subtract(found, expected)).max() <= 2


def at(x: float, y: float) -> tuple[float, float]:
    """Pixel of a point in the units of the axes."""
    return x * 8.8 + 6, 94 - y * 8.8


def box(x0: float, x1: float, y0: float, y1: float) -> tuple[float, float, float, float]:
    (left, top), (right, bottom) = at(x0, y1), at(x1, y0)
    return left, right, top, bottom


def test_grouped_bars_stand_beside_each_other() -> None:
    bars = [
        go.Bar(x=[2, 8], y=[height, height], marker={"color": colour}) for height, colour in ((4, "red"), (8, "blue"))
    ]
    drawn = pixels(sheet(*bars, bargap=0.5, barmode="group"))
    # Positions are 6 apart, half of it is gap: two bars of 1.5 around each.
    assert near(extent(drawn[:, :50], RED), box(0.5, 2, 0, 4))
    assert near(extent(drawn[:, :50], BLUE), box(2, 3.5, 0, 8))


def test_stacked_bars_lie_on_each_other_and_relative_ones_hang_below() -> None:
    bars = [go.Bar(x=[5], y=[height], width=2, marker={"color": c}) for height, c in ((3, "red"), (4, "blue"))]
    drawn = pixels(sheet(*bars, barmode="stack"))
    assert near(extent(drawn, RED), box(4, 6, 0, 3))
    assert near(extent(drawn, BLUE), box(4, 6, 3, 7))
    hanging = [
        go.Bar(y=[5], x=[x], width=2, orientation="h", marker={"color": c}) for x, c in ((3, "red"), (-4, "blue"))
    ]
    drawn = pixels(sheet(*hanging, barmode="relative", xaxis={"visible": False, "range": [-5, 5]}))
    assert near(extent(drawn, RED), box(5, 8, 4, 6))
    assert near(extent(drawn, BLUE), box(1, 5, 4, 6))


def test_a_heat_map_fills_its_fields_and_leaves_missing_ones_free() -> None:
    colours = [[0, "red"], [1, "blue"]]
    trace = go.Heatmap(z=[[0, np.nan], [np.nan, 1]], x=[2.5, 7.5], y=[2.5, 7.5], colorscale=colours, showscale=False)
    drawn = pixels(sheet(trace))
    assert near(extent(drawn, RED), box(0, 5, 0, 5))
    assert near(extent(drawn, BLUE), box(5, 10, 5, 10))


def test_markers_are_as_large_and_coloured_as_told() -> None:
    marker = {"size": [10, 40], "color": [0, 1], "colorscale": [[0, "red"], [1, "blue"]]}
    drawn = pixels(sheet(go.Scatter(x=[2, 7], y=[2, 5], mode="markers", marker=marker)))
    left, right, top, bottom = extent(drawn, BLUE)
    assert right - left == pytest.approx(40, abs=2)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(at(7, 5), abs=1.5)
    left, right, *_ = extent(drawn, RED)
    assert right - left == pytest.approx(10, abs=2)


def test_lines_error_bars_and_areas() -> None:
    trace = go.Scatter(x=[5], y=[5], mode="markers", marker={"size": 1, "color": "red"})
    trace.error_y = {"array": [3], "arrayminus": [1], "width": 0, "thickness": 4}
    assert near(extent(pixels(sheet(trace)), RED)[2:], box(5, 5, 4, 8)[2:])
    lines = [
        go.Scatter(x=[1, 9], y=[y, y], mode="lines", line={"width": 0}, fill=f) for y, f in ((2, None), (6, "tonexty"))
    ]
    lines[1].fillcolor = "blue"
    assert near(extent(pixels(sheet(*lines)), BLUE), box(1, 9, 2, 6))


def test_log_axes_and_categories() -> None:
    powers = sheet(go.Scatter(x=[10], y=[5], mode="markers", marker={"size": 10, "color": "red"}))
    powers.update_xaxes(type="log", range=[0, 2])
    left, right, *_ = extent(pixels(powers), RED)
    assert (left + right) / 2 == pytest.approx(50, abs=1.5)
    named = sheet(go.Bar(x=["a", "b"], y=[0, 5], width=1, marker={"color": "red"}))
    named.update_xaxes(range=None, autorange="reversed")
    assert extent(pixels(named), RED)[1] <= 51, "b stands on the left"


def test_shapes_in_units_of_the_axes_and_of_the_paper() -> None:
    rect = {"type": "rect", "x0": 2, "x1": 4, "y0": 0, "y1": 1, "yref": "paper", "fillcolor": "red", "line_width": 0}
    path = {"type": "path", "path": "M 6,2 L 8,2 V 5e0 H6 Z", "fillcolor": "blue", "line": {"width": 0}}
    drawn = pixels(sheet(go.Scatter(x=[0], y=[0], mode="markers", opacity=0), shapes=[rect, path]))
    assert near(extent(drawn, RED), box(2, 4, 0, 10))
    assert near(extent(drawn, BLUE), box(6, 8, 2, 5))


def test_arrows_lead_from_one_point_to_another() -> None:
    arrow = {
        "x": 8,
        "y": 5,
        "ax": 2,
        "ay": 5,
        "axref": "x",
        "ayref": "y",
        "arrowcolor": "red",
        "text": "",
        "arrowwidth": 4,
    }
    drawn = pixels(sheet(go.Scatter(x=[0], y=[0], mode="markers", opacity=0), annotations=[arrow]))
    left, right, *_ = extent(drawn, RED)
    assert (left, right) == pytest.approx((at(2, 5)[0], at(8, 5)[0]), abs=4)


def test_subplots_titles_ticks_and_a_second_axis_are_all_there() -> None:
    figure = make_subplots(1, 2, subplot_titles=("left one", "right one"), specs=[[{"secondary_y": True}, {}]])
    figure.add_scatter(x=[1, 2], y=[1, 2], name="first", row=1, col=1)
    figure.add_scatter(x=[1, 2], y=[1e6, 2e6], name="second", row=1, col=1, secondary_y=True)
    figure.add_scatter(x=[1, 2], y=[1, 2], mode="text", text=["here", "<b>there</b>"], showlegend=False, row=1, col=2)
    figure.add_heatmap(z=[[1, 2]], x=["a", "b"], y=[1], colorscale="RdBu", texttemplate="%{z:.1f}", row=1, col=2)
    figure.data[-1].colorbar.title.text = "change"
    figure.update_xaxes(type="linear", row=1, col=1, tickvals=[1, 2], ticktext=["one", "two"], title_text="steps")
    figure.update_layout(base_layout(title="all", note="", height=400, dark=False), legend_title_text="what")
    found = texts(render(figure, "svg"))
    for word in (
        "left one",
        "right one",
        "first",
        "second",
        "2M",
        "here",
        "there",
        "one",
        "steps",
        "change",
        "2.0",
        "what",
    ):
        assert word in found


def test_what_the_template_says_is_drawn_too() -> None:
    figure = sheet(go.Bar(x=[5], y=[5], width=4))
    figure.update_layout(
        template={"data": {"bar": [{"marker": {"color": "red"}}]}, "layout": {"paper_bgcolor": "blue"}}
    )
    assert near(extent(pixels(figure), RED), box(3, 7, 0, 5))


def test_a_flow_is_as_high_as_its_cells() -> None:
    link = {"source": [0, 0, 1], "target": [2, 3, 3], "value": [3, 1, 4], "color": "rgba(0,0,0,0)"}
    node = {"color": ["red", "blue", "red", "blue"], "thickness": 10, "pad": 20}
    drawn = pixels(sheet(go.Sankey(node=node, link=link)))
    # Eight cells and a gap of 20 in 100 units: ten units a cell.
    units = ((RED, (0, 10, 60, 100)), (BLUE, (0, 10, 0, 40)), (RED, (90, 100, 70, 100)), (BLUE, (90, 100, 0, 50)))
    for (colour, unit), half in zip(units, (0, 0, 50, 50), strict=True):
        left, right, top, bottom = box(*(value / 10 for value in unit))
        assert near(extent(drawn[:, half : half + 50], colour), (left - half, right - half, top, bottom))


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (go.Figure(go.Histogram(x=[1])), "of the kind 'histogram'"),
        (go.Figure(go.Scatter(x=[1], y=[1], mode="markers", marker={"symbol": "y-up"})), "symbol 'y-up'"),
        (go.Figure(go.Scatter(x=[1], y=[1], stackgroup="one")), "stacked areas"),
        (go.Figure(go.Scatter(x=[1], y=[1], line={"dash": "7%"})), "line style '7%'"),
        (go.Figure(go.Scatter(x=np.array(["2026-01-01"], dtype="M8[D]"), y=[1])), "dates"),
        (go.Figure(go.Bar(x=[1], y=[1]), layout={"barnorm": "percent"}), "scales to a sum"),
        (go.Figure(go.Heatmap(z=[[1]], colorscale="Viridis", zsmooth="best")), "smoothed"),
        (go.Figure(go.Violin(y=[1, 2], points="all")), "Violins with points"),
        (go.Figure(go.Sankey(link={"source": [0, 1], "target": [1, 0], "value": [1, 1]})), "circle"),
    ],
)
def test_what_is_not_known_is_refused_and_not_drawn_wrong(figure: go.Figure, words: str) -> None:
    with pytest.raises(CannotDrawError, match=re.escape(words)):
        render(figure, "png", dpi=30)


def test_numbers_without_a_colour_scale_are_refused() -> None:
    figure = sheet(go.Scatter(x=[1, 2], y=[1, 2], mode="markers", marker={"color": [1, 2]}))
    with pytest.raises(CannotDrawError, match="without a colour scale"):
        render(figure, "png")


@pytest.mark.parametrize(
    ("value", "form", "written"),
    [
        (0.25, ".0%", "25%"),
        (1234.5, ",.1f", "1,234.5"),
        (-0.5, ".2~f", "−0.5"),
        (10.0, ".1~f", "10"),
        (3.0, "d", "3"),
        (20000.0, None, "20k"),
        (1.5e6, None, "1.5M"),
        (0.30000000000000004, None, "0.3"),
        (1000.0, None, "1000"),
    ],
)
def test_numbers_are_written_as_plotly_writes_them(value: float, form: str | None, written: str) -> None:
    assert number(value, form) == written


def test_a_number_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(CannotDrawError, match="'%d'"):
        number(1.0, "%d")


def test_colours_dashes_symbols_and_weights() -> None:
    assert css("rgba(255,0,51,0.5)", 0.5) == pytest.approx((1, 0, 0.2, 0.25))
    assert css("transparent") == (0, 0, 0, 0)
    with pytest.raises(CannotDrawError, match="no-colour"):
        css("no-colour")
    assert dashes("solid", 2) == (0, None)
    assert dashes("dot", 1) == (0, (3, 3)), "dashes of a thin line are three pixels"
    assert dashes("4px,2px", 2) == (0, (2, 1))
    assert symbol("square-open")[2] is False
    assert (weight("<b>all</b>"), weight("<b>a</b> part")) == ("bold", "normal")
