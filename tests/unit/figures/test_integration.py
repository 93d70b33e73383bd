"""Bars of methods: each measure its panel, each method its bar."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scdiva_core.figures.integration import metric_bars
from scdiva_core.figures.palette import DARK, category_style

TABLE = pd.DataFrame(
    {"method": ["pca", "own <x>"], "avg_bio": [0.7, np.nan], "avg_bio_std": [0.01, 0.0], "avg_batch": [0.8, 0.9]}
)
NAMES = {"pca": "PCA & more"}


def test_each_measure_has_a_panel_and_each_method_a_bar() -> None:
    figure = metric_bars(TABLE, NAMES, highlighted=["own <x>"])
    bio, batch = figure.data
    assert list(batch.x) == [0.8, 0.9]
    assert list(batch.y) == ["PCA &amp; more", "own &lt;x&gt;"]
    assert list(bio.text) == ["0.700", ""]
    assert list(bio.error_x.array) == [0.01, 0.0]
    assert batch.error_x.array is None
    assert list(batch.marker.color) == [category_style(1)[0], category_style(0)[0]]
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["Types held together (Avg-Bio)", "Batches mixed (Avg-Batch)"]
    assert figure.layout.yaxis.autorange == "reversed", "the first method on top"


def test_chance_is_a_line_in_its_own_panel() -> None:
    figure = metric_bars(TABLE, NAMES, chance={"avg_batch": 0.95, "nmi": 0.1})
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1, line.xref) == (0.95, 0.95, "x2")


def test_measures_that_are_missing_get_no_panel() -> None:
    figure = metric_bars(TABLE[["method", "avg_batch"]], NAMES, dark=True, note="Provisional")
    assert len(figure.data) == 1
    assert figure.layout.paper_bgcolor == DARK.background
    assert "Provisional" in figure.layout.title.text
    (told,) = metric_bars(TABLE[["method"]], NAMES).layout.annotations
    assert "Nothing was measured" in told.text
