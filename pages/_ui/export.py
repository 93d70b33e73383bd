"""Figures and tables to take home; made only when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import plotly.graph_objects as go
import streamlit as st

_PLOTLY_CONFIG = {
    "displaylogo": False,
    "scrollZoom": True,
    "modeBarButtonsToRemove": [
        "autoScale2d",
        "hoverClosestCartesian",
        "hoverCompareCartesian",
        "toggleSpikelines",
    ],
}


def plotly_config(name: str) -> dict[str, object]:
    """Tool bar of a figure; its camera makes a large PNG of what is on screen."""
    return {
        **_PLOTLY_CONFIG,
        "toImageButtonOptions": {"format": "png", "scale": 3, "filename": file_name(name)},
    }


def file_name(*parts: str) -> str:
    """Name for a file, of letters, digits, dots and dashes; a data set's ending is left out."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-.")
    return re.sub(r"\.h5ad(?=-|$)", "", stem)[:100] or "scdiva"


def figure_downloads(figure: Callable[[], go.Figure], name: str, *, key: str, size: tuple[int, int]) -> None:
    """Offer a figure as PNG, SVG and HTML.

    Parameters
    ----------
    figure
        Makes it, for a light background; called on a thread of its own when a button is pressed.
    name
        File name without ending.
    key
        Unique on the page.
    size
        Width and height in pixels.
    """
    width, height = size
    files: tuple[tuple[str, str, str, Callable[[], bytes | str]], ...] = (
        (
            "PNG",
            "image/png",
            "300 dpi, for slides and print.",
            lambda: _for_print(figure(), "png", width, height),
        ),
        (
            "SVG",
            "image/svg+xml",
            "Text stays editable, points are one picture.",
            lambda: _for_print(figure(), "svg", width, height),
        ),
        ("HTML", "text/html", "Interactive, works offline in any browser.", lambda: as_html(figure())),
    )
    for label, mime, help_text, make in files:
        st.download_button(
            label,
            data=make,
            file_name=f"{file_name(name)}.{label.lower()}",
            mime=mime,
            key=f"{key}-{label}",
            help=help_text,
            icon=":material/download:",
            on_click="ignore",
        )


def _for_print(figure: go.Figure, kind: Literal["png", "svg"], width: int, height: int) -> bytes:
    from scdiva_core.figures.static import render  # matplotlib: a page itself needs none of it

    return render(figure, kind, width=width, height=height)


def as_html(figure: go.Figure) -> str:
    """One page that needs no network: plotly's script is inside."""
    return figure.to_html(include_plotlyjs=True, full_html=True, config=_PLOTLY_CONFIG)
