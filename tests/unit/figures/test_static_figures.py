"""Every figure of the app as a file: drawn, complete, with its words, and nothing beyond the edge."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable

import matplotlib.image
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from scdiva_core.figures.annotation import alluvial, composition, dot_plot, reliability, volcano
from scdiva_core.figures.evaluation import Dots
from scdiva_core.figures.evaluation import dot_plot as evaluation_plot
from scdiva_core.figures.scatter import Canvas, category_scatter, value_scatter
from scdiva_core.figures.static import render
from scdiva_core.figures.violin import violins

GENERATOR = np.random.default_rng(0)
XY = GENERATOR.normal(size=(60, 2))
NAMES = [f"cell{index}" for index in range(60)]

GENES = pd.DataFrame(
    {
        "symbol": ["UP", "DOWN", "FLAT", "ALONE"],
        "score": [9.0, -8.0, 0.5, 10.0],
        "log2_fold_change": [2.0, -3.0, 0.1, 26.0],
        "q": [1e-6, 1e-4, 0.9, 1e-8],
        "share_inside": [0.9, 0.1, 0.5, 0.02],
        "share_outside": [0.3, 0.8, 0.5, 0.0],
    }
)
PROFILE = pd.DataFrame(
    [
        (group, symbol, mean, share)
        for group, mean in (("T cell", 2.0), ("B & C", 0.5))
        for symbol, share in (("CD3D", 1.0), ("CD8A", 0.25), ("MS4A1", 0.5))
    ],
    columns=["group", "symbol", "mean_log1p", "share"],
)
COUNTS = pd.DataFrame([[30, 10], [0, 20]], index=["T", "B"], columns=["one", "<two>"])
SCORES = (
    Dots("ScDiVa", np.array([0.9, 0.96]), ["0.900", "0.960"], 0, prominent=True),
    Dots("PCA", np.array([0.92, np.nan]), ["0.920", ""], 1, prominent=True),
)

FIGURES: dict[str, tuple[Callable[[bool], go.Figure], tuple[str, ...]]] = {
    "map of labels": (
        lambda dark: category_scatter(
            XY,
            np.arange(60) % 2,
            ["T & B", "<NK>"],
            names=NAMES,
            names_on_picture=True,
            canvas=Canvas(title="pbmc3k", note="Provisional", dark=dark),
        ),
        ("pbmc3k", "Provisional", "T & B", "<NK>", "UMAP 1", "UMAP 2"),
    ),
    "map of numbers": (
        lambda dark: value_scatter(
            XY, np.where(XY[:, 0] > 1, np.nan, XY[:, 0]), value_label="novelty", names=NAMES, canvas=Canvas(dark=dark)
        ),
        ("novelty", "no value", "UMAP 1"),
    ),
    "violins": (
        lambda dark: violins({"Counts": np.abs(XY[:, 0]) * 1e5, "Genes": XY[:, 1] ** 2}, title="QC", dark=dark),
        ("QC", "Counts", "Genes", "100k"),
    ),
    "volcano": (
        lambda dark: volcano(GENES, title="these cells against the rest", dark=dark),
        (
            "these cells against the rest",
            "more inside (2)",
            "less inside (1)",
            "no clear difference (1)",
            "UP",
            "DOWN",
            "ALONE",
            "log2 fold change; 1 beyond ±10 at the edge",
            "−log10 of q",
        ),
    ),
    "dot plot": (
        lambda dark: dot_plot(PROFILE, ["CD3D", "CD8A", "GONE"], ["MS4A1"], dark=dark),
        (
            "positive markers",
            "negative markers",
            "CD3D",
            "MS4A1",
            "T cell",
            "B & C",
            "10% of cells",
            "100% of cells",
            "mean log1p",
            "not in this data set: GONE",
        ),
    ),
    "alluvial": (
        lambda dark: alluvial(["a", "a", "b"], ["a", "c", "b"], dark=dark),
        ("a · 2", "a · 1", "b · 1", "c · 1", "1 of 3 cells changed their label (33.3%)"),
    ),
    "reliability": (
        lambda dark: reliability(np.linspace(0.05, 1, 400), GENERATOR.random(400) < 0.7, dark=dark),
        ("as often as stated", "labels that are right", "stated probability", "share that is right", "cells", "0.5"),
    ),
    "composition": (
        lambda dark: composition(COUNTS, dark=dark),
        ("one", "<two>", "T (40)", "B (20)", "all together (60)", "share of the cells", "100%"),
    ),
    "evaluation": (
        lambda dark: evaluation_plot(["Blood", "Lung"], SCORES, axis="kNN accuracy", dark=dark),
        ("ScDiVa", "PCA", "Blood", "Lung", "kNN accuracy"),
    ),
    "sentence": (
        lambda dark: volcano(GENES.iloc[:0], title="none", dark=dark),
        ("none", "No gene could be compared."),
    ),
}


def texts(svg: bytes) -> str:
    return " | ".join("".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("text"))


def picture(figure: go.Figure, width: int = 800) -> np.ndarray:
    file = render(figure, "png", width=width, height=int(figure.layout.height), dpi=72)
    return matplotlib.image.imread(io.BytesIO(file))[..., :3]


@pytest.mark.parametrize("name", FIGURES)
def test_every_word_of_a_figure_is_text_in_its_svg(name: str) -> None:
    draw, words = FIGURES[name]
    figure = draw(False)
    before = json.loads(figure.to_json())
    svg = render(figure, "svg", width=800, height=int(figure.layout.height), dpi=50)
    assert [word for word in words if word not in texts(svg)] == []
    assert svg == render(figure, "svg", width=800, height=int(figure.layout.height), dpi=50), "the same bytes each time"
    assert json.loads(figure.to_json()) == before, "the figure stays as it was"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_whole_on_its_own_background(name: str, dark: bool) -> None:
    drawn = picture(FIGURES[name][0](dark))
    background = drawn[0, 0]
    assert (background.max() < 0.2) == dark
    other = np.abs(drawn - background).max(axis=2) > 0.1
    assert other.mean() > 0.002, "something is drawn"
    edges = np.concatenate([other[:2].ravel(), other[-2:].ravel(), other[:, :2].ravel(), other[:, -2:].ravel()])
    assert not edges.any(), "nothing is cut"


def test_the_legend_goes_by_rank_and_not_by_what_is_drawn_first() -> None:
    found = texts(render(FIGURES["evaluation"][0](False), "svg"))
    assert found.index("ScDiVa") < found.index("PCA")


def test_wider_names_take_more_of_the_margin_and_a_long_title_is_broken() -> None:
    figure = composition(COUNTS.rename(columns={"one": "a name of thirty characters ab"}))
    figure.update_layout(title={"text": "word " * 60, "x": 0.01, "xanchor": "left"}, height=500)
    drawn = picture(figure, width=500)
    assert not (np.abs(drawn[:, -3:] - 1) > 0.1).any()
    assert not (np.abs(drawn[:2] - 1) > 0.1).any()


def test_bars_are_as_long_as_plotly_has_them() -> None:
    drawn = picture(composition(COUNTS.loc[["T"]]))
    blue, red = (np.array([int(code[at : at + 2], 16) for at in (0, 2, 4)]) / 255 for code in ("3A7CC9", "AB3205"))
    row = max(drawn, key=lambda line: (np.abs(line - blue).max(axis=1) < 0.02).sum())
    wide = (np.abs(row - blue).max(axis=1) < 0.02).sum()
    # The pattern of the second colour hides some of it, so its extent counts.
    there = np.flatnonzero(np.abs(row - red).max(axis=1) < 0.02)
    assert wide / (wide + there[-1] - there[0] + 1) == pytest.approx(0.75, abs=0.02)
