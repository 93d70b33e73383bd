"""What fills hidden tokens without a network: from other cells, from the row itself, at random."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.baselines import reconstruction
from scdiva_core.baselines.reconstruction import (
    Population,
    frequent_genes,
    mean_values,
    neighbour_values,
    random_genes,
    random_values,
    rank_values,
)
from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.errors import DataError


def rows_of(*cells: dict[int, float]) -> TokenRows:
    """Token rows of cells, each its token ids in serialised order with their values."""
    lengths = [len(cell) for cell in cells]
    ids = np.array([token for cell in cells for token in cell], np.int32)
    values = np.array([value for cell in cells for value in cell.values()], np.float32)
    return TokenRows(np.concatenate([[0], np.cumsum(lengths)]), ids, values)


OTHERS = rows_of({5: 4.0, 6: 3.0, 7: 1.0}, {5: 2.0, 7: 1.0, 8: 0.5}, {6: 5.0, 5: 3.0})


@pytest.fixture
def population() -> Population:
    return Population(OTHERS, 12)


def test_means_are_over_cells_that_have_the_gene_and_one_token_more(population: Population) -> None:
    overall = (4 + 3 + 1 + 2 + 1 + 0.5 + 5 + 3) / 8
    expected = [(9 + overall) / 4, (8 + overall) / 3, (2 + overall) / 3, (0.5 + overall) / 2, overall]
    np.testing.assert_allclose(population.means[[5, 6, 7, 8, 9]], expected, rtol=1e-6)
    asked = rows_of({9: 1.0, 7: 1.0}, {6: 1.0, 5: 2.0})
    made = mean_values(population, asked, np.array([True, False, False, True]))
    np.testing.assert_allclose(made, [overall, expected[0]], rtol=1e-6)


def test_a_place_gets_the_commonest_gene_of_its_rank_that_the_cell_lacks(
    population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "RANKS", 1)
    # Rank 1: gene 5 twice, 6 once. Rank 2: 5, 6, 7 once each. Rank 3: 7 and 8 once. In all: 5 three times, 6, 7 twice.
    asked = rows_of({9: 1.0, 10: 1.0, 11: 1.0}, {5: 1.0, 9: 1.0, 10: 1.0})
    hidden = np.array([True, True, True, False, True, True])
    assert frequent_genes(population, asked, hidden).tolist() == [5, 6, 7, 6, 7]


def test_beyond_the_ranks_of_the_population_all_its_genes_are_used_up(population: Population) -> None:
    asked = rows_of(dict.fromkeys(range(5, 12), 1.0))
    made = frequent_genes(population, asked, np.ones(7, bool))
    assert sorted(made[:4]) == [5, 6, 7, 8]
    assert made[4:].tolist() == [-1, -1, -1]


def test_random_genes_are_none_that_is_visible_and_none_twice(population: Population) -> None:
    asked = rows_of({5: 1.0, 9: 1.0, 10: 1.0}, {9: 1.0, 10: 1.0, 11: 1.0, 7: 1.0, 6: 1.0})
    hidden = np.array([False, True, True, True, True, True, True, True])
    first, second = np.split(random_genes(population, asked, hidden, np.random.default_rng(0)), [2])
    assert set(first) <= {6, 7, 8}
    assert len(set(first)) == 2
    assert sorted(second) == [-1, 5, 6, 7, 8]
    drawn = random_values(population, 500, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(OTHERS.values.tolist())


def test_neighbours_are_found_by_visible_genes_and_asked_for_hidden_ones() -> None:
    # Two kinds of cells: with gene 5 high, gene 8 is 4; with gene 6 high, gene 8 is 1.
    population = Population(rows_of(*[{5: 3.0, 8: 4.0}] * 3, *[{6: 3.0, 8: 1.0}] * 3), 12)
    asked = rows_of({5: 2.0, 8: 4.0, 9: 1.0}, {6: 2.0, 8: 1.0})
    hidden = np.array([False, True, False, False, True])
    made = neighbour_values(population, asked, hidden, neighbours=3)
    overall = (6 * 3 + 3 * 4 + 3 * 1) / 12
    mean = (3 * 4 + 3 * 1 + overall) / 7
    np.testing.assert_allclose(made, [(12 + 3 * mean) / 6, (3 + 3 * mean) / 6], rtol=1e-5)
    everybody = neighbour_values(population, asked, hidden, neighbours=99)
    np.testing.assert_allclose(everybody, (15 + 3 * mean) / 9, rtol=1e-5)


def test_hidden_values_do_not_reach_any_method(population: Population) -> None:
    true = rows_of({5: 4.0, 6: 3.0, 7: 2.0, 8: 1.0}, {8: 2.0, 6: 1.0, 5: 0.5})
    hidden = np.array([False, True, False, True, True, False, False])
    other = TokenRows(true.indptr, true.gene_ids, np.where(hidden, 9.0, true.values).astype(np.float32))
    for made in (mean_values, neighbour_values):
        np.testing.assert_array_equal(made(population, true, hidden), made(population, other, hidden))
    np.testing.assert_array_equal(rank_values(true, hidden), rank_values(other, hidden))


def test_rank_alone_interpolates_between_what_is_visible() -> None:
    asked = rows_of({5: 4.0, 6: 9.0, 7: 9.0, 8: 1.0, 9: 9.0}, {5: 9.0, 6: 2.0})
    hidden = np.array([False, True, True, False, True, True, False])
    np.testing.assert_allclose(rank_values(asked, hidden), [3, 2, 1, 2])


def test_a_population_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="2 other cells have no gene"):
        Population(rows_of({}, {}), 12)
