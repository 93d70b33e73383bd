"""A small labelled corpus."""

from __future__ import annotations

import pytest

from scdiva_core.data.corpus import Corpus
from tests.unit.evaluation.small_studies import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """600 of Kang's cells, 150 of them held out."""
    return write_corpus(tmp_path_factory.mktemp("labelled"))
