"""Figures of the review: every number is drawn once, can be told without colour, and nothing to draw is said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.stats import binomtest

from scdiva_core.figures.annotation import alluvial, composition, dot_plot, reliability, volcano
from scdiva_core.figures.palette import DARK, LIGHT, MAX_CATEGORIES, category_style

GENES = pd.DataFrame(
    {
        "symbol": ["UP", "DOWN", "<b>FLAT", "SMALL", "ALONE", "UNTESTED", "ZERO"],
        "score": [9.0, -8.0, 0.5, 7.0, 10.0, np.nan, 12.0],
        "log2_fold_change": [2.0, -3.0, 0.1, 0.4, 26.0, np.nan, 1.5],
        "q": [1e-6, 1e-4, 0.9, 1e-3, 1e-8, np.nan, 0.0],
        "share_inside": [0.9, 0.1, 0.5, 0.6, 0.02, 0.0, 1.0],
        "share_outside": [0.3, 0.8, 0.5, 0.5, 0.0, 0.0, 0.7],
    }
)

PROFILE = pd.DataFrame(
    {
        "group": ["T cell", "T cell", "T cell", "B & C", "B & C", "B & C"],
        "symbol": ["CD3D", "CD8A", "MS4A1", "CD3D", "CD8A", "MS4A1"],
        "mean_log1p": [2.0, 0.5, 0.0, 0.1, 0.0, 1.5],
        "share": [1.0, 0.25, 0.0, 0.04, 0.0, 0.64],
    }
)

COUNTS = pd.DataFrame([[30, 10], [0, 20], [0, 0]], index=["T", "B", "none"], columns=["one", "<two>"])

EMPTY: dict[str, Callable[[], go.Figure]] = {
    "No gene could be compared.": lambda: volcano(GENES.iloc[:0], title="x"),
    "None of these marker genes is in this data set.": lambda: dot_plot(PROFILE.iloc[:0], ["CD3D"], []),
    "There are no cells to follow.": lambda: alluvial([], []),
    "No cell has both a probability and a true label.": lambda: reliability([], []),
    "There are no cells to count by batch.": lambda: composition(COUNTS.iloc[:0]),
}

FULL: tuple[Callable[..., go.Figure], ...] = (
    lambda **theme: volcano(GENES, title="x", **theme),
    lambda **theme: dot_plot(PROFILE, ["CD3D", "CD8A"], ["MS4A1"], **theme),
    lambda **theme: alluvial(["a", "a", "b"], ["a", "b", "b"], **theme),
    lambda **theme: reliability([0.2, 0.9, 0.8], [False, True, True], **theme),
    lambda **theme: composition(COUNTS, **theme),
)


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


@pytest.mark.parametrize("sentence", EMPTY)
def test_nothing_to_draw_is_said(sentence: str) -> None:
    figure = EMPTY[sentence]()
    assert [note.text for note in figure.layout.annotations] == [sentence]
    assert not figure.data


@pytest.mark.parametrize("draw", FULL)
def test_the_same_input_gives_the_same_figure_on_either_page(draw: Callable[..., go.Figure]) -> None:
    assert draw().to_json() == draw().to_json()
    assert draw().layout.paper_bgcolor == LIGHT.background
    assert draw(dark=True).layout.paper_bgcolor == DARK.background


@pytest.mark.parametrize("table", [GENES.assign(q=np.nan), GENES.assign(log2_fold_change=np.nan)])
def test_genes_that_none_could_test_are_as_good_as_no_genes(table: pd.DataFrame) -> None:
    assert volcano(table, title="x").layout.annotations[0].text == "No gene could be compared."


# ----------------------------------------------------------------- volcano


def test_a_volcano_draws_each_tested_gene_once_in_its_kind() -> None:
    drawn = traces(volcano(GENES, title="a <set>"))
    assert {name: list(trace.text) for name, trace in drawn.items()} == {
        "no clear difference (2)": ["&lt;b&gt;FLAT", "SMALL"],
        "less inside (1)": ["DOWN"],
        "more inside (3)": ["UP", "ALONE", "ZERO"],
    }
    assert len({trace.marker.symbol for trace in drawn.values()}) == 3, "told apart without colour"
    up = drawn["more inside (3)"]
    np.testing.assert_allclose(up.y, [6, 8, 300])
    np.testing.assert_allclose(up.x, [2, 10, 1.5])
    np.testing.assert_allclose(up.customdata[1], [26, 1e-8, 0.02, 0.0])


def test_a_volcano_names_the_best_genes_and_what_stands_at_the_edge() -> None:
    table = GENES.copy()
    table.attrs["replicates"] = "cells"
    figure = volcano(table, title="a <set>")
    assert [note.text for note in figure.layout.annotations] == ["DOWN", "ZERO", "ALONE", "UP"]
    assert figure.layout.title.text == "a &lt;set&gt;"
    assert "1 beyond ±10 at the edge" in figure.layout.xaxis.title.text
    assert "cells as replicates" in figure.layout.yaxis.title.text
    calm = volcano(GENES[GENES["symbol"] == "UP"], title="")
    assert "beyond" not in calm.layout.xaxis.title.text
    assert "replicates" not in calm.layout.yaxis.title.text
    assert calm.layout.xaxis.range == (-2.16, 2.16)


def test_the_thresholds_of_a_volcano_are_lines() -> None:
    shapes = volcano(GENES, title="").layout.shapes
    assert [shape.y0 for shape in shapes if shape.y0 == shape.y1] == [pytest.approx(1.30103)]
    assert sorted(shape.x0 for shape in shapes if shape.x0 == shape.x1) == [-1, 1]
    assert {shape.line.dash for shape in shapes} == {"dot"}


def test_names_of_a_volcano_do_not_cover_each_other() -> None:
    crowd = pd.DataFrame({"symbol": [f"G{i}" for i in range(30)], "score": 30.0 - np.arange(30), "share_inside": 1.0})
    crowd = crowd.assign(share_outside=0.1, log2_fold_change=2 + np.arange(30) / 100, q=1e-9)
    crowd.loc[29, "log2_fold_change"] = 6.0
    assert [note.text for note in volcano(crowd, title="").layout.annotations] == ["G0", "G29"]
    spread = crowd.assign(q=10.0 ** -np.arange(2, 32))
    names = [note.text for note in volcano(spread, title="").layout.annotations]
    assert len(names) == 6, "no more than can be read"
    assert names[0] == "G0"


# ----------------------------------------------------------------- dot plot


def test_a_dot_is_as_large_as_its_share_and_coloured_by_its_mean() -> None:
    figure = dot_plot(PROFILE, ["CD8A", "CD3D", "GONE"], ["MS4A1"])
    drawn = traces(figure)
    positive, negative = drawn["positive markers"], drawn["negative markers"]
    where = {(x, y): place for place, (x, y) in enumerate(zip(positive.x, positive.y, strict=True))}
    assert set(where) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    full = where[1, 1]  # CD3D is the second gene, T cells are the upper row
    assert positive.marker.size[full] == 16
    assert positive.marker.size[where[0, 1]] == 8, "a quarter of the area"
    assert positive.marker.color[full] == 2.0
    assert positive.text[full] == "<b>CD3D</b>, T cell"
    assert positive.text[where[1, 0]] == "<b>CD3D</b>, B &amp; C"
    assert list(negative.x) == [3, 3]
    assert positive.marker.symbol != negative.marker.symbol
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 2)
    assert list(figure.layout.xaxis.ticktext) == ["CD8A", "CD3D", "MS4A1"]
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 3]
    assert figure.layout.xaxis.title.text == "not in this data set: GONE"


def test_a_dot_plot_says_what_its_sizes_and_rows_mean() -> None:
    figure = dot_plot(PROFILE, ["CD3D"], [])
    legend = [trace for trace in figure.data if trace.showlegend is not False]
    assert [(trace.name, trace.marker.size) for trace in legend] == [
        ("10% of cells", pytest.approx(16 * 0.1**0.5)),
        ("50% of cells", pytest.approx(16 * 0.5**0.5)),
        ("100% of cells", 16),
    ]
    rows = {note.text: note.y for note in figure.layout.annotations if note.xref == "paper"}
    assert rows == {"T cell": 1, "B &amp; C": 0}
    assert "negative markers" not in [trace.name for trace in figure.data]
    assert not figure.layout.shapes, "nothing to separate"
    assert not figure.layout.xaxis.title.text


# ----------------------------------------------------------------- alluvial


def test_flows_go_from_old_to_new_labels_with_their_cells() -> None:
    old = ["T"] * 6 + ["B"] * 3 + [" "]
    new = ["T"] * 4 + ["NK"] * 2 + ["B"] * 3 + ["T"]
    (sankey,) = alluvial(old, new).data
    labels = list(sankey.node.label)
    assert labels == ["T · 6", "B · 3", "no label · 1", "T · 5", "B · 3", "NK · 2"]
    flows = {
        (labels[source], labels[target]): cells
        for source, target, cells in zip(sankey.link.source, sankey.link.target, sankey.link.value, strict=True)
    }
    assert flows == {("T · 6", "T · 5"): 4, ("T · 6", "NK · 2"): 2, ("B · 3", "B · 3"): 3, ("no label · 1", "T · 5"): 1}


def test_what_changed_is_coloured_and_what_was_kept_is_said() -> None:
    figure = alluvial(["A<"] * 3 + ["B"], ["A<", "A<", "B", "B"])
    (sankey,) = figure.data
    assert figure.layout.title.text == "1 of 4 cells changed their label (25.0%)"
    assert list(sankey.link.customdata) == [
        "<b>A&lt;, kept</b><br>2 cells, 66.7% of the old label",
        "<b>A&lt; → B</b><br>1 cell, 33.3% of the old label",
        "<b>B, kept</b><br>1 cell, 100.0% of the old label",
    ]
    kept, changed, also_kept = sankey.link.color
    assert kept == also_kept != changed
    assert sankey.node.color[0] == sankey.node.color[2], "a label has one colour on both sides"
    assert sankey.node.customdata[0] == "A&lt;<br>old label of 3 cells"


def test_long_labels_keep_both_ends() -> None:
    names = ["CD4-positive, alpha-beta memory T cell", "naive thymus-derived CD4-positive, alpha-beta T cell"]
    (sankey,) = alluvial(names, names).data
    assert list(sankey.node.label)[:2] == ["CD4-pos…ory T cell · 1", "naive t…eta T cell · 1"]
    assert sankey.node.customdata[0].startswith(names[0])


def test_many_labels_make_a_higher_figure_up_to_a_limit() -> None:
    few, many, more = (
        alluvial(names, names).layout.height for names in (["a"], *(list(map(str, range(n))) for n in (40, 400)))
    )
    assert few < many < more <= 1600


def test_labels_of_other_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        alluvial(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"shape \(2,\), correct \(1,\)"):
        reliability([0.5, 0.6], [True])


# ----------------------------------------------------------------- reliability


def test_a_dot_a_bin_at_its_mean_with_its_interval() -> None:
    confidence = np.array([0.5, 0.45, 0.51, 0.95, 1.0, 1.0, 0.97, np.nan])
    correct = np.array([1, 0, 1, 1, 1, 0, 1, 0], bool)
    figure = reliability(confidence, correct)
    diagonal, dots, bars = figure.data
    np.testing.assert_allclose(dots.x, [0.475, 0.51, 0.98])  # a bin is closed above: 0.5 lies beside 0.45
    np.testing.assert_allclose(dots.y, [0.5, 1, 0.75])
    interval = binomtest(3, 4).proportion_ci(method="wilson")
    np.testing.assert_allclose(dots.y[2] + dots.error_y.array[2], interval.high)
    np.testing.assert_allclose(dots.y[2] - dots.error_y.arrayminus[2], interval.low)
    assert dots.text[2] == "stated 0.98, right 0.75 (0.30 to 0.95)<br>4 cells"
    assert dots.text[1].endswith("<br>1 cell")
    assert diagonal.line.dash == "dash"
    np.testing.assert_allclose(bars.x, [0.45, 0.55, 0.95])
    assert list(bars.y) == [2, 1, 4]
    assert figure.layout.yaxis2.type == "log"
    assert 10 ** figure.layout.yaxis2.range[0] < 1, "a bin of one cell has a bar"


def test_bins_may_be_others_and_the_ends_belong_to_them() -> None:
    _, dots, bars = reliability([0.0, 0.25, 0.5, 1.0], [False, True, False, True], bins=2).data
    np.testing.assert_allclose(dots.x, [0.25, 1])
    assert list(bars.y) == [3, 1]


# ----------------------------------------------------------------- composition


def test_bars_are_shares_of_the_group_beside_those_of_all() -> None:
    figure = composition(COUNTS)
    one, two = figure.data
    assert (one.name, two.name) == ("one", "&lt;two&gt;")
    assert [note.text for note in figure.layout.annotations] == ["T (40)", "B (20)", "all together (60)"]
    assert [note.y for note in figure.layout.annotations] == list(one.y) == [2, 1, 0]
    np.testing.assert_allclose(one.x, [0.75, 0, 0.5])
    np.testing.assert_allclose(two.x, [0.25, 1, 0.5])
    assert list(two.customdata) == ["10 of 40 cells", "20 of 20 cells", "30 of 60 cells"]
    assert figure.layout.barmode == "stack"


def test_a_single_group_stands_alone() -> None:
    figure = composition(COUNTS.iloc[:1])
    assert [note.text for note in figure.layout.annotations] == ["T (40)"]


def test_batches_differ_in_colour_and_neighbours_in_pattern() -> None:
    table = pd.DataFrame([np.arange(1, 25)], columns=[f"b{i}" for i in range(24)])
    markers = [trace.marker for trace in composition(table).data]
    assert len({marker.color for marker in markers}) == 24
    shapes = [marker.pattern.shape for marker in markers]
    assert all(one != other for one, other in zip(shapes, shapes[1:], strict=False))


def test_the_smallest_of_too_many_batches_are_one() -> None:
    sizes = np.random.default_rng(0).permutation(np.arange(1, 41))
    table = pd.DataFrame([sizes], index=["g"], columns=[f"b{i}" for i in range(40)])
    drawn = composition(table).data
    assert len(drawn) == 24
    assert drawn[-1].name == "other (17 batches)"
    np.testing.assert_allclose(drawn[-1].x, np.arange(1, 18).sum() / sizes.sum())
    assert [trace.name for trace in drawn[:-1]] == [f"b{i}" for i in range(40) if sizes[i] > 17]
    np.testing.assert_allclose(sum(trace.x[0] for trace in drawn), 1)


def test_an_alluvial_outlives_more_labels_than_colours() -> None:
    names = [f"l{i:03}" for i in range(MAX_CATEGORIES + 3)]
    (sankey,) = alluvial(names, names).data
    assert len(sankey.node.label) == 2 * len(names)
    assert sankey.node.color[0] == category_style(0)[0]
