"""What a reconstruction was asked with and what was found, as it is kept and told in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from scdiva_core.errors import DataError

FEWEST_CELLS = 30
"""Rebuilt cells below which a reader is told that they are few (our choice)."""

ONE_PASS, ITERATIVE = "ScDiVa, one pass", "ScDiVa, iterative"
ONE_PASS_LEAKING, ITERATIVE_LEAKING = f"{ONE_PASS}, clean anchor", f"{ITERATIVE}, clean anchor"
NAMED = "ScDiVa, gene named"
RANK, RANDOM = "rank alone", "random"
MEAN, NEIGHBOURS = "population mean", "kNN imputation"
"""Names of the methods in every table."""

LEAK = (
    "With the clean anchor, as published, the anchor is pooled from all tokens, the hidden ones too: what is hidden "
    "leaks to the model, and these rows may show copying. The verdict leaves them out. A hidden place also tells its "
    "rank, with either anchor, and genes are ranked by value: read values at places beside 'rank alone'."
)
"""What a reader must know of the published way."""

PAIRS = (
    (ONE_PASS, RANK, ("identity", "l_dist", "spearman", "mse")),
    (NAMED, MEAN, ("spearman", "mse")),
    (NAMED, NEIGHBOURS, ("spearman", "mse")),
    (ITERATIVE, ONE_PASS, ("identity", "l_dist", "mse")),
    (ONE_PASS_LEAKING, ONE_PASS, ("identity", "spearman", "mse")),
)
"""What is compared with what; each pair is told the same, places or names, but for the last."""

_WORDS = {
    "identity": "genes named rightly",
    "l_dist": "L-Dist",
    "spearman": "rank correlation of values",
    "mse": "squared error of values",
}


@dataclass(frozen=True)
class ReconstructionSettings:
    """Which cells are rebuilt from what.

    Parameters
    ----------
    cells
        What the set of cells is called; the cells themselves go beside it.
    masks
        Shares of a cell's tokens that are hidden at random, each in (0, 1).
    genes
        Hide the tokens of these genes instead (imputation); `masks` then does not count.
    most_cells
        Cells drawn at most; never more than half of the file, for the others are what baselines learn from.
    iterative_cells
        Of them those that are also rebuilt by iterative unmasking, which takes some twenty times as long; 0 for none.
    steps
        Of iterative unmasking.
    group_key
        Column of ``obs`` for errors type by type; None for no such table.
    seed
        Of all that is drawn.

    Raises
    ------
    DataError
        A number that makes no sense, or nothing to hide.
    """

    cells: str = "all"
    masks: tuple[float, ...] = (0.15, 0.3, 0.5, 0.7, 0.95)
    genes: tuple[str, ...] = ()
    most_cells: int = 100
    iterative_cells: int = 10
    steps: int = 8
    group_key: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("most_cells", 1), ("iterative_cells", 0), ("steps", 2)):
            if getattr(self, name) < least:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, f"Choose at least {least}.")
        if wrong := [share for share in self.masks if not 0 < share < 1]:
            msg = f"A share of {wrong[0]:g} of the tokens cannot be hidden."
            raise DataError(msg, "Choose shares between 0 and 1, such as 0.15.")
        if not self.genes and not self.masks:
            msg = "Nothing is to be hidden: there are 0 masks and 0 genes."
            raise DataError(msg, "Choose a share such as 0.15, or genes.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload, a link or a file."""
        return {**asdict(self), "masks": list(self.masks), "genes": list(self.genes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ReconstructionSettings:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "masks": tuple(map(float, values["masks"])), "genes": tuple(values["genes"])})


@dataclass(frozen=True, eq=False)
class ReconstructionResult:
    """Cells rebuilt by the model and by what needs none, on the same hidden tokens.

    Attributes
    ----------
    settings
        What was asked.
    n_cells, n_rebuilt, n_population
        Cells of the set, those drawn of it and rebuilt, and the others of the file that baselines learned from.
    table
        A row for each mask and method; columns of `scdiva_core.tasks.reconstruction_scores.summary_table`. ``mask`` is
        the share hidden; with genes to impute there is one, the share that their tokens are.
    comparisons
        Of `scdiva_core.tasks.reconstruction_scores.comparisons`, for `PAIRS`.
    types
        Of `scdiva_core.tasks.reconstruction_scores.type_table`; None without a group column.
    genes
        Of `scdiva_core.tasks.reconstruction_scores.gene_table`, at the mask ``summary["mask"]``.
    profiles
        Some cells (the first of each group, at most 12) at the same mask, a row for each token in serialised order:
        ``cell``, ``group`` (empty without), ``place`` (from 1), ``symbol``, ``value``, ``hidden``; for hidden ones
        ``rebuilt_symbol`` and ``rebuilt_value`` (one pass, visible anchor, at this place), and ``named_value``,
        ``mean_value`` and ``neighbour_value`` (this gene); else empty and NaN. Values are log1p.
    summary
        Plain values: ``mask``, share hidden of `genes` and `profiles`; ``decoder``, whether named genes were read from
        the decoder; ``verdict``, sentences on who is better; ``leak``, a note on the published way; ``caption``, a
        sentence; ``warnings``, a list of sentences.
    """

    settings: ReconstructionSettings
    n_cells: int
    n_rebuilt: int
    n_population: int
    table: pd.DataFrame
    comparisons: pd.DataFrame
    types: pd.DataFrame | None
    genes: pd.DataFrame
    profiles: pd.DataFrame
    summary: dict[str, Any]


def verdict(compared: pd.DataFrame) -> str:
    """Say who is better, without leak: the model against rank alone, population mean and kNN imputation.

    Parameters
    ----------
    compared
        Of `scdiva_core.tasks.reconstruction_scores.comparisons`.

    Returns
    -------
    str
        A sentence for each comparison, with numbers; empty where nothing could be compared.
    """
    told = compared[~compared["ours"].isin([ONE_PASS_LEAKING, ITERATIVE])]
    sentences = []
    for (ours, theirs), rows in told.groupby(["ours", "theirs"], sort=False):
        parts = [f"{_WORDS[row.measure]}: {row.word} ({_numbers(row)})" for row in rows.itertuples()]
        sentences.append(f"{ours} against {theirs}, {rows['n'].max():,} cells: {'; '.join(parts)}.")
    return " ".join(sentences)


def _numbers(row: Any) -> str:
    """``0.021 and 0.015; gain 0.006, 0.002 to 0.010``; a gain is positive where ours is better."""
    return (
        f"{row.ours_mean:.3f} and {row.theirs_mean:.3f}; gain {row.difference:+.3f}, {row.low:+.3f} to {row.high:+.3f}"
    )


def leak_note(compared: pd.DataFrame) -> str:
    """Say that the published way leaks, and what the leak gave here."""
    rows = compared[(compared["ours"] == ONE_PASS_LEAKING) & (compared["measure"] == "identity")]
    if rows.empty:
        return LEAK
    row = rows.iloc[0]
    return f"{LEAK} Here {row.ours_mean:.1%} of the hidden genes are named with it, {row.theirs_mean:.1%} without."


def caption(result: ReconstructionResult) -> str:
    """Say in a sentence what was done: cells, what was hidden, and what simple methods learned from."""
    asked = result.settings
    if asked.genes:
        hidden = f"{len(asked.genes):,} genes hidden"
    else:
        hidden = f"{', '.join(f'{share:.0%}' for share in asked.masks)} of each cell's genes hidden at random"
    return (
        f"{result.n_rebuilt:,} cells ({asked.cells}) rebuilt with {hidden}; simple methods learned from "
        f"{result.n_population:,} other cells of the file. Means over cells, 95 % bootstrap intervals over cells."
    )


def warnings_of(result: ReconstructionResult, *, random_weights: bool) -> list[str]:
    """What a reader should know before believing the numbers, a sentence each."""
    found = []
    if random_weights:
        found.append("These weights are random; what they rebuild means nothing.")
    if result.n_rebuilt < FEWEST_CELLS:
        found.append(f"Only {result.n_rebuilt:,} cells were rebuilt: intervals are wide.")
    if result.n_rebuilt < result.n_cells:
        found.append(f"{result.n_rebuilt:,} cells were drawn from {result.n_cells:,}.")
    iterative = result.table.loc[result.table["method"] == ITERATIVE, "n"]
    if len(iterative) and iterative.max() < result.n_rebuilt:
        anew = ", drawn anew for each share" if len(iterative) > 1 else ""
        found.append(f"Iterative unmasking was done for {iterative.max():,} of the cells only{anew}.")
    if not result.summary["decoder"]:
        found.append("This checkpoint has no decoder; values of named genes are read from the hidden places.")
    return found
