"""Scores of rebuilt cells: by hand for small cells, and who is better than whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.metrics.reconstruction import bleu
from scdiva_core.tasks.reconstruction_scores import (
    MEASURES,
    Filled,
    cell_scores,
    comparisons,
    gene_table,
    summary_table,
    taken,
    type_table,
)

# Cells of 4, 3 and 2 tokens; nothing of the last is hidden.
ROWS = TokenRows(
    np.array([0, 4, 7, 9]),
    np.array([5, 6, 7, 8, 6, 5, 9, 7, 8], np.int32),
    np.array([4, 3, 2, 1, 5, 2, 1, 3, 1], np.float32),
)
HIDDEN = np.array([1, 0, 1, 1, 0, 1, 1, 0, 0], bool)


def filled(method: str = "ours", told: str = "place", **changes: Any) -> Filled:
    made = {"genes": np.array([5, 9, 8, 7, 9]), "values": np.array([4, 1, 2, 2, 3], np.float32)}
    made |= changes
    return Filled(method, told, False, ROWS, HIDDEN, np.array([3, 5, 8]), **made)


def test_a_cell_is_scored_by_its_own_tokens() -> None:
    table = cell_scores(filled(), 0.6)
    assert table["cell"].tolist() == [3, 5], "a cell of which nothing was hidden has no score"
    assert table["identity"].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert table["l_dist"].tolist() == pytest.approx([1 / 3, 1 / 2])
    assert table["bleu"].tolist() == [bleu([5, 6, 7, 8], [5, 6, 9, 8]), bleu([6, 5, 9], [6, 7, 9])]
    # 4, 2, 1 against 4, 1, 2: errors 0, 1, 1. And 2, 1 against 2, 3: too few for ranks and R2.
    assert table["mse"].tolist() == pytest.approx([2 / 3, 2])
    assert table["spearman"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert table["r2"].tolist() == pytest.approx([1 - (2 / 3) / np.var([4, 2, 1]), np.nan], nan_ok=True)
    assert set(table["mask"]) == {0.6}


def test_what_a_method_does_not_give_is_not_scored() -> None:
    values = cell_scores(filled(told="gene", genes=None), 0.6)
    assert values[["identity", "l_dist", "bleu"]].isna().all(axis=None)
    assert values["mse"].notna().all()
    genes = cell_scores(filled(values=None), 0.6)
    assert genes[["spearman", "mse", "r2"]].isna().all(axis=None)
    assert genes["identity"].notna().all()


def test_hidden_tokens_of_some_cells() -> None:
    np.testing.assert_array_equal(taken(ROWS, HIDDEN, np.array([1, 2])), HIDDEN[4:])
    np.testing.assert_array_equal(taken(ROWS, HIDDEN, np.array([0])), HIDDEN[:4])


def test_a_gene_is_scored_over_the_cells_that_hide_it() -> None:
    # Gene 5 in six cells and gene 6 in four, all hidden.
    lengths = np.array([2, 2, 2, 2, 1, 1])
    ids = np.array([5, 6] * 4 + [5, 5], np.int32)
    values = np.array([1, 9, 2, 9, 3, 9, 4, 9, 5, 6], np.float32)
    rows = TokenRows(np.concatenate([[0], np.cumsum(lengths)]), ids, values)
    told = {"leaks": False, "rows": rows, "hidden": np.ones(10, bool), "cells": np.arange(6)}
    rebuilt = np.array([2, 0, 3, 0, 4, 0, 5, 0, 6, 1], np.float32)  # one too high, but for the last
    named = Filled("named", "gene", genes=None, values=rebuilt, **told)
    placed = Filled("placed", "place", genes=np.where(np.arange(10) < 3, ids, 7), values=rebuilt, **told)
    symbols = np.array([""] * 5 + ["FIVE", "SIX", "SEVEN"], object)
    (row,) = gene_table([placed, named], symbols).to_dict("records")
    assert (row["symbol"], row["n"], row["mean"]) == ("FIVE", 6, 3.5)
    assert row["mse: named"] == row["mse: placed"] == pytest.approx((5 * 1 + 25) / 6)
    assert row["identity: placed"] == pytest.approx(2 / 6)
    # Ranks 1 to 6 against 2 to 6 and 1: 1 - 6 * (5 * 1 + 25) / (6 * 35).
    assert row["spearman: named"] == pytest.approx(1 - 180 / 210)
    assert "spearman: placed" not in row, "a place tells the rank"
    assert "identity: named" not in row


def scores(**means: list[float]) -> pd.DataFrame:
    """Scores of methods with a number for each cell, the same for every measure."""
    parts = [
        pd.DataFrame({"mask": 0.5, "method": name, "told": "place", "leaks": name == "leaky", "cell": range(len(own))})
        .assign(**dict.fromkeys(MEASURES, own))
        .astype({"leaks": bool})
        for name, own in means.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_means_over_cells_with_intervals() -> None:
    table = summary_table(scores(ours=[0.1, 0.2, 0.3, np.nan], leaky=[0.5, 0.5, 0.5, 0.5]))
    ours, leaky = table.to_dict("records")
    assert (ours["method"], ours["n"], ours["leaks"], leaky["leaks"]) == ("ours", 4, False, True)
    assert ours["mse"] == pytest.approx(0.2)
    assert 0.1 <= ours["mse_low"] < 0.2 < ours["mse_high"] <= 0.3
    assert (leaky["r2_low"], leaky["r2"], leaky["r2_high"]) == (0.5, 0.5, 0.5)


def test_types_are_means_of_their_cells() -> None:
    groups = np.array(["B", "T", None, "T"], object)
    table = type_table(scores(ours=[0.1, 0.2, 0.3, 0.4]), groups).set_index("group")
    assert table["n"].to_dict() == {"B": 1, "T": 2}
    assert table.loc["T", "identity"] == pytest.approx(0.3)


def test_better_is_better_whichever_way_a_measure_runs() -> None:
    table = scores(high=[0.8, 0.9, 0.7, 0.8], low=[0.3, 0.2, 0.4, 0.3], mixed=[0.3, 0.9, 0.1, 0.4])
    found = comparisons(table, [("high", "low", ("identity", "mse")), ("high", "mixed", ("identity",))])
    assert found["word"].tolist() == ["better", "worse", "better"]
    assert found["difference"].tolist() == pytest.approx([0.5, -0.5, 0.375])
    unclear = comparisons(table, [("mixed", "low", ("r2",)), ("high", "absent", ("r2",))])
    assert unclear["word"].tolist() == ["no clear difference"]
    assert unclear["n"].tolist() == [4]


def test_methods_are_compared_on_the_cells_that_both_have() -> None:
    table = scores(few=[0.5, 0.7], many=[0.1, 0.2, 9.0, 9.0])
    second = table.assign(mask=0.9).query("method == 'many'").assign(identity=[0.3, 0.4, 9.0, 9.0])
    (row,) = comparisons(pd.concat([table, second]), [("few", "many", ("identity",))]).to_dict("records")
    assert row["n"] == 2
    assert row["ours_mean"] == pytest.approx(0.6)
    assert row["theirs_mean"] == pytest.approx(0.15), "at the mask that both have"
    (row,) = comparisons(pd.concat([table, second]), [("many", "many", ("identity",))]).to_dict("records")
    assert row["ours_mean"] == pytest.approx((0.2 + 0.3 + 9 + 9) / 4), "a cell counts with its mean over the masks"
