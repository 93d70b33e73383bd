"""Evaluation sets as they are read: what is measured, and what the corpus has seen and so is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scdiva_core.data.studies import Studies
from scdiva_core.evaluation.sets import read_set
from tests.unit.evaluation.conftest import Small


def test_cells_that_the_corpus_holds_are_not_measured(small: Small):
    name = "stimulated"
    with small.engine.open(small.data / f"{name}.h5ad") as dataset:
        whole = read_set(dataset, small.studies, len(small.engine.vocabulary))
        seen = replace(small.studies.study(name), seen_column="condition", seen=("STIM",))
        studies = Studies(small.studies.studies | {name: seen}, small.studies.labels)
        rest = read_set(dataset, studies, len(small.engine.vocabulary))
        stimulated = dataset.obs["condition"].astype(str).to_numpy() == "STIM"
    assert stimulated[whole.typed].any()
    assert set(rest.typed) == set(np.setdiff1d(whole.typed, np.flatnonzero(stimulated)))
    assert not stimulated[rest.measured].any()
    assert rest.expression.shape == whole.expression.shape
