"""Choose cells of the open data set: all, those of a category, or a cell set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from pages._ui import words
from pages._ui.sets_panel import Sets
from scdiva_core.data.h5ad import H5adDataset

ALL, NOTHING = "all", "nothing"
_CATEGORY = "category"
_SET = "set: "


@dataclass(frozen=True)
class Picker:
    """What cells are chosen from.

    Parameters
    ----------
    cells
        The open data set.
    sets
        The user's cell sets.
    columns
        Columns of obs whose values are groups of cells.
    """

    cells: H5adDataset
    sets: Sets
    columns: Sequence[str]

    def pick(self, label: str, *, prefix: str, help_text: str, optional: bool = False) -> tuple[str, np.ndarray | None]:
        """Let the user choose.

        Parameters
        ----------
        label, help_text
            Of the field.
        prefix
            Of the keys of the fields.
        optional
            Offer nothing, first, instead of all cells.

        Returns
        -------
        tuple
            Name of the set and places of its cells (int64, ascending). Places are None for all cells, whose name is
            `ALL`, and for none, whose name is `NOTHING`.
        """
        masks, key = self.sets.masks, f"{prefix}-cells"
        first = NOTHING if optional else ALL
        options = [first, *([_CATEGORY] if self.columns else []), *(f"{_SET}{name}" for name in masks)]
        kept = st.session_state.get(key)
        if kept is not None and kept not in options:  # another file, or the set was deleted
            del st.session_state[key]
        told = {ALL: f"All {words.number(self.cells.n_obs)} cells", NOTHING: "nothing"}
        option = st.selectbox(
            label,
            options,
            format_func=lambda option: {**told, _CATEGORY: "Cells of a category …"}.get(
                option, f"Cell set {option.removeprefix(_SET)}"
            ),
            key=key,
            help=help_text,
            persist_state="session",
        )
        if option == first:
            return first, None
        if option == _CATEGORY:
            return self._category(prefix)
        name = option.removeprefix(_SET)
        return name, np.flatnonzero(masks[name]).astype(np.int64)

    def _category(self, prefix: str) -> tuple[str, np.ndarray]:
        column = st.selectbox("Column", self.columns, key=f"{prefix}-column", persist_state="session")
        values = self.cells.obs[column].dropna().astype(str)
        chosen = st.multiselect(
            "Values",
            sorted(set(values), key=str.casefold),
            key=f"{prefix}-values-{column}",
            placeholder="choose at least one",
            persist_state="session",
        )
        inside = self.cells.obs[column].astype(str).isin(chosen) & self.cells.obs[column].notna()
        name = f"{column}={chosen[0]}" if len(chosen) == 1 else f"{column}: {', '.join(chosen)}"
        return name, np.flatnonzero(inside.to_numpy()).astype(np.int64)


def is_subset(cells: H5adDataset, name: str, places: np.ndarray) -> bool:
    """Whether the name of a set, as ``COLUMN=VALUE``, means these cells to the command line."""
    column, equals, value = name.partition("=")
    if not equals or column not in cells.obs:
        return False
    return np.array_equal(np.flatnonzero(cells.obs[column].astype(str) == value), places)
