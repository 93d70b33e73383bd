"""Plotly's flow diagrams by matplotlib, laid out by the method that plotly takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from scdiva_core.figures.static_axes import Sheet
from scdiva_core.figures.static_style import (
    POINT,
    CannotDrawError,
    css,
    font_colour,
    font_pixels,
    many,
    plain,
    usual_colour,
    wrapped,
)

_ROUNDS = 50  # plotly's
_COOLING = 0.99
_LABEL_GAP = 5  # pixels


@dataclass(eq=False)
class _Link:
    source: int
    target: int
    value: float
    colour: Any
    width: float = 0.0
    start: float = 0.0
    end: float = 0.0


@dataclass(eq=False)
class _Node:
    size: float
    column: int = 0
    top: float = 0.0
    height: float = 0.0
    sources: list[_Link] = field(default_factory=list)
    targets: list[_Link] = field(default_factory=list)

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def draw_sankey(sheet: Sheet, trace: Any) -> None:
    """Draw one flow diagram over its part of the area between the margins.

    Parameters
    ----------
    sheet
        Where.
    trace
        ``sankey``, from left to right.

    Raises
    ------
    CannotDrawError
        It runs downwards, in a circle, or its nodes have places of their own.
    """
    if trace.orientation == "v" or many(trace.node.x) or many(trace.node.y):
        msg = "A flow diagram that runs downwards or has nodes at given places cannot be drawn for print."
        raise CannotDrawError(msg)
    nodes, links = _read(trace)
    across, up = trace.domain.x or (0, 1), trace.domain.y or (0, 1)
    width, height = ((end - start) * side for (start, end), side in zip((across, up), sheet.area, strict=True))
    inner = sheet.paper.inset_axes(
        (across[0], up[0], across[1] - across[0], up[1] - up[0]), transform=sheet.paper.transAxes
    )
    inner.set(xlim=(0, width), ylim=(height, 0))
    inner.set_axis_off()
    pad = 20.0 if trace.node.pad is None else trace.node.pad
    _arrange(nodes, links, height, pad)
    thick = 20.0 if trace.node.thickness is None else trace.node.thickness
    columns = max((node.column for node in nodes), default=0)
    lefts = [node.column * (width - thick) / max(columns, 1) for node in nodes]
    for link in links:
        _ribbon(inner, link, lefts[link.source] + thick, lefts[link.target])
    for number, node in enumerate(nodes):
        if node.size > 0:
            inner.add_patch(
                Rectangle(
                    (lefts[number], node.top), thick, node.height, color=_node_colour(sheet.layout, trace, number), lw=0
                )
            )
            _label(sheet, inner, trace, number, node, lefts[number], thick, width)


def _read(trace: Any) -> tuple[list[_Node], list[_Link]]:
    given = trace.link
    count = len(given.value) if given.value is not None else 0
    colours = given.color if many(given.color) else [given.color or "rgba(0,0,0,0.2)"] * count
    links = [
        _Link(int(source), int(target), float(value), css(colour))
        for source, target, value, colour in zip(
            given.source or (), given.target or (), given.value or (), colours, strict=True
        )
        if value > 0
    ]
    number = max([len(trace.node.label or ()), *(1 + max(link.source, link.target) for link in links)])
    nodes = [_Node(0.0) for _ in range(number)]
    for link in links:
        nodes[link.source].sources.append(link)
        nodes[link.target].targets.append(link)
    for node in nodes:
        node.size = max(sum(link.value for link in node.sources), sum(link.value for link in node.targets))
    _columns(nodes)
    return nodes, links


def _columns(nodes: list[_Node]) -> None:
    """Give each node the longest way to it from the left; what leads nowhere stands at the right."""
    rest, column = set(range(len(nodes))), 0
    while rest:
        if column > len(nodes):
            msg = "A flow diagram with a circle cannot be drawn for print."
            raise CannotDrawError(msg)
        for number in rest:
            nodes[number].column = column
        rest = {link.target for number in rest for link in nodes[number].sources}
        column += 1
    last = max((node.column for node in nodes if node.size > 0), default=0)
    for node in nodes:
        if not node.sources and node.targets:
            node.column = last


def _arrange(nodes: list[_Node], links: list[_Link], height: float, pad: float) -> None:
    """Place nodes and links from the top, after d3-sankey 0.7 (Bostock), which plotly uses."""
    columns: dict[int, list[_Node]] = {}
    for node in nodes:
        if node.size > 0:
            columns.setdefault(node.column, []).append(node)
    if not columns:
        return
    pad = min(pad, height / 2 / max(len(column) for column in columns.values()))
    unit = min((height - (len(column) - 1) * pad) / sum(node.size for node in column) for column in columns.values())
    for column in columns.values():
        for place, node in enumerate(column):
            node.top, node.height = float(place), node.size * unit
    for link in links:
        link.width = link.value * unit
    _push_apart(columns, height, pad)
    strength = 1.0
    for _ in range(_ROUNDS):
        strength *= _COOLING
        for backwards in (True, False):
            _relax(columns, nodes, strength, backwards=backwards)
            _push_apart(columns, height, pad)
    for node in nodes:
        start = end = 0.0
        for link in sorted(node.sources, key=lambda link: nodes[link.target].top):
            link.start, start = node.top + start + link.width / 2, start + link.width
        for link in sorted(node.targets, key=lambda link: nodes[link.source].top):
            link.end, end = node.top + end + link.width / 2, end + link.width


def _relax(columns: dict[int, list[_Node]], nodes: list[_Node], strength: float, *, backwards: bool) -> None:
    """Move each node towards the nodes that it is linked with, by their weight."""
    for column in sorted(columns, reverse=backwards):
        for node in columns[column]:
            links = node.sources if backwards else node.targets
            if links:
                others = [nodes[link.target if backwards else link.source].middle for link in links]
                node.top += (np.average(others, weights=[link.value for link in links]) - node.middle) * strength


def _push_apart(columns: dict[int, list[_Node]], height: float, pad: float) -> None:
    for column in columns.values():
        column.sort(key=lambda node: node.top)
        edge = 0.0
        for node in column:
            node.top = max(node.top, edge)
            edge = node.top + node.height + pad
        edge = height
        for node in reversed(column):
            node.top = min(node.top, edge - node.height)
            edge = node.top - pad


def _ribbon(axes: Axes, link: _Link, left: float, right: float) -> None:
    middle, half = (left + right) / 2, link.width / 2
    points = [
        (left, link.start - half),
        (middle, link.start - half),
        (middle, link.end - half),
        (right, link.end - half),
        (right, link.end + half),
        (middle, link.end + half),
        (middle, link.start + half),
        (left, link.start + half),
        (left, link.start - half),
    ]
    curve = [Path.CURVE4] * 3
    shape = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    # One that is thinner than a pixel would hardly be seen.
    line = {"edgecolor": link.colour, "linewidth": POINT} if link.width <= 1 else {"linewidth": 0}
    axes.add_patch(PathPatch(shape, facecolor=link.colour, **line))


def _node_colour(layout: go.Layout, trace: Any, number: int) -> Any:
    given = trace.node.color
    return css(given[number] if many(given) else given or usual_colour(layout, number))


def _label(
    sheet: Sheet, axes: Axes, trace: Any, number: int, node: _Node, left: float, thick: float, width: float
) -> None:
    names = trace.node.label or ()
    if number >= len(names) or not names[number]:
        return
    size = font_pixels(sheet.layout, trace.textfont)
    # As in plotly: what stands in the right half is named on its left.
    before = left > width / 2
    axes.text(
        left - _LABEL_GAP if before else left + thick + _LABEL_GAP,
        node.middle,
        wrapped(plain(names[number]), width / 2, size),
        ha="right" if before else "left",
        va="center",
        fontsize=size * POINT,
        color=font_colour(sheet.layout, trace.textfont),
        bbox={"facecolor": css(sheet.layout.paper_bgcolor or "white", 0.6), "edgecolor": "none", "pad": 0.8},
        zorder=4,
    )
