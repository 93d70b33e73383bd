"""Partial correlation, signs, known pairs and predicted knockouts of edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.regulons import regulons
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.grn_evidence import (
    EDGE_COLUMNS,
    evidence,
    knockout_effects,
    known_pairs,
    partial_correlation,
)
from scdiva_core.tasks.perturbation import Perturbation, read_sample, reading_rows
from scdiva_core.tasks.predicted_expression import expression_change


@pytest.fixture(scope="module")
def chain() -> sp.csr_matrix:
    """4,000 cells of a regulator, a gene that it raises, one that that lowers, one that never changes, and noise."""
    rng = np.random.default_rng(0)
    first = rng.normal(5, 1, 4000)
    second = 4 + 0.8 * (first - 5) + 0.6 * rng.normal(size=4000)
    third = 4 - 0.8 * (second - 4) + 0.6 * rng.normal(size=4000)
    noise = rng.normal(3, 1, (4000, 20)).clip(0.1)
    dropped = rng.random((4000, 20)) < 0.1  # else every cell would express as many genes
    return sp.csr_matrix(np.column_stack([first, second, third, np.ones(4000), np.where(dropped, 0, noise)]))


def test_what_goes_through_another_regulator_is_taken_away(chain: sp.csr_matrix) -> None:
    found = partial_correlation(chain, np.array([0, 1, 3]), np.arange(24))
    assert found.values.dtype == np.float32
    # By hand, from correlations 0.8, -0.8 and -0.64: nothing else stands between 0 and 1, r02.1 = 0, and
    # r12.0 = (-0.8 + 0.64 * 0.8) / sqrt((1 - 0.64^2) (1 - 0.8^2)).
    expected = (-0.8 + 0.64 * 0.8) / np.sqrt((1 - 0.64**2) * (1 - 0.8**2))
    dense = chain.toarray()
    assert np.corrcoef(dense[:, 0], dense[:, 2])[0, 1] == pytest.approx(-0.64, abs=0.03)
    assert found.values[0, 1] == found.values[1, 0] == pytest.approx(0.8, abs=0.04)
    assert found.values[1, 2] == pytest.approx(expected, abs=0.04)
    assert abs(found.values[0, 2]) < 0.05
    assert np.isnan(found.values[0, [0, 3]]).all()
    assert np.isnan(found.values[2]).all()


def test_other_targets_are_not_given(chain: sp.csr_matrix) -> None:
    few, many = (partial_correlation(chain, np.array([0]), targets) for targets in (np.array([2]), np.arange(1, 24)))
    # Nothing to give but depth, which it has little in common with: shrunk by half.
    assert few.values[0, 0] == pytest.approx(-0.64 / 2, abs=0.02)
    assert few.values[0, 0] == pytest.approx(many.values[0, 1], abs=1e-6)


def test_a_sign_is_told_beyond_what_shuffled_cells_give(chain: sp.csr_matrix) -> None:
    found = partial_correlation(chain, np.arange(3), np.arange(24))
    assert 0.02 < found.threshold < 0.08  # 2.58 / sqrt(4000) for independent genes
    assert found.signs.dtype == np.int8
    assert found.signs[0, 1] == found.signs[1, 0] == 1
    assert found.signs[1, 2] == found.signs[2, 1] == -1
    assert np.abs(found.signs[:, 4:]).mean() < 0.1
    np.testing.assert_array_equal(found.signs[[0, 1, 2], [0, 1, 2]], 0)


def test_the_depth_of_cells_is_taken_away() -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.1, 0.9, 1500)
    expression = sp.csr_matrix((rng.random((1500, 60)) < depth[:, None]).astype(float))
    dense = expression.toarray()
    assert np.corrcoef(dense[:, 0], dense[:, 1])[0, 1] > 0.15
    found = partial_correlation(expression, np.array([0]), np.array([1, 2, 3]))
    assert np.abs(found.values).mean() < 0.05


def test_it_does_not_need_more_cells_than_genes(chain: sp.csr_matrix) -> None:
    found = partial_correlation(chain[:15], np.array([0, 1]), np.arange(24))
    assert np.isfinite(found.values[0, 4:]).all()
    with pytest.raises(DataError, match="2 cells"):
        partial_correlation(chain[:2], np.array([0]), np.array([1]))


def test_known_pairs_are_those_of_the_regulons() -> None:
    regulators, targets = ["SPI1", "NOSUCH", "MYC"], ["CD14", "MYC", "SPI1", "NOSUCH", "CDKN1A"]
    found = known_pairs(regulators, targets)
    assert found.dtype == np.int8
    for row, regulator in enumerate(regulators):
        of = {} if regulator == "NOSUCH" else dict(regulons().targets(regulator).itertuples(index=False))
        expected = [0 if target == regulator else of.get(target, 0) for target in targets]
        assert found[row].tolist() == expected
    assert (found[0] == 1).any()
    assert (found[2] == -1).any()


def test_the_table_lists_the_best_targets_with_what_stands_beside_them() -> None:
    attention = np.array([[1.0, np.nan, 3, 3], [5, -1, np.nan, 0]], np.float32)
    measures = {
        "attention": attention,
        "cells": np.arange(8).reshape(2, 4),
        "stability": np.linspace(0, 0.7, 8).reshape(2, 4),
        "spearman": np.linspace(-1, 1, 8).reshape(2, 4),
        "partial": np.linspace(-0.5, 0.5, 8).reshape(2, 4),
    }
    signs = np.array([[0, 0, -1, 1], [1, 0, 0, 0]], np.int8)
    table = evidence(["SPI1", "MYC"], ["ZZZ3", "SPI1", "TLR4", "CD14"], measures, signs, top=2)
    assert tuple(table.columns) == EDGE_COLUMNS
    assert table[["regulator", "target"]].to_numpy().tolist() == [
        ["MYC", "ZZZ3"],
        ["SPI1", "CD14"],  # before TLR4, which scores the same
        ["SPI1", "TLR4"],
        ["MYC", "CD14"],
    ]
    assert table["attention"].tolist() == [5, 3, 3, 0]
    assert table["cells"].tolist() == [4, 3, 2, 7]
    assert table["stability"].tolist() == pytest.approx([0.4, 0.3, 0.2, 0.7])
    assert table["sign"].tolist() == [1, 1, -1, 0]
    assert table["known"].tolist()[1] == "raises"
    assert table["known"].tolist()[0] == ""
    assert table["knockout"].isna().all()
    assert (table["cells"].dtype, table["sign"].dtype) == (np.int64, np.int64)


def test_pairs_that_no_cell_shows_are_no_edges() -> None:
    empty = np.full((1, 2), np.nan, np.float32)
    measures = dict.fromkeys(("attention", "cells", "stability", "spearman", "partial"), empty)
    table = evidence(["SPI1"], ["CD14", "SPI1"], measures, np.zeros((1, 2), np.int8), top=5)
    assert tuple(table.columns) == EDGE_COLUMNS
    assert not len(table)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


@pytest.fixture
def sample(checkpoint: ScDiVaModel, dataset: H5adDataset) -> tuple[Tokenizer, CellSample]:
    tokenizer = checkpoint.tokenizer
    return tokenizer, read_sample(checkpoint, tokenizer, dataset, np.arange(40))


def test_a_knockout_effect_is_the_predicted_change_of_the_target(
    checkpoint: ScDiVaModel, sample: tuple[Tokenizer, CellSample]
) -> None:
    tokenizer, cells = sample
    counts = np.diff(cells.tokens.indptr)
    first, second, third = (cells.symbols[column] for column in np.argsort(-counts)[:3])
    unread = next(cells.symbols[column] for column in np.flatnonzero(counts == 0))
    edges = pd.DataFrame(
        {"regulator": [first, second, first, unread], "target": [second, first, third, first]},
    )
    told: list[tuple[int, int, str]] = []
    found = knockout_effects(
        checkpoint, tokenizer, cells, edges, [first, unread], most_cells=5, progress=lambda *at: told.append(at)
    )
    change = expression_change(checkpoint, tokenizer, cells, Perturbation((first,)), repeats=1, most_cells=5).change
    expected = [change[cells.symbols.index(second)], np.nan, change[cells.symbols.index(third)], np.nan]
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found[[0, 2]]).all()
    assert not len(reading_rows(tokenizer, cells, Perturbation((unread,))))
    assert [at[:2] for at in told] == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(Cancelled):
        knockout_effects(checkpoint, tokenizer, cells, edges, [first], cancelled=lambda: True)
