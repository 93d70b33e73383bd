"""Figures and tables to take home; made only when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from scdiva_core.figures.static import render

_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

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
    """Name for a file, of letters, digits, dots and dashes."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-.")
    return stem[:100] or "scdiva"


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
            lambda: render(figure(), "png", width=width, height=height),
        ),
        (
            "SVG",
            "image/svg+xml",
            "Text stays editable, points are one picture.",
            lambda: render(figure(), "svg", width=width, height=height),
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


def as_html(figure: go.Figure) -> str:
    """One page that needs no network: plotly's script is inside."""
    return figure.to_html(include_plotlyjs=True, full_html=True, config=_PLOTLY_CONFIG)


def as_csv(table: pd.DataFrame) -> bytes:
    """Table as CSV; text that a spreadsheet would take for a formula is kept as text.

    Parameters
    ----------
    table
        Its index is written as the column ``cell``.
    """
    safe = table.copy()
    for column in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[column] = _inert(safe[column])
    safe.index = pd.Index(_inert(safe.index.to_series()), name="cell")
    return safe.rename(columns=inert).to_csv().encode("utf-8", "replace")


def inert(text: object) -> str:
    """Text that no spreadsheet takes for a formula, and that looks like what it is.

    An apostrophe goes before ``= + - @``, their full-width forms, a tab and a line break, also after spaces.
    Control characters and marks that turn the direction of text become U+FFFD; a carriage return, which would begin
    a new row because no writer puts it into quotes, becomes a line break.

    Parameters
    ----------
    text
        Any value; what it is as text is taken.
    """
    shown = _INVISIBLE.sub("\ufffd", str(text).replace("\r\n", "\n").replace("\r", "\n"))
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _inert(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").map(inert)
