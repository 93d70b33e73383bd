"""A report as one HTML page that needs no network, runs no script and takes no name of a file for markup."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scdiva_core.figures.static import render
from scdiva_core.report.contents import Picture, Report, Table
from scdiva_core.report.machine import THREADS

MOST_ROWS = 50
"""Rows of a table that are shown; the whole table is a download of its own."""

NO_NUMBER = "–"
"""What stands where nothing was measured or tested."""

_WIDTH, _HEIGHT, _DPI = 960, 560, 192
_PROBABILITIES = ("p", "q")
# Control characters, marks that turn the direction of text, and halves of characters that no encoding takes.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def as_html(report: Report) -> str:
    """Lay a report out; figures are drawn now, about a second each.

    Parameters
    ----------
    report
        Its content.

    Returns
    -------
    str
        The page, for a file in UTF-8.

    Raises
    ------
    CannotDrawError
        A figure holds something that cannot be drawn as a picture.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html.j2")
    sections = [(section.title, [_item(item) for item in section.items]) for section in report.sections]
    return template.render(report=report, origin=report.origin, sections=sections, threads=THREADS, date=_date)


def _visible(value: object) -> object:
    """Text without what a reader cannot see; everything else as it is."""
    return _INVISIBLE.sub("\ufffd", value) if type(value) is str else value


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _item(item: object) -> dict[str, Any]:
    """What the template needs of an item, by kind."""
    if isinstance(item, Picture):
        return _drawn(item)
    if isinstance(item, Table):
        return _tabulated(item)
    return {"kind": item.kind, "words": item.words}


def _drawn(picture: Picture) -> dict[str, Any]:
    width, height = _WIDTH, int(picture.figure.layout.height or _HEIGHT)
    content = base64.b64encode(render(picture.figure, "png", width=width, height=height, dpi=_DPI)).decode()
    source = f"data:image/png;base64,{content}"
    place = {"source": source, "width": width, "height": height}
    return {"kind": "picture", "alt": picture.alt, "caption": picture.caption, **place}


def _tabulated(table: Table) -> dict[str, Any]:
    first = table.rows.head(MOST_ROWS)
    columns = [_cells(first[name], name) for name in table.columns]
    numeric = [pd.api.types.is_numeric_dtype(first[name]) for name in table.columns]
    return {
        "kind": "table",
        "caption": table.caption,
        "names": list(zip(table.columns.values(), numeric, strict=True)),
        "rows": [list(zip(row, numeric, strict=True)) for row in zip(*columns, strict=True)],
        "left_out": len(table.rows) - len(first),
        "n_rows": len(table.rows),
    }


def _cells(column: pd.Series, name: str) -> list[str]:
    """A column as text: p and q with two digits, counts whole, other numbers with three digits."""
    form = ".2g" if name in _PROBABILITIES else ".3g"
    return [_cell(value, form) for value in column]


def _cell(value: object, form: str) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or (np.isscalar(value) and pd.isna(value)):
        return NO_NUMBER
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:{form}}"
    return str(value)
