"""Cell sets beside the picture: name what was lassoed, rename, delete, undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from pages._ui import errors, maps, resources, state, view, words
from scdiva_core.data.cellsets import CellSet, CellSets, select
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.errors import ScDiVaError

Recipe = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """What was drawn on one picture.

    Parameters
    ----------
    cell_map
        The picture.
    drawn
        Streamlit's selection: polygons in ``lasso``, rectangles in ``box``.
    """

    cell_map: view.CellMap
    drawn: Mapping[str, Any]

    def recipe(self) -> Recipe | None:
        """Recipe of the shape that was drawn last, a polygon in the picture's coordinates; None without one."""
        shapes = [(list(shape["x"]), list(shape["y"])) for shape in self.drawn.get("lasso", ())]
        for shape in self.drawn.get("box", ()):
            (left, right), (low, high) = shape["x"], shape["y"]
            shapes.append(([left, right, right, left], [low, low, high, high]))
        if not shapes:
            return None
        x, y = shapes[-1]
        return {"kind": "lasso", "representation": self.cell_map.representation, "x": x, "y": y}


class Sets:
    """The cell sets of the open data set, kept in the project.

    Parameters
    ----------
    cells
        The open data set.
    maps
        What lassos are drawn on.
    """

    def __init__(self, cells: H5adDataset, maps: Mapping[str, view.CellMap]) -> None:
        self._cells = cells
        self._coordinates = {item.representation: item.coordinates for item in maps.values()}
        self.sets = state.cell_sets(cells.sha256, lambda: self._read(cells))

    @staticmethod
    def _read(cells: H5adDataset) -> CellSets:
        return _made(resources.project().cell_sets(cells.sha256), cells.n_obs)

    def _joined(self, stored: dict[str, Any] | None) -> dict[str, Any]:
        self.sets.catch_up(_made(stored, self._cells.n_obs))
        return self.sets.to_dict()

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Name -> bool ``[n_cells]``."""
        return {item.name: item.mask for item in self.sets}

    def select(self, recipe: Recipe) -> np.ndarray:
        """Cells of a recipe, bool ``[n_cells]``."""
        return select(recipe, self._cells, self._coordinates)

    def change(self, action: Callable[[], object]) -> bool:
        """Change the sets and keep the change; False (and a message on the next run) where that is not possible."""
        try:
            action()
            resources.project().change_cell_sets(self._cells.sha256, self._joined)
        except ScDiVaError as error:
            state.set_sets_problem(error)
            return False
        state.set_sets_problem(None)
        return True


def _made(kept: dict[str, Any] | None, n_obs: int) -> CellSets:
    return CellSets(n_obs) if kept is None else CellSets.from_dict(kept, n_obs)


def panel(sets: Sets, selections: Sequence[Selection], shown: np.ndarray | None) -> None:
    """Draw the form that names what is selected, and the list of sets.

    Parameters
    ----------
    sets
        The user's cell sets.
    selections
        What was drawn on each picture.
    shown
        Cells that pass the filter, bool ``[n_cells]``; None without a filter.
    """
    st.subheader("Cell sets", help=words.HELP["cell set"])
    recipe = next(filter(None, (selection.recipe() for selection in selections)), None)
    if recipe is not None:
        _name_selection(sets, recipe, shown)
    elif not len(sets.sets):
        st.caption(
            "Draw around cells in the picture to select them, then give them a name here. "
            "A cell set can be coloured, exported, and used on every page."
        )
    if problem := state.sets_problem():
        errors.show(problem)
    for item in sets.sets:
        _row(sets, item)
    if sets.sets.can_undo:
        st.button(
            "Undo",
            icon=":material/undo:",
            key="undo-sets",
            type="tertiary",
            help="Take back the last change of the cell sets.",
            on_click=sets.change,
            args=(sets.sets.undo,),
        )


def _name_selection(sets: Sets, recipe: Recipe, shown: np.ndarray | None) -> None:
    inside = sets.select(recipe)
    chosen = inside if shown is None else inside & shown
    with st.container(border=True, key="selection"):
        count = f"{words.number(chosen.sum())} of {words.number(len(chosen))} cells selected"
        st.markdown(f"**{count}**")
        if shown is not None:
            st.caption(f"{words.number(inside.sum())} lie inside; those that the filter dims are left out.")
        with st.form(f"name-set-{state.selection_round()}", border=False):
            name = st.text_input("Name", placeholder="for example: naive T", key=f"set-name-{state.selection_round()}")
            saved = st.form_submit_button("Save as cell set", type="primary", icon=":material/add:", width="stretch")
        st.button(
            "Clear selection",
            type="tertiary",
            key="clear-selection",
            on_click=state.clear_selection,
            width="stretch",
        )
    if saved:
        if shown is not None:
            recipe = {**recipe, "among": "cells that passed the filter"}
        if sets.change(lambda: sets.sets.add(name, recipe, chosen)):
            state.clear_selection()
        st.rerun()


def _row(sets: Sets, item: CellSet) -> None:
    with st.container(border=True, gap="xxsmall", key=f"set-{item.name}"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{words.as_text(item.name)}**", width="content")
            with st.popover("Edit", icon=":material/more_horiz:", help="Rename or delete this set.", type="tertiary"):
                _edit(sets, item)
        st.caption(f"{words.number(item.size)} cells · {recipe_words(item.recipe)}")


def _edit(sets: Sets, item: CellSet) -> None:
    with st.form(f"rename-{item.name}", border=False):
        name = st.text_input("New name", value=item.name, key=f"new-name-{item.name}")
        if st.form_submit_button("Rename", icon=":material/edit:"):
            sets.change(lambda: sets.sets.rename(item.name, name))
            st.rerun()
    st.button(
        "Delete",
        icon=":material/delete:",
        key=f"delete-{item.name}",
        help="Undo brings it back.",
        on_click=sets.change,
        args=(lambda: sets.sets.remove(item.name),),
    )


def recipe_words(recipe: Recipe) -> str:
    """How a set was made, in words."""
    if recipe["kind"] == "lasso":
        drawn_on, own = recipe["representation"], maps.title(recipe["representation"])
        where = f"{words.as_text(drawn_on)} of the file" if own == drawn_on else f"the {words.as_text(own)} map"
        shape = f"drawn on {where}, {len(recipe['x'])} corners"
        return f"{shape}, filtered" if "among" in recipe else shape
    if recipe["kind"] == "category":
        return words.as_text(f"{recipe['column']}: {', '.join(map(str, recipe['values']))}")
    return words.as_text(f"{recipe['symbol']} at least {recipe['min']:.3g}")
