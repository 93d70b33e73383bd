"""What integration was asked with and what was found, as it is kept and told in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.errors import DataError
from scdiva_core.tasks.integration import METHODS, apart_in_words, verdict

FINETUNED = "scdiva_finetuned"
"""Method whose vectors the new checkpoint makes."""

FEW_CELLS = 100
"""Cells of a batch below which a reader is told that they are few (our choice)."""


@dataclass(frozen=True)
class IntegrateSettings:
    """What is integrated, and how.

    Parameters
    ----------
    batch_key
        Column of ``obs`` with the batches.
    label_key
        Column of ``obs`` with the types, which are drawn together and measured; None for clusters that stand in for
        them, and no measures but iLISI.
    finetune
        Fine-tune beside the methods that need no training.
    minutes
        Budget of the fine-tuning.
    seeds
        Repetitions of Leiden behind each measure.
    seed
        Of all that is drawn.

    Raises
    ------
    DataError
        A number that makes no sense.
    """

    batch_key: str
    label_key: str | None = None
    finetune: bool = True
    minutes: float = 5.0
    seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.minutes <= 0:
            msg = f"seeds is {self.seeds}, and the budget {self.minutes:g} minutes."
            raise DataError(msg, "Choose at least one repetition, and some time.")
        if self.batch_key == self.label_key:
            msg = f"The column {self.batch_key!r} cannot say both batch and type."
            raise DataError(msg, "Choose two columns, or none for the types.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a job's payload, a link or a file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class IntegrationResult:
    """Representations of the same cells before and after integration, with what they are worth.

    Attributes
    ----------
    settings
        What was asked.
    vectors
        Method -> float32 ``[n_obs, d]``, those of `scdiva_core.tasks.integration.METHODS`.
    table
        Of `scdiva_core.tasks.integration.measure` over all cells; without labels only ``method`` and ``ilisi``.
    judged
        The same over the cells whose labels fine-tuning never learned from: what a verdict rests on. None
        without labels or fine-tuning, or where they are too few.
    judged_cells
        int64 places in the file of the cells that only judged the fine-tuning; empty without.
    apart
        Types that only one batch has, for each method; None without labels.
    curve
        Of the fine-tuning; empty without.
    checkpoint
        Folder of the fine-tuned checkpoint, which opens like any other; None without, or where it was removed.
    summary
        Plain values: ``verdict`` and ``apart``, sentences; ``taught_by`` and ``taught`` (sentences) of the fine-tuning;
        ``batches`` (name -> cells), ``chance`` (``"table"`` and perhaps ``"judged"`` -> measure -> its value for
        vectors that are dealt out to the cells at random), ``missing`` (genes that some joined file lacks) and
        ``warnings``, a list of sentences.
    """

    settings: IntegrateSettings
    vectors: dict[str, NDArray[np.float32]]
    table: pd.DataFrame
    judged: pd.DataFrame | None
    judged_cells: NDArray[np.int64]
    apart: pd.DataFrame | None
    curve: tuple[dict[str, Any], ...]
    checkpoint: Path | None
    summary: dict[str, Any]


def in_words(
    table: pd.DataFrame, judged: pd.DataFrame | None, apart: pd.DataFrame | None, *, finetuned: bool
) -> dict[str, str]:
    """``verdict`` and ``apart`` of a result.

    Parameters
    ----------
    table, judged, apart
        As of `IntegrationResult`.
    finetuned
        Whether fine-tuning is among the methods.
    """
    method = FINETUNED if finetuned else "scdiva"
    if apart is None:
        scores = table.set_index("method")["ilisi"]
        others = ", ".join(f"{METHODS[name]} {value:.3f}" for name, value in scores.items())
        told = f"Without labels nothing says whether types hold together. Batches among neighbours (iLISI): {others}."
        return {"verdict": told, "apart": ""}
    if judged is None:
        taught = "Too few cells were held out, so that these are cells whose labels it learned: " if finetuned else ""
        return {"verdict": f"{taught}{verdict(table, method)}", "apart": apart_in_words(apart, method)}
    n_cells = int(judged["n_cells"].iloc[0])
    told = f"On {n_cells:,} cells whose labels it never learned from: {verdict(judged, method)}"
    return {"verdict": told, "apart": apart_in_words(apart, method)}


def warnings_of(
    batches: dict[str, int], missing: int, n_union: int, *, taught_by: str | None, labelled: bool, random_weights: bool
) -> list[str]:
    """What a reader should know before believing the map, a sentence each.

    Parameters
    ----------
    batches
        Cells of each batch.
    missing, n_union
        Genes that some joined file lacks, and genes in all; 0 for a file that was not put together.
    taught_by
        Of the fine-tuning; None without.
    labelled
        Whether the measures rest on labels.
    random_weights
        Whether the checkpoint was never trained.
    """
    found = []
    if random_weights:
        found.append("These weights are random; what ScDiVa shows means nothing.")
    if missing:
        found.append(
            f"{missing:,} of {n_union:,} genes are missing from some of the joined files: there a zero means not "
            "measured. PCA, Harmony and the reconstruction leave these genes out; the model reads them where they are."
        )
    if few := [f"{name} ({size:,})" for name, size in batches.items() if size < FEW_CELLS]:
        found.append(f"Few cells of a batch say little of what it has in common: {', '.join(few[:5])}.")
    if taught_by == "labels":
        found.append(
            "Fine-tuning drew together what the labels call one type: the measures over all cells flatter it, and "
            "those over the cells that only judged count."
        )
    if taught_by == "clusters":
        found.append("Fine-tuning had clusters in place of labels: what these confuse, it draws together.")
    if not labelled:
        found.append("Without a column of types nothing shows whether types were mixed with the batches.")
    return found
