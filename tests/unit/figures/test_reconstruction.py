"""Figures of rebuilt cells: every number is drawn once, leaks are told, and nothing to draw is said in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.palette import DARK, category_style
from scdiva_core.figures.reconstruction import gene_errors, mask_curve, method_dots, profile_scatter, type_bars
from scdiva_core.figures.static import render

METHODS = (("model", "place", False), ("model, leak", "place", True), ("<kNN>", "gene", False))
TABLE = pd.DataFrame(
    [
        {"mask": mask, "method": name, "told": told, "leaks": leaks, "n": 20}
        | {"mse": 0.1 * (place + 1) + mask, "mse_low": 0.1 * place + mask, "mse_high": 0.1 * (place + 3) + mask}
        | {f"identity{part}": np.nan if told == "gene" else mask / 2 for part in ("", "_low", "_high")}
        for mask in (0.5, 0.15)
        for place, (name, told, leaks) in enumerate(METHODS)
    ]
)
PROFILE = pd.DataFrame(
    {
        "symbol": ["A", "<B>", "C", "D"],
        "place": [1, 2, 3, 4],
        "value": [4.0, 3.0, 2.0, 1.0],
        "hidden": [True, False, True, True],
        "rebuilt_symbol": ["A", "", "<B>", "X"],
        "rebuilt_value": [3.9, np.nan, 2.2, 1.1],
        "named_value": [3.5, np.nan, 1.5, 0.5],
        "neighbour_value": [4.5, np.nan, 2.5, 1.5],
    }
)
GENES = pd.DataFrame(
    {
        "symbol": ["GOOD", "BAD<", "SAME"],
        "n": [9, 8, 7],
        "mse: ours": [0.04, 0.81, 0.25],
        "mse: theirs": [0.36, 0.09, 0.25],
    }
)
TYPES = pd.DataFrame(
    [
        {"group": group, "method": name, "n": n, "mse": mse + n / 100, "r2": np.nan}
        for group, n in (("few & rare", 1), ("many", 9))
        for name, mse in (("ours", 0.1), ("theirs", 0.2), ("third", 0.3))
    ]
)


def test_each_method_has_a_line_with_its_numbers_and_intervals() -> None:
    figure = mask_curve(TABLE, "mse", title="blood & lung")
    assert [trace.name for trace in figure.data] == ["model", "model, leak", "&lt;kNN&gt;"]
    for place, trace in enumerate(figure.data):
        np.testing.assert_allclose(trace.y, [0.25 + 0.1 * place, 0.6 + 0.1 * place])
        np.testing.assert_allclose(trace.x, [0.15, 0.5], atol=0.02)
        np.testing.assert_allclose(trace.error_y.array, 0.2)
        np.testing.assert_allclose(trace.error_y.arrayminus, 0.1)
        assert trace.customdata[0].startswith("15% hidden, 20 cells: ")
    assert len({trace.x[0] for trace in figure.data}) == 3, "beside each other"
    assert figure.layout.title.text.startswith("blood &amp; lung<br>")
    assert list(figure.layout.xaxis.ticktext) == ["15%", "50%"]


def test_leaks_are_told_by_line_and_words() -> None:
    figure = mask_curve(TABLE, "mse")
    assert [trace.line.dash for trace in figure.data] == ["solid", "dot", "solid"]
    assert [trace.marker.symbol.endswith("-open") for trace in figure.data] == [False, True, False]
    assert "hidden content leaks" in figure.layout.title.text.replace("<br>", " ")
    assert "leaks" not in mask_curve(TABLE[~TABLE["leaks"]], "mse").layout.title.text


def test_what_a_method_lacks_is_left_out_and_colours_stay() -> None:
    assert [trace.name for trace in mask_curve(TABLE, "identity").data] == ["model", "model, leak"]
    (alone,) = mask_curve(TABLE, "mse", told="gene").data
    assert alone.line.color == category_style(2)[0]


def test_a_phone_has_room_for_a_legend_of_one_method_a_line() -> None:
    wide, narrow = (mask_curve(TABLE, "mse", narrow=narrow).layout for narrow in (False, True))
    assert narrow.margin.t > wide.margin.t
    assert narrow.height - narrow.margin.t == wide.height - wide.margin.t


def test_with_one_share_each_method_has_a_row_of_its_own() -> None:
    figure = method_dots(TABLE[TABLE["mask"] == 0.5], "mse", title="blood & lung")
    assert [trace.x[0] for trace in figure.data] == pytest.approx([0.6, 0.7, 0.8])
    assert [trace.error_x.array[0] for trace in figure.data] == pytest.approx([0.2] * 3)
    assert [trace.error_x.arrayminus[0] for trace in figure.data] == pytest.approx([0.1] * 3)
    assert [trace.y[0] for trace in figure.data] == [2, 1, 0]
    assert [trace.marker.symbol.endswith("-open") for trace in figure.data] == [False, True, False]
    assert [note.text for note in figure.layout.annotations] == [
        "model: 0.600",
        "model, leak: 0.700",
        "&lt;kNN&gt;: 0.800",
    ]
    (alone,) = method_dots(TABLE[TABLE["mask"] == 0.5], "mse", told="gene").data
    assert alone.marker.color == category_style(2)[0], "as in the curve"


def test_a_profile_shows_hidden_tokens_by_every_reading() -> None:
    figure = profile_scatter(PROFILE, title="cell <1>")
    assert [trace.name for trace in figure.data] == ["at its place, rank known", "gene named", "kNN imputation"]
    for trace, column in zip(figure.data, ("rebuilt_value", "named_value", "neighbour_value"), strict=True):
        assert list(trace.x) == [4, 2, 1]
        assert list(trace.y) == PROFILE.loc[PROFILE["hidden"], column].tolist()
    assert "3 of 4 genes hidden, 1 named rightly" in figure.layout.title.text
    assert figure.data[0].customdata[1] == "<b>C</b>, rank 3, true 2.00<br>named &lt;B&gt; at this place"


def test_genes_lie_on_the_side_of_the_better_method() -> None:
    figure = gene_errors(GENES, "ours", "theirs")
    better, worse = figure.data
    assert (better.name, worse.name) == ("better by ours (1)", "better by theirs (2)")
    assert (list(better.text), list(worse.text)) == (["GOOD"], ["BAD&lt;", "SAME"])
    np.testing.assert_allclose([better.x[0], better.y[0]], [0.6, 0.2])
    np.testing.assert_allclose([worse.x[0], worse.y[0]], [0.3, 0.9])
    assert {note.text for note in figure.layout.annotations} >= {"GOOD", "BAD&lt;"}
    assert figure.layout.xaxis.range == figure.layout.yaxis.range


def test_types_have_a_bar_for_each_method_the_largest_first() -> None:
    figure = type_bars(TYPES, "mse", ["theirs", "ours"])
    assert [bar.name for bar in figure.data] == ["theirs", "ours"]
    np.testing.assert_allclose(figure.data[1].x, [0.19, 0.11])
    assert figure.data[1].y[0] > figure.data[1].y[1]
    assert [note.text for note in figure.layout.annotations] == ["many (9 cells)", "few &amp; rare (1 cell)"]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 2, "told without colour"


EMPTY: dict[str, Any] = {
    "No method has this measure.": mask_curve(TABLE[TABLE["told"] == "gene"], "identity"),
    "No method has this measure.  ": method_dots(TABLE[TABLE["told"] == "gene"], "identity"),
    "Nothing of this cell was hidden.": profile_scatter(PROFILE.assign(hidden=False)),
    "No gene was hidden often enough.": gene_errors(GENES[:0], "ours", "theirs"),
    "No method has this measure. ": type_bars(TYPES, "r2", ["ours"]),
}


@pytest.mark.parametrize("words", EMPTY)
def test_nothing_to_draw_is_said(words: str) -> None:
    figure = EMPTY[words]
    assert not figure.data
    assert figure.layout.annotations[0].text == words.strip()


@pytest.mark.parametrize(
    "figure",
    [
        mask_curve(TABLE, "mse", title="curve", dark=True),
        profile_scatter(PROFILE, title="curve", dark=True),
        gene_errors(GENES, "ours", "theirs", title="curve", dark=True),
        type_bars(TYPES, "mse", ["ours", "theirs", "third"], title="curve", dark=True),
    ],
)
def test_dark_pages_and_print(figure: go.Figure) -> None:
    assert figure.layout.paper_bgcolor == DARK.background
    height = figure.layout.height
    assert render(figure, "png", width=400, height=height, dpi=60).startswith(b"\x89PNG")
    drawn = render(figure, "svg", width=400, height=height).decode()
    assert "curve" in drawn
    assert "log1p" in drawn
