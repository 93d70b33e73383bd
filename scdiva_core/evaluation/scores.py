"""Numbers with their spread, and tables of them: group, then set, method and measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Measures = dict[str, "Score"]
Methods = dict[str, Measures]
Table = dict[str, Methods]


def _none() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True)
class Score:
    """One number of one method on one set.

    Parameters
    ----------
    value
        The number: the mean over seeds, or that of the cells as they are.
    samples
        float64: one of each seed, or one of each resample of the cells; empty where nothing is drawn.
    spread
        What the samples are.
    """

    value: float
    samples: NDArray[np.float64] = field(default_factory=_none)
    spread: Literal["none", "seeds", "bootstrap"] = "none"

    @classmethod
    def over_seeds(cls, samples: NDArray[np.float64]) -> Score:
        """Mean of the numbers that the seeds gave."""
        return cls(float(np.mean(samples)), np.asarray(samples, np.float64), "seeds")

    @property
    def std(self) -> float:
        """Standard deviation of the samples; 0 for one or none."""
        return float(self.samples.std(ddof=1)) if len(self.samples) > 1 else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Middle 95 % of the samples."""
        low, high = np.quantile(self.samples, [0.025, 0.975])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: ``value``, and ``std`` with ``seeds`` or the interval ``low`` to ``high``."""
        if self.spread == "seeds":
            return {"value": self.value, "std": self.std, "seeds": self.samples.tolist()}
        if self.spread == "bootstrap":
            low, high = self.interval
            return {"value": self.value, "low": low, "high": high}
        return {"value": self.value}


def mean_over_sets(table: Table) -> Methods:
    """Mean of each measure over the sets, of the methods that have it on every set.

    Samples are averaged in their order: seed by seed, resample by resample (sets are resampled independently).
    """
    rows = list(table.values())
    if not rows:
        return {}
    return {
        method: {
            measure: _mean([row[method][measure] for row in rows])
            for measure in measures
            if all(measure in row.get(method, {}) for row in rows)
        }
        for method, measures in rows[0].items()
        if all(method in row for row in rows)
    }


def plain(table: Table | Methods | Measures) -> dict[str, Any]:
    """Turn a table into plain values, at whatever depth its scores lie."""
    return {name: inner.to_dict() if isinstance(inner, Score) else plain(inner) for name, inner in table.items()}


def _mean(scores: Sequence[Score]) -> Score:
    value = float(np.mean([score.value for score in scores]))
    return Score(value, np.mean([score.samples for score in scores], axis=0), scores[0].spread)
