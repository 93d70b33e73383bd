"""How a page draws a figure or a table: with its downloads, and text instead where there is nothing."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages._ui import export, frame
from pages._ui.annotation_export import table_download

Draw = Callable[[bool], go.Figure]

NO_NUMBER = "–"
"""What stands in a table where nothing was measured or tested."""

_SCIENTIFIC = ("p", "q")
_PAPER_WIDTH = 960


def figure(
    draw: Draw, name: str, *, key: str, alt: str, paper: Callable[[], go.Figure] | None = None, **options: object
) -> None:
    """Show a figure and offer it as PNG, SVG and HTML.

    Parameters
    ----------
    draw
        ``draw(dark)`` makes it.
    name
        File name without ending.
    key
        Unique on the page.
    alt
        What it shows, for those who do not see it.
    paper
        Makes what goes into files, where that is not ``draw(False)``, as when `draw` looks at the width of the page.
    options
        Further ones of ``st.plotly_chart``.
    """
    shown = draw(frame.is_dark())
    config: dict[str, object] = {**export.plotly_config(name), "scrollZoom": False}
    if frame.is_phone():
        config["displayModeBar"] = False  # it would lie on the title, and never hide
    st.plotly_chart(shown, theme=None, key=key, config=config, alt=alt, **options)
    with st.container(horizontal=True, key=f"{key}-downloads"):
        size = (_PAPER_WIDTH, int(shown.layout.height or 560))
        export.figure_downloads(paper or (lambda: draw(False)), name, key=f"{key}-figure", size=size)


def table(
    rows: pd.DataFrame,
    columns: dict[str, str],
    name: str,
    *,
    key: str,
    alt: str,
    help_texts: dict[str, str] | None = None,
    height: int | None = None,
) -> None:
    """Show a table and offer it as CSV.

    Parameters
    ----------
    rows
        All of it goes into the CSV, under its own column names.
    columns
        Columns shown, in order, and what they are called for people.
    name
        File name without ending.
    key
        Unique on the page.
    alt
        What it shows.
    help_texts
        Of columns.
    height
        Pixels; as high as the rows when None.
    """
    options = {} if height is None else {"height": height}
    st.dataframe(
        rows,
        hide_index=True,
        placeholder=NO_NUMBER,
        width="stretch",
        key=key,
        alt=alt,
        column_order=list(columns),
        column_config=column_config(rows, columns, help_texts or {}),
        **options,
    )
    table_download("Table (CSV)", rows, name, key=f"{key}-csv")


def column_config(rows: pd.DataFrame, columns: dict[str, str], help_texts: dict[str, str]) -> dict[str, object]:
    """How numbers of a table are written: p and q with an exponent, counts whole, the rest with three digits."""
    made: dict[str, object] = {}
    for column, label in columns.items():
        kind = rows[column].dtype
        if pd.api.types.is_bool_dtype(kind) or not pd.api.types.is_numeric_dtype(kind):
            made[column] = st.column_config.Column(label, help=help_texts.get(column))
            continue
        if pd.api.types.is_integer_dtype(kind):
            form = "localized"
        else:
            form = "%.2g" if column in _SCIENTIFIC else "%.3g"
        made[column] = st.column_config.NumberColumn(label, format=form, help=help_texts.get(column))
    return made
