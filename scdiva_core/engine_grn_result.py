"""What a regulatory network was asked with and what was found, as it is kept and told in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.errors import DataError
from scdiva_core.tasks.grn_attention import Direction, Head

FEWEST_CELLS = 100
"""Cells below which a reader is told that they are few (our choice)."""

STABLE = 0.8
"""Share of the bootstrap draws from which on an edge counts as stable (our choice)."""


@dataclass(frozen=True)
class GrnSettings:
    """Which network is made of which cells.

    Parameters
    ----------
    cells, against
        What the set of cells is called, and the set that it is compared with; None for no comparison. The cells
        themselves go beside it.
    most_cells
        Cells drawn of each set at most.
    most_regulators, most_targets
        Genes at most, those first that most cells have among their tokens.
    top
        Targets that are kept of each regulator; stability is the share of bootstrap draws in which a target is among
        them.
    heads
        Layer and head of the attention that is read, both from 0; the checkpoint's own choice when empty.
    direction
        ``"from"``: the regulator attends to the target; ``"to"``: the target attends to the regulator; ``"both"``:
        their mean. The checkpoint's own choice when None.
    knockout
        Regulators whose knockout is predicted for the evidence, those with the strongest edges; costly.
    panel
        Compare with other methods, and layers and heads with each other.
    seed
        Of all that is drawn.

    Raises
    ------
    DataError
        A number that makes no sense.
    """

    cells: str = "all"
    against: str | None = None
    most_cells: int = 2000
    most_regulators: int = 300
    most_targets: int = 2000
    top: int = 20
    heads: tuple[Head, ...] = ()
    direction: Direction | None = None
    knockout: int = 0
    panel: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            *(("most_cells", 10), ("most_regulators", 1), ("most_targets", 2), ("top", 1)),
            ("knockout", 0),
        ):
            if getattr(self, name) < least:
                msg = f"{name} is {getattr(self, name)}."
                raise DataError(msg, f"Choose at least {least}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload, a link or a file."""
        return {**asdict(self), "heads": [list(head) for head in self.heads]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GrnSettings:
        """Read what `to_dict` wrote."""
        return cls(**{**values, "heads": tuple((int(layer), int(head)) for layer, head in values["heads"])})


@dataclass(frozen=True, eq=False)
class GrnResult:
    """A network of regulators and targets with all that stands beside it.

    Attributes
    ----------
    settings
        What was asked.
    n_cells, n_sampled, n_against
        Cells of the set, those drawn of it, and those drawn of the set that it is compared with.
    regulators, targets
        Symbols, in the order of the matrices.
    attention, cells, spearman, partial
        ``[R, T]``: score of attention (float32, NaN where no cell shows both or they are one gene), cells that
        show both (int32), co-expression and partial correlation (float32).
    edges
        The best `GrnSettings.top` targets of each regulator; columns of `scdiva_core.tasks.grn_evidence.EDGE_COLUMNS`.
    regulons
        A row for each regulator: ``regulator``, ``share`` (of the cells that have it among their tokens), ``stable``
        (edges at `STABLE` or above), ``known`` (targets of the reference among `targets`), ``hits`` (of them among the
        edges), ``expected`` (by chance), ``p``, ``q`` (hypergeometric, Benjamini-Hochberg; NaN without known targets).
    honesty
        Of `scdiva_core.tasks.grn_honesty.honesty_table`; None where it was not asked for or nothing is known.
    heads
        A row for each layer and head: ``layer``, ``head``, ``auprc_ratio``, ``epr_ratio``, ``used``; None likewise.
    contrast
        Edges of either set: ``regulator``, ``target``, ``first``, ``second`` (scores in the two sets), ``difference``,
        ``p``, ``q`` (corrected over all pairs, not these alone); None where there is no second set.
    summary
        Plain values: ``heads``, ``direction``, ``centred`` and ``chosen_on`` of the attention that was read;
        ``verdict``, what the comparison says in words; ``caption``, a sentence; ``warnings``, a list of sentences.
    """

    settings: GrnSettings
    n_cells: int
    n_sampled: int
    n_against: int
    regulators: tuple[str, ...]
    targets: tuple[str, ...]
    attention: NDArray[np.float32]
    cells: NDArray[np.int32]
    spearman: NDArray[np.float32]
    partial: NDArray[np.float32]
    edges: pd.DataFrame
    regulons: pd.DataFrame
    honesty: pd.DataFrame | None
    heads: pd.DataFrame | None
    contrast: pd.DataFrame | None
    summary: dict[str, Any]


def caption(result: GrnResult) -> str:
    """Say in a sentence what was found: cells, genes, edges, how stable they are and how many are known."""
    edges = result.edges
    stable = int((edges["stability"] >= STABLE).sum())
    known = int((edges["known"] != "").sum())
    words = (
        f"{len(edges):,} edges of {len(result.regulators):,} regulators to {edges['target'].nunique():,} of "
        f"{len(result.targets):,} genes, from the model's attention in {result.n_sampled:,} cells "
        f"({result.settings.cells}): {stable:,} are stable when cells are drawn anew ({STABLE:.0%} of the draws or "
        f"more), {known:,} are in the reference of known targets"
    )
    clear = int((result.regulons["q"] <= 0.05).sum())
    return f"{words}, where {clear:,} regulators hit more of them than chance would (q at most 0.05)."


def warnings_of(result: GrnResult, *, random_weights: bool) -> list[str]:
    """What a reader should know before believing the edges, a sentence each."""
    found = []
    if random_weights:
        found.append("These weights are random; the network means nothing.")
    if result.n_sampled < FEWEST_CELLS:
        found.append(f"Only {result.n_sampled:,} cells: few pairs of genes are seen often enough.")
    if result.n_sampled < result.n_cells:
        found.append(f"{result.n_sampled:,} cells were drawn from {result.n_cells:,}.")
    if (unstable := float((result.edges["stability"] < STABLE).mean())) > 0.5:
        found.append(f"{unstable:.0%} of the edges change when cells are drawn anew; more cells make them steadier.")
    return found
