"""Whether attention says more about known regulation than chance and co-expression do, as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.metrics.grn import DRAWS, Ratio, Ratios, gain, ratios

ATTENTION, CO_EXPRESSION, EXPOSURE = "attention", "co-expression", "read together"
"""Names by which `verdict` and `honesty_table` know the methods that are compared. `EXPOSURE` is how many cells read
both genes: references know more of genes that are often seen, so that this alone finds known pairs."""

HONESTY_COLUMNS = (
    *("method", "auprc_ratio", "auprc_low", "auprc_high", "epr_ratio", "epr_low", "epr_high"),
    *("auprc_gain", "auprc_gain_low", "auprc_gain_high", "epr_gain", "epr_gain_low", "epr_gain_high"),
    *("exposure_gain", "exposure_gain_low", "exposure_gain_high"),
    *("n_pairs", "n_true", "density"),
)
"""Columns of the table, see `honesty_table`."""


def honesty_table(
    scores: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure every method on the same pairs.

    Parameters
    ----------
    scores
        float ``[R, T]`` of each method, the most likely pairs highest (sizes of correlations, not their signs), NaN
        lowest of all. ``[K, R, T]`` are K runs of a method that draws: their mean, and the spread of single runs.
    truth
        bool ``[R, T]`` pairs that the reference knows.
    usable
        bool ``[R, T]`` pairs that count. Only rows with a true pair are kept of it: of a regulator without any, the
        reference may know nothing.
    draws, seed
        Of the bootstrap over regulators.

    Returns
    -------
    DataFrame
        A row for each method, in their order: ``method``; ``auprc_ratio`` and ``epr_ratio``, over random, with
        ``auprc_low`` and so on, their 95 % intervals; ``auprc_gain`` and ``epr_gain``, how much more than the method
        `CO_EXPRESSION`, with intervals, and ``exposure_gain``, how much higher the AUPRC ratio is than that of
        `EXPOSURE` (NaN where that method is missing); ``n_pairs``, ``n_true`` and ``density`` of the pairs. Ratios are
        NaN where no pair is true.
    """
    usable = usable & (truth & usable).any(axis=1, keepdims=True)
    runs = {
        method: [ratios(one, truth, usable, draws=draws, seed=seed) for one in (each if each.ndim == 3 else each[None])]
        for method, each in scores.items()
    }
    rows = []
    for method, found in runs.items():
        row: dict[str, object] = {"method": method}
        for name in ("auprc", "epr"):
            low, high = Ratio(0.0, np.concatenate([_ratio(run, name).draws for run in found])).interval
            row |= {f"{name}_ratio": _mean(found, name).value, f"{name}_low": low, f"{name}_high": high}
            row |= _gained(f"{name}_gain", found, runs.get(CO_EXPRESSION), name)
        row |= _gained("exposure_gain", found, runs.get(EXPOSURE), "auprc")
        rows.append(row | {"n_pairs": found[0].n_pairs, "n_true": found[0].n_true, "density": found[0].density})
    return pd.DataFrame(rows, columns=list(HONESTY_COLUMNS))


def _gained(title: str, ours: list[Ratios], theirs: list[Ratios] | None, name: str) -> dict[str, object]:
    gained = gain(_mean(ours, name), _mean(theirs, name)) if theirs else (np.nan,) * 3
    return dict(zip((title, f"{title}_low", f"{title}_high"), gained, strict=True))


def _ratio(found: Ratios, name: str) -> Ratio:
    return found.auprc if name == "auprc" else found.epr


def _mean(runs: list[Ratios], name: str) -> Ratio:
    each = [_ratio(run, name) for run in runs]
    return Ratio(float(np.mean([one.value for one in each])), np.mean([one.draws for one in each], axis=0))


def verdict(table: pd.DataFrame) -> str:
    """Say in words whether attention is above random, and whether it beats co-expression and mere exposure.

    Parameters
    ----------
    table
        Of `honesty_table`, with a row `ATTENTION`.
    """
    row = table.set_index("method").loc[ATTENTION]
    if not row["n_true"] or np.isnan(row["auprc_ratio"]):
        return "The reference knows none of these pairs, or all of them, so nothing can be said about attention."
    level = f"{row['auprc_ratio']:.2f} times random ({row['auprc_low']:.2f} to {row['auprc_high']:.2f})"
    if row["auprc_low"] > 1:
        words = f"Attention finds known pairs better than chance: {level}."
    elif row["auprc_high"] < 1:
        words = f"Attention finds known pairs worse than chance: {level}."
    else:
        words = f"Attention cannot be told from chance: {level}."
    others = table.set_index("method")["auprc_ratio"]
    for column, method, rival in (
        ("auprc_gain", CO_EXPRESSION, "plain co-expression"),
        ("exposure_gain", EXPOSURE, "a count of the cells that read both genes"),
    ):
        if np.isfinite(row[column]):
            words += f" {_against(rival, row[f'{column}_low'], row[f'{column}_high'])}, at {others[method]:.2f}."
    density, pairs = row["density"], f"{row['n_pairs']:,.0f} pairs"
    return f"{words} AUPRC over {pairs}, {density:.1%} of them known; 95 % intervals over regulators."


def _against(rival: str, low: float, high: float) -> str:
    if low > 0:
        return f"It beats {rival}"
    return f"{rival[0].upper()}{rival[1:]} is better" if high < 0 else f"It cannot be told from {rival}"
