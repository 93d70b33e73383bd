"""Arrows on a map of cells: where perturbed cells would lie on it, read off the cells that they come to resemble.

A UMAP cannot place new points without being fitted anew, so a cell's place is that of the cells nearest to its latent,
weighted by a softmax of their cosine. This is our choice, in the spirit of how RNA velocities and simulated knockouts
are projected onto a map (La Manno 2018; scVelo, Bergen 2020; CellOracle, Kamimoto 2023), with their temperature 0.05.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from scdiva_core.errors import DataError
from scdiva_core.tasks.perturbation_direction import moved_cells
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

NEIGHBORS = 30
"""Cells of the map that a latent is placed by (our choice)."""

TEMPERATURE = 0.05
"""Cosines are divided by it before the softmax (La Manno 2018, CellOracle)."""

FEWEST_CELLS = 5
"""Cells that a knot of the grid needs for an arrow (our choice)."""

KNOTS = 20
"""Knots along the longer side of the map (our choice)."""

_BLOCK = 1024  # cells placed between two looks at the stop button


class CellMap:
    """Place latents on a map that exists.

    Parameters
    ----------
    latents
        Float ``[N, d]`` of all cells of the map, unperturbed.
    coordinates
        Float ``[N, 2]`` of the same cells.

    Raises
    ------
    DataError
        There are no cells, or more of one than of the other.
    """

    def __init__(self, latents: NDArray[np.floating], coordinates: NDArray[np.floating]) -> None:
        if len(latents) != len(coordinates) or not len(latents):
            msg = f"There are latents of {len(latents):,} cells, but places of {len(coordinates):,} on the map."
            raise DataError(msg, "Draw the map of the cells that were embedded.")
        self.coordinates = np.asarray(coordinates, float)
        self._latents = normalize(np.asarray(latents, np.float32))
        # Between vectors of unit length the nearest have the largest cosine, and this search is the quicker one.
        self._search = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(latents)), algorithm="brute").fit(self._latents)

    def places(self, latents: NDArray[np.floating]) -> NDArray[np.float64]:
        """Mean place of the nearest cells of each latent ``[n, d]``, weighted by cosine: float64 ``[n, 2]``."""
        unit = normalize(np.asarray(latents, np.float32))
        _, nearest = self._search.kneighbors(unit)
        cosines = np.einsum("nd,nkd->nk", unit, self._latents[nearest])
        return np.einsum("nk,nkc->nc", softmax(cosines / TEMPERATURE, axis=1), self.coordinates[nearest])


def displacements(
    cell_map: CellMap,
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    *,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> NDArray[np.float32]:
    """Move of each cell on the map: place of its perturbed latent less place of its unperturbed one.

    Parameters
    ----------
    cell_map
        To read places from.
    before, after
        Float ``[n, d]`` latents of the same cells, without and with the perturbation.
    progress, cancelled
        Called between blocks of cells.

    Returns
    -------
    ndarray
        float32 ``[n, 2]`` in units of the map; exactly 0 for a cell whose latent did not change.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    moves = np.zeros((len(before), 2), np.float32)
    moved = np.flatnonzero(moved_cells(before, after))
    for start in range(0, len(moved), _BLOCK):
        stop_if(cancelled)
        progress(start, len(moved), "Drawing arrows")
        cells = moved[start : start + _BLOCK]
        moves[cells] = cell_map.places(after[cells]) - cell_map.places(before[cells])
    progress(len(moved), len(moved), "Drawing arrows")
    return moves


def vector_field(
    cell_map: CellMap,
    cells: NDArray[np.integer],
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    *,
    control_after: NDArray[np.floating] | None = None,
    knots: int = KNOTS,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Average the moves of the perturbed cells over a grid on the map, and those of a control beside it.

    Only cells whose latent changed are averaged: the others do not read the gene and cannot move.

    Parameters
    ----------
    cell_map
        Its extent is the grid's, whatever the cells, so that fields of several perturbations have the same knots.
    cells
        int ``[n]``: place of each cell in the map.
    before, after
        Float ``[n, d]`` latents of these cells, without and with the perturbation.
    control_after
        Float ``[n, d]`` latents of the same cells with a matched random gene perturbed instead. None: the moves of the
        perturbation are shuffled among its cells, which keeps their lengths and drops where they start.
    knots
        Along the longer side of the map; steps are the same in both directions.
    seed
        Of the shuffle.
    progress, cancelled
        Called between blocks of cells.

    Returns
    -------
    tuple of DataFrame
        Field and control, one row for each knot with `FEWEST_CELLS` moved cells in its square: ``x``, ``y`` (the
        square's middle), ``dx``, ``dy`` (mean move, in units of the map) and ``n`` (cells).
        ``attrs["words"]`` of the control says what it is.

    Raises
    ------
    Cancelled
        The user stopped.
    """
    points = cell_map.coordinates[cells]
    moves = displacements(cell_map, before, after, progress=progress, cancelled=cancelled)
    moved = moved_cells(before, after)
    field = _on_grid(cell_map, points[moved], moves[moved], knots)
    if control_after is None:
        shuffled = np.random.default_rng(seed).permutation(moves[moved])
        control, words = _on_grid(cell_map, points[moved], shuffled, knots), "the same moves shuffled among the cells"
    else:
        others = displacements(cell_map, before, control_after, progress=progress, cancelled=cancelled)
        moved = moved_cells(before, control_after)
        control, words = _on_grid(cell_map, points[moved], others[moved], knots), "a matched random gene"
    control.attrs["words"] = words
    return field, control


def _on_grid(cell_map: CellMap, points: NDArray, moves: NDArray, knots: int) -> pd.DataFrame:
    low = cell_map.coordinates.min(axis=0)
    step = float(np.ptp(cell_map.coordinates, axis=0).max()) / knots or 1.0
    square = np.minimum((points - low) // step, knots - 1).astype(int)
    table = pd.DataFrame({"column": square[:, 0], "row": square[:, 1], "dx": moves[:, 0], "dy": moves[:, 1], "n": 1})
    means = table.groupby(["row", "column"], as_index=False).agg({"dx": "mean", "dy": "mean", "n": "sum"})
    kept = means[means["n"] >= FEWEST_CELLS].reset_index(drop=True)
    field = pd.DataFrame(
        {
            "x": low[0] + (kept["column"] + 0.5) * step,
            "y": low[1] + (kept["row"] + 0.5) * step,
            "dx": kept["dx"],
            "dy": kept["dy"],
            "n": kept["n"],
        }
    )
    return field
