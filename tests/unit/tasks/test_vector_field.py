"""Arrows go where the latents go, cells that did not move have none, and the control is drawn on the same grid."""

from __future__ import annotations

import numpy as np
import pytest

from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks.vector_field import FEWEST_CELLS, NEIGHBORS, CellMap, displacements, vector_field

SIZE = 60  # cells of each of two groups


@pytest.fixture
def two_groups() -> tuple[np.ndarray, np.ndarray]:
    """Latents and places of two groups: along x at the map's left, along y at its right."""
    rng = np.random.default_rng(0)
    latents = np.repeat([[1.0, 0, 0], [0, 1.0, 0]], SIZE, axis=0) + rng.normal(scale=0.02, size=(2 * SIZE, 3))
    coordinates = np.repeat([[0.0, 0], [10, 4]], SIZE, axis=0) + rng.uniform(-0.2, 0.2, size=(2 * SIZE, 2))
    return latents.astype(np.float32), coordinates.astype(np.float32)


def test_a_latent_lies_at_the_weighted_mean_of_its_neighbours() -> None:
    # Three cells, fewer than the neighbours asked for; cosines with (1, 0) are 1, 0.8 and 0.6.
    cells = CellMap(np.array([[2, 0], [0.8, 0.6], [0.6, -0.8]]), np.array([[0.0, 0], [1, 0], [0, 1]]))
    weights = np.exp(np.array([1, 0.8, 0.6]) / 0.05)
    expected = weights[1:] / weights.sum()
    np.testing.assert_allclose(cells.places(np.array([[7.0, 0]])), [expected], rtol=1e-4)


def test_only_the_nearest_cells_place_a_latent() -> None:
    angles = np.linspace(0, np.pi, 10 * NEIGHBORS)
    cells = CellMap(np.column_stack([np.cos(angles), np.sin(angles)]), np.column_stack([np.arange(300), np.zeros(300)]))
    (place,) = cells.places(np.array([[1.0, 0]]))
    assert 0 < place[0] < (NEIGHBORS - 1) / 2, "weighted towards the nearest of cells 0 to 29"


def test_a_cell_that_takes_on_the_other_groups_latent_goes_there(two_groups: tuple[np.ndarray, np.ndarray]) -> None:
    latents, coordinates = two_groups
    after = latents[:3].copy()
    after[1] = latents[SIZE]
    moves = displacements(CellMap(latents, coordinates), latents[:3], after)
    assert moves.dtype == np.float32
    assert (moves[[0, 2]] == 0).all(), "exactly 0 where the latent did not change"
    np.testing.assert_allclose(moves[1], [10, 4], atol=0.4)


def test_arrows_are_means_over_the_squares_of_a_grid(two_groups: tuple[np.ndarray, np.ndarray]) -> None:
    latents, coordinates = two_groups
    coordinates[0] = [-0.2, -0.2]  # the map's lower left corner
    cells = np.arange(20)
    after = latents[:20].copy()
    after[:10] = latents[SIZE : SIZE + 10]
    cell_map = CellMap(latents, coordinates)
    field, control = vector_field(cell_map, cells, latents[:20], after, knots=2)
    step = np.ptp(coordinates[:, 0].astype(float)) / 2
    (arrow,) = field.to_dict("records")
    np.testing.assert_allclose([arrow["x"], arrow["y"]], coordinates.astype(float).min(axis=0) + step / 2, rtol=1e-6)
    assert arrow["n"] == 10, "cells that did not move are not averaged"
    moves = displacements(cell_map, latents[:10], after[:10])
    np.testing.assert_allclose([arrow["dx"], arrow["dy"]], moves.mean(axis=0), rtol=1e-5)
    assert list(field.columns) == list(control.columns) == ["x", "y", "dx", "dy", "n"]


def test_the_grid_is_that_of_the_whole_map_and_few_cells_have_no_arrow(
    two_groups: tuple[np.ndarray, np.ndarray],
) -> None:
    latents, coordinates = two_groups
    swapped = np.concatenate([latents[SIZE:], latents[:SIZE]])
    cell_map = CellMap(latents, coordinates)
    cells = np.concatenate([np.arange(SIZE), SIZE + np.arange(FEWEST_CELLS - 1)])
    field, _ = vector_field(cell_map, cells, latents[cells], swapped[cells], knots=1)
    assert field["n"].tolist() == [len(cells)], "one square holds all"
    field, _ = vector_field(cell_map, cells, latents[cells], swapped[cells], knots=2)
    assert field["n"].tolist() == [SIZE]
    assert (field["dx"] > 0).all()


def test_without_a_random_gene_the_same_moves_are_shuffled(two_groups: tuple[np.ndarray, np.ndarray]) -> None:
    latents, coordinates = two_groups
    swapped = np.concatenate([latents[SIZE:], latents[:SIZE]])
    cell_map, cells = CellMap(latents, coordinates), np.arange(2 * SIZE)
    field, control = vector_field(cell_map, cells, latents, swapped, knots=2, seed=1)
    # Left goes right by 10 and right goes left: shuffled, both go nowhere in the mean.
    assert sorted(np.round(field["dx"])) == [-10, 10]
    assert np.abs(control["dx"]).max() < 5
    np.testing.assert_array_equal(field[["x", "y", "n"]], control[["x", "y", "n"]])
    np.testing.assert_allclose((control["dx"] * control["n"]).sum(), (field["dx"] * field["n"]).sum(), atol=1e-3)
    assert control.attrs["words"] == "the same moves shuffled among the cells"
    again = vector_field(cell_map, cells, latents, swapped, knots=2, seed=1)[1]
    np.testing.assert_array_equal(control, again)


def test_a_matched_gene_is_the_control_where_there_is_one(two_groups: tuple[np.ndarray, np.ndarray]) -> None:
    latents, coordinates = two_groups
    cell_map, cells = CellMap(latents, coordinates), np.arange(SIZE)
    gene, other = latents[:SIZE].copy(), latents[:SIZE].copy()
    gene[:30] = latents[SIZE : SIZE + 30]
    other[30:42] = latents[SIZE : SIZE + 12]
    field, control = vector_field(cell_map, cells, latents[:SIZE], gene, control_after=other, knots=2)
    assert (field["n"].sum(), control["n"].sum()) == (30, 12), "each over the cells that read its gene"
    assert control.attrs["words"] == "a matched random gene"


def test_nothing_moves_nothing(two_groups: tuple[np.ndarray, np.ndarray]) -> None:
    latents, coordinates = two_groups
    field, control = vector_field(CellMap(latents, coordinates), np.arange(9), latents[:9], latents[:9])
    assert field.empty
    assert control.empty


def test_a_map_of_other_cells_is_refused_and_the_work_can_be_stopped(
    two_groups: tuple[np.ndarray, np.ndarray],
) -> None:
    latents, coordinates = two_groups
    with pytest.raises(DataError, match="latents of 120 cells, but places of 119 on the map"):
        CellMap(latents, coordinates[1:])
    with pytest.raises(DataError, match="latents of 0 cells"):
        CellMap(latents[:0], coordinates[:0])
    with pytest.raises(Cancelled):
        displacements(CellMap(latents, coordinates), latents[:2], latents[2:4], cancelled=lambda: True)


def test_a_map_of_one_place_has_a_grid() -> None:
    latents = np.random.default_rng(0).normal(size=(12, 3))
    field, _ = vector_field(CellMap(latents, np.ones((12, 2))), np.arange(12), latents, latents[::-1])
    assert field["n"].tolist() == [12]
    np.testing.assert_allclose(field[["dx", "dy"]], 0, atol=1e-6)
