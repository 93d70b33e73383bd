"""Predicted and measured changes of a few perturbations, scored method by method, and what that comes to in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.metrics.perturbation import paired_gain, score_delta

METHODS = {
    "scdiva": "the model",
    "scdiva_tokens": "the model's denoising heads",
    "scdiva_other": "the model, other genes knocked out",
    "co_expression": "co-expression",
    "mean": "the mean of the other knockouts",
    "no_change": "no change",
    "random": "random",
}
"""Name of each method for people, in the order of the tables; ``"scdiva_other"`` is the mean score of what the model
predicts for the knockout of other genes, which what is true of any knockout reaches as well."""

MODEL = "scdiva"
"""The method that is judged."""

_OTHER_READING = "scdiva_tokens"

MEASURES = {
    "fold_change_spearman": "Spearman",
    "sign_accuracy": "Sign accuracy",
    "de_auprc": "DE-AUPRC",
    "pearson_delta": "PearsonDelta",
    "hit_rate": "HR@20",
    "centroid_pearson": "Centroid-referenced Pearson",
    "retrieval_rank": "Retrieval rank (lower is better)",
}
"""Measures of `scdiva_core.metrics.perturbation`; squared errors are missing, for predicted sizes are not to scale."""

HEADLINES = ("fold_change_spearman", "sign_accuracy", "de_auprc")
"""Measures that are said in words."""

FEWEST = 6
"""Perturbations that a bootstrap interval needs; of fewer only the means are compared (our choice)."""


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """How well a checkpoint foresees measured changes that it was never shown.

    Attributes
    ----------
    title
        What was measured.
    scores
        A row for each perturbation and method: ``perturbation``, ``method`` (of `METHODS`), ``n_measured`` (perturbed
        cells), ``n_reading`` (control cells that read the target), ``n_genes``, ``n_changed`` (truly changed genes:
        chance of DE-AUPRC is their share), and the `MEASURES`; NaN where one is not defined.
    genes
        A row for each perturbation and gene: ``perturbation``, ``symbol``, ``measured``, ``changed``, and the change
        that each method predicts.
    skipped
        Perturbation to the reason why it was not predicted.
    note
        What else a reader must know.
    """

    title: str
    scores: pd.DataFrame
    genes: pd.DataFrame
    skipped: Mapping[str, str]
    note: str

    @property
    def means(self) -> pd.DataFrame:
        """Mean of each measure over the perturbations, a row for each method in the order of `METHODS`."""
        means = self.scores.groupby("method")[list(MEASURES)].mean()
        return means.loc[[method for method in METHODS if method in means.index]]

    @property
    def words(self) -> str:
        """Which baselines the model beats, is level with, or loses to."""
        means, number = self.means, self.scores["perturbation"].nunique()
        sentences = []
        for measure in HEADLINES:
            said = [
                f"{verb} {METHODS[method]} ({means.loc[method, measure]:.3f})"
                for method in means.index
                if method not in (MODEL, _OTHER_READING) and (verb := self._verb(measure, method))
            ]
            defined = int(self.scores.loc[self.scores["method"] == MODEL, measure].notna().sum())
            part = f" (defined for {defined} of {number})" if defined < number else ""
            value = f"{MEASURES[measure]} {means.loc[MODEL, measure]:.3f}{part}"
            sentences.append(f"{value}: the model {', '.join(said)}." if said else f"{value}: nothing to compare.")
        rule = f"{number} perturbations are too few for an interval: the means alone are compared."
        if number >= FEWEST:
            rule = "Where the 95 % bootstrap interval over perturbations holds 0, they are level."
        skipped = "; ".join(f"{name} ({why})" for name, why in self.skipped.items())
        ending = f" Not predicted: {skipped}." if skipped else ""
        return f"{self.title}. {' '.join(sentences)} {rule} {self.note}{ending}"

    def _verb(self, measure: str, method: str) -> str:
        wide = self.scores.pivot(index="perturbation", columns="method", values=measure)
        mean, low, high, number = paired_gain(wide[MODEL], wide[method])
        if not number:
            return ""
        if number < FEWEST:
            return "is above" if mean > 0 else "is below"
        return "beats" if low > 0 else "loses to" if high < 0 else "is level with"


def scored(
    about: Mapping[str, object],
    method: str,
    predicted: NDArray[np.float64],
    measured: NDArray[np.floating],
    changed: NDArray[np.bool_],
    centroid: NDArray[np.float64] | None = None,
) -> dict[str, object]:
    """A row of `ZeroShot.scores`.

    Parameters
    ----------
    about
        Its first columns.
    method
        Of `METHODS`.
    predicted, measured, changed, centroid
        As for `scdiva_core.metrics.perturbation.score_delta`.
    """
    scores = score_delta(predicted, measured, changed, centroid)
    numbers = {"n_genes": len(measured), "n_changed": int(changed.sum())}
    return {**about, "method": method, **numbers, **{name: scores[name] for name in MEASURES if name in scores}}


def scored_others(
    about: Mapping[str, object],
    others: Sequence[NDArray[np.float64]],
    measured: NDArray[np.floating],
    changed: NDArray[np.bool_],
    centroid: NDArray[np.float64] | None = None,
) -> dict[str, object]:
    """The row of ``"scdiva_other"``: mean of each measure over the deltas predicted for other genes."""
    rows = pd.DataFrame([scored(about, "scdiva_other", delta, measured, changed, centroid) for delta in others])
    there = [name for name in MEASURES if name in rows]
    return {**rows.iloc[0].to_dict(), **rows[there].mean().to_dict()}


def gene_table(
    name: str,
    symbols: NDArray[np.object_],
    measured: NDArray[np.floating],
    changed: NDArray[np.bool_],
    predicted: Mapping[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """Rows of `ZeroShot.genes` for one perturbation, each argument in the order of ``symbols``."""
    return pd.DataFrame(
        {"perturbation": name, "symbol": symbols, "measured": measured, "changed": changed, **predicted}
    )
