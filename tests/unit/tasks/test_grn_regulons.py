"""Regulators one by one: counts and the test of their known targets, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdiva_core.tasks.grn_regulons import regulon_table


def test_counts_chance_and_correction_by_hand() -> None:
    edges = pd.DataFrame(
        [("A", "t1", 1.0, "raises"), ("A", "t2", 0.5, "lowers"), ("B", "t1", 0.9, ""), ("B", "t3", 0.9, "raises")],
        columns=["regulator", "target", "stability", "known"],
    )
    known = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    usable = np.ones((3, 5), bool)
    usable[1, 4] = False
    table = regulon_table(("A", "B", "C"), edges, np.array([0.5, 0.25, 1.0]), known, usable, 0.8).set_index("regulator")
    assert table.index.tolist() == ["A", "B", "C"]
    assert table["edges"].tolist() == [2, 2, 0]
    assert table["stable"].tolist() == [1, 2, 0]
    assert table["known"].tolist() == [2, 2, 0]
    assert table["hits"].tolist() == [2, 1, 0]
    assert table["expected"].tolist() == [2 * 2 / 5, 2 * 2 / 4, 0]
    # Both of two known among five drawn twice: 1 in 10. At least one of two among four drawn twice: 1 - 1 in 6.
    assert table["p"].tolist()[:2] == pytest.approx([1 / 10, 5 / 6])
    assert table["q"].tolist()[:2] == pytest.approx([2 / 10, 5 / 6])
    assert np.isnan(table.loc["C", ["p", "q"]].astype(float)).all()


def test_without_any_known_target_nothing_is_tested() -> None:
    edges = pd.DataFrame({"regulator": ["A"], "target": ["t"], "stability": [0.1], "known": [""]})
    table = regulon_table(("A",), edges, np.array([1.0]), np.zeros((1, 2), bool), np.ones((1, 2), bool), 0.8)
    assert table["p"].isna().all()
    assert table["stable"].tolist() == [0]
