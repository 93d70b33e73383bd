"""A small corpus, two evaluation sets and an untrained checkpoint, and one evaluation of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scdiva_core.data.corpus import Corpus
from scdiva_core.data.studies import Studies
from scdiva_core.engine import Engine
from scdiva_core.evaluation.embedding import evaluate_embedding
from scdiva_core.evaluation.pools import Member, Pool
from scdiva_core.store import ResultStore
from tests.unit.evaluation.small_studies import write_checkpoint, write_corpus, write_evaluation


@dataclass(frozen=True)
class Small:
    """All that an evaluation needs."""

    engine: Engine
    data: Path
    corpus: Corpus
    tables: Path
    studies: Studies
    pools: tuple[Pool, ...]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("evaluation")
    corpus = write_corpus(folder / "corpus")
    data, tables = write_evaluation(folder / "sets")
    checkpoint = write_checkpoint(folder / "checkpoint", corpus)
    engine = Engine(checkpoint, "cpu", ResultStore(folder / "store"))
    pools = (
        Pool("both", "Both studies", (Member("blood"), Member("stimulated", "condition", ("STIM",)))),
        Pool("absent", "One that is not there", (Member("blood"), Member("elsewhere"))),
    )
    return Small(engine, data, corpus, tables, Studies.read(tables), pools)


@pytest.fixture(scope="session")
def lines() -> list[str]:
    """What `result` reported."""
    return []


@pytest.fixture(scope="session")
def result(small: Small, lines: list[str]) -> dict[str, Any]:
    """One evaluation with two seeds; do not alter."""
    return evaluate_embedding(
        small.engine, small.data, small.corpus, small.studies, seeds=2, pools=small.pools, report=lines.append
    )
