"""Figures of perturbations: every number is drawn once, told without colour, and nothing to draw is said in words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.palette import DARK, LIGHT
from scdiva_core.figures.perturbation import arrow_map, directions_heat, expression_volcano, transition_sankey
from scdiva_core.figures.perturbation_bars import group_bars, null_histogram, ranked_bars, screen_chart

POINTS = np.array([[0, 0], [4, 0], [0, 3], [4, 3]], float)
FIELD = pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 1.0], "dx": [0.0, -0.3], "dy": [0.5, 0.4], "n": [1, 20]})
CONTROL = pd.DataFrame({"x": [2.0], "y": [2.0], "dx": [0.1], "dy": [0.0], "n": [9]})
CONTROL.attrs["words"] = "a matched <gene>"

GROUPS = pd.DataFrame(
    {
        "group": ["T & B", "mono", "few", "none"],
        "n": [50, 1, 4, 0],
        "mean": [0.01, 0.03, 0.02, np.nan],
        "null_mean": [0.011, 0.012, np.nan, np.nan],
        "null_low": [0.005, 0.006, np.nan, np.nan],
        "null_high": [0.02, 0.05, np.nan, np.nan],
        "p": [0.6, 0.01, np.nan, np.nan],
        "q": [0.6, 0.02, np.nan, np.nan],
    }
)

DIRECTIONS = pd.DataFrame(
    {
        "own": ["B", "B", "T", "T"],
        "target": ["B", "T", "B", "T"],
        "n": [30, 30, 5, 5],
        "mean": [-0.02, 0.01, 0.004, 0.0],
        "null_mean": [-0.001, 0.002, np.nan, np.nan],
        "p": [0.01, 0.3, np.nan, np.nan],
        "q": [0.02, 0.3, np.nan, np.nan],
        "word": ["away", "neither", "not tested", "not tested"],
    }
)

FLOWS = pd.DataFrame({"from": ["A<", "A<", "B"], "to": ["A<", "B", "B"], "n": [6, 2, 4]})

GENES = pd.DataFrame(
    {
        "symbol": ["UP", "<b>DOWN", "FLAT", "UNTESTED"],
        "change": [0.4, -0.6, 0.001, 0.9],
        "effect": [0.1, 0.05, 0.001, np.nan],
        "detection": [0.5, 0.01, 1.0, 0.0],
        "q": [0.01, 0.05, 0.8, np.nan],
    }
)

EMPTY: dict[str, Callable[[], go.Figure]] = {
    "In no part of the map do enough cells move to draw an arrow.": lambda: arrow_map(
        POINTS, FIELD.iloc[:0], CONTROL, title="x"
    ),
    "No group has a cell that reads the gene.": lambda: group_bars(GROUPS.iloc[3:]),
    "No cell reads the gene.": lambda: transition_sankey(FLOWS.iloc[:0]),
    "No predicted change was tested.": lambda: expression_volcano(GENES.assign(q=np.nan)),
    "There is no random gene to compare with.": lambda: null_histogram([np.nan], 0.1, np.nan),
    "No gene of the screen has an effect to draw.": lambda: screen_chart(GENES.iloc[3:]),
    "There is no gene to rank.": lambda: ranked_bars(GENES.iloc[3:], "effect", axis="shift"),
}

FULL: dict[str, Callable[..., go.Figure]] = {
    "arrows": lambda **theme: arrow_map(POINTS, FIELD, CONTROL, **theme),
    "groups": lambda **theme: group_bars(GROUPS, **theme),
    "heat": lambda **theme: directions_heat(DIRECTIONS, **theme),
    "volcano": lambda **theme: expression_volcano(GENES, **theme),
    "null": lambda **theme: null_histogram(np.linspace(0.01, 0.02, 100), 0.05, 0.0099, **theme),
    "sankey": lambda **theme: transition_sankey(FLOWS, **theme),
    "screen": lambda **theme: screen_chart(GENES, **theme),
    "ranked": lambda **theme: ranked_bars(GENES, "change", axis="change", **theme),
}


def traces(figure: go.Figure) -> dict[str, go.Bar | go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.name}


def shown(figure: go.Figure) -> str:
    return figure.layout.title.text.replace("<br>", " ")


@pytest.mark.parametrize("sentence", EMPTY)
def test_nothing_to_draw_is_said(sentence: str) -> None:
    figure = EMPTY[sentence]()
    assert [note.text for note in figure.layout.annotations] == [sentence]
    assert not figure.data


@pytest.mark.parametrize("name", FULL)
def test_every_figure_says_what_was_perturbed_and_what_is_shown_on_either_page(name: str) -> None:
    draw = FULL[name]
    figure = draw(title="SPI1 & <CEBPA> knocked out")
    assert figure.to_json() == draw(title="SPI1 & <CEBPA> knocked out").to_json()
    head, _, below = figure.layout.title.text.partition("<br>")
    assert head == "SPI1 &amp; &lt;CEBPA&gt; knocked out"
    assert len(below) > 40
    assert figure.layout.paper_bgcolor == LIGHT.background
    assert draw(title="x", dark=True).layout.paper_bgcolor == DARK.background
    assert len(draw(title="G" * 200).layout.title.text.partition("<br>")[0]) == 60


@pytest.mark.parametrize("name", FULL)
def test_the_title_stands_at_the_top_however_high_the_figure(name: str) -> None:
    layout = FULL[name](title="x").layout
    assert (1 - layout.title.y) * layout.height == pytest.approx(18)
    assert layout.margin.t >= 18 + 16 * layout.title.text.count("<br>")


@pytest.mark.parametrize("name", FULL)
def test_only_kinds_of_traces_that_can_be_saved_as_files(name: str) -> None:
    kinds = {trace.type for trace in FULL[name](title="x").data}
    assert kinds <= {"scatter", "scattergl", "bar", "heatmap", "sankey"}


# ----------------------------------------------------------------- arrows


def test_arrows_start_at_their_knots_and_are_enlarged_alike() -> None:
    figure = arrow_map(POINTS, FIELD, CONTROL, title="x")
    field, control = (trace for trace in figure.data if trace.mode == "lines")
    # The longest arrow, 0.5, becomes 1.4 squares of side 1: everything is drawn 2.8 times as long.
    np.testing.assert_allclose(field.x[[0, 1, 3, 5, 6, 7]], [1, 1, 1, np.nan, 2, 2 - 0.84])
    np.testing.assert_allclose(field.y[[0, 1, 3, 5, 6, 7]], [1, 2.4, 2.4, np.nan, 1, 2.12])
    np.testing.assert_allclose([control.x[0], control.x[1]], [2, 2.28])
    assert "21 cells, drawn 2.8 times as long; control: a matched &lt;gene&gt;" in shown(figure)
    barb = np.hypot(field.x[2] - field.x[1], field.y[2] - field.y[1])
    assert barb == pytest.approx(0.35 * 1.4)
    assert field.y[2] < 2.4, "the barb points back"


def test_a_map_and_its_control_are_drawn_to_one_scale() -> None:
    figure = arrow_map(POINTS, FIELD, CONTROL, title="x")
    layout = figure.layout
    assert layout.xaxis.range == layout.xaxis2.range
    assert layout.yaxis.range == layout.yaxis2.range
    assert (layout.yaxis.scaleanchor, layout.yaxis2.scaleanchor) == ("x", "x2")
    assert [note.text for note in layout.annotations] == ["perturbed", "control"]
    width = [axis.domain[1] - axis.domain[0] for axis in (layout.xaxis, layout.xaxis2)]
    assert width[0] > 2 * width[1], "the control is small"
    knots = [trace for trace in figure.data if trace.text]
    assert list(knots[0].text) == ["mean move of 1 cell: 0.5", "mean move of 20 cells: 0.5"]


def test_a_single_arrow_and_an_empty_control_can_be_drawn() -> None:
    figure = arrow_map(POINTS, FIELD.iloc[:1], CONTROL.iloc[:0], title="x")
    field, control = (trace for trace in figure.data if trace.mode == "lines")
    assert (len(field.x), len(control.x)) == (6, 0)
    assert arrow_map(POINTS, FIELD.assign(dx=0.0, dy=0.0), CONTROL.assign(dx=0.0), title="x").data == ()


# ----------------------------------------------------------------- bars


def test_groups_have_a_bar_its_null_band_and_its_significance_in_words_and_pattern() -> None:
    figure = group_bars(GROUPS)
    drawn = traces(figure)
    clear, unclear, untested = drawn["q ≤ 0.05"], drawn["q > 0.05"], drawn["not tested"]
    assert (list(clear.x), list(clear.y)) == ([0.03], [2]), "the largest on top"
    assert (list(untested.x), list(untested.y)) == ([0.02], [1])
    assert (list(unclear.x), list(unclear.y)) == ([0.01], [0])
    assert len({trace.marker.pattern.shape for trace in (clear, unclear, untested)}) == 3
    bands = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert sorted((band.x0, band.x1, (band.y0 + band.y1) / 2) for band in bands) == [
        (0.005, 0.02, 0),
        (0.006, 0.05, 2),
    ]
    assert {band.layer for band in bands} == {"below"}
    assert sorted(shape.x0 for shape in figure.layout.shapes if shape.type == "line") == [0.011, 0.012]
    assert figure.layout.xaxis.range[1] > 0.05, "a band that is longer than every bar is seen whole"
    (text,) = [trace.text for trace in figure.select_traces({"mode": "text"})]
    assert [words.strip("\N{NO-BREAK SPACE}") for words in text] == ["<b>q 0.02</b>", "not tested", "q 0.6"]
    assert clear.customdata[0] == (
        "<b>mono</b><br>1 cell that read the gene<br>mean shift 0.03<br>random genes 0.012 (0.006 to 0.05)"
        "<br>p 0.01, q 0.02"
    )
    assert untested.customdata[0].endswith("<br>mean shift 0.02<br>not tested")
    assert [note.text for note in figure.layout.annotations] == ["mono", "few", "T &amp; B"]
    assert "Mean shift of 3 groups of cells; 1 beyond random genes" in shown(figure)
    untested = group_bars(GROUPS.iloc[2:3])
    assert not untested.layout.shapes
    assert untested.layout.xaxis.range[1] > 0.02


@pytest.mark.parametrize("n", [1, 60])
def test_few_and_many_groups_fit(n: int) -> None:
    names = [f"CD4-positive, alpha-beta memory T cell, CD45RO-positive, {i}" for i in range(n)]
    table = pd.concat([GROUPS.iloc[:1]] * n, ignore_index=True).assign(group=names)
    figure = group_bars(table)
    assert figure.layout.height <= 140 + 44 * min(n, 20) + 30 * max(n - 20, 0) + 40 * (n > 1) + 100
    assert max(len(note.text) for note in figure.layout.annotations) <= 46
    assert len(figure.layout.annotations) == n
    pairs = pd.DataFrame({"own": np.repeat(names, n), "target": np.tile(names, n)})
    heat = directions_heat(pairs.assign(n=9, mean=0.1, null_mean=0.0, p=0.1, q=0.1, word="neither"))
    assert max(map(len, heat.layout.xaxis.ticktext)) <= 18
    assert len(heat.layout.yaxis.ticktext) == n
    (sankey,) = transition_sankey(pd.DataFrame({"from": names, "to": names[::-1], "n": 5})).data
    assert len(sankey.node.label) == 2 * n


def test_a_histogram_holds_every_random_gene_and_the_observed_effect() -> None:
    null = np.append(np.linspace(0.01, 0.02, 100), np.nan)
    figure = null_histogram(null, 0.05, 0.0099)
    (bars,) = figure.data
    assert sum(bars.y) == 100
    assert 10 <= len(bars.y) <= 60
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1) == (0.05, 0.05)
    low, high = figure.layout.xaxis.range
    assert low < 0.01 < 0.05 < high
    assert figure.layout.annotations[0].text.strip() == "0.05, p 0.0099"
    assert "100 matched random genes" in shown(figure)
    untested = null_histogram(np.full(9, 0.02), 0.02, np.nan)
    assert untested.layout.annotations[0].text.strip() == "0.02"
    assert sum(untested.data[0].y) == 9


def test_ranked_genes_are_those_with_the_largest_numbers_of_either_sign() -> None:
    figure = ranked_bars(GENES, "change", axis="predicted change", most=3)
    assert list(figure.layout.yaxis.ticktext) == ["UNTESTED", "&lt;b&gt;DOWN", "UP"]
    assert list(figure.layout.yaxis.tickvals) == [2, 1, 0]
    drawn = traces(figure)
    assert {name: list(drawn[name].x) for name in drawn} == {"q ≤ 0.05": [-0.6, 0.4], "not tested": [0.9]}
    assert list(drawn["q ≤ 0.05"].customdata) == ["<b>&lt;b&gt;DOWN</b><br>-0.6, q 0.05", "<b>UP</b><br>+0.4, q 0.01"]
    low, high = figure.layout.xaxis.range
    assert low < -0.6 < 0.9 < high
    sides = {trace.textposition: list(trace.x) for trace in figure.select_traces({"mode": "text"})}
    assert sides == {"middle right": [0.9, 0.4], "middle left": [-0.6]}
    assert ranked_bars(GENES, "effect", axis="shift").layout.xaxis.range[0] == 0
    assert shown(figure) == "The 3 of 4 genes with the largest predicted change"


# ----------------------------------------------------------------- genes


def test_a_screen_shows_effect_against_detection_and_names_what_is_beyond_chance() -> None:
    figure = screen_chart(GENES)
    drawn = traces(figure)
    assert {name: list(trace.text) for name, trace in drawn.items()} == {
        "not tested (0)": [],
        "q > 0.05 (1)": ["FLAT"],
        "q ≤ 0.05 (2)": ["UP", "&lt;b&gt;DOWN"],
    }
    assert len({trace.marker.symbol for trace in drawn.values()}) == 3
    np.testing.assert_allclose(drawn["q ≤ 0.05 (2)"].x, [0.5, 0.01])
    np.testing.assert_allclose(drawn["q ≤ 0.05 (2)"].y, [0.1, 0.05])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    named = {note.text: (note.x, note.y) for note in figure.layout.annotations}
    assert set(named) == {"UP", "&lt;b&gt;DOWN"}
    np.testing.assert_allclose(named["&lt;b&gt;DOWN"], [-2, np.log10(0.05)])
    assert "1 without effect are not drawn" in shown(figure)
    assert list(figure.layout.xaxis.ticktext)[:4] == ["0.1%", "0.3%", "1%", "3%"]


def test_a_volcano_of_changes_tells_up_from_down_by_shape() -> None:
    figure = expression_volcano(GENES)
    drawn = traces(figure)
    assert {name: list(trace.text) for name, trace in drawn.items()} == {
        "not clear (1)": ["FLAT"],
        "lower (1)": ["&lt;b&gt;DOWN"],
        "higher (1)": ["UP"],
    }
    assert len({trace.marker.symbol for trace in drawn.values()}) == 3
    np.testing.assert_allclose([drawn["higher (1)"].x[0], drawn["higher (1)"].y[0]], [0.4, 2])
    assert [note.text for note in figure.layout.annotations] == ["&lt;b&gt;DOWN", "UP"]
    assert "3 genes; 2 beyond random genes" in shown(figure)


# ----------------------------------------------------------------- groups towards groups


def test_a_pair_has_its_change_its_mark_and_its_words() -> None:
    figure = directions_heat(DIRECTIONS)
    heat, marks = figure.data
    np.testing.assert_allclose(heat.z, [[0.004, 0.0], [-0.02, 0.01]])  # from below: T, then B
    assert list(figure.layout.yaxis.ticktext) == ["T", "B"]
    assert list(figure.layout.xaxis.ticktext) == ["B", "T"]
    assert (heat.zmin, heat.zmax) == (-0.02, 0.02), "0 has the colour of the page"
    assert heat.colorscale[1] == (0.5, LIGHT.background)
    assert [(x, y, text) for x, y, text in zip(marks.x, marks.y, marks.text, strict=True)] == [(0, 1, "−")]
    assert heat.customdata[1][0] == (
        "<b>B to B: away</b><br>change of cosine -0.02 (random genes -0.001)<br>p 0.01, q 0.02"
        "<br>30 cells that read the gene"
    )
    assert heat.customdata[0][0] == (
        "<b>T to B: not tested</b><br>change of cosine +0.004<br>5 cells that read the gene"
    )
    away_only = directions_heat(DIRECTIONS.iloc[:1])
    assert np.asarray(away_only.data[0].z).shape == (1, 1)


def test_pairs_that_were_not_measured_are_blank() -> None:
    heat = directions_heat(DIRECTIONS.drop(index=2)).data[0]
    assert np.isnan(heat.z[0][0])
    assert heat.customdata[0][0] == ""
    assert directions_heat(DIRECTIONS.iloc[:0]).layout.annotations[0].text.startswith("No group")


def test_flows_lead_from_the_nearest_group_before_to_that_after() -> None:
    figure = transition_sankey(FLOWS)
    (sankey,) = figure.data
    labels = list(sankey.node.label)
    assert labels == ["A&lt; · 8", "B · 4", "A&lt; · 6", "B · 6"], "the largest first"
    links = zip(sankey.link.source, sankey.link.target, sankey.link.value, strict=True)
    assert {(labels[a], labels[b]): n for a, b, n in links} == {
        ("A&lt; · 8", "A&lt; · 6"): 6,
        ("A&lt; · 8", "B · 6"): 2,
        ("B · 4", "B · 6"): 4,
    }
    kept, changed, also_kept = sankey.link.color
    assert kept == also_kept != changed
    assert list(sankey.link.customdata) == [
        "<b>A&lt;, stay</b><br>6 cells, 75.0% of those before",
        "<b>A&lt; → B</b><br>2 cells, 25.0% of those before",
        "<b>B, stay</b><br>4 cells, 100.0% of those before",
    ]
    assert "2 of 12 cells (16.7%) are then nearest to another group" in shown(figure)
