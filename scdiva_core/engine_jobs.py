"""Functions that the worker process runs for the pages; each names its payload."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from scdiva_core.engine import Engine
from scdiva_core.tasks.neighbors import ProjectionSettings, compile_ahead
from scdiva_core.tasks.progress import stop_if


class Context(Protocol):
    """What the worker gives a job besides its payload."""

    def progress(self, done: float, total: float, message: str = "", rate: float | None = None) -> None:
        """Say how far the work is."""

    def cancelled(self) -> bool:
        """Tell whether the user asked for the end."""


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
    engine = _engine(payload["checkpoint"], payload["device"])
    settings = ProjectionSettings(**payload["settings"])
    with engine.open(
        payload["path"],
        matrix=payload["matrix"],
        gene_column=payload["gene_column"],
        values=payload["values"],
    ) as dataset:
        cancelled = context.cancelled
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


def _part(context: Context, start: float, share: float) -> Callable[[int, int, str], None]:
    """Report a stage as its part of the whole, so that one bar runs from start to end; the shares are typical."""

    def progress(done: int, total: int, message: str) -> None:
        # In units of this stage: the rate then is in cells while cells are embedded.
        whole = total / share
        context.progress(start * whole + done, whole, message)

    return progress


@lru_cache(maxsize=1)
def _engine(checkpoint: str, device: str) -> Engine:
    """The last checkpoint used stays loaded: most jobs of a session share it."""
    return Engine(checkpoint, device)
