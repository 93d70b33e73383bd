"""Colours that keep their meaning: one list for categories, one scale for numbers, greys for the rest."""

from __future__ import annotations

from dataclasses import dataclass

# The first eight are those of .streamlit/config.toml (after Okabe and Ito, 2008). The others were chosen one
# by one, each as far as possible in Oklab from all before it, as seen with normal vision, protanopia and
# deuteranopia (Machado et al. 2009), and at least 2.2:1 (light) or 3:1 (dark) off the background.
_LIGHT = (
    "#3A7CC9 #AB3205 #167453 #CE789E #9F7103 #459CD8 #A5961B #32292D "
    "#781D92 #37C678 #AC4492 #5E445E #44106B #2A51C6 #109F6B #9FACD3 "
    "#6B2A10 #E09F51 #9F6BED #921037 #C63751 #D39FAC #9F6B85 #6B1051"
).split()
_DARK = (
    "#50AEFA #DA7400 #40A87A #D385BC #FFB33F #97C9FD #F3F65B #CECFCA "
    "#5E51C6 #AC376B #855E10 #10789F #9F6BED #2AE085 #B95E51 #B9EDAC "
    "#92B99F #ACAC44 #6B78C6 #E0ACD3 #1D9292 #ED6B6B #449F10 #2AEDED"
).split()

SYMBOLS = ("circle", "diamond", "cross")
"""Shapes for the first, second and third round of colours."""

MAX_CATEGORIES = len(_LIGHT) * len(SYMBOLS)
"""More categories than this cannot be told apart: the smallest are drawn as one."""

VALUE_SCALE = "Viridis"
"""For numbers; even steps of it look even, in greyscale and with any colour vision."""


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data.

    Parameters
    ----------
    background, text, grid
        Of the figure.
    missing
        Cells without a value.
    dimmed
        Cells that a filter leaves out.
    warning
        Text that must not be overlooked.
    """

    background: str
    text: str
    grid: str
    missing: str
    dimmed: str
    warning: str


LIGHT = Theme("#FFFFFF", "#1B2730", "#E3E9ED", "#B3BBC1", "#E4E8EB", "#B3361F")
DARK = Theme("#11161B", "#DEE6EC", "#2A343D", "#66727C", "#27313A", "#FF9B85")


def theme(*, dark: bool) -> Theme:
    """Colours of the light or the dark theme."""
    return DARK if dark else LIGHT


def category_style(index: int, *, dark: bool = False) -> tuple[str, str]:
    """Colour and symbol of a category.

    Parameters
    ----------
    index
        Position of the category, from 0.
    dark
        For a dark background.

    Returns
    -------
    tuple of str
        ``"#RRGGBB"`` and the name of a plotly symbol; no two of the first `MAX_CATEGORIES` are the same.
    """
    colours = _DARK if dark else _LIGHT
    return colours[index % len(colours)], SYMBOLS[index // len(colours) % len(SYMBOLS)]
