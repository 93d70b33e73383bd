"""Serialisation against a slow and plain version of it, and entropy against its formula."""

from __future__ import annotations

from collections.abc import Callable

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scdiva_core.data.tokenizer import EntropyAccumulator, Tokenizer, TokenRows


def slow_rows(
    tokenizer: Tokenizer, matrix: sp.csr_matrix, gene_ids: NDArray[np.int64]
) -> list[tuple[list[int], list[float]]]:
    """Rows by a Python sort: descending value over floored entropy, ties by token id, zeros left out."""
    rows = []
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        entries = []
        for column, value in zip(matrix.indices[part], matrix.data[part], strict=True):
            token = int(gene_ids[column])
            weight = np.float32(1) / max(tokenizer.entropy[token], np.float32(0.1))
            if value > 0:
                entries.append((-float(weight * np.float32(value)), token, float(value)))
        entries = sorted(entries)[: tokenizer.max_genes]
        rows.append(([token for _, token, _ in entries], [value for _, _, value in entries]))
    return rows


def as_lists(rows: TokenRows) -> list[tuple[list[int], list[float]]]:
    bounds = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    return [(rows.gene_ids[a:b].tolist(), rows.values[a:b].tolist()) for a, b in bounds]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tokenizer, sp.csr_matrix, NDArray[np.int64]]:
    """Few distinct values and entropies, so that ties abound; some stored zeros, some empty rows."""
    n_rows, n_columns = draw(st.integers(0, 70)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = np.array(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]), min_size=1, max_size=5)))
    dense = rng.choice(values, (n_rows, n_columns)).astype(np.float32)
    stored = rng.random((n_rows, n_columns)) < draw(st.sampled_from([0.1, 0.6, 1.0]))
    rows, columns = np.nonzero(stored)
    matrix = sp.csr_matrix((dense[stored], columns, np.searchsorted(rows, np.arange(n_rows + 1))), (n_rows, n_columns))
    vocab_size = n_columns + draw(st.integers(0, 20))
    gene_ids = np.sort(rng.choice(vocab_size, n_columns, replace=False))
    entropy = rng.choice(np.array([0.0, 0.05, 0.1, 0.25, 0.5, 1.0], np.float32), vocab_size)
    return Tokenizer(entropy, draw(st.integers(1, 14))), matrix, gene_ids


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_row_is_what_a_plain_sort_gives(case: tuple) -> None:
    tokenizer, matrix, gene_ids = case
    rows = tokenizer.serialize(matrix.indptr, matrix.indices, matrix.data, gene_ids)
    assert len(rows) == matrix.shape[0]
    assert as_lists(rows) == slow_rows(tokenizer, matrix, gene_ids)


def test_real_cells_are_what_a_plain_sort_gives(pbmc: anndata.AnnData) -> None:
    rng = np.random.default_rng(1)
    matrix = sp.csr_matrix(pbmc.X).astype(np.float32)
    matrix.data = np.log1p(matrix.data)
    gene_ids = np.sort(rng.choice(5000, matrix.shape[1], replace=False))
    tokenizer = Tokenizer(rng.random(5000).astype(np.float32), 100)
    rows = tokenizer.serialize(matrix.indptr, matrix.indices, matrix.data, gene_ids)
    assert as_lists(rows) == slow_rows(tokenizer, matrix, gene_ids)
    assert rows.lengths.max() == 100, "the cut is reached"


def test_input_is_left_alone(pbmc: anndata.AnnData) -> None:
    matrix = sp.csr_matrix(pbmc.X).astype(np.float32)
    matrix.data[::7] = 0
    copies = [array.copy() for array in (matrix.indptr, matrix.indices, matrix.data)]
    Tokenizer.unweighted(800, 50).serialize(matrix.indptr, matrix.indices, matrix.data, np.arange(700))
    for array, copy in zip((matrix.indptr, matrix.indices, matrix.data), copies, strict=True):
        assert np.array_equal(array, copy)


def test_ties_fall_by_token_id_and_specific_genes_rise() -> None:
    tokenizer = Tokenizer(np.array([1, 0.5, 1, 0.0, 0.1], np.float32), 10)
    row = np.array([1.0, 1.0, 1.0, 0.3, 0.2], np.float32)
    rows = tokenizer.serialize(np.array([0, 5]), np.arange(5), row, np.arange(5))
    assert rows.gene_ids.tolist() == [3, 1, 4, 0, 2], "scores 3 (floored at 0.1), 2, 2, 1, 1"


def test_unweighted_is_plain_expression_sorting() -> None:
    rows = Tokenizer.unweighted(9, 3).serialize(
        np.array([0, 4]), np.arange(4), np.array([1, 4, 2, 3], np.float32), np.array([2, 4, 6, 8])
    )
    assert rows.gene_ids.tolist() == [4, 8, 6]
    assert rows.values.tolist() == [4, 3, 2]


@pytest.fixture
def three_rows() -> TokenRows:
    return TokenRows(
        np.array([0, 3, 3, 5]),
        np.array([7, 8, 9, 5, 6], np.int32),
        np.array([3, 2, 1, 5, 4], np.float32),
    )


@pytest.mark.parametrize(
    ("rows", "ids", "lengths"),
    [
        (slice(None), [[7, 8, 9], [4, 4, 4], [5, 6, 4]], [3, 0, 2]),
        (np.array([2, 0]), [[5, 6, 4], [7, 8, 9]], [2, 3]),
        (np.array([2, 2]), [[5, 6], [5, 6]], [2, 2]),
        (np.array([1]), [[4]], [0]),
        (np.array([-1]), [[5, 6]], [2]),
        (np.array([], int), [], []),
    ],
)
def test_batches_are_padded_to_their_longest_row(
    three_rows: TokenRows, rows: NDArray | slice, ids: list, lengths: list
) -> None:
    batch = three_rows.batch(rows, pad_id=4)
    assert batch.gene_ids.tolist() == ids
    assert batch.lengths.tolist() == lengths
    assert batch.gene_ids.dtype == torch.int64
    assert batch.values.dtype == torch.float32
    assert batch.values.shape == batch.gene_ids.shape
    assert not batch.values[batch.gene_ids == 4].any()
    assert torch.equal(batch.values > 0, batch.gene_ids != 4)


def test_dense_rows_agree_with_sparse_ones(pbmc: anndata.AnnData) -> None:
    matrix = sp.csr_matrix(pbmc.X).astype(np.float32)
    matrix.data = np.log1p(matrix.data)
    tokenizer = Tokenizer(np.random.default_rng(0).random(700).astype(np.float32), 60)
    sparse = tokenizer.serialize(matrix.indptr, matrix.indices, matrix.data, np.arange(700))
    dense = tokenizer.serialize_dense(matrix.toarray())
    assert as_lists(dense) == as_lists(sparse)
    without = tokenizer.serialize_dense(matrix.toarray(), (3, 11))
    assert not np.isin(without.gene_ids, [3, 11]).any()
    assert np.isin(dense.gene_ids, [3, 11]).any()


def test_dense_rows_may_be_empty_or_negative() -> None:
    rows = Tokenizer.unweighted(4, 4).serialize_dense(np.array([[0, 0, 0, 0], [-1, 2, -3, 1]]))
    assert as_lists(rows) == [([], []), ([1, 3], [2.0, 1.0])]
    assert len(Tokenizer.unweighted(4, 4).serialize_dense(np.empty((0, 4)))) == 0


def accumulate(matrix: sp.csr_matrix, size: int, sizes: list[int]) -> NDArray[np.float32]:
    entropy, start = EntropyAccumulator(size), 0
    for rows in sizes:
        part = matrix[start : start + rows]
        entropy.add(part.shape[0], part.indices, part.data)
        start += rows
    assert start == matrix.shape[0]
    return entropy.entropy()


@pytest.fixture(scope="module")
def logged(pbmc: anndata.AnnData) -> sp.csr_matrix:
    matrix = sp.csr_matrix(pbmc.X).astype(np.float32)
    matrix.data = np.log1p(matrix.data)
    return matrix


def test_entropy_is_that_of_scipy_over_log_of_cells(logged: sp.csr_matrix) -> None:
    found = accumulate(logged, 702, [60])
    expected = scipy.stats.entropy(logged.toarray().astype(float), axis=0) / np.log(60)
    np.testing.assert_allclose(found[:700], expected, atol=2e-6)
    assert found[700:].tolist() == [1, 1], "genes never seen do not rise"
    assert found.dtype == np.float32
    assert 0 <= found.min() < 0.8 < found.max() <= 1


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_entropy_does_not_depend_on_the_chunks(logged: sp.csr_matrix, cuts: list[int]) -> None:
    sizes = np.diff([0, *sorted(cuts), 60]).tolist()
    np.testing.assert_allclose(accumulate(logged, 700, sizes), accumulate(logged, 700, [60]), atol=1e-6)


def test_entropy_of_extreme_genes() -> None:
    matrix = sp.csr_matrix(np.array([[1, 2, 0], [0, 2, 0], [0, 2, 0]], np.float32))
    np.testing.assert_allclose(accumulate(matrix, 3, [3]), [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("n_cells", [0, 1])
def test_entropy_of_hardly_any_cells_is_finite(n_cells: int) -> None:
    matrix = sp.csr_matrix(np.ones((n_cells, 2), np.float32))
    assert np.isfinite(accumulate(matrix, 2, [n_cells])).all()


def test_lengths_stay_on_the_host_and_values_move(token_batch: Callable) -> None:
    moved = token_batch(4, 2).to("meta")
    assert moved.gene_ids.device.type == moved.values.device.type == "meta"
    assert moved.lengths.device.type == "cpu"
