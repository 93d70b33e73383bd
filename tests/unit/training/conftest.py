"""Tiny corpora opened, with labels and without, and networks small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.prepare import prepare
from scdiva_core.data.studies import Studies
from scdiva_core.model.config import ScDiVaConfig
from tests.labelled_corpus import write_labelled_files, write_tables

SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


@pytest.fixture(scope="session")
def network(corpus: Corpus, tiny_config: Callable[..., ScDiVaConfig]) -> ScDiVaConfig:
    return tiny_config(len(corpus.vocabulary), heads=("latent", "batch_integration"), **SIZES)


@pytest.fixture(scope="session")
def labelled_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_labelled_files(tmp_path_factory.mktemp("labelled_files"))


@pytest.fixture(scope="session")
def labelled(labelled_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Eleven labels, eight classes, three technical batches, 40 cells of one person held out."""
    folder = tmp_path_factory.mktemp("labelled")
    studies = Studies.read(write_tables(folder / "tables"))
    prepare(labelled_files, folder, studies=studies, min_cells=20, shard_cells=60)
    return Corpus(folder)


@pytest.fixture(scope="session")
def labelled_network(labelled: Corpus, tiny_config: Callable[..., ScDiVaConfig]) -> ScDiVaConfig:
    """With every head that training reads, and the latent of anchor and gene tokens."""
    return tiny_config(
        len(labelled.vocabulary),
        heads=("latent", "annotation", "batch_integration"),
        num_cell_types=len(labelled.classes),
        latent_pooling="anchor+tokens",
        **SIZES,
    )
