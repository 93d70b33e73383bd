"""The steps by which the batches of a file are integrated in several ways and measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from scdiva_core.baselines.centred import centre_batches
from scdiva_core.baselines.harmony import harmonise
from scdiva_core.baselines.pca import fit_pca
from scdiva_core.data.concatenate import measured_in_all, record_of
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import Engine
from scdiva_core.engine_cells import Stages, column
from scdiva_core.engine_integration_result import FINETUNED, IntegrateSettings, in_words, warnings_of
from scdiva_core.errors import DataError
from scdiva_core.metrics.integration import neighbor_graph
from scdiva_core.metrics.mixing import clusters_of, ilisi
from scdiva_core.model.checkpoint import save_pretrained
from scdiva_core.store_tables import packed
from scdiva_core.tasks.integration import measure
from scdiva_core.tasks.progress import IsCancelled, stop_if
from scdiva_core.training.finetune_integration import finetune_integration
from scdiva_core.training.integration_cells import check_batches
from scdiva_core.training.integration_result import IntegrationTuned
from scdiva_core.training.integration_settings import IntegrationSettings
from scdiva_core.training.live_curve import LiveCurve, curve_path

FIT_CELLS = 20_000
"""Cells that the PCA is fitted on at most; the rest are projected (our choice, to bound memory)."""

_CHANCE = "chance"  # a method of the tables while they are made: vectors that know nothing of their cells


class Making:
    """One integration on its way.

    Parameters
    ----------
    engine, dataset, settings
        As for `scdiva_core.engine_integration.integrate`.
    folder
        Receives the fine-tuned checkpoint.
    stages
        Has ``"embedding"``, ``"baselines"``, ``"reading"``, ``"tuning"``, ``"again"`` and ``"measuring"``.
    cancelled
        Asked within each step.

    Attributes
    ----------
    trains
        Called when the training begins.

    Raises
    ------
    DataError
        There is no such column, or nothing to integrate.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: H5adDataset,
        settings: IntegrateSettings,
        folder: Path,
        stages: Stages,
        cancelled: IsCancelled,
    ) -> None:
        self.engine, self.dataset, self.settings, self.folder = engine, dataset, settings, folder
        self.stages, self.cancelled = stages, cancelled
        self.trains: Callable[[], None] = lambda: None
        self._live = curve_path(folder)
        self.batches = check_batch_column(dataset, settings.batch_key)
        self.labels = None if settings.label_key is None else column(dataset, settings.label_key)

    def made(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and notes of the result, as the store keeps them.

        Raises
        ------
        DataError
            Types and batches share too little to be measured or taught.
        Cancelled
            The user stopped.
        """
        vectors, tuned = self._baselines(), None
        try:
            if self.settings.finetune:
                tuned = self._tuned(vectors["scdiva_harmony"])
                vectors[FINETUNED] = self._again(tuned)
            (table, judged, apart), chance = self._measured(vectors, tuned)
        finally:
            self._live.unlink(missing_ok=True)
        arrays = {f"x_{name}": X for name, X in vectors.items()}
        tables = {"table": table, "judged": judged, "apart": apart}
        arrays["judged_cells"] = np.empty(0, np.int64) if tuned is None else tuned.judged
        arrays |= {name: packed(content) for name, content in tables.items() if content is not None}
        notes = self._notes(table, judged, apart, tuned)
        notes["summary"]["chance"] = chance
        return arrays, notes

    def _baselines(self) -> dict[str, NDArray[np.float32]]:
        embedding = self.engine.embed(self.dataset, progress=self.stages["embedding"], cancelled=self.cancelled)
        report = self.stages["baselines"]
        report(0, 3, "PCA")
        pca = self._components()
        stop_if(self.cancelled)
        report(1, 3, "Harmony")
        harmony = harmonise(pca, self.batches, self.settings.seed)
        stop_if(self.cancelled)
        report(2, 3, "Harmony of ScDiVa's vectors")
        return {
            "pca": pca,
            "pca_centred": centre_batches(pca, self.batches),
            "harmony": harmony,
            "scdiva": np.array(embedding),
            "scdiva_harmony": harmonise(embedding, self.batches, self.settings.seed),
        }

    def _components(self) -> NDArray[np.float32]:
        """PCA over the genes that all joined files have."""
        n_obs, rng = self.dataset.n_obs, np.random.default_rng(self.settings.seed)
        columns = np.flatnonzero(measured_in_all(self.dataset))
        fitted = np.zeros(n_obs, bool)
        fitted[rng.choice(n_obs, min(FIT_CELLS, n_obs), replace=False)] = True
        sample = []
        for start, block in self.dataset.chunks():
            stop_if(self.cancelled)
            sample.append(block[fitted[start : start + block.shape[0]]][:, columns])
        pca = fit_pca(sp.vstack(sample, format="csr"))
        return np.concatenate([pca.transform(block[:, columns]) for _, block in self.dataset.chunks()])

    def _tuned(self, harmonised: NDArray[np.float32]) -> IntegrationTuned:
        """Fine-tune, with a curve on disk that others may look at meanwhile, and save the checkpoint."""
        settings, scored = self.settings, []
        training, live = IntegrationSettings(minutes=settings.minutes, seed=settings.seed), LiveCurve(self._live)

        def watch(done: int, total: int, message: str) -> None:
            if not scored:
                self.stages["reading"](done, total, message)
            else:  # its steps are counted anew in each round
                before = training.round_steps * (len(scored) - 1)
                self.stages["tuning"](before + done, training.rounds * training.round_steps, message)

        def report(record: dict[str, Any]) -> None:
            scored.append(record)
            live(record)

        self._live.unlink(missing_ok=True)  # of a process that was killed
        self.trains()
        groups = stand_ins(harmonised, settings.seed) if self.labels is None else self.labels
        with self.engine._computing:
            tuned = finetune_integration(
                self.engine.model,
                self.dataset,
                self.batches,
                groups,
                taught_by="clusters" if self.labels is None else "labels",
                settings=training,
                progress=watch,
                cancelled=self.cancelled,
                report=report,
            )
        save_pretrained(tuned.model, self.folder)
        return tuned

    def _again(self, tuned: IntegrationTuned) -> NDArray[np.float32]:
        """Embed with the new checkpoint: every page that opens it finds the vectors."""
        engine = Engine(self.folder, str(self.engine.device), self.engine.store)
        with engine.open(self.dataset.path, **self._reading()) as dataset:
            return np.array(engine.embed(dataset, progress=self.stages["again"]))

    def _reading(self) -> dict[str, Any]:
        kind = self.dataset.value_kind
        return {
            "matrix": self.dataset.preflight.recommended,
            "gene_column": self.dataset.preflight.gene_column or "index",
            "values": kind if kind in ("counts", "log1p") else "auto",
        }

    def _measured(
        self, vectors: dict[str, NDArray[np.float32]], tuned: IntegrationTuned | None
    ) -> tuple[tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None], dict[str, dict[str, float]]]:
        """The three tables; and for the first two, what each measure says of vectors that are dealt out at random."""
        rng = np.random.default_rng(self.settings.seed)
        vectors = {**vectors, _CHANCE: rng.permutation(vectors["pca"])}
        if self.labels is None:
            mixed = {name: ilisi(X, self.batches) for name, X in vectors.items()}
            table, chance = _without_chance(pd.DataFrame({"method": list(mixed), "ilisi": list(mixed.values())}))
            return (table, None, None), {"table": chance}
        seeds = self.settings.seeds
        measured, apart = measure(vectors, self.labels, self.batches, seeds=seeds, progress=self.stages["measuring"])
        table, chance = _without_chance(measured)
        apart = apart[apart["method"] != _CHANCE]
        if tuned is None:
            return (table, None, apart), {"table": chance}
        rows = tuned.judged
        own = {name: X[rows] for name, X in vectors.items()}
        try:
            judged, _ = measure(own, self.labels.iloc[rows], self.batches.iloc[rows], seeds=seeds)
        except DataError:  # too few cells judged; the words then say whose labels were learned
            return (table, None, apart), {"table": chance}
        judged, of_judged = _without_chance(judged)
        return (table, judged, apart), {"table": chance, "judged": of_judged}

    def _notes(
        self,
        table: pd.DataFrame,
        judged: pd.DataFrame | None,
        apart: pd.DataFrame | None,
        tuned: IntegrationTuned | None,
    ) -> dict[str, Any]:
        record = record_of(self.dataset) or {"n_union": 0, "n_shared": 0}
        missing, sizes = record["n_union"] - record["n_shared"], self.batches.value_counts().sort_index()
        summary = {
            **in_words(table, judged, apart, finetuned=tuned is not None),
            "taught_by": None if tuned is None else tuned.taught_by,
            "taught": "" if tuned is None else tuned.words,
            "batches": {str(name): int(size) for name, size in sizes.items()},
            "missing": missing,
        }
        summary["warnings"] = warnings_of(
            summary["batches"],
            missing,
            record["n_union"],
            taught_by=summary["taught_by"],
            labelled=self.labels is not None,
            random_weights=self.engine.card().random_weights,
        )
        return {"summary": summary, "curve": [] if tuned is None else list(tuned.curve)}


def check_batch_column(dataset: H5adDataset, batch_key: str) -> pd.Series:
    """Return the batch of every cell.

    Raises
    ------
    DataError
        There is no such column, a cell has no batch, or there is nothing to integrate.
    """
    batches = column(dataset, batch_key)
    check_batches(batches)
    if missing := int(batches.isna().sum()):
        msg = f"{missing:,} of {dataset.n_obs:,} cells have no {batch_key!r}."
        raise DataError(msg, "Fill the column in, or leave these cells out of the file.")
    return batches


def _without_chance(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """The methods, and the measures of chance that are numbers."""
    by_chance = table["method"] == _CHANCE
    numbers = table[by_chance].drop(columns=["method", "n_cells"], errors="ignore").iloc[0].dropna()
    return table[~by_chance], numbers.to_dict()


def stand_ins(harmonised: NDArray[np.float32], seed: int = 0) -> NDArray[np.str_]:
    """Clusters in place of labels, ``[n_cells]``: Leiden of vectors that Harmony has mixed.

    Clusters of the latent as it is would be batches where these lie apart, and nothing would be drawn together.

    Parameters
    ----------
    harmonised
        float32 ``[n_cells, d]``.
    seed
        Of Leiden.
    """
    clusters = clusters_of(neighbor_graph(harmonised, seed=seed), 1.0, seed)
    return np.array([f"cluster {number}" for number in clusters])
