"""Which attention heads of a checkpoint agree most with known regulation, chosen on cells that it was trained on.

The choice ships with the checkpoint (`scdiva_core.model.attention_choice`). Cells that judge networks must take no part
in it, so that it is made on cells of the corpus. The reference, CollecTRI, knows much of genes that many cells express;
that a pair is seen in many cells is therefore a rival of its own, beside co-expression, and stands in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiva_core.baselines.grn import spearman
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.regulons import Regulons, regulons
from scdiva_core.errors import DataError
from scdiva_core.metrics.grn import ratios
from scdiva_core.model.attention_choice import AttentionChoice
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import AttentionSums, Direction, accumulate, choose_block
from scdiva_core.tasks.grn_scores import attention_scores
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent

MOST_CELLS = 400
"""Cells drawn of each set."""

CO_EXPRESSION, CELLS = "absolute Spearman correlation", "cells that show both genes"
"""Rivals in the table."""

_PLAIN = AttentionChoice()
_DIRECTIONS: tuple[Direction, ...] = ("both", "from", "to")
_READINGS = [AttentionChoice(direction=way, centred=centred) for way in _DIRECTIONS for centred in (False, True)]
_KEPT_ROWS = 8  # of the table, in the file
_MOST_BEST = 4  # heads that are joined at most, the best ones alone first


@dataclass(frozen=True)
class CorpusCells:
    """Cells of one corpus file.

    Parameters
    ----------
    title
        For people.
    file
        Name of the file, without suffix.
    where
        Value that columns of ``obs`` must have.
    """

    title: str
    file: str
    where: Mapping[str, str]


CORPUS_CELLS = (
    CorpusCells("blood monocytes", "kang2018_pbmc_ifnb", {"cell_type": "CD14 Mono", "condition": "CTRL"}),
    CorpusCells("lung lavage macrophages", "liao2020_lung_lavage_covid", {"cell_type": "Macrophages"}),
    CorpusCells("heart fibroblasts", "kanemaru2023_heart_1k", {"cell_type": "fibroblast"}),
    CorpusCells("pancreatic beta cells", "baron2016_pancreas_donor1", {"cell_type": "beta"}),
    CorpusCells("blood CD4 T cells", "tenx_pbmc4k_half", {"cell_type": "T_CD4"}),
    CorpusCells("bone marrow, all cells", "zheng2017_bone_marrow", {"condition": "healthy"}),
)
"""What the default checkpoint's heads are chosen on."""


@dataclass(frozen=True)
class ChosenAttention:
    """A choice and what it rests on.

    Attributes
    ----------
    choice
        The heads, for `AttentionChoice.save`.
    table
        A row for each way of reading, and each rival, the best first: ``method``, ``heads`` (``layer.head`` names, or
        ``all``), ``direction``, ``centred``, the AUPRC ratio of each set, ``mean`` of these, ``mean_epr``.
    left_out
        A row for each set: ``set``, what would be chosen without it (``heads``, ``direction``, ``centred``), the AUPRC
        ratio of that on this set, ``chosen``, and that of all heads in both directions, ``all_heads``.
    """

    choice: AttentionChoice
    table: pd.DataFrame
    left_out: pd.DataFrame

    def save(self, folder: str | Path, weights: str) -> None:
        """Write the choice beside the weights of this SHA-256, with the best rows of the table and the rivals."""
        table = self.table
        kept = (table.index < _KEPT_ROWS) | (table["method"] != "attention")
        for way in (self.choice, _PLAIN):
            told = pd.Series(_told(way))
            kept |= (table[told.index] == told).all(axis=1)
        figures = {"table": table[kept].round(3), "left_out": self.left_out.round(3)}
        self.choice.save(folder, weights, {name: each.to_dict("records") for name, each in figures.items()})


def read_corpus_cells(
    model: ScDiVaModel,
    folder: str | Path,
    sets: Sequence[CorpusCells] = CORPUS_CELLS,
    *,
    most_cells: int = MOST_CELLS,
    seed: int = 0,
) -> dict[str, CellSample]:
    """Read some cells of each set, by title.

    Parameters
    ----------
    model
        Trained on these files.
    folder
        Of the corpus' ``.h5ad`` files.
    sets
        Which cells.
    most_cells
        Cells of a set at most; of more some are drawn.
    seed
        Of the draw.

    Raises
    ------
    DataError
        A file is missing, or no cell of it is meant.
    """
    samples = {}
    for cells in sets:
        with open_h5ad(Path(folder) / f"{cells.file}.h5ad", model.vocabulary) as dataset:
            obs = dataset.obs
            meant = np.ones(len(obs), bool)
            for column, value in cells.where.items():
                meant &= (obs[column].astype(str) == value).to_numpy() if column in obs else False
            if not meant.any():
                msg = f"No cell of {cells.file} has {', '.join(map(' = '.join, cells.where.items()))}."
                raise DataError(msg, "Name a column of obs and one of its values.")
            drawn = np.random.default_rng(seed).permutation(np.flatnonzero(meant))[:most_cells]
            samples[cells.title] = read_cells(model.tokenizer, dataset, drawn, model.vocabulary)
    return samples


def choose_attention(
    model: ScDiVaModel,
    samples: Mapping[str, CellSample],
    *,
    reference: Regulons | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ChosenAttention:
    """Choose the way of reading with the highest mean AUPRC ratio over the sets.

    Ways are all heads, each layer, each head and the best two to four heads, each in three directions, with genes'
    means taken off or not. If what is chosen without a set is, on that set, on average no better than all heads in both
    directions, then these are taken.

    Parameters
    ----------
    model
        In evaluation mode, on its device.
    samples
        Two or more sets of cells by title.
    reference
        Known regulation; CollecTRI as it ships by default.
    progress, cancelled
        Called once a batch of cells; progress counts sets.

    Raises
    ------
    DataError
        Fewer than two sets, or one in which the reference knows no pair.
    Cancelled
        The user stopped.
    """
    if len(samples) < 2:
        msg = f"{len(samples)} sets of cells to choose on."
        raise DataError(msg, "Name two or more: each is left out once.")
    reference = reference or regulons()
    measured = []
    for number, (title, sample) in enumerate(samples.items()):

        def report(done: int, total: int, _: str, title: str = title, number: int = number) -> None:
            progress(number, len(samples), f"{title}: {done:,} of {total:,} cells")

        measured.append(_Measured.of(model, title, sample, reference, report, cancelled))
    trial = _Trial(measured)
    left_out = _left_out(trial, list(samples))
    best = trial.best(range(len(samples)))
    if left_out["chosen"].mean() <= left_out["all_heads"].mean():
        best = _PLAIN
    sizes = ", ".join(f"{title} ({len(sample):,})" for title, sample in samples.items())
    return ChosenAttention(replace(best, chosen_on=sizes), _table(trial, list(samples)), left_out)


@dataclass(frozen=True, eq=False)
class _Measured:
    """Sums of one set with the pairs that are known."""

    sums: AttentionSums
    truth: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    correlation: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        model: ScDiVaModel,
        title: str,
        sample: CellSample,
        reference: Regulons,
        progress: Progress,
        cancelled: IsCancelled,
    ) -> _Measured:
        block = choose_block(sample, reference.regulators)
        symbols = np.array(sample.symbols)
        targets = symbols[block.targets]
        truth = np.zeros(block.shape, bool)
        for row, regulator in zip(truth, symbols[block.regulators], strict=True):
            row[:] = np.isin(targets, reference.targets(regulator)["target"])
        truth &= block.pairs()
        usable = block.pairs() & truth.any(axis=1, keepdims=True)
        if not truth.any():
            msg = f"The reference knows none of the {truth.size:,} pairs of {title}."
            raise DataError(msg, "Leave this set out, or take one of more cells.")
        sums = accumulate(model, sample, block, apart=True, folds=1, progress=progress, cancelled=cancelled)
        return cls(sums, truth, usable, spearman(sample.expression, block.regulators, block.targets))

    def ratio(self, scores: NDArray[np.floating]) -> tuple[float, float]:
        """AUPRC and early precision over random."""
        found = ratios(scores, self.truth, self.usable, draws=0)
        return found.auprc.value, found.epr.value

    def attention(self, way: AttentionChoice) -> tuple[float, float]:
        sums = self.sums
        channels = [sums.heads.index(head) for head in way.heads or sums.heads]
        together = replace(sums, sums=sums.sums[channels].mean(axis=0, keepdims=True))
        return self.ratio(attention_scores(together, way.direction, centred=way.centred))

    def rivals(self) -> dict[str, tuple[float, float]]:
        cells = self.sums.counts.sum(axis=0).astype(float)
        return {CO_EXPRESSION: self.ratio(np.abs(self.correlation)), CELLS: self.ratio(cells)}


class _Trial:
    """Ways of reading attention, measured when they are asked for."""

    def __init__(self, measured: Sequence[_Measured]) -> None:
        self.measured = measured
        self.found: dict[AttentionChoice, NDArray[np.float64]] = {}
        heads = measured[0].sums.heads
        self._alone = [(head,) for head in heads]
        self._layers = [tuple(head for head in heads if head[0] == layer) for layer in sorted({at for at, _ in heads})]

    def of(self, way: AttentionChoice) -> NDArray[np.float64]:
        """AUPRC and early precision ratio on each set, ``[sets, 2]``."""
        if way not in self.found:
            self.found[way] = np.array([each.attention(way) for each in self.measured])
        return self.found[way]

    def best(self, sets: Sequence[int]) -> AttentionChoice:
        """Way of the highest mean AUPRC ratio over some of the sets; of equal ones the simplest."""

        def mean(way: AttentionChoice) -> float:
            return float(self.of(way)[list(sets), 0].mean())

        ranked = sorted(self._alone, key=lambda group: -mean(AttentionChoice(heads=group)))
        joined = [tuple(sorted(sum(ranked[:n], ()))) for n in range(2, _MOST_BEST + 1)]
        groups = [group for group in [*self._layers, *self._alone, *joined] if len(group) < len(self._alone)]
        return max((replace(way, heads=heads) for heads in (None, *groups) for way in _READINGS), key=mean)


def _left_out(trial: _Trial, titles: Sequence[str]) -> pd.DataFrame:
    rows = []
    for place, title in enumerate(titles):
        best = trial.best([other for other in range(len(titles)) if other != place])
        ratios_here = {"chosen": trial.of(best)[place, 0], "all_heads": trial.of(_PLAIN)[place, 0]}
        rows.append({"set": title, **_told(best), **ratios_here})
    return pd.DataFrame(rows)


def _told(way: AttentionChoice) -> dict[str, str | bool]:
    names = "all" if way.heads is None else " ".join(f"{layer}.{head}" for layer, head in way.heads)
    return {"heads": names, "direction": way.direction, "centred": way.centred}


def _table(trial: _Trial, titles: Sequence[str]) -> pd.DataFrame:
    rivals = [each.rivals() for each in trial.measured]
    nothing = {"heads": "", "direction": "", "centred": False}
    methods = [("attention", _told(way), values) for way, values in trial.found.items()]
    methods += [(name, nothing, np.array([each[name] for each in rivals])) for name in rivals[0]]
    rows = [
        {"method": name, **told, **dict(zip(titles, values[:, 0], strict=True))}
        | {"mean": values[:, 0].mean(), "mean_epr": values[:, 1].mean()}
        for name, told, values in methods
    ]
    return pd.DataFrame(rows).sort_values("mean", ascending=False, kind="stable", ignore_index=True)
