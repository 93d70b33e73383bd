"""What the picture shows: which map of the cells, which colours, which cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from scdiva_core.figures.raster import Window, category_raster, value_raster
from scdiva_core.figures.sample import MAX_DRAWN, drawn_rows
from scdiva_core.figures.scatter import Canvas, category_scatter, value_scatter

MOST_LABELS = 500
"""A column with more different values than this names cells, not groups of them."""

_FEW_NUMBERS = 30


@dataclass(frozen=True)
class CellMap:
    """Cells on a plane.

    Parameters
    ----------
    name
        What the user calls it.
    representation
        What it is in cell-set recipes: ``"X_scdiva"``, ``"X_pca"`` or a key of the file's obsm.
    coordinates
        float32 ``[n_cells, 2]``.
    axes
        Labels of the axes.
    note
        Warning that must travel with the picture, where it is not that of the running checkpoint.
    """

    name: str
    representation: str
    coordinates: np.ndarray
    axes: tuple[str, str]
    note: str = ""


@dataclass(frozen=True)
class Categories:
    """Colours by group.

    Parameters
    ----------
    label
        What the groups are.
    codes
        Int ``[n_cells]``, -1 for none.
    names
        Name of each group.
    """

    label: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """Colours by a number.

    Parameters
    ----------
    label
        What the number is, with its unit.
    values
        Float ``[n_cells]``, NaN for none.
    """

    label: str
    values: np.ndarray


Colouring = Categories | Numbers


def column_colouring(column: pd.Series, label: str) -> Colouring | None:
    """Colours for a column of obs.

    Parameters
    ----------
    column
        Categories, text, booleans or numbers; whole numbers with few values count as categories.
    label
        Name of the column.

    Returns
    -------
    Categories, Numbers or None
        None for text with so many values that it names cells and not groups.
    """
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return _grouped(column, label)
    values = pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)
    known = values[np.isfinite(values)]
    if (known == np.floor(known)).all() and len(np.unique(known)) <= _FEW_NUMBERS:
        return _grouped(pd.Series(values).astype("Int64"), label)
    return Numbers(label, values)


def _grouped(column: pd.Series, label: str) -> Categories | None:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        codes, names = column.cat.codes.to_numpy(), column.cat.categories
    else:
        filled = column.astype(object).where(column.notna(), None)
        codes, names = pd.factorize(filled.where(filled != "", None), sort=False)
    if len(names) > MOST_LABELS:
        return None
    if not isinstance(column.dtype, pd.CategoricalDtype):
        order = sorted(range(len(names)), key=lambda index: _natural(names[index]))
        rank = np.argsort(order)
        codes, names = np.where(codes < 0, -1, rank[codes]), [names[index] for index in order]
    return Categories(label, np.asarray(codes, dtype=np.int64), tuple(str(name) for name in names))


def _natural(name: object) -> tuple[int, float, str]:
    """Sort numbers as numbers, before text."""
    return (0, float(name), "") if isinstance(name, int | float | np.number) else (1, 0.0, str(name))


def logarithm(numbers: Numbers) -> Numbers:
    """Colours by log(1 + value); values below zero have none."""
    values = np.where(numbers.values >= 0, numbers.values, np.nan)
    return Numbers(f"log(1 + {numbers.label})", np.log1p(values))


def set_colouring(masks: Mapping[str, np.ndarray], n_cells: int) -> Categories:
    """Colours by cell set; cells in several sets are a group of their own.

    Parameters
    ----------
    masks
        Name -> bool ``[n_cells]``.
    n_cells
        Number of cells.
    """
    codes = np.full(n_cells, -1)
    hits = np.zeros(n_cells, dtype=int)
    for index, mask in enumerate(masks.values()):
        codes[mask] = index
        hits += mask
    names = [*masks]
    if (hits > 1).any():
        codes[hits > 1] = len(names)
        names.append("in several sets")
    return Categories("Cell sets", codes, tuple(names))


def is_raster(cells: CellMap, window: Window | None = None) -> bool:
    """Whether `draw` makes one picture of the cells, or of those in a window, and not a point for each."""
    if len(cells.coordinates) <= MAX_DRAWN:
        return False
    return window is None or int(window.inside(cells.coordinates).sum()) > MAX_DRAWN


def draw(
    cells: CellMap,
    colouring: Colouring,
    names: np.ndarray,
    *,
    shown: np.ndarray | None,
    canvas: Canvas,
    names_on_picture: bool,
    limit: int | None = None,
    window: Window | None = None,
    fine: bool = False,
) -> go.Figure:
    """Figure of all cells: points as long as a browser can hold them, else one picture (see `is_raster`).

    Parameters
    ----------
    cells
        Where they are.
    colouring
        Their colours.
    names
        Object array of str ``[n_cells]``.
    shown
        Bool ``[n_cells]``; the others are grey. None shows all. These are drawn first where not all cells can be.
    canvas
        Title, warning, size.
    names_on_picture
        Write the groups' names on the picture.
    limit
        Draw points whatever their number, a fixed random subset of so many cells at most.
    window
        Part of the map to be drawn; everything by default. Not together with `limit`.
    fine
        A picture for print.
    """
    if limit is None and is_raster(cells, window):
        options = {"shown": shown, "window": window, "canvas": canvas, "fine": fine}
        xy = cells.coordinates
        if isinstance(colouring, Numbers):
            return value_raster(xy, colouring.values, value_label=colouring.label, **options)
        return category_raster(xy, colouring.codes, colouring.names, names_on_picture=names_on_picture, **options)
    rows = _drawn(cells, shown, limit, window)
    options = {"names": names[rows], "shown": None if shown is None else shown[rows], "canvas": canvas}
    xy = cells.coordinates[rows]
    if isinstance(colouring, Numbers):
        figure = value_scatter(xy, colouring.values[rows], value_label=colouring.label, **options)
    else:
        figure = category_scatter(
            xy, colouring.codes[rows], colouring.names, names_on_picture=names_on_picture, **options
        )
    if window is not None:
        window.frame(figure)
        _whole_scale(figure, colouring)
    return figure


def _drawn(cells: CellMap, shown: np.ndarray | None, limit: int | None, window: Window | None) -> np.ndarray:
    """Cells that become points."""
    if window is not None:
        return np.flatnonzero(window.inside(cells.coordinates))
    n_cells = len(cells.coordinates)
    limit = n_cells if limit is None else limit
    rows = drawn_rows(n_cells, limit)
    if shown is not None and len(rows) < n_cells:
        wanted = np.flatnonzero(shown)
        rows = np.union1d(drawn_rows(n_cells, limit // 2), wanted[drawn_rows(len(wanted), limit // 2)])
    return rows


def _whole_scale(figure: go.Figure, colouring: Colouring) -> None:
    """Give the colours of a part the meaning that they have on the whole map."""
    if isinstance(colouring, Numbers):
        known = colouring.values[np.isfinite(colouring.values)]
        for trace in figure.data:
            if trace.marker.colorscale is not None and len(known):
                trace.update(marker={"cmin": known.min(), "cmax": known.max()})
