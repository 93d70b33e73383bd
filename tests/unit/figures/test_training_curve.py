"""The figure of a training: losses above, held-out scores below, the kept round ringed."""

from __future__ import annotations

from scdiva_core.figures.static import render
from scdiva_core.figures.training_curve import training_curve

CURVE = [
    {"round": 0, "loss": None, "macro_f1": 0.5},
    {"round": 1, "loss": 0.9, "macro_f1": 0.75},
    {"round": 2, "loss": 0.4, "macro_f1": 0.7},
]


def test_each_value_is_drawn_at_its_round() -> None:
    figure = training_curve(CURVE, {"loss": "loss"}, {"macro_f1": "macro-F1 <b>"}, best=1, levels={"simple": 0.6})
    lines = {trace.name: trace for trace in figure.data}
    assert (lines["loss"].x, lines["loss"].y) == ((1, 2), (0.9, 0.4)), "round 0 has no loss"
    assert lines["macro-F1 &lt;b&gt;"].y == (0.5, 0.75, 0.7)
    assert (lines["best: round 1"].x, lines["best: round 1"].y) == ((1,), (0.75,))
    assert lines["simple"].y == (0.6, 0.6)
    assert lines["loss"].yaxis != lines["simple"].yaxis == lines["macro-F1 &lt;b&gt;"].yaxis


def test_a_panel_without_values_and_levels_that_are_not_known_are_left_out() -> None:
    figure = training_curve(CURVE[:1], {"loss": "loss"}, {"macro_f1": "macro-F1"}, levels={"simple": None})
    assert [trace.name for trace in figure.data] == ["macro-F1"]
    empty = training_curve([], {"loss": "loss"}, {"macro_f1": "macro-F1"})
    assert empty.layout.annotations[0].text == "Nothing has been measured yet."


def test_passes_are_rounds_too_and_the_warning_travels_with_the_file() -> None:
    curve = [{"epoch": number, "loss": 1.0, "spearman": 0.1 * number} for number in range(3)]
    figure = training_curve(curve, {"loss": "loss"}, {"spearman": "rank"}, best=2, note="Provisional checkpoint")
    assert figure.data[1].x == (0, 1, 2)
    drawn = render(figure, "svg", width=960, height=figure.layout.height).decode()
    assert "Provisional checkpoint" in drawn
    assert "best: round 2" in drawn
