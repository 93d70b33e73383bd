"""What a perturbation was asked with and what was found, as it is kept and told in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.errors import DataError
from scdiva_core.tasks.perturbation import Mode, Perturbation
from scdiva_core.tasks.perturbation_direction import FEWEST_READING, SIGNIFICANT

MOSTLY_RANKS = 0.5
"""Share of the shift that must remain when the genes are masked, else the ranks are named as its cause (our choice)."""


@dataclass(frozen=True)
class KnockoutSettings:
    """What is done to which cells, and what it is compared with.

    Parameters
    ----------
    genes, mode, factor
        As for `scdiva_core.tasks.perturbation.Perturbation`: one perturbation of one to three genes.
    group_key
        Column of ``obs`` with cell types; None for the Leiden clusters of the map, called ``"cluster 3"``.
    donor_key
        Column of ``obs`` with donors, for the test over donors.
    cells
        What the set of cells is called; the cells themselves go beside it.
    n_null
        Matched random genes.
    most_cells
        Cells drawn of the set at most.
    expression
        Predict the expression of the other genes too, which takes as long as the rest.
    seed
        Of all that is drawn.

    Raises
    ------
    DataError
        As for `Perturbation`, or a number that makes no sense.
    """

    genes: tuple[str, ...]
    mode: Mode = "knockout"
    factor: float = 0.0
    group_key: str | None = None
    donor_key: str | None = None
    cells: str = "all"
    n_null: int = 100
    most_cells: int = 500
    expression: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "genes", self.perturbation.genes)
        for name in ("n_null", "most_cells"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, "Choose at least 1.")

    @property
    def perturbation(self) -> Perturbation:
        """What is done to each cell."""
        return Perturbation(self.genes, self.mode, self.factor)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload, a link or a file."""
        return {**asdict(self), "genes": list(self.genes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> KnockoutSettings:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "genes": tuple(values["genes"])})


@dataclass(frozen=True, eq=False)
class KnockoutResult:
    """A perturbation of some cells and all that stands beside it.

    Attributes
    ----------
    settings
        What was asked.
    n_cells, n_sampled
        Cells of the set, and those drawn of them; all other numbers are about the latter.
    n_expressing, n_read
        Cells that express a perturbed gene, and those that read it: it is among the tokens that the model sees.
    summary
        Plain values, None where there is none: ``shift`` (mean cosine shift of the reading cells), ``z`` and ``p``
        against ``n_null`` matched genes with ``null_mean``, ``null_low`` and ``null_high`` (5th and 95th percentile);
        ``masked``, the shift when the genes are hidden in their places instead, and ``remaining``, its share of the
        shift by removal; ``donors``, a dictionary with ``words``, ``p`` and ``n``, or words why nothing was tested;
        ``reading`` of the predicted expression; ``caption``, a sentence; ``warnings``, a list of sentences.
    cells
        A row for each drawn cell: ``cell`` (place in the file), ``name``, ``group`` (empty where it has none),
        ``expressed``, ``read``, ``cosine`` and ``l2`` (exactly 0 where not read).
    groups
        A row for each group with a drawn cell: ``group``, ``n_cells``, ``n_read``, ``shift`` (mean over the reading
        cells), ``null_mean``, ``null_low``, ``null_high``, ``p``, ``q``; NaN where too few cells read.
    directions
        A row for each group that reads and each target: ``group``, ``target``, ``change`` (of cosine to the target's
        centroid), ``null_mean``, ``p``, ``q``, ``word``, ``n``. ``attrs["words"]`` says what was tested.
    transitions
        Reading cells by nearest centroid: ``before``, ``after``, ``n``.
    expression
        A row for each gene that 5 % of the reading cells express, the largest change first: ``symbol``, ``before``,
        ``after``, ``change``, ``noise``, ``n``, ``p``, ``q``, ``detection``; None if it was not asked for.
    field, control
        Arrows on the map and those of a matched random gene: ``x``, ``y``, ``dx``, ``dy``, ``n``; None where no map
        was drawn. ``control.attrs["words"]`` says what the control is.
    null
        float64 ``[m]`` mean shifts of the matched genes, brought to the perturbed genes' expression.
    donors
        A row for each donor: ``donor``, ``n``, ``mean``, ``null_mean``, ``excess``; None without a donor column.
    """

    settings: KnockoutSettings
    n_cells: int
    n_sampled: int
    n_expressing: int
    n_read: int
    summary: dict[str, Any]
    cells: pd.DataFrame
    groups: pd.DataFrame
    directions: pd.DataFrame
    transitions: pd.DataFrame
    expression: pd.DataFrame | None
    field: pd.DataFrame | None
    control: pd.DataFrame | None
    null: NDArray[np.float64]
    donors: pd.DataFrame | None


def caption(result: KnockoutResult) -> str:
    """Say in a sentence what was found: cells, shift, null, p, groups with q, and where the clearest one goes."""
    settings, told = result.settings, result.summary
    words = f"{settings.perturbation.title}: of {result.n_sampled:,} cells ({settings.cells}), "
    genes = "the gene" if len(settings.genes) == 1 else "one of the genes"
    words += f"{result.n_expressing:,} express {genes} and in {result.n_read:,} the model reads it; these shift by "
    words += f"{told['shift']:.3g} on average"
    if told["p"] is None:
        words += ", with no random gene to compare with"
    else:
        less = int((result.null < told["shift"]).sum())
        words += f", more than with {less:,} of {told['n_null']:,} random genes expressed alike (p {told['p']:.2g})"
    tested = result.groups[result.groups["q"].notna()]
    clear = int((tested["q"] <= SIGNIFICANT).sum())
    words += f"; {clear:,} of {len(tested):,} tested groups shift beyond random genes (q at most {SIGNIFICANT:g})"
    sure = result.directions[result.directions["word"].isin(["towards", "away"])]
    if sure.empty:
        return f"{words}, and no group goes towards or away from another more than with random genes."
    most = sure.loc[sure["change"].abs().idxmax()]
    word = "towards" if most["word"] == "towards" else "away from"
    where = "its own middle" if most["group"] == most["target"] else most["target"]
    return f"{words}, and {most['group']} goes {word} {where} most clearly (q {most['q']:.2g})."


def warnings_of(result: KnockoutResult, *, random_weights: bool) -> list[str]:
    """What a reader should know before believing the numbers, a sentence each."""
    told, settings, found = result.summary, result.settings, []
    if random_weights:
        found.append("These weights are random; the numbers mean nothing.")
    if result.n_read < FEWEST_READING:
        cells = "1 cell reads" if result.n_read == 1 else f"{result.n_read} cells read"
        found.append(f"Only {cells} the perturbed genes: a mean of so few says little.")
    if unread := result.n_expressing - int((result.cells["expressed"] & result.cells["read"]).sum()):
        found.append(
            f"{unread:,} cells express a perturbed gene below the genes that the model reads, so that nothing changes."
        )
    if told["n_null"] < settings.n_null:
        found.append(f"Only {told['n_null']:,} random genes could be matched, not {settings.n_null:,}.")
    if told["remaining"] is not None and told["remaining"] < MOSTLY_RANKS:
        found.append(
            f"Hiding the genes in their places leaves {told['remaining']:.0%} of the shift: the rest comes with the "
            "ranks of the other genes, which removal moves up."
        )
    if result.n_sampled < result.n_cells:
        found.append(f"{result.n_sampled:,} cells were drawn from {result.n_cells:,}, some of every group.")
    return found
