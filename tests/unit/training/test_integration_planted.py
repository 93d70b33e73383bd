"""A cell type that only one batch has keeps its own cluster while the default network is fine-tuned on real cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scdiva_core.baselines.harmony import harmonise
from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.engine import DEFAULT_CHECKPOINT
from scdiva_core.engine_integration_making import stand_ins
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.integration import APART, measure
from scdiva_core.training.finetune_cells import read_tokens
from scdiva_core.training.finetune_integration import finetune_integration
from scdiva_core.training.integration_cells import pooled_states
from scdiva_core.training.integration_settings import IntegrationSettings

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo" / "tenx_pbmc3k.h5ad"
TYPES = ("B", "CD14 Monocytes", "CD4 T", "NK")
EACH = 40
SETTINGS = IntegrationSettings(minutes=30, rounds=8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 cells of each of four types; half of each but the B cells were counted at half the depth, in another batch."""
    cells = anndata.read_h5ad(DEMO)
    places = np.concatenate([np.flatnonzero(cells.obs["cell_type"] == name)[:EACH] for name in TYPES])
    cells = cells[places].copy()
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str)
    shallow = (np.arange(len(places)) % 2 == 1) & (cells.obs["cell_type"] != "B").to_numpy()
    X = cells.X.toarray().astype(int)
    X[shallow] = np.random.default_rng(0).binomial(X[shallow], 0.5)
    cells.X = sp.csr_matrix(X.astype(np.float32))
    cells.obs["batch"] = np.where(shallow, "shallow", "deep")
    path = tmp_path_factory.mktemp("planted") / "planted.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model() -> ScDiVaModel:
    return load_pretrained(DEFAULT_CHECKPOINT)


@pytest.fixture(scope="module")
def dataset(file: Path, model: ScDiVaModel) -> Iterator[H5adDataset]:
    with open_h5ad(file, model.vocabulary) as opened:
        yield opened


@pytest.fixture(scope="module")
def states(model: ScDiVaModel, dataset: H5adDataset) -> np.ndarray:
    """What the latent head reads of each cell; fine-tuning leaves the network below it as it is."""
    asked = {"progress": lambda *_: None, "cancelled": lambda: False}
    rows = read_tokens(dataset, model.tokenizer, np.arange(dataset.n_obs), **asked)
    return pooled_states(model, rows, lambda *_: None)


@torch.no_grad()
def latents(model: ScDiVaModel, states: np.ndarray) -> np.ndarray:
    return model.heads["latent"].from_pooled(torch.from_numpy(states))[0].numpy()


def planted(found: dict[str, np.ndarray], obs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measures of each method, and what became of the B cells."""
    table, apart = measure(found, obs["cell_type"], obs["batch"], seeds=1)
    assert set(apart["label"]) == {"B"}
    return table.set_index("method"), apart.set_index("method")


@pytest.mark.parametrize("taught_by", ["labels", "clusters"])
def test_a_type_of_one_batch_keeps_its_cluster_through_fine_tuning(
    taught_by: str, model: ScDiVaModel, dataset: H5adDataset, states: np.ndarray
) -> None:
    before, batches = latents(model, states), dataset.obs["batch"]
    groups = dataset.obs["cell_type"] if taught_by == "labels" else stand_ins(harmonise(before, batches, 0))
    tuned = finetune_integration(model, dataset, batches, groups, taught_by=taught_by, settings=SETTINGS)
    assert tuned.best_round > 0, "nothing was learned, so that nothing was at stake"
    table, apart = planted({"before": before, "after": latents(tuned.model, states)}, dataset.obs)
    assert apart.loc["after", "purity"] >= APART
    assert apart.loc["after", "n_cells"] == EACH
    assert table.loc["after", "type_asw"] > table.loc["before", "type_asw"] + 0.02


def test_the_check_sees_a_type_that_was_mixed_away(
    model: ScDiVaModel, dataset: H5adDataset, states: np.ndarray
) -> None:
    found = latents(model, states)
    b_cells, t_cells = (np.flatnonzero(dataset.obs["cell_type"] == name) for name in ("B", "CD4 T"))
    mixed = found.copy()
    mixed[b_cells] = found[t_cells]
    _, apart = planted({"mixed": mixed}, dataset.obs)
    assert apart.loc["mixed", "purity"] < 0.6
