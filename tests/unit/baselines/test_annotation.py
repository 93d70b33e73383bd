"""The regression that names cell types from the corpus alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scdiva_core.baselines.annotation import HvgRegression, LabelledCells, choose_settings
from scdiva_core.baselines.expression import corpus_expression
from scdiva_core.data.corpus import Corpus
from scdiva_core.errors import DataError
from tests.unit.evaluation.small_studies import KANG


def test_labelled_cells_have_a_final_type(corpus: Corpus) -> None:
    training, validation = LabelledCells(corpus, "training"), LabelledCells(corpus, "validation")
    assert set(training.types) == set(KANG.values()), "'T activated' is no final type"
    grouped = (corpus.labels == corpus.label_ids.index("CL:0000084")).sum()
    assert grouped > 0
    assert len(training.types) + len(validation.types) == 600 - grouped
    cells = corpus.cells("validation")
    kept = cells[np.isin(corpus.labels[cells], np.flatnonzero(np.isin(corpus.label_ids, corpus.classes)))]
    assert validation.types.tolist() == [corpus.label_ids[corpus.labels[cell]] for cell in kept]
    assert (validation.expression != corpus_expression(corpus, kept)).nnz == 0


def test_common_types_are_capped(corpus: Corpus) -> None:
    every, capped = LabelledCells(corpus, "training"), LabelledCells(corpus, "training", most=20, seed=1)
    sizes = {term: int((every.types == term).sum()) for term in set(every.types)}
    assert max(sizes.values()) > 20 > min(sizes.values())
    assert {term: int((capped.types == term).sum()) for term in sizes} == {t: min(n, 20) for t, n in sizes.items()}
    again = LabelledCells(corpus, "training", most=20, seed=1)
    assert (again.expression != capped.expression).nnz == 0


def test_held_out_donors_are_named_better_than_by_chance(corpus: Corpus) -> None:
    training, validation = LabelledCells(corpus, "training"), LabelledCells(corpus, "validation")
    model = HvgRegression(corpus, training, np.arange(5, len(corpus.vocabulary)), strength=0.01, balanced=True)
    _, sizes = np.unique(validation.types, return_counts=True)
    right = (model.predict(validation.expression) == validation.types).mean()
    assert right > sizes.max() / sizes.sum() + 0.3


def test_it_reads_no_other_gene_than_allowed(corpus: Corpus) -> None:
    training = LabelledCells(corpus, "training")
    allowed = np.arange(5, len(corpus.vocabulary), 3)
    model = HvgRegression(corpus, training, allowed, strength=0.01, balanced=False)
    assert set(model.gene_ids) <= set(allowed)
    silenced = training.expression.copy()
    silenced.data[~np.isin(silenced.indices, allowed)] = 0
    assert model.predict(silenced).tolist() == model.predict(training.expression).tolist()


def test_the_choice_is_the_best_on_the_validation_cells(corpus: Corpus) -> None:
    training = LabelledCells(corpus, "training")
    each = [choose_settings(corpus, training, strengths=[strength]) for strength in (1e-6, 0.01)]
    best = choose_settings(corpus, training, strengths=[1e-6, 0.01])
    assert each[0].validation_macro_f1 < each[1].validation_macro_f1
    assert best == each[1]
    assert best.strength == 0.01


def test_a_corpus_without_labels_is_refused(corpus_folder: Path) -> None:
    with pytest.raises(DataError, match="training cells of the corpus carry labels of 0 cell types. Prepare"):
        LabelledCells(Corpus(corpus_folder), "training")
