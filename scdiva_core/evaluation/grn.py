"""Networks of attention and of simple methods against known regulation, on cells that chose nothing."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import hypergeom

from scdiva_core.baselines.grn import random_scores, spearman, tree_importance
from scdiva_core.data.regulons import regulons
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.engine import Engine
from scdiva_core.evaluation.grn_sets import COLLECTRI, SETS, GrnSet, references, truth_of
from scdiva_core.evaluation.representations import Report
from scdiva_core.metrics.grn import DRAWS
from scdiva_core.model.attention_choice import AttentionChoice
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.grn_attention import AttentionSums, Block, Head, accumulate, choose_block
from scdiva_core.tasks.grn_evidence import (
    evidence,
    knockout_effects,
    known_pairs,
    partial_correlation,
)
from scdiva_core.tasks.grn_honesty import ATTENTION, CO_EXPRESSION, EXPOSURE, honesty_table, verdict
from scdiva_core.tasks.grn_scores import attention_scores, stability, top_targets
from scdiva_core.training.finetune_cells import tokenizer_of

REGULATOR = "SPI1"
"""The regulator whose edges are listed, on the first set (PU.1, which makes monocytes)."""

MOST_REGULATORS, MOST_TARGETS = 300, 1000
"""Size of the networks."""

TOPS = (20, 50)
"""Edges of `REGULATOR` in which known ones are counted."""

TOP = 10
"""Edges of each regulator that removing cells may change."""

REMOVED = 0.001
"""Share of the cells that is removed, one cell at least."""

_RANDOM_RUNS = 20
_REMOVALS = 10
_ALL_HEADS = "attention, all heads"
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


def evaluate_grn(
    engine: Engine,
    data: Path,
    *,
    tables: Path | None = None,
    sets: Sequence[GrnSet] = SETS,
    draws: int = DRAWS,
    removals: int = _REMOVALS,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Compare the attention of a checkpoint with what needs no model, on the same cells, genes and pairs.

    Parameters
    ----------
    engine
        The checkpoint.
    data
        Folder of the sets.
    tables
        Folder of references that do not ship with the project (DoRothEA, TRRUST); left out where None.
    sets
        To evaluate.
    draws
        Of the bootstrap over regulators.
    removals
        How often cells are removed.
    report
        Called with a line of progress.

    Returns
    -------
    dict
        Plain values for JSON: ``checkpoint``, ``versions``, ``settings``; ``sets``, for each its size, what removing
        cells changes, and ``references``, each with a honesty table (``methods``), a ``verdict`` and the ratios of all
        ``layers`` and ``heads``; ``regulon``, the edges of `REGULATOR` on the first set, None where it is not read.

    Raises
    ------
    DataError
        A file is not there.
    """
    choice = AttentionChoice.of(engine.folder, engine.model.sha256)
    card = engine.card()
    result: dict[str, Any] = {
        "checkpoint": {"name": card.name, "sha256": card.sha256, "parameters": card.parameters_total},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "settings": {
            "choice": asdict(choice),
            "most_regulators": MOST_REGULATORS,
            "most_targets": MOST_TARGETS,
            "draws": draws,
            "random_runs": _RANDOM_RUNS,
            "top": TOP,
            "removed": REMOVED,
            "removals": removals,
        },
        "sets": {},
        "regulon": None,
    }
    for number, cells in enumerate(sets):
        with cells.open(engine, data) as (dataset, places):
            known = references(cells, data, tables)
            report(f"{cells.name}: reading {len(places):,} cells")
            tokenizer = tokenizer_of(engine.model, dataset)
            sample = read_cells(tokenizer, dataset, places, engine.vocabulary)
        run = _Run(engine, cells, sample, _regulators(cells, known), choice, report)
        result["sets"][cells.name] = run.result(known, draws, removals)
        if number == 0:
            result["regulon"] = run.regulon(tokenizer)
    return result


def _regulators(cells: GrnSet, known: dict[str, pd.DataFrame]) -> list[str]:
    """Names of the genes that may be regulators: those of the gold standards, or of the regulons that ship."""
    if not cells.own_standards:
        return list(regulons().regulators)
    return sorted({str(name) for table in known.values() for name in table["regulator"]})


@dataclass(frozen=True, eq=False)
class _Run:
    """One set of cells."""

    engine: Engine
    cells: GrnSet
    sample: CellSample
    regulators: list[str]
    choice: AttentionChoice
    report: Report

    def block(self, sample: CellSample) -> Block:
        return choose_block(sample, self.regulators, most_regulators=MOST_REGULATORS, most_targets=MOST_TARGETS)

    def result(self, known: dict[str, pd.DataFrame], draws: int, removals: int) -> dict[str, Any]:
        """Everything that is measured on the set."""
        block = self.block(self.sample)
        methods, heads = self._attention(block)
        methods |= self._simple(block)
        found = {}
        for name, table in known.items():
            self.report(f"{self.cells.name}: comparing with {name}")
            truth = truth_of(table, self.sample, block)
            compared = honesty_table(methods, truth, block.pairs(), draws=draws)
            apart = honesty_table(heads, truth, block.pairs(), draws=draws)
            found[name] = {
                "regulators": int(truth.any(axis=1).sum()),
                "verdict": verdict(compared),
                "methods": _plain(compared),
                "heads": _plain(apart.filter(regex="^(method|auprc_(ratio|low|high)|epr_(ratio|low|high))$")),
            }
        return {
            "title": self.cells.title,
            "cells": len(self.sample),
            "regulators": len(block.regulators),
            "targets": len(block.targets),
            "without_a_cell": float(np.isnan(methods[ATTENTION][block.pairs()]).mean()),
            "references": found,
            "removal": self._removal(block, methods[ATTENTION], removals),
        }

    def _attention(self, block: Block) -> tuple[dict[str, NDArray[np.floating]], dict[str, NDArray[np.floating]]]:
        """Scores of the default choice and of all heads; and of each layer and each head."""
        self.report(f"{self.cells.name}: reading attention")
        sums = accumulate(self.engine.model, self.sample, block, apart=True, folds=1)
        layers = sorted({layer for layer, _ in sums.heads})
        methods = {
            ATTENTION: self._scored(_joined(sums, self.choice.heads or sums.heads)),
            _ALL_HEADS: self._scored(_joined(sums, sums.heads)),
        }
        apart = {
            f"layer {layer}": self._scored(_joined(sums, [head for head in sums.heads if head[0] == layer]))
            for layer in layers
        }
        apart |= {
            f"layer {layer}, head {head}": self._scored(_joined(sums, [(layer, head)])) for layer, head in sums.heads
        }
        return methods, apart

    def _scored(self, sums: AttentionSums) -> NDArray[np.float32]:
        return attention_scores(sums, self.choice.direction, centred=self.choice.centred)

    def _simple(self, block: Block) -> dict[str, NDArray[np.floating]]:
        """Scores that need no model."""
        genes = (self.sample.expression, block.regulators, block.targets)
        self.report(f"{self.cells.name}: correlating genes")
        correlated = {
            CO_EXPRESSION: np.abs(spearman(*genes)),
            "partial correlation": np.abs(partial_correlation(*genes).values),
            EXPOSURE: self._read_together(block),
        }
        self.report(f"{self.cells.name}: growing trees")
        runs = [random_scores(block.shape, seed) for seed in range(_RANDOM_RUNS)]
        return {**correlated, "tree ensemble": tree_importance(*genes), "random": np.stack(runs)}

    def _read_together(self, block: Block) -> NDArray[np.float32]:
        """Cells that have both genes among their tokens."""
        read = self.sample.tokens.copy()
        read.data[:] = 1
        return (read[:, block.regulators].T @ read[:, block.targets]).toarray().astype(np.float32)

    def _removal(self, block: Block, scores: NDArray[np.float32], removals: int) -> dict[str, Any]:
        """Share of the best edges that are no longer among them when a few cells go and all is done anew."""
        n = max(round(REMOVED * len(self.sample)), 1)
        before = self._edges(self.sample, block, scores)
        changed = []
        for draw in range(removals):
            self.report(f"{self.cells.name}: without {n} of the cells, {draw + 1} of {removals}")
            gone = np.random.default_rng(draw).choice(len(self.sample), n, replace=False)
            rest = self.sample.take(np.delete(np.arange(len(self.sample)), gone))
            other = self.block(rest)
            sums = accumulate(self.engine.model, rest, other, heads=self.choice.heads, folds=1)
            changed.append(len(before - self._edges(rest, other, self._scored(sums))) / len(before))
        return {"cells": n, "edges": len(before), "changed": changed, "mean": float(np.mean(changed or [np.nan]))}

    @staticmethod
    def _edges(sample: CellSample, block: Block, scores: NDArray[np.float32]) -> set[tuple[int, int]]:
        rows, columns = np.nonzero(top_targets(scores, TOP))
        return set(zip(block.regulators[rows].tolist(), block.targets[columns].tolist(), strict=True))

    def regulon(self, tokenizer: Tokenizer) -> dict[str, Any] | None:
        """Edges of `REGULATOR` with their evidence, and how many of them are known."""
        block, symbols = self.block(self.sample), np.array(self.sample.symbols, object)
        names, targets = symbols[block.regulators].tolist(), symbols[block.targets].tolist()
        if REGULATOR not in names:
            return None
        self.report(f"{self.cells.name}: {REGULATOR}")
        row = names.index(REGULATOR)
        sums = accumulate(self.engine.model, self.sample, block, heads=self.choice.heads)
        scores = self._scored(sums)
        correlated = partial_correlation(self.sample.expression, block.regulators, block.targets)
        measures = {
            "attention": scores,
            "cells": sums.counts.sum(axis=0),
            "stability": stability(sums, self.choice.direction, TOPS[-1], centred=self.choice.centred),
            "spearman": spearman(self.sample.expression, block.regulators, block.targets),
            "partial": correlated.values,
        }
        only = {name: values[[row]] for name, values in measures.items()}
        edges = evidence([REGULATOR], targets, only, correlated.signs[[row]], TOPS[-1])
        edges["knockout"] = knockout_effects(self.engine.model, tokenizer, self.sample, edges, [REGULATOR])
        usable = np.isfinite(scores[row])
        known = (known_pairs([REGULATOR], targets)[0] != 0) & usable
        hits = [_hits(edges["known"] != "", top, int(known.sum()), int(usable.sum())) for top in TOPS]
        return {"set": self.cells.name, "reference": COLLECTRI, "hits": hits, "edges": _plain(edges)}


def _joined(sums: AttentionSums, heads: Sequence[Head]) -> AttentionSums:
    """Mean over some heads of sums that are kept apart."""
    channels = [sums.heads.index(head) for head in heads]
    return replace(sums, heads=tuple(heads), sums=sums.sums[channels].mean(axis=0, keepdims=True))


def _hits(known: pd.Series, top: int, n_known: int, n: int) -> dict[str, Any]:
    """Known edges among the best, the share expected by chance, and how often chance would do as well."""
    top = min(top, len(known))
    found = int(known.iloc[:top].sum())
    p = float(hypergeom.sf(found - 1, n, n_known, top))
    return {"top": top, "hits": found, "known": n_known, "targets": n, "expected": top * n_known / n, "p": p}


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not defined as None."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()} for row in records]
