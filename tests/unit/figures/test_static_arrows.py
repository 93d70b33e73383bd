"""Arrows of two points as files: where their heads are, whatever the shape of the picture."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.static import render
from scdiva_core.figures.static_style import CannotDrawError
from tests.unit.figures.test_static_kinds import RED, at, extent, pixels, sheet


def arrow(x: list[float], y: list[float], **options: Any) -> go.Scatter:
    """A thin red line with a large head, and a thick bar where it is told to end in one."""
    marker = {"symbol": "arrow", "size": [0, 20, 0], "angleref": "previous", "line": {"width": 4}}
    trace = go.Scatter(x=[*x, np.nan], y=[*y, np.nan], mode="lines+markers", line={"color": "red", "width": 1})
    return trace.update(marker=marker).update(**options)


def test_an_arrow_ends_at_its_second_point() -> None:
    left, right, top, bottom = extent(pixels(sheet(arrow([1, 8], [5, 5]))), RED)
    assert (left, right) == pytest.approx((at(1, 5)[0], at(8, 5)[0]), abs=2)
    assert bottom - top == pytest.approx(20 * 2 * np.cos(np.deg2rad(72)), abs=2), "plotly's head of this size"


def test_the_head_points_along_the_line_as_it_is_drawn() -> None:
    drawn = pixels(sheet(arrow([5, 5], [9, 2])))
    left, right, top, bottom = extent(drawn, RED)
    assert (top, bottom) == pytest.approx((at(5, 9)[1], at(5, 2)[1]), abs=2)
    red = np.abs(drawn - RED).max(axis=2) < 0.1
    assert red[bottom - 17].sum() > 2 * red[bottom - 5].sum(), "wide at its base, narrow at its tip"
    # In a range ten times as wide the same line is steep no more, and neither is its head.
    flat = sheet(arrow([0, 80], [4, 6])).update_xaxes(range=[0, 100])
    left, right, top, bottom = extent(pixels(flat), RED)
    assert right - left > 3 * (bottom - top)


def test_it_keeps_off_its_target() -> None:
    off = extent(pixels(sheet(arrow([1, 8], [5, 5]).update(marker={"standoff": [0, 15, 0]}))), RED)
    assert off[1] == pytest.approx(at(8, 5)[0] - 15, abs=2)


def test_a_bar_lies_across_the_end_and_the_line_stops_there() -> None:
    bar = arrow([1, 8], [5, 5]).update(marker={"symbol": "line-ew", "standoff": 10})
    drawn = pixels(sheet(bar))
    left, right, top, bottom = extent(drawn, RED)
    assert (right + right - 4) / 2 == pytest.approx(at(8, 5)[0] - 10, abs=2)
    assert bottom - top == pytest.approx(28, abs=3)
    assert (np.abs(drawn - RED).max(axis=2) < 0.3)[:, right + 2 :].sum() == 0


def test_dashes_and_a_faint_trace() -> None:
    whole, dashed = (
        pixels(sheet(arrow([1, 9], [5, 5]).update(line={"width": 3, "dash": d}))) for d in ("solid", "8px")
    )
    count = [(np.abs(drawn - RED).max(axis=2) < 0.2).sum() for drawn in (whole, dashed)]
    assert count[1] < 0.85 * count[0]
    pink = np.array([1, 0.5, 0.5])
    left, right, *_ = extent(pixels(sheet(arrow([1, 9], [5, 5]).update(opacity=0.5, line={"width": 5}))), pink)
    assert (left, right) == pytest.approx((at(1, 5)[0], at(9, 5)[0]), abs=3)


def test_several_arrows_are_one_trace_and_widen_a_free_range() -> None:
    trace = arrow([0, 10], [0, 0]).update(
        x=[0, 10, np.nan, 0, 40, np.nan], y=[0, 0, np.nan, 5, 5, np.nan], marker={"size": 10}
    )
    figure = sheet(trace).update_xaxes(range=None).update_yaxes(range=None)
    left, right, top, bottom = extent(pixels(figure), RED)
    assert right - left > 70
    assert bottom - top > 70


@pytest.mark.parametrize(
    ("trace", "words"),
    [
        (arrow([0, 1], [0, 1]).update(x=[0, 1, 2], y=[0, 1, 2]), "not of two points and a gap"),
        (arrow([0, 1], [0, 1]).update(marker={"symbol": "star"}), "the head 'star'"),
    ],
)
def test_other_arrows_are_refused(trace: go.Scatter, words: str) -> None:
    with pytest.raises(CannotDrawError, match=re.escape(words)):
        render(sheet(trace), "png")


def test_no_arrow_is_no_mistake() -> None:
    assert render(sheet(arrow([], [])), "png", width=100, height=100)
