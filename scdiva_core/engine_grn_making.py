"""The steps by which a regulatory network is made of a cell set, with its evidence and its controls."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.baselines.grn import random_scores, spearman, tree_importance
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.regulons import regulons
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages
from scdiva_core.engine_grn_result import STABLE, GrnSettings
from scdiva_core.errors import DataError
from scdiva_core.model.attention_choice import AttentionChoice
from scdiva_core.store_tables import packed
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import FIT_CELLS, AttentionSums, Block, accumulate, choose_block
from scdiva_core.tasks.grn_evidence import evidence, knockout_effects, known_pairs, partial_correlation
from scdiva_core.tasks.grn_honesty import ATTENTION, CO_EXPRESSION, EXPOSURE, honesty_table, verdict
from scdiva_core.tasks.grn_regulons import regulon_table
from scdiva_core.tasks.grn_scores import attention_scores, contrast, stability, top_targets
from scdiva_core.tasks.progress import IsCancelled, Progress, silent

HEAD_CELLS = 300
"""Cells in which layers and heads are compared one by one (our choice: for time)."""

TREE_CELLS, TREE_REGULATORS, TREE_TARGETS = 1000, 100, 300
"""What the comparison with other methods is made of at most; trees take long (our choice)."""

MATRICES = ("attention", "cells", "spearman", "partial")
"""Measures that are kept of every pair."""

_RANDOM = 20  # runs of random scores
_WEIGHTS_COST = 2.0  # a forward that forms its attention weights, in forwards that do not
_KNOCKOUT_COST = 1000.0  # of a regulator, in forwards


@dataclass(frozen=True)
class Draw:
    """Which cells are read.

    Parameters
    ----------
    cells, against
        int64 places in the file, ascending, of the set and of the one that it is compared with (None without).
    n_cells
        Cells of the set, before any were drawn.
    """

    cells: NDArray[np.int64]
    against: NDArray[np.int64] | None
    n_cells: int

    @classmethod
    def of(
        cls, dataset: H5adDataset, settings: GrnSettings, cells: ArrayLike | None, against: ArrayLike | None
    ) -> Draw:
        """Check the cells, and draw some where there are too many.

        Raises
        ------
        DataError
            No cells, places outside the file, or a second set without a name or the other way round.
        """
        if (settings.against is None) != (against is None):
            msg = "A comparison needs the name of the second set and its cells."
            raise DataError(msg, "Give both, or neither.")
        places = _places(dataset, np.arange(dataset.n_obs) if cells is None else cells)
        drawn = _drawn(places, settings)
        return cls(drawn, None if against is None else _drawn(_places(dataset, against), settings), len(places))

    def key(self) -> dict[str, str | None]:
        """What a result's key needs of it, as plain values."""
        digests = [
            None if part is None else hashlib.sha256(part.tobytes()).hexdigest() for part in (self.cells, self.against)
        ]
        return dict(zip(("cells", "against"), digests, strict=True))


def _places(dataset: H5adDataset, cells: ArrayLike) -> NDArray[np.int64]:
    places = np.unique(np.asarray(cells, np.int64))
    if not len(places) or places[0] < 0 or places[-1] >= dataset.n_obs:
        found = f"cells {places[0]:,} to {places[-1]:,}" if len(places) else "no cells"
        msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
        raise DataError(msg, "Choose a cell set of this file.")
    return places


def _drawn(places: NDArray[np.int64], settings: GrnSettings) -> NDArray[np.int64]:
    if len(places) <= settings.most_cells:
        return places
    return np.sort(np.random.default_rng(settings.seed).choice(places, settings.most_cells, replace=False))


def attention_choice(engine: Engine) -> AttentionChoice:
    """Which attention of a checkpoint is read unless the settings say otherwise.

    Raises
    ------
    CheckpointError
        The checkpoint's file is damaged, or belongs to other weights.
    """
    return AttentionChoice.of(engine.folder, engine.model.sha256)


def costs(dataset: H5adDataset, settings: GrnSettings, draw: Draw) -> dict[str, float]:
    """Cost of each step in cells through the network, in the order of the steps; typical figures."""
    n = len(draw.cells)
    found = {"reading": 0.01 * dataset.n_obs, "attention": _WEIGHTS_COST * (n + FIT_CELLS), "evidence": 1500.0}
    if settings.knockout:
        found["knockout"] = _KNOCKOUT_COST * settings.knockout
    if settings.panel:
        found |= {"trees": 3.0 * min(n, TREE_CELLS), "heads": 1.5 * _WEIGHTS_COST * (min(n, HEAD_CELLS) + FIT_CELLS)}
    if draw.against is not None:
        found["against"] = _WEIGHTS_COST * (len(draw.against) + FIT_CELLS)
    return found


class Making:
    """The steps of a network.

    Parameters
    ----------
    engine, dataset, settings
        As for `scdiva_core.engine_grn.grn`.
    draw
        Which cells.
    stages
        Has the steps of `costs`.
    cancelled
        Asked within each.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: H5adDataset,
        settings: GrnSettings,
        draw: Draw,
        stages: Stages,
        cancelled: IsCancelled,
    ) -> None:
        self._engine, self._dataset, self._settings, self._draw = engine, dataset, settings, draw
        self._stages, self._cancelled = stages, cancelled
        self._tokenizer = engine._tokenizer(dataset)
        self._choice = attention_choice(engine)
        self._heads = settings.heads or self._choice.heads
        self._direction = settings.direction or self._choice.direction

    def made(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All numbers, as arrays and notes for the store."""
        settings = self._settings
        sample = self._read(self._draw.cells, self._stages["reading"])
        block = choose_block(
            sample,
            regulons().regulators,
            most_regulators=settings.most_regulators,
            most_targets=settings.most_targets,
        )
        sums = self._sums(sample, block, "attention")
        names = [tuple(sample.symbols[column] for column in columns) for columns in (block.regulators, block.targets)]
        measures, signs = self._measures(sample, block, sums)
        edges = evidence(*names, measures, signs, settings.top)
        self._predict_knockouts(sample, edges)
        known, usable = known_pairs(*names) != 0, np.isfinite(measures["attention"])
        shares = sample.tokens[:, block.regulators].getnnz(axis=0) / len(sample)
        tables = {"edges": edges, "regulons": regulon_table(names[0], edges, shares, known, usable, STABLE)}
        summary = {"heads": [list(head) for head in sums.heads], "direction": self._direction, "verdict": None}
        summary |= {"centred": self._choice.centred, "chosen_on": "" if settings.heads else self._choice.chosen_on}
        if settings.panel and (known & usable).any():
            tables["honesty"] = self._honesty(sample, block, measures, known)
            tables["heads"] = self._compared_heads(sample, block, known, usable)
            summary["verdict"] = verdict(tables["honesty"])
        n_against = 0
        if self._draw.against is not None:
            other = self._read(self._draw.against, silent)
            n_against = len(other)
            tables["contrast"] = self._contrasted(sums, self._sums(other, block, "against"), names)
        counts = {"n_cells": self._draw.n_cells, "n_sampled": len(sample), "n_against": n_against}
        arrays = {name: measures[name] for name in MATRICES}
        arrays |= {name: packed(table) for name, table in tables.items()}
        return arrays, {"counts": counts, "summary": summary, "regulators": names[0], "targets": names[1]}

    def _read(self, cells: NDArray[np.int64], progress: Progress) -> CellSample:
        return read_cells(
            self._tokenizer,
            self._dataset,
            cells,
            self._engine.vocabulary,
            progress=progress,
            cancelled=self._cancelled,
        )

    def _sums(self, sample: CellSample, block: Block, stage: str) -> AttentionSums:
        return accumulate(
            self._engine.model,
            sample,
            block,
            heads=self._heads,
            seed=self._settings.seed,
            progress=self._stages[stage],
            cancelled=self._cancelled,
        )

    def _measures(
        self, sample: CellSample, block: Block, sums: AttentionSums
    ) -> tuple[Mapping[str, NDArray[Any]], NDArray[np.int8]]:
        """What stands in the columns of the edges, ``[R, T]`` each, and the signs."""
        told = self._stages["evidence"]
        told(0, 3, "")
        asked = {"centred": self._choice.centred}
        attention = attention_scores(sums, self._direction, **asked)
        steady = stability(sums, self._direction, self._settings.top, seed=self._settings.seed, **asked)
        told(1, 3, "")
        genes = (sample.expression, block.regulators, block.targets)
        together = spearman(*genes)
        told(2, 3, "")
        partial = partial_correlation(*genes, seed=self._settings.seed)
        told(3, 3, "")
        counts = sums.counts.sum(axis=0, dtype=np.int32)
        measures = {"attention": attention, "cells": counts, "stability": steady, "spearman": together}
        return measures | {"partial": partial.values}, partial.signs

    def _predict_knockouts(self, sample: CellSample, edges: pd.DataFrame) -> None:
        wanted = edges["regulator"].unique()[: self._settings.knockout].tolist()
        if wanted:
            edges["knockout"] = knockout_effects(
                self._engine.model,
                self._tokenizer,
                sample,
                edges,
                wanted,
                seed=self._settings.seed,
                progress=self._stages["knockout"],
                cancelled=self._cancelled,
            )

    def _honesty(
        self, sample: CellSample, block: Block, measures: Mapping[str, NDArray[Any]], known: NDArray[np.bool_]
    ) -> pd.DataFrame:
        """Compare with other methods on the same genes and cells, drawn where trees would take too long."""
        seed = self._settings.seed
        rng = np.random.default_rng(seed)
        drawn = np.sort(rng.permutation(len(sample))[:TREE_CELLS])
        with_known = np.flatnonzero(known.any(axis=1))
        rows = np.sort(rng.permutation(with_known)[:TREE_REGULATORS])
        columns = np.sort(rng.permutation(len(block.targets))[:TREE_TARGETS])
        trees = tree_importance(
            sample.expression[drawn],
            block.regulators[rows],
            block.targets[columns],
            seed=seed,
            progress=self._stages["trees"],
            cancelled=self._cancelled,
        )
        at = np.ix_(rows, columns)
        scores = {
            ATTENTION: measures["attention"][at],
            CO_EXPRESSION: np.abs(measures["spearman"][at]),
            "partial correlation": np.abs(measures["partial"][at]),
            EXPOSURE: measures["cells"][at].astype(np.float32),
            "tree ensemble": trees,
            "random": random_scores((_RANDOM, *trees.shape), seed),
        }
        return honesty_table(scores, known[at], block.pairs()[at], seed=seed)

    def _compared_heads(
        self, sample: CellSample, block: Block, known: NDArray[np.bool_], usable: NDArray[np.bool_]
    ) -> pd.DataFrame:
        drawn = np.random.default_rng(self._settings.seed).permutation(len(sample))[:HEAD_CELLS]
        apart = accumulate(
            self._engine.model,
            sample.take(np.sort(drawn)),
            block,
            apart=True,
            folds=1,
            seed=self._settings.seed,
            progress=self._stages["heads"],
            cancelled=self._cancelled,
        )
        asked = {"centred": self._choice.centred}
        scores = {
            str(place): attention_scores(apart, self._direction, place, **asked) for place in range(len(apart.heads))
        }
        table = honesty_table(scores, known, usable, draws=20, seed=self._settings.seed)
        table.insert(0, "layer", [layer for layer, _ in apart.heads])
        table.insert(1, "head", [head for _, head in apart.heads])
        used = set(self._heads or apart.heads)
        table["used"] = [head in used for head in apart.heads]
        return table[["layer", "head", "auprc_ratio", "epr_ratio", "used"]]

    def _contrasted(self, sums: AttentionSums, other: AttentionSums, names: list[tuple[str, ...]]) -> pd.DataFrame:
        """Edges that either set shows among its best, the surest difference first."""
        asked = {"centred": self._choice.centred}
        scores = [attention_scores(each, self._direction, **asked) for each in (sums, other)]
        found = contrast(sums, other, self._direction, **asked)
        shown = np.logical_or(*(top_targets(each, self._settings.top) for each in scores))
        rows, columns = np.nonzero(shown)
        table = pd.DataFrame(
            {"regulator": np.array(names[0], object)[rows], "target": np.array(names[1], object)[columns]}
        )
        values = {"first": scores[0], "second": scores[1], "difference": found.difference, "p": found.p}
        for name, matrix in {**values, "q": found.adjusted}.items():
            table[name] = matrix[rows, columns].astype(np.float64)
        return table.sort_values("p", kind="stable", ignore_index=True)
