"""Tables for spreadsheets: no text of a file becomes a formula or hides anything."""

from __future__ import annotations

import re
from numbers import Number

import pandas as pd

_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def as_csv(table: pd.DataFrame, index: str | None = None) -> bytes:
    """Table as CSV in UTF-8; text that a spreadsheet would take for a formula is kept as text.

    Parameters
    ----------
    table
        Numbers are written as they are, missing values empty, everything else as `inert` text, columns' names too.
    index
        Name of the column that the index is written as; None leaves it out.
    """
    safe = table.copy()
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, table.iloc[:, place].astype(object).map(_written).to_numpy(object))
    safe.columns = [inert(name) for name in table.columns]
    if index is not None:
        safe.index = pd.Index([_written(name) for name in table.index], name=index)
    return safe.to_csv(index=index is not None, lineterminator="\n").encode("utf-8", "replace")


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


def _written(value: object) -> object:
    if isinstance(value, Number) or value is None or value is pd.NA or value is pd.NaT:
        return value
    return inert(value)
