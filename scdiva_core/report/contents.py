"""What stands in a report, before it is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

Facts = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they are read."""


@dataclass(frozen=True)
class Text:
    """A paragraph, plain text: nothing in it is markup.

    Parameters
    ----------
    words
        What it says.
    kind
        A verdict and a warning are set off from the rest.
    """

    words: str
    kind: Literal["plain", "verdict", "warning"] = "plain"


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure.

    Parameters
    ----------
    figure
        For a light background.
    alt
        What it shows, for those who do not see it.
    caption
        Below it.
    """

    figure: go.Figure
    alt: str
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """A table, of which the first rows are shown.

    Parameters
    ----------
    rows
        All of it.
    columns
        Columns shown, in order, and what they are called.
    caption
        What it is.
    """

    rows: pd.DataFrame
    columns: dict[str, str]
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Parameters
    ----------
    title
        Its heading.
    items
        What stands in it.
    """

    title: str
    items: tuple[Text | Picture | Table, ...]


@dataclass(frozen=True)
class Origin:
    """Where a result comes from.

    Parameters
    ----------
    data_set
        What the data set is called.
    data, checkpoint, machine, versions
        Facts of `scdiva_core.report.machine`.
    warning
        What must be said of the weights; empty for nothing.
    random_weights
        Whether the warning is that they mean nothing.
    python
        Lines that make the result again.
    command
        For a shell; None where the command line has no words for it.
    why_no_command
        Said then.
    computed
        When the result was computed; None where that is not known.
    written
        When the report was written.
    """

    data_set: str
    data: Facts
    checkpoint: Facts
    machine: Facts
    versions: Facts
    warning: str
    random_weights: bool
    python: str
    command: str | None
    why_no_command: str
    computed: datetime | None
    written: datetime


@dataclass(frozen=True)
class Report:
    """A result with all that is needed to understand it and to make it again.

    Parameters
    ----------
    title
        What was done.
    asked
        Choices and seeds.
    sections
        What came out, in words first.
    origin
        Data, checkpoint, machine, versions and lines.
    """

    title: str
    asked: Facts
    sections: tuple[Section, ...]
    origin: Origin


def choices(settings: dict[str, object]) -> Facts:
    """Settings as facts, under the names that they have in the lines of Python.

    Parameters
    ----------
    settings
        Plain values, as ``to_dict`` of any settings gives them.
    """
    return tuple((name, _value(value)) for name, value in settings.items())


def _value(value: object) -> str:
    if value is None:
        return "not chosen"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
