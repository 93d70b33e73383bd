"""A small real file, a corpus of small real files and an untrained checkpoint over their genes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.data.prepare import prepare
from scdiva_core.data.tokenizer import TokenBatch, Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
SPECIAL = ("<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>")


def _often_detected(cells: anndata.AnnData, genes: int) -> np.ndarray:
    """Columns of the genes that most cells express, and of all mitochondrial ones, in file order."""
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel().astype(float)
    detected[cells.var_names.str.startswith("MT-")] = np.inf
    return np.sort(np.argsort(-detected, kind="stable")[:genes])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these wait for a second thread longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_cells() -> anndata.AnnData:
    """160 blood cells by 1,200 genes, raw counts, with four made-up donors; do not alter."""
    cells = anndata.read_h5ad(DEMO / "tenx_pbmc3k.h5ad")[:160]
    cells = cells[:, _often_detected(cells, 1200)].copy()
    cells.X = cells.X.astype(np.float32)
    cells.obs["donor"] = np.array(["d1", "d2", "d3", "d4"])[np.arange(160) % 4]
    cells.obsm["X_old"] = np.arange(320, dtype=np.float32).reshape(160, 2)
    cells.uns["note"] = "kept"
    return cells


@pytest.fixture(scope="session")
def small_h5ad(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_cells` as a file; copy it before changing it."""
    path = tmp_path_factory.mktemp("data") / "small.h5ad"
    small_cells.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def small_vocabulary(small_cells: anndata.AnnData) -> GeneVocabulary:
    """Reserved tokens, the genes of `small_cells` and some that it lacks."""
    genes = anndata.read_h5ad(DEMO / "kang2018_pbmc_ifnb_3k.h5ad", backed="r").var_names
    return GeneVocabulary([*SPECIAL, *sorted({*small_cells.var_names, *genes[::20]})])


@pytest.fixture(scope="session")
def corpus_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small real files with raw counts; the first has four donors, the second none."""
    folder = tmp_path_factory.mktemp("files")
    for name, genes, donors in (("kang2018_pbmc_ifnb_3k", 500, 4), ("zheng2017_bone_marrow_healthy1", 450, 0)):
        cells = anndata.read_h5ad(DEMO / f"{name}.h5ad")[:120]
        cells = cells[:, _often_detected(cells, genes)].copy()
        if donors:
            cells.obs["donor"] = [f"d{i % donors}" for i in range(120)]
        else:
            cells.obs = cells.obs[[]]
        cells.write_h5ad(folder / f"{name.split('_')[0]}.h5ad")
    return sorted(folder.glob("*.h5ad"))


@pytest.fixture(scope="session")
def corpus_folder(corpus_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files prepared for training, in shards of 50 cells."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare(corpus_files, folder, min_cells=20, shard_cells=50)
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ScDiVaConfig]:
    """Make a configuration of two layers; reserved ids are 0 to 4 unless changed."""

    def make(vocab_size: int = 60, **changes: Any) -> ScDiVaConfig:
        sizes = {
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 48,
            "value_head_size": 16,
            "max_genes": 40,
            "pad_fill_id": 2,
            "bos_id": 3,
            "eos_id": 4,
            "heads": (),
            "latent_dim": 8,
            "num_cell_types": 6,
        }
        return ScDiVaConfig(**(sizes | changes))

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Callable[..., ScDiVaConfig]) -> Callable[..., ScDiVaModel]:
    """Make a network whose weights are large enough that every path shows in its output."""

    def make(*args: Any, seed: int = 0, **changes: Any) -> ScDiVaModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ScDiVaModel(tiny_config(*args, **changes))
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    if "norm" not in name:
                        weight.normal_(std=0.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def token_batch() -> Callable[..., TokenBatch]:
    """Draw rows of the given lengths, no gene twice in a row, padded with 0."""

    def make(*lengths: int, vocab_size: int = 60, seed: int = 0) -> TokenBatch:
        rng = np.random.default_rng(seed)
        ids = np.zeros((len(lengths), max(lengths)), np.int64)
        values = np.zeros(ids.shape, np.float32)
        for row, length in enumerate(lengths):
            ids[row, :length] = rng.permutation(np.arange(5, vocab_size))[:length]
            values[row, :length] = rng.gamma(2, 0.7, length)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(values), torch.tensor(lengths))

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(
    small_vocabulary: GeneVocabulary,
    tiny_model: Callable[..., ScDiVaModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folder of an untrained checkpoint over `small_vocabulary`, with entropies; do not alter."""
    folder = tmp_path_factory.mktemp("checkpoint")
    size = len(small_vocabulary)
    heads = ("latent", "annotation", "batch_integration")
    model = tiny_model(size, heads=heads, max_genes=64)
    model.vocabulary = small_vocabulary
    model.tokenizer = Tokenizer(np.random.default_rng(0).uniform(0.2, 1, size), 64)
    model.has_entropy = True
    model.card = {"name": "tiny", "description": "Untrained.", "provisional": True, "training": {"seed": 7}}
    model.save_pretrained(folder)
    return folder
