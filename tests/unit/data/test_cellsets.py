"""Named sets of cells: made from recipes on a real file, renamed, undone, written and read back."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiva_core.data.cellsets import CellSets, select
from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError


@pytest.fixture
def dataset(small_h5ad: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(small_h5ad, small_vocabulary) as opened:
        yield opened


@pytest.fixture
def grid() -> dict[str, np.ndarray]:
    """160 cells on a grid of 16 by 10."""
    x, y = np.meshgrid(np.arange(16), np.arange(10), indexing="ij")
    return {"X_scdiva": np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)}


def lasso(x: list[float], y: list[float]) -> dict[str, Any]:
    return {"kind": "lasso", "representation": "X_scdiva", "x": x, "y": y}


def test_lasso_takes_the_cells_inside(dataset: H5adDataset, grid: dict[str, np.ndarray]) -> None:
    mask = select(lasso([1.5, 4.5, 4.5, 1.5], [0.5, 0.5, 2.5, 2.5]), dataset, grid)
    points = grid["X_scdiva"]
    inside = (points[:, 0] > 1.5) & (points[:, 0] < 4.5) & (points[:, 1] > 0.5) & (points[:, 1] < 2.5)
    assert mask.dtype == bool
    assert np.array_equal(mask, inside)
    assert mask.sum() == 6


def test_lasso_that_bends_inwards_leaves_the_bay_out(dataset: H5adDataset, grid: dict[str, np.ndarray]) -> None:
    horseshoe = lasso([-0.5, 6.5, 6.5, 4.5, 4.5, 1.5, 1.5, -0.5], [-0.5, -0.5, 5.5, 5.5, 1.5, 1.5, 5.5, 5.5])
    mask = select(horseshoe, dataset, grid)
    chosen = {tuple(point) for point in grid["X_scdiva"][mask]}
    assert chosen == {(x, y) for x in range(7) for y in range(6) if y <= 1 or x <= 1 or x >= 5}


@pytest.mark.parametrize(("x", "y"), [([0, 1], [0, 1]), ([], []), ([0, 1, 2], [0, 1])])
def test_lasso_without_an_inside_is_refused(
    dataset: H5adDataset, grid: dict[str, np.ndarray], x: list, y: list
) -> None:
    with pytest.raises(DataError, match=f"A lasso of {len(x)} corners encloses nothing"):
        select(lasso(x, y), dataset, grid)


def test_category_takes_the_cells_with_these_values(
    dataset: H5adDataset, small_cells: anndata.AnnData, grid: dict[str, np.ndarray]
) -> None:
    recipe = {"kind": "category", "column": "cell_type", "values": ["B", "CD4 T"]}
    expected = small_cells.obs["cell_type"].isin(["B", "CD4 T"]).to_numpy()
    assert 0 < expected.sum() < 160
    assert np.array_equal(select(recipe, dataset, grid), expected)
    nothing = select({**recipe, "values": ["no such type"]}, dataset, grid)
    assert nothing.shape == (160,)
    assert not nothing.any()


@pytest.mark.parametrize("least", [0, 1.5, 3])
def test_gene_takes_the_cells_that_express_it(
    dataset: H5adDataset, small_cells: anndata.AnnData, grid: dict[str, np.ndarray], least: float
) -> None:
    counts = small_cells.X.toarray().astype(float)
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, small_cells.var_names.get_loc("LYZ")]
    found = select({"kind": "gene", "symbol": "LYZ", "min": least}, dataset, grid)
    assert np.array_equal(found, (logged > 0) & (logged >= least))
    assert 0 < found.sum() < 160


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"kind": "lasso", "representation": "X_umap", "x": [0, 1, 1], "y": [0, 0, 1]}, "needs 'X_umap'"),
        ({"kind": "lasso"}, "needs 'representation'"),
        ({"kind": "category", "column": "cell type", "values": []}, "needs 'cell type'"),
        ({"kind": "gene", "symbol": "LYZ"}, "needs 'min'"),
        ({"kind": "gene", "symbol": "NOSUCHGENE", "min": 0}, "'NOSUCHGENE' is not in the model's vocabulary"),
        ({"kind": "gene", "symbol": "LYZ", "min": "much"}, "cannot be read"),
        ({"kind": "category", "column": "cell_type", "values": None}, "cannot be read"),
        ({"kind": "lasso", "representation": "X_scdiva", "x": 3, "y": 4}, "cannot be read"),
        ({"kind": "spell"}, "'spell' is no kind of cell set"),
        ({}, "None is no kind of cell set"),
    ],
)
def test_recipes_that_cannot_be_followed(
    dataset: H5adDataset, grid: dict[str, np.ndarray], recipe: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        select(recipe, dataset, grid)


RECIPE = {"kind": "category", "column": "cell_type", "values": ["B"]}


def mask_of(*cells: int, n_obs: int = 20) -> np.ndarray:
    mask = np.zeros(n_obs, bool)
    mask[list(cells)] = True
    return mask


@pytest.fixture
def sets() -> CellSets:
    made = CellSets(20)
    made.add("one", RECIPE, mask_of(1, 2, 3))
    made.add("two", {**RECIPE, "values": ["T"]}, mask_of(19))
    return made


def names(sets: CellSets) -> list[str]:
    return [item.name for item in sets]


def test_sets_are_kept_in_order_with_their_recipes(sets: CellSets) -> None:
    assert names(sets) == ["one", "two"]
    assert len(sets) == 2
    assert sets["one"].recipe == RECIPE
    assert sets["one"].size == 3
    assert np.flatnonzero(sets["two"].mask).tolist() == [19]


def test_every_change_can_be_undone_in_turn(sets: CellSets) -> None:
    sets.rename("one", "first")
    sets.remove("two")
    sets.add("three", RECIPE, mask_of(5))
    assert names(sets) == ["first", "three"]
    seen = []
    while sets.can_undo:
        sets.undo()
        seen.append(names(sets))
    assert seen == [["first"], ["first", "two"], ["one", "two"], ["one"], []]
    sets.undo()
    assert names(sets) == []


def test_a_failed_change_leaves_nothing_to_undo(sets: CellSets) -> None:
    fresh = CellSets(20)
    with pytest.raises(DataError):
        fresh.add("", RECIPE, mask_of(1))
    assert not fresh.can_undo
    sets.rename("one", " one ")
    assert names(sets) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "The name is empty"),
        (" \n\t ", "The name is empty"),
        ("x" * 81, "The name has 81 characters"),
        ("one", "There is a cell set 'one' already"),
        ("  one ", "There is a cell set 'one' already"),
        ("a\0b", "'a.x00b' holds a control character"),
        ("a\x1b[2Jb", "holds a control character"),
    ],
)
def test_names_that_are_refused(sets: CellSets, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sets.add(name, RECIPE, mask_of(1))
    with pytest.raises(DataError, match=message):
        sets.rename("two", name)
    assert names(sets) == ["one", "two"]


def test_white_space_in_names_is_tidied(sets: CellSets) -> None:
    assert sets.add("  my\n  set ", RECIPE, mask_of(1)).name == "my set"


def test_selections_that_are_refused(sets: CellSets) -> None:
    with pytest.raises(DataError, match="No cell is selected"):
        sets.add("none", RECIPE, mask_of())
    with pytest.raises(DataError, match="The selection has 21 cells, the data set 20"):
        sets.add("other", RECIPE, mask_of(1, n_obs=21))


@pytest.mark.parametrize("action", ["remove", "rename", "get"])
def test_a_set_that_is_not_there(sets: CellSets, action: str) -> None:
    actions = {
        "remove": lambda: sets.remove("three"),
        "rename": lambda: sets.rename("three", "four"),
        "get": lambda: sets["three"],
    }
    with pytest.raises(DataError, match="There is no cell set 'three'") as caught:
        actions[action]()
    assert caught.value.hint == "There are: one, two."


@given(st.lists(st.booleans(), min_size=1, max_size=70).filter(any))
def test_json_gives_back_every_cell(cells: list[bool]) -> None:
    sets = CellSets(len(cells))
    sets.add("a/b \N{GREEK SMALL LETTER ALPHA}", RECIPE, np.array(cells))
    again = CellSets.from_dict(json.loads(json.dumps(sets.to_dict())), len(cells))
    assert names(again) == names(sets)
    assert np.array_equal(again["a/b α"].mask, cells)
    assert again["a/b α"].recipe == RECIPE
    assert not again.can_undo


def test_sets_of_another_data_set_are_refused(sets: CellSets) -> None:
    with pytest.raises(DataError, match="belong to a data set of 20 cells, this one has 21"):
        CellSets.from_dict(sets.to_dict(), 21)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "cells",
    [
        "not base64!",
        packed(b"not zlib"),
        packed(zlib.compress(bytes(3))[:5]),
        packed(zlib.compress(bytes(2))),
        packed(zlib.compress(bytes(10**6))),
        7,
        None,
    ],
)
def test_damaged_masks_are_refused(sets: CellSets, cells: object) -> None:
    values = sets.to_dict()
    values["sets"][0]["cells"] = cells
    with pytest.raises(DataError, match="The stored cell sets are damaged"):
        CellSets.from_dict(values, 20)


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        {"n_obs": 20},
        {"n_obs": 20, "sets": 3},
        {"n_obs": 20, "sets": [{}]},
        {"n_obs": 20, "sets": ["one"]},
    ],
)
def test_damaged_collections_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match="The stored cell sets are damaged"):
        CellSets.from_dict(values, 20)
