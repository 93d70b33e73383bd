"""The small real file opened, and an engine with a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scdiva_core.data.h5ad import H5adDataset, open_h5ad
from scdiva_core.data.vocabulary import GeneVocabulary


@pytest.fixture
def dataset(small_h5ad: Path, small_vocabulary: GeneVocabulary) -> Iterator[H5adDataset]:
    with open_h5ad(small_h5ad, small_vocabulary) as opened:
        yield opened
