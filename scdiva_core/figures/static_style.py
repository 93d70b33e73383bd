"""What plotly writes as text, told to matplotlib: markup, numbers, colours, dashes and symbols."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import plotly.graph_objects as go

from scdiva_core.errors import ScDiVaError

INCH = 96.0
"""Plotly pixels to the inch: they are CSS pixels."""

POINT = 0.75
"""Points in a pixel."""

_LETTER = 0.56  # width of a letter of the default font, in sizes of the font
_LEAST_DASH = 3  # pixels, as in plotly: dashes of a thin line are no shorter
_DASHES = {
    "solid": (),
    "dot": (1, 1),
    "dash": (3, 3),
    "longdash": (5, 5),
    "dashdot": (3, 1, 1, 1),
    "longdashdot": (5, 2, 1, 2),
}
# Plotly's symbol -> matplotlib's marker, and how much larger plotly draws it at the same size.
_SYMBOLS: dict[str, tuple[Any, float]] = {
    "circle": ("o", 1.0),
    "square": ("s", 1.0),
    "diamond": ("D", 0.95),
    "cross": ("P", 1.2),
    "x": ("X", 1.1),
    "triangle-up": ("^", 1.1),
    "triangle-down": ("v", 1.1),
    "triangle-left": ("<", 1.1),
    "triangle-right": (">", 1.1),
    "pentagon": ("p", 1.0),
    "hexagon": ("H", 1.0),
    "hexagon2": ("h", 1.0),
    "octagon": ("8", 1.0),
    "star": ("*", 1.4),
    "hexagram": ((6, 1, 0), 1.2),
    "diamond-tall": ("d", 1.4),
    "cross-thin": ("+", 1.4),
    "x-thin": ("x", 1.0),
    "asterisk": ((8, 2, 0), 1.2),
    "line-ew": ("_", 1.4),
    "line-ns": ("|", 1.4),
}
_LINES_ONLY = {"cross-thin", "x-thin", "asterisk", "line-ew", "line-ns"}
_LARGE = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


_COLOURS = (
    "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf"  # plotly's without a template
).split()


class CannotDrawError(ScDiVaError):
    """A figure holds what the files for print have no picture of; better none than a wrong one."""


def plain(text: str | None) -> str:
    """Text of a figure without plotly's markup, entities resolved."""
    lines = re.sub(r"<br\s*/?>", "\n", text or "")
    bare = re.sub(r"</?(?:b|i|em|strong|span|sub|sup|a|s|u)\b[^>]*>", "", lines)
    # A dollar sign would start a formula in matplotlib.
    return html.unescape(bare).replace("$", r"\$")


def weight(text: str | None) -> str:
    """Weight of a font: bold where the whole text is marked so."""
    return "bold" if re.fullmatch(r"\s*<b>.*</b>\s*", text or "", re.DOTALL) else "normal"


def wrapped(text: str, pixels: float, size: float) -> str:
    """Break lines that are longer than a place.

    Parameters
    ----------
    text
        Of `plain`.
    pixels
        Room.
    size
        Of the font, in pixels.
    """
    letters = max(int(pixels / (_LETTER * size)), 8)
    return "\n".join(textwrap.fill(line, letters) for line in text.split("\n"))


def css(colour: str, opacity: float | None = None) -> tuple[float, float, float, float]:
    """Convert a colour of CSS, made fainter by an opacity.

    Raises
    ------
    CannotDrawError
        It is written in a way that is not known.
    """
    alpha = 1.0
    try:
        if colour == "transparent":
            return (0.0, 0.0, 0.0, 0.0)
        if colour.startswith("rgb"):
            red, green, blue, *rest = (float(part) for part in re.findall(r"[\d.]+", colour))
            parts, alpha = (red / 255, green / 255, blue / 255), (rest[0] if rest else 1.0)
        else:
            *parts, alpha = matplotlib.colors.to_rgba(colour)
    except ValueError:
        msg = f"The colour {colour!r} of this figure is not known, so it cannot be drawn for print."
        raise CannotDrawError(msg) from None
    return (*parts, alpha * (1.0 if opacity is None else opacity))


def usual_colour(layout: go.Layout, place: int) -> str:
    """Colour of the trace or node at a place that names none."""
    colours = layout.colorway or _COLOURS
    return colours[place % len(colours)]


def contrast(colour: Any) -> str:
    """Colour of what is drawn on a colour: white on dark ones, else dark."""
    red, green, blue, _ = matplotlib.colors.to_rgba(colour)
    return "#FFFFFF" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#444444"


def many(value: Any) -> bool:
    """Whether an option holds a value for each point rather than one for all."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def dashes(dash: str | None, width: float) -> tuple[int, tuple[float, ...] | None]:
    """Line style of matplotlib, which counts dashes in widths of the line."""
    pixels = max(width, 0.1)
    if dash and "px" in dash:
        return 0, tuple(float(part.strip(" px")) / pixels for part in dash.split(","))
    known = _DASHES.get(dash or "solid")
    if known is None:
        msg = f"The line style {dash!r} of this figure is not known, so it cannot be drawn for print."
        raise CannotDrawError(msg)
    return 0, tuple(part * max(pixels, _LEAST_DASH) / pixels for part in known) or None


def symbol(name: str | None) -> tuple[Any, float, bool]:
    """Marker of matplotlib, factor on its size, and whether it is filled.

    Raises
    ------
    CannotDrawError
        There is none for the symbol.
    """
    name = name or "circle"
    shape = name.removesuffix("-open")
    if shape not in _SYMBOLS:
        msg = f"The symbol {name!r} of this figure is not known, so it cannot be drawn for print."
        raise CannotDrawError(msg)
    return (*_SYMBOLS[shape], shape == name and shape not in _LINES_ONLY)


def number(value: float, form: str | None = None) -> str:
    """Write the number of a tick, as d3's format says; without one, thousands are k and millions M.

    Raises
    ------
    CannotDrawError
        The format is none that is known.
    """
    if not form or form.endswith("s"):
        text = _short(value)
    else:
        spec = form.replace("~", "")
        try:
            text = format(round(value) if spec.endswith("d") else value, spec)
        except ValueError:
            msg = f"The number format {form!r} of this figure is not known, so it cannot be drawn for print."
            raise CannotDrawError(msg) from None
        if "~" in form and "." in text:
            text = re.sub(r"\.?0+(?=\D*$)", "", text, count=1)
    return text.replace("-", "−")


def font_pixels(layout: go.Layout, *fonts: Any, default: float | None = None) -> float:
    """Size of the first font that has one, else of all text of the figure, in pixels."""
    sizes = (font.size for font in fonts if font is not None)
    own = next((size for size in sizes if size is not None), None)
    return float(own or default or layout.font.size or 12)


def font_colour(layout: go.Layout, *fonts: Any) -> Any:
    """Colour of the first font that has one, else of all text of the figure."""
    own = next((font.color for font in fonts if font is not None and isinstance(font.color, str)), None)
    return css(own or layout.font.color or "#444")


def _short(value: float) -> str:
    if abs(value) >= 1e4:
        least, letter = next((least, letter) for least, letter in _LARGE if abs(value) >= least)
        return f"{value / least:g}{letter}"
    return f"{round(value, 12):g}"
