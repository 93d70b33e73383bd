"""Functions that the worker process runs for the pages; each names its payload."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from scdiva_core.engine import Engine
from scdiva_core.tasks.neighbors import ProjectionSettings


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
        engine.embed(dataset, progress=context.progress, cancelled=context.cancelled)
        for representation in ("X_scdiva", "X_pca"):
            engine.project(
                dataset,
                representation=representation,
                settings=settings,
                progress=context.progress,
                cancelled=context.cancelled,
            )
        return {"n_obs": dataset.n_obs}


@lru_cache(maxsize=1)
def _engine(checkpoint: str, device: str) -> Engine:
    """The last checkpoint used stays loaded: most jobs of a session share it."""
    return Engine(checkpoint, device)
