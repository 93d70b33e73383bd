"""An evaluation that lies beside its checkpoint, read back and made into tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from scdiva_core.errors import CheckpointError
from scdiva_core.evaluation.report import LOWER_IS_BETTER, MEASURES, TITLES, note, score_text
from scdiva_core.evaluation.verdicts import METHODS

FILE = "evaluation.json"
"""Name beside the weights of what ``evaluate embedding`` writes as ``embedding.json``."""

MAX_BYTES = 5_000_000

MEAN = "mean"
"""What stands in place of a set's name in rows of the mean over sets."""

_COLUMNS = ("group", "measure", "set", "title", "method", "value", "std", "low", "high")
_SPREADS = ("std", "low", "high")
_ABOUT = ("group", "measure", "against")


@dataclass(frozen=True)
class Grid:
    """One measure: a row each set (last the mean, where there are several), a column each method.

    Parameters
    ----------
    values
        Float; NaN where a method was not measured on a set. Index: titles of the sets; columns: `METHODS` keys.
    texts
        The same as text with its spread, such as ``"0.950 ± 0.004"``; ``""`` where there is none.
    best
        Bool: the best of its row, ties as printed included; nowhere where there is one method alone.
    """

    values: pd.DataFrame
    texts: pd.DataFrame
    best: pd.DataFrame


@dataclass(frozen=True)
class Evaluation:
    """A result of `scdiva_core.evaluation.embedding.evaluate_embedding`, checked.

    Parameters
    ----------
    sha256
        Of the weights that were evaluated.
    scores
        A row each score: ``group``, ``measure``, ``set`` (`MEAN` for the mean), ``title`` of the set, ``method``,
        ``value``, and its spread as ``std`` or as ``low`` to ``high`` (NaN where it has none).
    verdicts
        See `scdiva_core.evaluation.verdicts.verdicts`.
    notes
        How each group was measured.
    """

    sha256: str
    scores: pd.DataFrame
    verdicts: tuple[Mapping[str, str], ...]
    notes: Mapping[str, str]

    def measures(self) -> dict[str, tuple[str, ...]]:
        """Groups that were measured, each with its measures, in the order of a report."""
        found = {
            group: tuple(measure for measure in MEASURES if measure in set(rows["measure"]))
            for group, rows in self.scores.groupby("group")
        }
        return {group: found[group] for group in TITLES if group in found}

    def grid(self, group: str, measure: str) -> Grid:
        """One measure as a table.

        Parameters
        ----------
        group, measure
            As `measures` has them.
        """
        rows = self._rows(group, measure)
        methods = [method for method in METHODS if method in set(rows["method"])]
        sets = rows.drop_duplicates("set").set_index("set")["title"]
        values = rows.pivot(index="set", columns="method", values="value").loc[sets.index, methods]
        written = rows.assign(text=[_text(row) for row in rows.to_dict("records")])
        texts = written.pivot(index="set", columns="method", values="text").loc[sets.index, methods].fillna("")
        printed = values.round(3)
        extreme = printed.min(axis=1) if measure in LOWER_IS_BETTER else printed.max(axis=1)
        best = printed.eq(extreme, axis=0) if len(methods) > 1 else printed.isna() & False
        for table in (values, texts, best):
            table.index, table.columns.name = pd.Index(sets.tolist()), None
        return Grid(values, texts, best)

    def in_words(self, group: str, measure: str) -> list[str]:
        """What a measure comes to against the `rival`: above, level and below on which sets, then in the mean.

        Parameters
        ----------
        group, measure
            As `measures` has them.

        Returns
        -------
        list of str
            Sentences; empty where the evaluation passes no verdict.
        """
        wanted = (group, measure, rival(group))
        verdicts = [found for found in self.verdicts if tuple(found[key] for key in _ABOUT) == wanted]
        single = [found for found in verdicts if found["set"] != MEAN]
        summary = [found["words"] for found in single]
        if len(single) > 1:
            titles = self._rows(group, measure).drop_duplicates("set").set_index("set")["title"]
            parts = []
            for verdict in ("above", "level", "below"):
                names = [titles.get(found["set"], found["set"]) for found in single if found["verdict"] == verdict]
                parts.append(f"{verdict} on {len(names)} ({'; '.join(names)})" if names else f"{verdict} on none")
            summary = [f"Against {METHODS[rival(group)]}: {', '.join(parts)}."]
        return [*summary, *(found["words"] for found in verdicts if found["set"] == MEAN)]

    def _rows(self, group: str, measure: str) -> pd.DataFrame:
        return self.scores[(self.scores["group"] == group) & (self.scores["measure"] == measure)]


def rival(group: str) -> str:
    """Method that ScDiVa must beat in a group."""
    return "hvg_lr" if group == "annotation" else "pca"


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read the evaluation beside a checkpoint's weights.

    Parameters
    ----------
    folder
        Where the weights lie.

    Returns
    -------
    Evaluation or None
        None when there is none. It may be of other weights: compare ``sha256``.

    Raises
    ------
    CheckpointError
        The file is not JSON, not an evaluation, or larger than `MAX_BYTES`.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            _refuse(f"is larger than {MAX_BYTES:,} bytes")
        result = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        _refuse(f"cannot be read: {str(error)[:200]}")
    return _checked(result)


def _checked(result: Any) -> Evaluation:
    rows: list[tuple[Any, ...]] = []
    means = _entry(result, "means")
    for group in TITLES:
        sets = _entry(result, group)
        titles = _titles(_entry(result, "pools" if group == "mixing" else "sets"), sets)
        for name in sets:
            rows += _scores(_entry(sets, name), group, name, titles[name])
        if len(sets) > 1:
            rows += _scores(_entry(means, group), group, MEAN, "Mean")
    scores = pd.DataFrame(rows, columns=list(_COLUMNS))
    if scores.empty:
        _refuse("holds no score")
    sha256 = _entry(result, "checkpoint").get("sha256")
    if not isinstance(sha256, str):
        _refuse("does not say which weights it is of")
    try:
        notes = {group: note(result, group) for group in TITLES if result[group]}
    except (KeyError, TypeError, ValueError):
        _refuse("does not say how it was made ('settings')")
    return Evaluation(sha256, scores, _verdicts(result.get("verdicts")), notes)


def _scores(methods: Mapping[str, Any], group: str, name: str, title: str) -> list[tuple[Any, ...]]:
    """One set's rows, of the methods and measures that we know."""
    rows = []
    for method in filter(methods.__contains__, METHODS):
        measures = _entry(methods, method)
        for measure in filter(measures.__contains__, MEASURES):
            score = _entry(measures, measure)
            if ("low" in score) != ("high" in score):
                _refuse(f"has a {measure} with half an interval")
            spread = [_number(score[key], measure) if key in score else math.nan for key in _SPREADS]
            rows.append((group, measure, name, title, method, _number(score.get("value"), measure), *spread))
    return rows


def _titles(described: Mapping[str, Any], sets: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(_entry(described, name).get("title", name)) for name in sets}


def _verdicts(found: Any) -> tuple[Mapping[str, str], ...]:
    keys = (*_ABOUT, "set", "verdict", "words")
    if not isinstance(found, list):
        _refuse("has no list of 'verdicts'")
    for verdict in found:
        if not isinstance(verdict, dict) or not all(isinstance(verdict.get(key), str) for key in keys):
            _refuse("has a verdict that is none")
    return tuple({key: verdict[key] for key in keys} for verdict in found)


def _text(row: Mapping[str, Any]) -> str:
    return score_text({key: row[key] for key in ("value", *_SPREADS) if not math.isnan(row[key])})


def _entry(parent: Any, name: str) -> Mapping[str, Any]:
    found = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(found, dict):
        _refuse(f"has no table {name!r}")
    return found


def _number(value: Any, measure: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        _refuse(f"has a {measure} that is no number")
    return float(value)


def _refuse(what: str) -> NoReturn:
    msg = f"{FILE} {what}."
    raise CheckpointError(msg, "Evaluate the checkpoint again, or remove the file.")
