"""The steps by which cells are rebuilt, by the model and by what needs none, on the same hidden tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdiva_core.baselines import reconstruction as baselines
from scdiva_core.baselines.reconstruction import Population
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.tokenizer import TokenRows
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages, column
from scdiva_core.engine_reconstruction_result import (
    ITERATIVE,
    ITERATIVE_LEAKING,
    MEAN,
    NAMED,
    NEIGHBOURS,
    ONE_PASS,
    ONE_PASS_LEAKING,
    PAIRS,
    RANDOM,
    RANK,
    ReconstructionSettings,
    leak_note,
    verdict,
)
from scdiva_core.errors import DataError
from scdiva_core.store_tables import packed
from scdiva_core.tasks.cell_sample import CellSample, read_cells
from scdiva_core.tasks.progress import IsCancelled
from scdiva_core.tasks.reconstruction import (
    can_decode,
    cell_of,
    fit_levels,
    gene_mask,
    named_values,
    random_mask,
    rebuild,
)
from scdiva_core.tasks.reconstruction_scores import (
    Filled,
    cell_scores,
    comparisons,
    gene_table,
    summary_table,
    taken,
    type_table,
)

MOST_POPULATION = 2000
"""Other cells that baselines learn from at most (our choice)."""

FIT_CELLS = 150
"""Other cells on which the decoder's levels are fitted (our choice: for time)."""

MOST_PROFILES = 12
"""Cells whose profiles are kept (our choice)."""

_BY_GENE = (ONE_PASS, NAMED, MEAN, NEIGHBOURS)
_SHOWN_MASK = 0.5  # genes and profiles are shown at the mask nearest to it
_NAMING = 3.0  # probabilities of every gene at all places of a cell, in forwards; typical
_PASSES = 20.0  # forwards of iterative unmasking: more than steps, since two places may claim one gene; typical
_SCORING = 0.5  # of a cell under all methods, in forwards; typical


@dataclass(frozen=True)
class Draw:
    """Which cells are rebuilt, and which others are learned from.

    Parameters
    ----------
    cells, others
        int64 places in the file, ascending, none in both.
    n_cells
        Cells of the set, before any were drawn.
    """

    cells: NDArray[np.int64]
    others: NDArray[np.int64]
    n_cells: int

    @classmethod
    def of(cls, dataset: H5adDataset, settings: ReconstructionSettings, cells: ArrayLike | None) -> Draw:
        """Check the cells and draw.

        Raises
        ------
        DataError
            No cells, places outside the file, or a file of a single cell.
        """
        places = np.arange(dataset.n_obs) if cells is None else np.unique(np.asarray(cells, np.int64))
        if not len(places) or places[0] < 0 or places[-1] >= dataset.n_obs:
            found = f"cells {places[0]:,} to {places[-1]:,}" if len(places) else "no cells"
            msg = f"There are {dataset.n_obs:,} cells in the file, and {found} were chosen."
            raise DataError(msg, "Choose a cell set of this file.")
        if dataset.n_obs < 2:
            msg = "The file has 1 cell; there is no other to compare it with."
            raise DataError(msg, "Choose a file of more cells.")
        rng = np.random.default_rng(settings.seed)
        drawn = rng.permutation(places)[: min(settings.most_cells, dataset.n_obs // 2)]
        others = rng.permutation(np.setdiff1d(np.arange(dataset.n_obs), drawn))[:MOST_POPULATION]
        return cls(np.sort(drawn), np.sort(others), len(places))

    def key(self) -> str:
        """What a result's key needs of it."""
        return hashlib.sha256(self.cells.tobytes() + b"|" + self.others.tobytes()).hexdigest()


def costs(dataset: H5adDataset, settings: ReconstructionSettings, draw: Draw) -> dict[str, float]:
    """Cost of each step in cells through the network, in the order of the steps; typical figures."""
    n, iterative = len(draw.cells), min(len(draw.cells), settings.iterative_cells)
    found = {"reading": 0.01 * dataset.n_obs}
    for place, share in enumerate((0.1,) if settings.genes else settings.masks):
        naming = 1 + _NAMING * share
        found |= {f"{kind} {place}": n * naming for kind in ("visible", "clean")}
        if iterative:
            slow = iterative * (_PASSES + 0.5 * settings.steps * _NAMING * share)
            found |= {f"iterative {kind} {place}": slow for kind in ("visible", "clean")}
        found[f"named {place}"] = n + min(len(draw.others), FIT_CELLS) + _SCORING * n
    return found


class Making:
    """The steps of a reconstruction.

    Parameters
    ----------
    engine, dataset, settings
        As for `scdiva_core.engine_reconstruction.reconstruct`.
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
        settings: ReconstructionSettings,
        draw: Draw,
        stages: Stages,
        cancelled: IsCancelled,
    ) -> None:
        self._engine, self._dataset, self._settings, self._draw = engine, dataset, settings, draw
        self._stages, self._cancelled = stages, cancelled
        self._model = engine.model
        self._rng = np.random.default_rng(settings.seed)

    def made(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All numbers, as arrays and notes for the store."""
        groups = self._groups()
        sample = self._read()
        chosen = np.isin(sample.cells, self._draw.cells)
        asked, others = (sample.take(np.flatnonzero(part)) for part in (chosen, ~chosen))
        population = Population(others.rows, self._model.config.vocab_size)
        masks = self._masks(asked, others)
        shown = int(np.argmin([abs(share - _SHOWN_MASK) for share, *_ in masks]))
        scores = []
        for place, (share, cells, hidden, fitting) in enumerate(masks):
            rows = asked.rows.take(cells)
            filled = self._filled(place, rows, hidden, cells, population, fitting)
            scores += [cell_scores(each, share) for each in filled]
            if place == shown:
                genes = gene_table([each for each in filled if each.method in _BY_GENE], self._symbols())
                profiles = self._profiles(filled, asked, groups)
        table = pd.concat(scores, ignore_index=True)
        compared = comparisons(table, PAIRS)
        tables = {"table": summary_table(table), "comparisons": compared, "genes": genes, "profiles": profiles}
        if groups is not None:
            tables["types"] = type_table(table, groups[asked.cells])
        summary = {"mask": masks[shown][0], "decoder": can_decode(self._model)}
        summary |= {"verdict": verdict(compared), "leak": leak_note(compared)}
        rebuilt = len(np.unique(table["cell"]))
        counts = {"n_cells": self._draw.n_cells, "n_rebuilt": rebuilt, "n_population": len(others)}
        return {name: packed(each) for name, each in tables.items()}, {"counts": counts, "summary": summary}

    def _groups(self) -> NDArray[np.object_] | None:
        if self._settings.group_key is None:
            return None
        labels = column(self._dataset, self._settings.group_key)
        return labels.where(labels.notna(), None).to_numpy(object)

    def _read(self) -> CellSample:
        return read_cells(
            self._engine._tokenizer(self._dataset),
            self._dataset,
            np.union1d(self._draw.cells, self._draw.others),
            self._engine.vocabulary,
            progress=self._stages["reading"],
            cancelled=self._cancelled,
        )

    def _symbols(self) -> NDArray[np.object_]:
        """Symbol of each token id; the token itself where the file lacks the gene."""
        symbols = np.array(self._engine.vocabulary.tokens, object)
        symbols[self._dataset.gene_ids] = self._dataset.gene_symbols
        return symbols

    def _masks(
        self, asked: CellSample, others: CellSample
    ) -> list[tuple[float, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]]:
        """Share hidden; numbers of the cells that lose a token, and which they lose; the same for the others."""
        genes = self._settings.genes
        if not genes:
            pairs = [
                (share, *(random_mask(side.rows, share, self._rng) for side in (asked, others)))
                for share in self._settings.masks
            ]
        else:
            ids = asked.gene_ids[asked.columns(genes)]
            pairs = [(0.0, *(gene_mask(side.rows, ids) for side in (asked, others)))]
        found = []
        for share, hidden, fitting in pairs:
            cells = np.unique(cell_of(asked.rows)[hidden])
            if not len(cells):
                if genes:
                    named = f"In none of the {len(asked):,} cells can {', '.join(genes)} be hidden"
                    msg = f"{named}: the model does not read it there, or reads nothing else."
                else:
                    msg = f"None of the {len(asked):,} cells has two genes that the model reads: nothing can be hidden."
                raise DataError(msg, "Choose genes that these cells express, or other cells.")
            part = taken(asked.rows, hidden, cells)
            found.append((float(part.mean()) if genes else share, cells, part, fitting))
        return found

    def _filled(
        self,
        place: int,
        rows: TokenRows,
        hidden: NDArray[np.bool_],
        cells: NDArray[np.int64],
        population: Population,
        fitting: NDArray[np.bool_],
    ) -> list[Filled]:
        """What every method puts in place of the hidden tokens."""
        found = [
            self._rebuilt(name, rows, hidden, cells, f"{anchor} {place}", leaks=anchor == "clean")
            for name, anchor in ((ONE_PASS, "visible"), (ONE_PASS_LEAKING, "clean"))
        ]
        if self._settings.iterative_cells:
            few = np.sort(self._rng.permutation(len(rows))[: self._settings.iterative_cells])
            part = (rows.take(few), taken(rows, hidden, few), cells[few])
            found += [
                self._rebuilt(name, *part, f"iterative {anchor} {place}", leaks=anchor == "clean")
                for name, anchor in ((ITERATIVE, "visible"), (ITERATIVE_LEAKING, "clean"))
            ]
        asked = (rows, hidden)
        told = {"leaks": False, "rows": rows, "hidden": hidden, "cells": cells}
        simple = {
            RANK: (baselines.frequent_genes(population, *asked), baselines.rank_values(*asked)),
            RANDOM: (
                baselines.random_genes(population, *asked, self._rng),
                baselines.random_values(population, int(hidden.sum()), self._rng),
            ),
        }
        found += [Filled(name, "place", genes=genes, values=made, **told) for name, (genes, made) in simple.items()]
        values = {
            NAMED: self._named(place, rows, hidden, population, fitting),
            MEAN: baselines.mean_values(population, *asked),
            NEIGHBOURS: baselines.neighbour_values(population, *asked),
        }
        return found + [Filled(name, "gene", genes=None, values=made, **told) for name, made in values.items()]

    def _rebuilt(
        self,
        name: str,
        rows: TokenRows,
        hidden: NDArray[np.bool_],
        cells: NDArray[np.int64],
        stage: str,
        *,
        leaks: bool,
    ) -> Filled:
        made = rebuild(
            self._model,
            rows,
            hidden,
            anchor_from="clean" if leaks else "visible",
            steps=self._settings.steps if stage.startswith("iterative") else 1,
            progress=self._stages[stage],
            cancelled=self._cancelled,
        )
        return Filled(name, "place", leaks, rows, hidden, cells, made.gene_ids[hidden], made.values[hidden])

    def _named(
        self,
        place: int,
        rows: TokenRows,
        hidden: NDArray[np.bool_],
        population: Population,
        fitting: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        levels = None
        if can_decode(self._model):
            drawn = np.sort(self._rng.permutation(len(population.rows))[:FIT_CELLS])
            part = (population.rows.take(drawn), taken(population.rows, fitting, drawn))
            levels = fit_levels(self._model, *part, population.means, cancelled=self._cancelled)
        return named_values(
            self._model,
            rows,
            hidden,
            levels,
            progress=self._stages[f"named {place}"],
            cancelled=self._cancelled,
        )

    def _profiles(self, filled: list[Filled], asked: CellSample, groups: NDArray[np.object_] | None) -> pd.DataFrame:
        """Some cells token by token, the first of each group."""
        made = {each.method: each for each in filled}
        first = made[ONE_PASS]
        rows, hidden, symbols = first.rows, first.hidden, self._symbols()
        places = asked.cells[first.cells]
        own = np.array([""] * len(places) if groups is None else [group or "" for group in groups[places]], object)
        firsts = np.arange(len(places)) if groups is None else np.sort(np.unique(own.astype(str), return_index=True)[1])
        chosen = firsts[:MOST_PROFILES]
        table = pd.DataFrame(
            {
                "cell": np.asarray(self._dataset.obs_names, object)[places][cell_of(rows)],
                "group": own[cell_of(rows)],
                "place": np.arange(len(hidden)) - np.repeat(rows.indptr[:-1], rows.lengths) + 1,
                "symbol": symbols[rows.gene_ids],
                "value": rows.values,
                "hidden": hidden,
                "rebuilt_symbol": "",
            }
        )
        table.loc[hidden, "rebuilt_symbol"] = symbols[first.genes]
        columns = {"rebuilt": ONE_PASS, "named": NAMED, "mean": MEAN, "neighbour": NEIGHBOURS}
        for name, method in columns.items():
            values = np.full(len(hidden), np.nan)
            values[hidden] = made[method].values
            table[f"{name}_value"] = values
        return table[np.isin(cell_of(rows), chosen)].reset_index(drop=True)
