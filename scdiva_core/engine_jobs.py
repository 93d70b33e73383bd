"""Functions that the worker process runs for the pages; each names its payload."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scdiva_core import (
    engine_finetune,
    engine_grn,
    engine_integration,
    engine_knockout,
    engine_reconstruction,
    engine_reconstruction_denoising,
)
from scdiva_core.data.concatenate import concatenate as put_together
from scdiva_core.data.gene_columns import write_gene_columns
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.paths import check_again
from scdiva_core.engine import Engine
from scdiva_core.engine_finetune import FinetuneRequest, state_path
from scdiva_core.engine_grn import GrnSettings
from scdiva_core.engine_integration import IntegrateSettings
from scdiva_core.engine_knockout import KnockoutSettings, ScreenSettings
from scdiva_core.engine_reconstruction import ReconstructionSettings
from scdiva_core.errors import ScDiVaError, StoreError
from scdiva_core.store import ResultStore, home
from scdiva_core.tasks.neighbors import ProjectionSettings, compile_ahead
from scdiva_core.tasks.progress import never, stop_if
from scdiva_core.training.live_curve import LiveCurve, curve_path

COLUMNS_ABOVE = 50_000
"""Cells beyond which genes are kept beside the file: below, a pass over it takes a moment (our choice)."""

_INTEGRATED = 0.7  # of the bar; the rest is for the maps
_KEEPING_SECONDS = 90.0  # that writing the best so far may take on a busy machine


class Context(Protocol):
    """What the worker gives a job besides its payload."""

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        """Say how far the work is."""

    def cancelled(self) -> bool:
        """Tell whether the user asked for the end."""

    def allow(self, seconds: float) -> None:
        """Ask for so much time to keep what was made when the user cancels; 0 restores what is usual."""


def embed(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Embed a data set and draw its maps, ScDiVa first, so that something shows as early as possible.

    Parameters
    ----------
    payload
        ``path``, ``checkpoint``, ``device``, ``matrix``, ``gene_column``, ``values`` as `Engine` takes them, and
        ``settings`` as `ProjectionSettings` does.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_obs``, for the job's row; the results lie in the store.
    """
    settings = ProjectionSettings(**payload["settings"])
    with _opened(payload) as (engine, dataset):
        cancelled = context.cancelled
        if dataset.n_obs > COLUMNS_ABOVE:
            _keep_genes(engine, dataset, context)
        drawn = engine.stored_projection(dataset, representation="X_scdiva", settings=settings) is not None
        compiling = None if drawn else compile_ahead()
        engine.embed(dataset, progress=_part(context, 0.0, 0.6), cancelled=cancelled)
        while compiling is not None and compiling.is_alive():
            stop_if(cancelled)
            compiling.join(0.2)
        engine.project(dataset, settings=settings, progress=_part(context, 0.6, 0.13), cancelled=cancelled)
        context.progress(0.73, 1, "Finding the cells nearest to each")
        engine.neighbors(dataset)  # what numba needs for it is compiled by now
        stop_if(cancelled)
        engine.components(dataset, settings, progress=_part(context, 0.75, 0.1), cancelled=cancelled)
        beside = _part(context, 0.85, 0.15)
        engine.project(dataset, representation="X_pca", settings=settings, progress=beside, cancelled=cancelled)
        return {"n_obs": dataset.n_obs}


def knockout(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Perturb genes in cells, with all that stands beside it.

    Parameters
    ----------
    payload
        ``path``, ``checkpoint``, ``device``, ``matrix``, ``gene_column``, ``values`` as for `embed`; ``settings`` as
        `KnockoutSettings.to_dict` makes them; ``cells``, a list of places in the file, or None for all; and perhaps
        ``projection`` as `ProjectionSettings.to_dict` makes it, where the map is not drawn as usual.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_read`` and ``p``, for the job's row; the result lies in the store.
    """
    settings = KnockoutSettings.from_dict(payload["settings"])
    with _opened(payload) as (engine, dataset):
        found = engine_knockout.knockout(engine, dataset, settings, **_asked(payload, context))
    return {"n_read": found.n_read, "p": found.summary["p"]}


def screen(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Perturb many genes one at a time; a second run goes on where the first one stopped.

    Parameters
    ----------
    payload
        As for `knockout`, with ``settings`` as `ScreenSettings.to_dict` makes them.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_tested`` and ``n_refused`` genes, for the job's row; the table lies in the store.
    """
    settings = ScreenSettings.from_dict(payload["settings"])
    with _opened(payload) as (engine, dataset):
        table = engine_knockout.screen(engine, dataset, settings, **_asked(payload, context))
    refused = int((table["refused"] != "").sum())
    return {"n_tested": len(table) - refused, "n_refused": refused}


def grn(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Make a regulatory network of a cell set, with all that stands beside it.

    Parameters
    ----------
    payload
        ``path``, ``checkpoint``, ``device``, ``matrix``, ``gene_column``, ``values`` as for `embed`; ``settings`` as
        `GrnSettings.to_dict` makes them; ``cells`` and ``against``, lists of places in the file, or None.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_regulators`` and ``n_edges``, for the job's row; the result lies in the store.
    """
    sets = [None if payload[name] is None else np.array(payload[name], np.int64) for name in ("cells", "against")]
    settings = GrnSettings.from_dict(payload["settings"])
    with _opened(payload) as (engine, dataset):
        found = engine_grn.grn(engine, dataset, settings, *sets, progress=context.progress, cancelled=context.cancelled)
    return {"n_regulators": len(found.regulators), "n_edges": len(found.edges)}


def regulon_activity(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Judge each regulator's activity in each cell of a data set.

    Parameters
    ----------
    payload
        As for `embed`, without settings.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_regulators``, for the job's row; the result lies in the store.
    """
    with _opened(payload) as (engine, dataset):
        found = engine_grn.regulon_activity(engine, dataset, progress=context.progress, cancelled=context.cancelled)
    return {"n_regulators": found.shape[1]}


def reconstruct(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Hide part of the genes of cells and rebuild them, beside baselines.

    Parameters
    ----------
    payload
        ``path``, ``checkpoint``, ``device``, ``matrix``, ``gene_column``, ``values`` as for `embed`; ``settings`` as
        `ReconstructionSettings.to_dict` makes them; ``cells``, a list of places in the file, or None for all.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_rebuilt``, for the job's row; the result lies in the store.
    """
    cells = None if payload["cells"] is None else np.array(payload["cells"], np.int64)
    settings = ReconstructionSettings.from_dict(payload["settings"])
    with _opened(payload) as (engine, dataset):
        told = {"progress": context.progress, "cancelled": context.cancelled}
        found = engine_reconstruction.reconstruct(engine, dataset, settings, cells, **told)
    return {"n_rebuilt": found.n_rebuilt}


def denoise(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Predict the value of every token of every cell while it is hidden.

    Parameters
    ----------
    payload
        As for `embed`, without settings; and ``seed``.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``n_obs``, for the job's row; the values lie in the store.
    """
    with _opened(payload) as (engine, dataset):
        told = {"progress": context.progress, "cancelled": context.cancelled}
        engine_reconstruction_denoising.denoise(engine, dataset, seed=payload["seed"], **told)
        return {"n_obs": dataset.n_obs}


def integration(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Integrate the batches of a data set, with all that stands beside it.

    Parameters
    ----------
    payload
        As for `embed`, with ``settings`` as `IntegrateSettings.to_dict` makes them, and ``projection``, how the maps of
        all methods are drawn in the end, as `ProjectionSettings.to_dict` makes it.
    context
        Progress and cancellation; cancelled while the network is trained, the best so far is kept and drawn.

    Returns
    -------
    dict
        ``n_batches`` and ``checkpoint``, the new folder or None, for the job's row; the result lies in the store.
    """
    settings, projection = IntegrateSettings(**payload["settings"]), ProjectionSettings(**payload["projection"])
    with _opened(payload) as (engine, dataset):
        drawing_all = engine_integration.maps_seconds(dataset.n_obs, settings)
        found = engine_integration.integrate(
            engine,
            dataset,
            settings,
            progress=_part(context, 0.0, _INTEGRATED),
            cancelled=context.cancelled,
            keeping=lambda seconds: context.allow(seconds + 3 * drawing_all),
        )
        kept = context.cancelled()  # what was stopped is whole all the same, its maps with it
        if not kept:
            context.allow(0)
        for number, method in enumerate(found.vectors):
            share = (1 - _INTEGRATED) / len(found.vectors)
            drawing = _part(context, _INTEGRATED + number * share, share)
            told = {"progress": drawing, "cancelled": never if kept else context.cancelled}
            engine_integration.integration_map(engine, dataset, settings, method, projection, **told)
    checkpoint = None if found.checkpoint is None else str(found.checkpoint)
    return {"n_batches": len(found.summary["batches"]), "checkpoint": checkpoint}


def finetune(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Teach a copy of a checkpoint what a file says of its cells, and keep it beside the results.

    Parameters
    ----------
    payload
        As for `embed`, with ``request`` as `FinetuneRequest.to_dict` makes it instead of settings, and
        ``checkpoint_id``, the name of the new folder. No two jobs have the same one.
    context
        Progress, as the time that is spent of the budget, and cancellation: once there is something to keep, it ends
        the training, and the best so far is written.

    Returns
    -------
    dict
        ``checkpoint_id``, for the job's row; what it is worth stands on its card.
    """
    request, folder = FinetuneRequest(**payload["request"]), home() / "checkpoints" / payload["checkpoint_id"]
    if folder.is_dir():  # whole, by a worker that was killed before it could say so
        return {"checkpoint_id": folder.name}
    curve, began = LiveCurve(curve_path(folder)), time.monotonic()

    def progress(done: int, total: int, message: str) -> None:
        minutes = min((time.monotonic() - began) / 60, request.minutes)
        context.progress(minutes, request.minutes, f"{message}: {done:,} of {total:,}", 1 / 60)

    def report(record: dict[str, Any]) -> None:
        curve(record)
        context.allow(_KEEPING_SECONDS)

    try:
        with _opened(payload) as (engine, dataset):
            told = {"progress": progress, "cancelled": context.cancelled, "report": report}
            engine_finetune.finetune(engine, dataset, request, folder, **told)
    except ScDiVaError:
        state_path(folder).unlink(missing_ok=True)
        raise
    finally:
        curve.path.unlink(missing_ok=True)
    return {"checkpoint_id": folder.name}


def concatenate(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Put several files together into one among the uploads.

    Parameters
    ----------
    payload
        ``paths`` of the files and ``names`` for them, ``batch_key``, and ``checkpoint`` and ``device`` as for `embed`.
    context
        Progress and cancellation.

    Returns
    -------
    dict
        ``sha256``, which names the new file.
    """
    engine = _engine(payload["checkpoint"], payload["device"], home())
    folder = home() / "uploads"
    folder.mkdir(mode=0o700, exist_ok=True)
    told = {"progress": context.progress, "cancelled": context.cancelled}
    paths = [check_again(path) for path in payload["paths"]]
    written = put_together(paths, folder, payload["batch_key"], engine.vocabulary, names=payload["names"], **told)
    return {"sha256": written.stem}


def _keep_genes(engine: Engine, dataset: H5adDataset, context: Context) -> None:
    """Write the genes beside the file; without room for them, colouring by a gene merely takes longer."""

    def report(done: int) -> None:
        stop_if(context.cancelled)
        context.progress(0, 1, f"Sorting by gene: {done:,} of {dataset.n_obs:,} cells")

    with suppress(StoreError):
        write_gene_columns(dataset, engine.columns, report)


@contextmanager
def _opened(payload: dict[str, Any]) -> Iterator[tuple[Engine, H5adDataset]]:
    engine = _engine(payload["checkpoint"], payload["device"], home())
    intake = {name: payload[name] for name in ("matrix", "gene_column", "values")}
    with engine.open(check_again(payload["path"]), **intake) as dataset:
        yield engine, dataset


def _asked(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """What a perturbation and a screen are given alike."""
    return {
        "cells": None if payload["cells"] is None else np.array(payload["cells"], np.int64),
        "projection": ProjectionSettings(**payload.get("projection", {})),
        "progress": context.progress,
        "cancelled": context.cancelled,
    }


def _part(context: Context, start: float, share: float) -> Callable[[int, int, str], None]:
    """Report a stage as its part of the whole, so that one bar runs from start to end; the shares are typical."""

    def progress(done: int, total: int, message: str) -> None:
        # In units of this stage: the rate then is in cells while cells are embedded.
        whole = total / share
        context.progress(start * whole + done, whole, message)

    return progress


@lru_cache(maxsize=1)
def _engine(checkpoint: str, device: str, root: Path) -> Engine:
    """The last checkpoint used stays loaded: most jobs of a session share it."""
    return Engine(checkpoint, device, ResultStore(root / "results"))
