"""What every figure has in common: fonts, margins, the title and its warning."""

from __future__ import annotations

import plotly.graph_objects as go

from scdiva_core.figures.palette import Theme, theme
from scdiva_core.figures.text import escaped

_FONT = '"Source Sans", "Source Sans 3", "Helvetica Neue", Arial, sans-serif'


def base_layout(*, title: str, note: str, height: int, dark: bool) -> go.Layout:
    """Layout of an empty figure.

    Parameters
    ----------
    title
        Drawn at the top left; text from a file is safe.
    note
        A warning that must travel with the picture (weights that are random or provisional), drawn below
        the title; empty for none.
    height
        Pixels.
    dark
        For a dark page.
    """
    colours = theme(dark=dark)
    heading, remark = escaped([title, note])
    # Both are part of the title so that no export can lose the warning.
    text = f"{heading}<br><span style='font-size:12px;color:{colours.warning}'>{remark}</span>" if note else heading
    return go.Layout(
        template="none",
        height=height,
        title={"text": text, "x": 0.01, "xanchor": "left", "y": 0.98, "yanchor": "top", "font": {"size": 16}},
        font={"family": _FONT, "size": 13, "color": colours.text},
        paper_bgcolor=colours.background,
        plot_bgcolor=colours.background,
        margin={"l": 28, "r": 8, "t": 62, "b": 30},
        hoverlabel={"font": {"family": _FONT, "size": 13}, "align": "left"},
        # Zoom survives a change of colours.
        uirevision="keep",
        selectionrevision="keep",
    )


def apply_layout(figure: go.Figure, *, title: str, note: str, height: int, dark: bool) -> None:
    """Give a figure that has its traces the layout that all have in common; what else its own layout says stays.

    ``update_layout`` with a whole layout goes through all that a layout can hold, which takes ten times as long.

    Parameters
    ----------
    figure
        Changed in place.
    title, note, height, dark
        As of `base_layout`.
    """
    own = figure.layout.to_plotly_json()
    own.pop("template", None)
    figure.layout = base_layout(title=title, note=note, height=height, dark=dark).update(own)


def plain_axis(label: str, colours: Theme) -> dict[str, object]:
    """Axis without ticks: the numbers of a UMAP mean nothing."""
    return {
        "title": {"text": label, "font": {"size": 12}, "standoff": 4},
        "showgrid": False,
        "zeroline": False,
        "showticklabels": False,
        "ticks": "",
        "showline": True,
        "linecolor": colours.grid,
    }
