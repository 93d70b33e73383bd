"""Regulators of a network one by one: how many of their edges are stable and known, and whether that is chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom


def regulon_table(
    regulators: tuple[str, ...],
    edges: pd.DataFrame,
    shares: NDArray[np.floating],
    known: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    stable: float,
) -> pd.DataFrame:
    """Count each regulator's stable and known edges, and test the latter.

    The test asks how often as many known targets would be among so many genes drawn from the usable ones
    (hypergeometric), corrected over the regulators with known targets (Benjamini-Hochberg).

    Parameters
    ----------
    regulators
        ``[R]`` symbols.
    edges
        With ``regulator``, ``stability`` and ``known``, of `scdiva_core.tasks.grn_evidence.evidence`.
    shares
        float ``[R]`` share of the cells that have the regulator among their tokens.
    known, usable
        bool ``[R, T]`` pairs that the reference knows, and pairs that could have become edges.
    stable
        Stability from which on an edge counts.

    Returns
    -------
    DataFrame
        ``regulator``, ``share``, ``edges``, ``stable``, ``known`` (usable targets of the reference), ``hits`` (of them
        among the edges), ``expected`` (by chance), ``p`` and ``q`` (NaN without known targets); the least p first,
        then by stable edges.
    """
    by = edges.groupby("regulator")
    table = pd.DataFrame({"regulator": regulators, "share": np.asarray(shares, np.float64)}).set_index("regulator")
    table["edges"] = by.size().reindex(table.index, fill_value=0)
    table["stable"] = (
        (edges["stability"] >= stable).groupby(edges["regulator"]).sum().reindex(table.index, fill_value=0)
    )
    table["known"] = (known & usable).sum(axis=1)
    table["hits"] = (edges["known"] != "").groupby(edges["regulator"]).sum().reindex(table.index, fill_value=0)
    among = usable.sum(axis=1)
    table["expected"] = table["edges"] * table["known"] / np.maximum(among, 1)
    tested = (table["known"] > 0).to_numpy()
    table[["p", "q"]] = np.nan
    if tested.any():
        some = table[tested]
        p = hypergeom.sf(some["hits"] - 1, among[tested], some["known"], some["edges"])
        table.loc[tested, "p"] = p
        table.loc[tested, "q"] = false_discovery_control(p)
    return table.reset_index().sort_values(
        ["p", "stable", "regulator"], ascending=[True, False, True], kind="stable", ignore_index=True
    )
