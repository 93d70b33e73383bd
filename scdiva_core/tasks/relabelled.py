"""Tables of cells counted twice over: by old and new label, by group and batch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scdiva_core.errors import DataError

NO_LABEL = "no label"
"""Name of cells whose label or group is missing or blank."""

NO_BATCH = "no batch"
"""Name of cells whose batch is missing or blank."""


def texts(values: ArrayLike) -> pd.Series:
    """Names as text, without spaces around them; missing where a name is missing or blank.

    Parameters
    ----------
    values
        ``[n]`` of any type, a categorical column of ``obs`` included. Not changed.

    Returns
    -------
    Series
        str or NaN ``[n]``, indexed from 0.
    """
    given = pd.Series(np.asarray(values, dtype=object))
    text = given.astype(str).str.strip()
    return text.mask(given.isna() | (text == ""))


def confusion(old: ArrayLike, new: ArrayLike) -> pd.DataFrame:
    """Count cells by their label before and after a review.

    Parameters
    ----------
    old, new
        ``[n]`` names of the same cells; missing ones are called `NO_LABEL`.

    Returns
    -------
    DataFrame
        Cells, int ``[old labels, new labels]``, axes named ``"old"`` and ``"new"``. Rows have the largest label
        first, by name among equals; columns keep their order and go on with labels that are new, so that what stayed
        stands on the diagonal as long as no label vanished.

    Raises
    ------
    DataError
        There are more of one than of the other.
    """
    before, after = texts(old).fillna(NO_LABEL), texts(new).fillna(NO_LABEL)
    _check_same_cells("old labels", before, "new labels", after)
    rows, found = _by_size(before), _by_size(after)
    columns = [name for name in rows if name in set(found)]
    return _counted(before, after, rows, [*columns, *(name for name in found if name not in set(rows))], "old", "new")


def composition_table(groups: ArrayLike, batches: ArrayLike) -> pd.DataFrame:
    """Count the cells of each batch in each group.

    Parameters
    ----------
    groups
        ``[n]`` label, cluster or set of each cell; missing ones are called `NO_LABEL`.
    batches
        ``[n]`` batch of each cell; missing ones are called `NO_BATCH`.

    Returns
    -------
    DataFrame
        Cells, int ``[groups, batches]``, axes named ``"group"`` and ``"batch"``, the largest first on both and by
        name among equals. Divided by its row's sum it is the share of the batch in the group.

    Raises
    ------
    DataError
        There are more of one than of the other.
    """
    named, batch = texts(groups).fillna(NO_LABEL), texts(batches).fillna(NO_BATCH)
    _check_same_cells("groups", named, "batches", batch)
    return _counted(named, batch, _by_size(named), _by_size(batch), "group", "batch")


def _by_size(names: pd.Series) -> list[str]:
    """Distinct names, the most frequent first, in alphabetical order among equals."""
    return list(names.value_counts().sort_index().sort_values(ascending=False, kind="stable").index)


def _counted(
    one: pd.Series, other: pd.Series, rows: list[str], columns: list[str], row_axis: str, column_axis: str
) -> pd.DataFrame:
    places = pd.Index(rows).get_indexer(one) * len(columns) + pd.Index(columns).get_indexer(other)
    counts = np.bincount(places, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns))
    return pd.DataFrame(counts, pd.Index(rows, name=row_axis), pd.Index(columns, name=column_axis))


def _check_same_cells(one_name: str, one: pd.Series, other_name: str, other: pd.Series) -> None:
    if len(one) != len(other):
        msg = f"There are {one_name} of {len(one):,} cells, but {other_name} of {len(other):,}."
        raise DataError(msg, "Give them for the same cells.")
