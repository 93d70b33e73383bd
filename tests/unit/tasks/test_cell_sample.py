"""Cells read without a network, and some of them taken out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scdiva_core.engine import Engine
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.store import ResultStore
from scdiva_core.tasks.cell_sample import read_cells


def test_cells_taken_out_are_the_cells_read_alone(tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path) -> None:
    engine = Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path))
    places = np.array([3, 50, 159])
    with engine.open(small_h5ad) as dataset:
        asked = (engine.model.tokenizer, dataset)
        alone = read_cells(*asked, places, engine.vocabulary)
        part = read_cells(*asked, np.arange(160), engine.vocabulary).take(places)
    np.testing.assert_array_equal(part.cells, places)
    np.testing.assert_array_equal(part.tokens.toarray(), alone.tokens.toarray())
    np.testing.assert_array_equal(part.expression.toarray(), alone.expression.toarray())
    np.testing.assert_array_equal(part.rows.indptr, alone.rows.indptr)
    np.testing.assert_array_equal(part.rows.gene_ids, alone.rows.gene_ids)
    np.testing.assert_array_equal(part.rows.values, alone.rows.values)
    assert part.latents.shape == (3, 0)


def test_cells_that_are_not_there_are_refused(tiny_checkpoint: Path, small_h5ad: Path, tmp_path: Path) -> None:
    engine = Engine(tiny_checkpoint, "cpu", ResultStore(tmp_path))
    with engine.open(small_h5ad) as dataset:
        asked = (engine.model.tokenizer, dataset)
        for cells, message in (([], "no cells"), ([5, 160], "cells 5 to 160")):
            with pytest.raises(DataError, match=f"160 cells in the file, and {message}"):
                read_cells(*asked, cells, engine.vocabulary)
        with pytest.raises(Cancelled):
            read_cells(*asked, [0], engine.vocabulary, cancelled=lambda: True)
