"""One gene as measured and denoised: two violins a group, and a sentence where nothing is to be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.figures.denoised import MOST_GROUPS, before_after
from scdiva_core.figures.static import render

GROUPS = ["few & rare", *["many"] * 4, None, float("nan")]
BEFORE = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 9.0])
AFTER = BEFORE / 2


def test_each_group_has_its_values_before_and_after() -> None:
    figure = before_after(BEFORE, AFTER, GROUPS, title="LYZ")
    drawn = {(trace.name, round(float(trace.y[0]))): list(trace.x) for trace in figure.data}
    assert drawn == {
        ("as measured", 0): [1],
        ("as measured", 1): [2, 3, 4, 5],
        ("denoised", 0): [0.5],
        ("denoised", 1): [1, 1.5, 2, 2.5],
    }
    measured, denoised = (
        next(t for t in figure.data if t.name == name and len(t.x) == 4) for name in ("as measured", "denoised")
    )
    assert measured.y[0] > denoised.y[0]
    assert [note.text for note in figure.layout.annotations] == ["many (4 cells)", "few &amp; rare (1 cell)"]
    assert [trace.showlegend for trace in figure.data].count(True) == 2
    assert render(figure, "png").startswith(b"\x89PNG")


def test_only_the_largest_groups_are_drawn_and_it_says_so() -> None:
    groups = [f"type {place}" for place in range(MOST_GROUPS + 2)] + ["type 13"]
    values = np.arange(len(groups), dtype=float)
    figure = before_after(values, values, groups)
    assert len(figure.data) == 2 * MOST_GROUPS
    assert figure.layout.annotations[0].text == "type 13 (2 cells)"
    assert f"the {MOST_GROUPS} largest of {MOST_GROUPS + 2} groups" in figure.layout.title.text.replace("<br>", " ")


@pytest.mark.parametrize("groups", [[], [None] * 3])
def test_nothing_to_draw_is_said(groups: list[None]) -> None:
    values = np.ones(len(groups))
    figure = before_after(values, values, groups)
    assert not figure.data
    assert figure.layout.annotations[0].text == "No cell with a group expresses the gene."
