"""The tiny corpus opened, and a network small enough to train in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.model.config import ScDiVaConfig


@pytest.fixture(scope="session")
def corpus(corpus_folder: Path) -> Corpus:
    return Corpus(corpus_folder)


@pytest.fixture(scope="session")
def network(corpus: Corpus, tiny_config: Callable[..., ScDiVaConfig]) -> ScDiVaConfig:
    return tiny_config(
        len(corpus.vocabulary),
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=16,
        heads=("latent", "batch_integration"),
    )
