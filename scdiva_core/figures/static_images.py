"""Pictures that lie below plotly's traces, by matplotlib."""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.image import imread

from scdiva_core.figures.static_axes import Sheet
from scdiva_core.figures.static_style import CannotDrawError

_PNG = "data:image/png;base64,"
_BELOW = 0.5


def draw_images(sheet: Sheet) -> None:
    """Draw all pictures that a figure brings along.

    Raises
    ------
    CannotDrawError
        One is no PNG inside the figure, or is not stretched over a part of the axes.
    """
    for image in sheet.layout.images:
        if image.visible is False:
            continue
        pair = (image.xref, image.yref)
        known = (image.source or "").startswith(_PNG) and image.sizing == "stretch" and image.layer == "below"
        if not known or pair not in sheet.subplots:
            msg = "This figure holds a picture that cannot be drawn for print. Take it home as HTML."
            raise CannotDrawError(msg)
        sheet.subplots[pair].axes.imshow(
            imread(io.BytesIO(base64.b64decode(image.source.removeprefix(_PNG))), format="png"),
            extent=_extent(image),
            aspect="auto",
            alpha=image.opacity,
            zorder=_BELOW,
        )


def _extent(image: Any) -> tuple[float, float, float, float]:
    """Left, right, bottom, top; anchors say which corner is named."""
    left = image.x - {"left": 0, "center": 0.5, "right": 1}[image.xanchor or "left"] * image.sizex
    top = image.y + {"top": 0, "middle": 0.5, "bottom": 1}[image.yanchor or "top"] * image.sizey
    return left, left + image.sizex, top - image.sizey, top
