"""What outlives one run of a page: the engine and the worker for everybody, open files for their session."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from pages._ui import datasets, state
from pages._ui.project import Project
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.data.preflight import Preflight
from scdiva_core.data.preflight import preflight as look_at
from scdiva_core.engine import Engine
from scdiva_core.errors import PathError
from scdiva_core.jobs import JobQueue, start_workers
from scdiva_core.store import ResultStore, home

_CURRENT = 3  # data sets kept open a session: the current one, and those one goes back to


def server_checkpoint() -> str:
    """Checkpoint of this server: SCDIVA_CHECKPOINT (folder, file or hub id), by default the bundled one."""
    return os.environ.get("SCDIVA_CHECKPOINT") or "default"


def own_checkpoint(checkpoint_id: str) -> Path:
    """Folder of a checkpoint that was made here."""
    return home() / "checkpoints" / checkpoint_id


def checkpoint() -> str:
    """Checkpoint of this session: one of the project's own, or the server's."""
    own = state.checkpoint()
    return server_checkpoint() if own is None else str(own_checkpoint(own))


def device() -> str:
    """Device of this server: SCDIVA_DEVICE, by default the best there is."""
    return os.environ.get("SCDIVA_DEVICE") or "auto"


def engine() -> Engine:
    """Return the engine of this session's checkpoint, which all sessions share; loaded on first use."""
    return _engine(checkpoint(), device(), str(home()))


@st.cache_resource(show_spinner="Loading the model …", max_entries=4)
def _engine(name: str, where: str, folder: str) -> Engine:
    made = Engine(name, where, ResultStore(Path(folder) / "results"))
    # Without this the collector goes through all that torch and its friends have made, each time a fifth of a second.
    gc.collect()
    gc.freeze()
    return made


def load_anew(name: str) -> None:
    """Forget the loaded engine of a checkpoint whose card has changed."""
    _engine.clear(name, device(), str(home()))


def has_results() -> bool:
    """Whether anything was ever computed below this home."""
    folder = home() / "results"
    return folder.is_dir() and any(folder.iterdir())


def queue() -> JobQueue:
    """Return the table of jobs; a worker process looks after it from the first call on."""
    return _queue(str(home()), device())


@st.cache_resource(show_spinner=False)
def _queue(folder: str, where: str) -> JobQueue:
    jobs = JobQueue(Path(folder) / "jobs")
    start_workers(jobs, where)
    return jobs


def project() -> Project:
    """Return this user's project."""
    return Project(state.project())


def preflight(choice: state.Choice) -> Preflight:
    """Look at a file without loading it."""
    path = datasets.locate(choice)
    return _preflight(checkpoint(), str(path), _stamp(path), choice.matrix)


@st.cache_data(show_spinner="Looking at the file …", scope="session", max_entries=16)
def _preflight(name: str, path: str, stamp: tuple[int, int], matrix: str | None) -> Preflight:
    return look_at(path, engine().vocabulary, matrix=matrix)


def dataset(choice: state.Choice) -> H5adDataset:
    """Return the open data set."""
    path = datasets.locate(choice)
    return _dataset(checkpoint(), str(path), _stamp(path), choice.matrix, choice.values)


@st.cache_resource(
    show_spinner="Opening the file …",
    scope="session",
    max_entries=_CURRENT,
    on_release=lambda cells: cells.close(),
)
def _dataset(name: str, path: str, stamp: tuple[int, int], matrix: str | None, values: state.Values) -> H5adDataset:
    return engine().open(path, matrix=matrix, values=values)


def estimate_seconds(found: Preflight) -> float:
    """Seconds that embedding a file will take, from a small batch that was timed once."""
    return engine().estimate_seconds(found.n_obs, found.detected_genes)


def gene_values(choice: state.Choice, symbol: str) -> np.ndarray:
    """Return a gene's log1p values, float32 [n_obs]."""
    return _gene_values(checkpoint(), choice, _stamp(datasets.locate(choice)), symbol)


@st.cache_data(show_spinner="Reading the gene …", scope="session", max_entries=32)
def _gene_values(name: str, choice: state.Choice, stamp: tuple[int, int], symbol: str) -> np.ndarray:
    return dataset(choice).gene(symbol)


def quality(choice: state.Choice) -> pd.DataFrame:
    """Return the quality-control table of a data set."""
    return _quality(checkpoint(), choice, _stamp(datasets.locate(choice)))


@st.cache_data(show_spinner="Counting …", scope="session", max_entries=4)
def _quality(name: str, choice: state.Choice, stamp: tuple[int, int]) -> pd.DataFrame:
    from scdiva_core.tasks.quality import quality_metrics  # scanpy takes seconds to import

    return quality_metrics(dataset(choice))


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: a file that was written anew is read anew."""
    try:
        found = path.stat()
    except OSError as error:
        msg = f"{path.name} is no longer there."
        raise PathError(msg, "Put the file back, or open another on the page Data.") from error
    return found.st_size, found.st_mtime_ns
