"""Activity of regulators in cells, against linear models fitted one at a time."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy.stats import linregress

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.regulons import regulons
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.tasks.regulon_activity import LEAST_TARGETS, regulon_activity
from tests.unit.conftest import DEMO, SPECIAL


def test_it_is_the_t_value_of_a_line_through_the_signs_of_the_targets(dataset: H5adDataset) -> None:
    cells = np.array([3, 10, 40])
    found = regulon_activity(dataset, cells)
    assert list(found.index) == list(dataset.obs_names[cells])
    assert found.to_numpy().dtype == np.float32
    block = next(dataset.chunks(dataset.n_obs))[1][cells].toarray()
    expressed = (block > 0).any(axis=0)
    symbols = np.array(dataset.gene_symbols)[expressed]
    for regulator in ("SPI1", "MYC"):
        sign = dict(regulons().targets(regulator).itertuples(index=False))
        weights = np.array([sign.get(symbol, 0) for symbol in symbols], float)
        for row, name in enumerate(found.index):
            line = linregress(weights, block[row, expressed])
            assert found.loc[name, regulator] == pytest.approx(line.slope / line.stderr, rel=1e-4)


def test_every_regulator_with_enough_targets_is_there_and_no_other(dataset: H5adDataset) -> None:
    table = regulons().table
    block = next(dataset.chunks(dataset.n_obs))[1]
    there = np.array(dataset.gene_symbols)[block.getnnz(axis=0) > 0]
    count = table[table["target"].isin(there)].groupby("regulator").size()
    found = regulon_activity(dataset)
    assert set(found.columns) == set(count[count >= LEAST_TARGETS].index)
    assert len(found) == dataset.n_obs
    assert np.isfinite(found.to_numpy()).all()


def test_chunks_do_not_matter(dataset: H5adDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = regulon_activity(dataset)
    monkeypatch.setattr("scdiva_core.tasks.regulon_activity._CHUNK_CELLS", 37)
    np.testing.assert_allclose(regulon_activity(dataset), whole, rtol=1e-5, atol=1e-5)


def test_spi1_is_most_active_in_monocytes() -> None:
    path = DEMO / "tenx_pbmc3k.h5ad"
    genes = anndata.read_h5ad(path, backed="r").var_names
    with open_h5ad(path, GeneVocabulary([*SPECIAL, *genes])) as dataset:
        types = dataset.obs["cell_type"].astype(str).to_numpy()
        chosen = np.concatenate([np.flatnonzero(types == one)[:40] for one in ("CD14 Monocytes", "B", "CD4 T")])
        chosen.sort()
        mean = regulon_activity(dataset, chosen).groupby(types[chosen]).mean()
    assert mean["SPI1"].idxmax() == "CD14 Monocytes"


def test_a_cell_that_expresses_nothing_has_no_activity(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    cells = small_cells[:6].copy()
    cells.X = cells.X.multiply(np.arange(6)[:, None] != 2).tocsr()
    cells.write_h5ad(tmp_path / "empty.h5ad")
    with open_h5ad(tmp_path / "empty.h5ad", small_vocabulary) as dataset:
        found = regulon_activity(dataset)
    assert np.isnan(found.to_numpy()).all(axis=1).tolist() == [False, False, True, False, False, False]


def test_it_says_how_far_it_is_and_stops(dataset: H5adDataset) -> None:
    told: list[tuple[int, int, str]] = []
    regulon_activity(dataset, [0], progress=lambda *at: told.append(at))
    assert [at[:2] for at in told] == [(0, 320), (160, 320), (320, 320)]
    with pytest.raises(Cancelled):
        regulon_activity(dataset, cancelled=lambda: True)


@pytest.mark.parametrize(("cells", "words"), [([], "no cells"), ([159, 160], "cells 159 to 160")])
def test_cells_that_are_not_there_are_refused(dataset: H5adDataset, cells: list[int], words: str) -> None:
    with pytest.raises(DataError, match=f"160 cells in the file, and {words} were chosen"):
        regulon_activity(dataset, cells)


def test_a_file_with_hardly_a_target_is_refused(small_cells: anndata.AnnData, tmp_path: Path) -> None:
    genes = [name for name in small_cells.var_names if name.startswith("MT-")]
    small_cells[:, genes].copy().write_h5ad(tmp_path / "mt.h5ad")
    with (
        open_h5ad(tmp_path / "mt.h5ad", GeneVocabulary([*SPECIAL, *genes])) as dataset,
        pytest.raises(DataError, match="No regulator has 5 known targets among the 1"),
    ):
        regulon_activity(dataset)
