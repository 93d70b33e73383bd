"""How good labels are where the truth is known, and what published labels mean in the Cell Ontology."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.data.ontology import CellOntology
from scdiva_core.errors import DataError
from scdiva_core.metrics.classification import expected_calibration_error
from scdiva_core.tasks.annotation import UNKNOWN, LabelCalls
from scdiva_core.tasks.label_sources import column_calls

_ASSETS = Path(__file__).resolve().parents[2] / "assets"
_TABLES = (_ASSETS / "corpus" / "labels.tsv", _ASSETS / "evaluation" / "labels.tsv")


@dataclass(frozen=True, eq=False)
class TruthCheck:
    """Labels beside the truth.

    Attributes
    ----------
    n_judged
        Cells whose true label has a meaning.
    accuracy
        Share of them that are named right; unknown is not right.
    majority, majority_name
        Accuracy of giving every cell the commonest true type, and that type: the level that takes no model.
    unknown
        Share of the judged cells that are called unknown.
    confidence, correct
        float32 and bool ``[m]`` of those that have a label. Confidence is in the true terms' words: that of all labels
        that become the same term together, where the source tells them.
    calibration_error
        Mean distance of the two, see `scdiva_core.metrics.classification.expected_calibration_error`; None when no cell
        has a label.
    meanings
        True label -> Cell Ontology id.
    left_out
        True label without a meaning -> its number of cells.
    """

    n_judged: int
    accuracy: float
    majority: float
    majority_name: str
    unknown: float
    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    calibration_error: float | None
    meanings: dict[str, str]
    left_out: dict[str, int]


def check_labels(calls: LabelCalls, truth: pd.Series, ontology: CellOntology) -> TruthCheck:
    """Compare labels with a column that is taken for the truth.

    A label becomes the most specific of the true terms that it is, or is a kind of: a naive T cell is right where the
    truth is T cell, a T cell wrong where the truth is naive T cell. The same rule judges the checkpoint's evaluation.

    Parameters
    ----------
    calls
        Labels of the cells.
    truth
        Values of the same cells; missing ones are not judged.
    ontology
        Says what is a kind of what.

    Raises
    ------
    DataError
        No value of the column means a cell type; or there are more or fewer values than labels.
    """
    codes, values = pd.factorize(truth)
    if len(codes) != len(calls):
        msg = f"The column has {len(codes):,} values, but there are {len(calls):,} labels."
        raise DataError(msg, "Choose a column of this data set.")
    values = [str(value) for value in values]
    meanings = label_meanings(values, ontology)
    if not meanings:
        msg = f"None of the {len(values)} values of {truth.name!r} is a cell type that the Cell Ontology knows."
        raise DataError(msg, "Use its names or ids, such as T cell or CL:0000084, or choose another column.")
    # Code of the term that each value means, -1 for none; two values may mean one term.
    terms = sorted(set(meanings.values()))
    true_codes = np.array([terms.index(meanings[value]) if value in meanings else -1 for value in values] + [-1])[codes]
    named = label_meanings(calls.names, ontology)
    known = [term or named.get(name, "") for term, name in zip(calls.ids, calls.names, strict=True)]
    resolved = [ontology.nearest(term, terms) if term in ontology else None for term in known]
    said = np.array([terms.index(term) if term else -2 for term in resolved] + [-2])[calls.best]
    judged, has_label = true_codes >= 0, calls.best != UNKNOWN
    right = said == true_codes
    counts = np.bincount(true_codes[judged])
    both = judged & has_label
    confidence, correct = _confidence(calls, np.array([*resolved, None], object), both), right[both]
    sizes = np.bincount(codes[codes >= 0], minlength=len(values))
    return TruthCheck(
        n_judged=int(judged.sum()),
        accuracy=float(right[judged].mean()),
        majority=float(counts.max() / judged.sum()),
        majority_name=ontology.name(terms[int(counts.argmax())]),
        unknown=float(1 - has_label[judged].mean()),
        confidence=confidence,
        correct=correct,
        calibration_error=expected_calibration_error(confidence, correct) if len(correct) else None,
        meanings=meanings,
        left_out={value: int(sizes[place]) for place, value in enumerate(values) if value not in meanings},
    )


def _confidence(calls: LabelCalls, resolved: NDArray[np.object_], cells: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probability that each of some cells is of the term that its label becomes; ``resolved`` names it, or None."""
    if calls.probabilities is None:
        return calls.probability[cells]
    confidence, best = calls.probability[cells], calls.best[cells]
    for term in set(resolved) - {None}:
        labels = np.flatnonzero(resolved[:-1] == term)
        said = np.isin(best, labels)
        together = calls.probabilities[np.flatnonzero(cells)[said]][:, labels].sum(axis=1, dtype=np.float32)
        confidence[said] = np.minimum(together, 1)
    return confidence


def label_meanings(values: Iterable[str], ontology: CellOntology) -> dict[str, str]:
    """Find the Cell Ontology terms of labels as people write them.

    In this order, and in either case: an id, name or synonym; a label that the project's tables of published data sets
    list with one meaning only; the same without a final s, or with "cell" behind it (our choice).

    Parameters
    ----------
    values
        Labels.
    ontology
        Knows names and synonyms.

    Returns
    -------
    dict
        Label -> id; labels without a meaning are not in it.
    """
    values = [value for value in dict.fromkeys(values) if value.strip()]
    published = _published()
    spellings = {
        value: (value, value.removesuffix("s"), f"{value} cell", value.removesuffix(" cells")) for value in values
    }
    flat = pd.Series([spelling for some in spellings.values() for spelling in some], dtype=object)
    calls = column_calls(flat, ontology)
    found = np.array([*calls.ids, ""], object)[calls.best].reshape(-1, 4)
    meanings = {}
    for value, (exact, *others) in zip(values, found, strict=True):
        told = exact or published.get(value.strip().casefold(), "") or next(filter(None, others), "")
        if told:
            meanings[value] = told
    return meanings


@lru_cache(maxsize=1)
def _published() -> dict[str, str]:
    """Labels of published data sets that mean the same term wherever they occur."""
    told: dict[str, set[str]] = {}
    for table in _TABLES:
        for line in table.read_text(encoding="utf-8").splitlines()[1:]:
            _, label, term, *_ = line.split("\t")
            if term:
                told.setdefault(label.strip().casefold(), set()).add(term)
    return {label: next(iter(terms)) for label, terms in told.items() if len(terms) == 1}
