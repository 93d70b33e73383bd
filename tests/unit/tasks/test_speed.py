"""How long a cell takes: timed once for whoever asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.speed import Speed


@pytest.fixture
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return ScDiVaModel.from_pretrained(tiny_checkpoint)


def _passes(model: ScDiVaModel) -> list[tuple[int, ...]]:
    """Shapes of what enters the first layer from now on."""
    seen: list[tuple[int, ...]] = []
    model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    return seen


def test_many_who_ask_at_once_share_one_measurement(model: ScDiVaModel) -> None:
    speed, seen = Speed(model), _passes(model)
    longest = len(model.vocabulary.gene_ids[: model.config.max_genes])
    with ThreadPoolExecutor(8) as threads:
        told = set(threads.map(speed.seconds, [float(longest)] * 8))
    assert len(told) == 1
    assert told.pop() > 0
    timed = len(seen)
    assert timed >= 2, "it was timed, not guessed"
    speed.seconds(longest)
    speed.seconds(longest - 0.5)
    assert len(seen) == timed, "nobody times again what is known"


def test_shorter_cells_are_timed_as_shorter_cells(model: ScDiVaModel) -> None:
    speed, seen = Speed(model), _passes(model)
    speed.seconds(1)
    short = max(shape[1] for shape in seen)
    seen.clear()
    speed.seconds(1e6)
    assert short < max(shape[1] for shape in seen)
