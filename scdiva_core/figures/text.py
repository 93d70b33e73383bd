"""Names from a file, made safe for plotly, which reads a subset of HTML in every text it draws."""

from __future__ import annotations

import html
from collections.abc import Iterable

LEGEND_CHARACTERS = 30


def escaped(names: Iterable[object]) -> list[str]:
    """Text that plotly draws as it is written, tags and ampersands included."""
    # Line breaks and tabs would be collapsed, so one space is what the reader sees anyway.
    return [html.escape(" ".join(str(name).split()), quote=False) for name in names]


def shortened(name: object, length: int = LEGEND_CHARACTERS) -> str:
    """One line of at most `length` characters, escaped, with an ellipsis when it was longer."""
    text = " ".join(str(name).split())
    return escaped([text if len(text) <= length else f"{text[: length - 1]}…"])[0]
