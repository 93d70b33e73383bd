"""Counts of cells by old and new label and by group and batch, in an order that can be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdiva_core.errors import DataError
from scdiva_core.tasks.relabelled import NO_BATCH, NO_LABEL, composition_table, confusion, texts

OLD = ["T", "T", "T", "T", "B", "B", "NK", None]
NEW = ["T", "T", "CD8 T", "CD4 T", "B", "T", "NK", "CD4 T"]


def test_a_confusion_counts_each_cell_once_with_what_stayed_on_the_diagonal() -> None:
    found = confusion(OLD, NEW)
    expected = pd.DataFrame(
        [
            # T, B, NK, CD4 T, CD8 T
            [2, 0, 0, 1, 1],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 0, 1, 0],
        ],
        index=pd.Index(["T", "B", "NK", NO_LABEL], name="old"),
        columns=pd.Index(["T", "B", "NK", "CD4 T", "CD8 T"], name="new"),
    )
    pd.testing.assert_frame_equal(found, expected)


def test_a_label_that_vanished_has_no_column() -> None:
    found = confusion(["A", "A", "B"], ["B", "B", "B"])
    assert (list(found.index), list(found.columns)) == (["A", "B"], ["B"])
    assert found["B"].tolist() == [2, 1]


def test_a_composition_counts_cells_of_each_batch_largest_first() -> None:
    found = composition_table([3, 3, 12, 12, 12, 3, 12], ["b", "a", "a", "a", np.nan, "a", " "])
    expected = pd.DataFrame(
        [[2, 2, 0], [2, 0, 1]],
        index=pd.Index(["12", "3"], name="group"),
        columns=pd.Index(["a", NO_BATCH, "b"], name="batch"),
    )
    pd.testing.assert_frame_equal(found, expected)


def test_equals_stand_in_alphabetical_order_whatever_the_order_of_the_cells() -> None:
    cells = np.array(["c", "a", "b", "b", "c", "a"])
    for order in (np.arange(6), np.arange(6)[::-1]):
        assert list(composition_table(cells[order], cells[order]).index) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [confusion, composition_table])
def test_no_cells_make_an_empty_table(count: object) -> None:
    assert count([], []).shape == (0, 0)


def test_other_cells_are_refused() -> None:
    with pytest.raises(DataError, match="old labels of 8 cells, but new labels of 7"):
        confusion(OLD, NEW[1:])
    with pytest.raises(DataError, match="groups of 1 cells, but batches of 2"):
        composition_table(["A"], ["x", "y"])


@pytest.mark.parametrize(
    "values",
    [
        [" a", None, "", np.nan, "1"],
        pd.Series([" a", None, "", np.nan, 1], index=[5, 5, 6, 7, 8]),
        pd.Series(pd.Categorical([" a", None, "", pd.NA, "1"])),
    ],
)
def test_blank_names_are_missing(values: object) -> None:
    found = texts(values)
    assert list(found.index) == [0, 1, 2, 3, 4]
    assert found.isna().tolist() == [False, True, True, True, False]
    assert found.dropna().tolist() == ["a", "1"]


def test_names_that_are_all_missing_are_text_still() -> None:
    assert texts([None, np.nan]).isna().all()
    assert confusion([None, np.nan], ["T", "T"]).loc[NO_LABEL, "T"] == 2
