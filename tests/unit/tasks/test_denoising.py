"""Denoised expression: no value sees itself, and it is written beside the others into a new file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import DataError
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.denoising import LAYER, denoised_values, write_denoised
from scdiva_core.tasks.reconstruction import Levels, named_values


@pytest.fixture
def rows() -> TokenRows:
    rng = np.random.default_rng(1)
    ids = np.concatenate([rng.permutation(np.arange(5, 60))[:20] for _ in range(3)]).astype(np.int32)
    return TokenRows(np.arange(4) * 20, ids, rng.gamma(2, 0.7, 60).astype(np.float32))


def test_no_value_reaches_its_own_prediction(tiny_model: Callable[..., ScDiVaModel], rows: TokenRows) -> None:
    model = tiny_model(heads=("latent", "batch_integration"))
    levels = Levels(np.full(60, 2, np.float32), np.zeros(60, np.float32), 0.5)
    made = denoised_values(model, rows, levels, np.random.default_rng(0))
    for token in (3, 30):
        values = rows.values.copy()
        values[token] += 3
        other = denoised_values(model, TokenRows(rows.indptr, rows.gene_ids, values), levels, np.random.default_rng(0))
        own = slice(token // 20 * 20, token // 20 * 20 + 20)
        assert other[token] == made[token]
        assert (other[own] != made[own]).any(), "but that of others in the cell"
        np.testing.assert_array_equal(np.delete(other, np.arange(60)[own]), np.delete(made, np.arange(60)[own]))


def test_every_token_is_hidden_once_with_a_part_of_its_cell(
    tiny_model: Callable[..., ScDiVaModel], rows: TokenRows
) -> None:
    model = tiny_model()
    made = denoised_values(model, rows, None, np.random.default_rng(0), folds=4)
    rng = np.random.default_rng(0)
    part = np.concatenate([rng.permutation(20) % 4 for _ in range(3)])
    for fold in range(4):
        np.testing.assert_allclose(made[part == fold], named_values(model, rows, part == fold), atol=1e-6)


def denoised(dataset: H5adDataset) -> sp.csr_matrix:
    """Every second expressed value, plus one."""
    (_, block) = next(dataset.chunks(dataset.n_obs))
    made = block.copy()
    made.data = np.where(np.arange(made.nnz) % 2, made.data + 1, 0).astype(np.float32)
    made.eliminate_zeros()
    return made


def test_the_layer_stands_in_a_new_file(dataset: H5adDataset, tmp_path: Path) -> None:
    before, values = dataset.path.read_bytes(), denoised(dataset)
    written = write_denoised(dataset, tmp_path / "new.h5ad", values, {"model": "tiny"})
    assert dataset.path.read_bytes() == before
    found = anndata.read_h5ad(written)
    layer = found.layers[LAYER]
    assert sp.issparse(layer)
    assert layer.dtype == np.float32
    assert found.X.shape == layer.shape
    columns = [list(found.var_names).index(symbol) for symbol in dataset.var_names[np.argsort(dataset.genes.ids)]]
    np.testing.assert_array_equal(layer.toarray()[:, columns], values.toarray())
    assert (found.X.toarray()[layer.toarray() > 0] > 0).all(), "on expressed genes only"
    assert json.loads(found.uns["scdiva"]["model"]) == "tiny"
    told = json.loads(found.uns["scdiva"]["denoised"])
    assert told["layer"] == LAYER
    assert "while its own value" in told["meaning"]
    assert found.uns["note"] == "kept"


def test_values_of_raw_go_to_the_columns_of_x(
    small_cells: anndata.AnnData, small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    cells = small_cells.copy()
    cells.raw = small_cells
    cells = cells[:, ::-1][:, :900].copy()
    cells.X = np.asarray(cells.X.toarray() - 1, np.float32)  # scaled: raw is read
    cells.layers["old"] = cells.X.copy()
    cells.write_h5ad(tmp_path / "raw.h5ad")
    with open_h5ad(tmp_path / "raw.h5ad", small_vocabulary) as dataset:
        assert dataset.preflight.recommended == "raw/X"
        values = denoised(dataset)
        found = anndata.read_h5ad(write_denoised(dataset, tmp_path / "new.h5ad", values, {}))
        names = np.array(small_vocabulary.tokens, object)[dataset.gene_ids]
    there = np.isin(names, found.var_names)
    assert 800 < there.sum() < len(names), "X lacks some genes of raw"
    columns = found.var_names.get_indexer(names[there])
    np.testing.assert_array_equal(found.layers[LAYER].toarray()[:, columns], values.toarray()[:, there])
    assert "old" in found.layers


def test_the_input_and_other_cells_are_refused(dataset: H5adDataset, tmp_path: Path) -> None:
    values = denoised(dataset)
    with pytest.raises(DataError, match="never changed"):
        write_denoised(dataset, dataset.path, values, {})
    shutil.copy(dataset.path, tmp_path / "target.h5ad")
    with pytest.raises(DataError, match="results are of 100 cells, but the file has 160"):
        write_denoised(dataset, tmp_path / "target.h5ad", values[:100], {})
    assert (tmp_path / "target.h5ad").read_bytes() == dataset.path.read_bytes()
