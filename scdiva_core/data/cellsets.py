"""Named sets of cells with the recipe that made them: lasso, category, cluster or gene gate."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.packing import pack_mask, unpack_mask
from scdiva_core.data.shared_lists import caught_up
from scdiva_core.errors import DataError

Recipe = dict[str, Any]

_LONGEST_NAME = 80


@dataclass(frozen=True, eq=False)
class CellSet:
    """A set of cells and how it was made.

    Attributes
    ----------
    name
        Unique within a collection.
    recipe
        What `select` understands; kept so that the set can be made again on this or another file.
    mask
        bool ``[n_obs]`` the cells, as they were when the set was made: a lasso's map may since have changed.
    """

    name: str
    recipe: Recipe
    mask: NDArray[np.bool_]

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(self.mask.sum())


def select(recipe: Recipe, dataset: H5adDataset, coordinates: Mapping[str, NDArray[np.floating]]) -> NDArray[np.bool_]:
    """Find the cells of a recipe.

    Parameters
    ----------
    recipe
        ``{"kind": "lasso", "representation": str, "x": [...], "y": [...]}``, a polygon on a map;
        ``{"kind": "category", "column": str, "values": [...]}``, on a column of ``obs``;
        ``{"kind": "gene", "symbol": str, "min": float}``, log1p expression above 0 and at least ``min``.
    dataset
        The open file.
    coordinates
        Map name to float ``[n_obs, 2]``.

    Returns
    -------
    ndarray
        bool ``[n_obs]``.

    Raises
    ------
    DataError
        The recipe names a map, column or gene that is not there, or is no recipe.
    """
    kind = recipe.get("kind")
    try:
        if kind == "lasso":
            return _inside(coordinates[recipe["representation"]], recipe["x"], recipe["y"])
        if kind == "category":
            column = dataset.obs[recipe["column"]].astype(str)
            return column.isin([str(value) for value in recipe["values"]]).to_numpy()
        if kind == "gene":
            values = dataset.gene(recipe["symbol"])
            return (values > 0) & (values >= float(recipe["min"]))
    except KeyError as error:
        msg = f"This recipe needs {error}, which is not there."
        raise DataError(msg, "Compute the map first, or choose another column.") from error
    except (TypeError, ValueError) as error:
        msg = f"This recipe cannot be read: {error}."
        raise DataError(msg, "Make the cell set again.") from error
    msg = f"{kind!r} is no kind of cell set."
    raise DataError(msg, "Known kinds: lasso, category, gene.")


class CellSets:
    """Cell sets of one data set, in the order they were made, with unlimited undo.

    Parameters
    ----------
    n_obs
        Cells of the data set; every mask has this length.
    """

    def __init__(self, n_obs: int) -> None:
        self.n_obs = n_obs
        self._sets: tuple[CellSet, ...] = ()
        self._history: list[tuple[CellSet, ...]] = []
        self._base: tuple[CellSet, ...] = ()

    def __iter__(self) -> Iterator[CellSet]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, name: str) -> CellSet:
        for item in self._sets:
            if item.name == name:
                return item
        msg = f"There is no cell set {name!r}."
        raise DataError(msg, f"There are: {', '.join(item.name for item in self._sets) or 'none'}.")

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._history)

    def add(self, name: str, recipe: Recipe, mask: NDArray[np.bool_]) -> CellSet:
        """Add a set.

        Raises
        ------
        DataError
            The name is empty, too long or taken, or no cell is selected.
        """
        mask = np.asarray(mask, bool)
        if mask.shape != (self.n_obs,):
            msg = f"The selection has {mask.size:,} cells, the data set {self.n_obs:,}."
            raise DataError(msg, "Draw it again on this data set.")
        if not mask.any():
            msg = "No cell is selected."
            raise DataError(msg, "Draw around at least one cell.")
        added = CellSet(self._free(name), dict(recipe), mask)
        self._change((*self._sets, added))
        return added

    def rename(self, name: str, new_name: str) -> None:
        """Give a set another name.

        Raises
        ------
        DataError
            There is no such set, or the new name is empty, too long or taken.
        """
        item = self[name]
        if new_name.strip() == name:
            return
        renamed = replace(item, name=self._free(new_name))
        self._change(tuple(renamed if other is item else other for other in self._sets))

    def remove(self, name: str) -> None:
        """Delete a set.

        Raises
        ------
        DataError
            There is no such set.
        """
        item = self[name]
        self._change(tuple(other for other in self._sets if other is not item))

    def undo(self) -> None:
        """Take the last change back; nothing happens when there is none."""
        if self._history:
            self._sets = self._history.pop()

    def catch_up(self, stored: CellSets) -> None:
        """Take in what others have stored since these were read or caught up last; undo leaves that alone.

        Parameters
        ----------
        stored
            As it is now; what is here afterwards is to be stored in its place.
        """
        self._history = [caught_up(sets, self._base, stored._sets, _same) for sets in self._history]
        self._sets = self._base = caught_up(self._sets, self._base, stored._sets, _same)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dumps` takes; the history is left out."""
        sets = [{"name": item.name, "recipe": item.recipe, "cells": pack_mask(item.mask)} for item in self._sets]
        return {"n_obs": self.n_obs, "sets": sets}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], n_obs: int) -> CellSets:
        """Read what `to_dict` wrote.

        Raises
        ------
        DataError
            The sets belong to a data set of another size, or are damaged.
        """
        made = cls(n_obs)
        try:
            if values["n_obs"] != n_obs:
                msg = f"These cell sets belong to a data set of {values['n_obs']:,} cells, this one has {n_obs:,}."
                raise DataError(msg, "Open the file that they were made on.")
            made._sets = made._base = tuple(
                CellSet(str(item["name"]), dict(item["recipe"]), unpack_mask(item["cells"], n_obs))
                for item in values["sets"]
            )
        except (KeyError, TypeError, ValueError) as error:
            msg = "The stored cell sets are damaged."
            raise DataError(msg, "Draw them again.") from error
        return made

    def _free(self, name: str) -> str:
        name = " ".join(name.split())
        if not name:
            msg = "The name is empty."
            raise DataError(msg, "Type a name for the cell set.")
        if len(name) > _LONGEST_NAME:
            msg = f"The name has {len(name)} characters."
            raise DataError(msg, f"Use at most {_LONGEST_NAME}.")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            msg = f"The name {name!r} holds a control character."
            raise DataError(msg, "Use letters, digits and punctuation.")
        if any(item.name == name for item in self._sets):
            msg = f"There is a cell set {name!r} already."
            raise DataError(msg, "Choose another name.")
        return name

    def _change(self, sets: tuple[CellSet, ...]) -> None:
        self._history.append(self._sets)
        self._sets = sets


def _same(one: CellSet, other: CellSet) -> bool:
    return one.recipe == other.recipe and np.array_equal(one.mask, other.mask)


def _inside(points: NDArray[np.floating], x: list[float], y: list[float]) -> NDArray[np.bool_]:
    if len(x) < 3 or len(x) != len(y):
        msg = f"A lasso of {len(x)} corners encloses nothing."
        raise DataError(msg, "Draw around the cells.")
    # Few cells lie in the frame of most lassos, and only those need the slow look at each side of it.
    across, up = points.T
    near = (across >= min(x)) & (across <= max(x)) & (up >= min(y)) & (up <= max(y))
    inside = np.zeros(len(points), bool)
    inside[near] = Polygon(np.column_stack([x, y])).contains_points(points[near])
    return inside
