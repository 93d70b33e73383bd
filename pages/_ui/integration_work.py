"""From what was asked for to its result: the job, what is stored, and lines that make it again."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass, replace
from functools import partial

import streamlit as st

from pages._ui import code_lines, datasets, jobs_panel, resources, state
from pages._ui.asked_list import AskedList
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_integration import (
    IntegrateSettings,
    IntegrationResult,
    checkpoint_folder,
    estimate_seconds,
    is_integrated,
    maps_seconds,
    stored_integration,
    stored_map,
)
from scdiva_core.jobs import Job
from scdiva_core.lazy import cached_property
from scdiva_core.tasks.neighbors import Projection
from scdiva_core.training.live_curve import curve_path, read_curve

_INTEGRATION = "scdiva_core.engine_jobs:integration"


class _NotStoredError(LookupError):
    """Raised inside a cached function: nothing is cached then."""


@dataclass(frozen=True)
class Asked:
    """An integration of the open data set.

    Parameters
    ----------
    settings
        What is made.
    """

    settings: IntegrateSettings

    @cached_property
    def key(self) -> str:
        """What tells it from all others."""
        return hashlib.sha256(json.dumps(self.settings.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What is integrated."""
        return f"Integration by {self.settings.batch_key}"

    @property
    def how(self) -> str:
        """What tells it from others of the same batches."""
        settings = self.settings
        types = "clusters stand in for types" if settings.label_key is None else f"types: {settings.label_key}"
        tuned = f"fine-tuned for {settings.minutes:g} min at most" if settings.finetune else "without training"
        return f"{types}, {tuned}"


def asked_before(choice: state.Choice, cells: H5adDataset) -> AskedList[Asked]:
    """Integrations of the open data set by this checkpoint, those of earlier sessions of the project among them."""
    return state.asked("integration", cells.sha256, partial(_from_jobs, choice))


def _from_jobs(choice: state.Choice) -> AskedList[Asked]:
    return AskedList([Asked(IntegrateSettings(**job.payload["settings"])) for job in _jobs(choice)])


def _jobs(choice: state.Choice) -> list[Job]:
    """The project's integrations of a data set, the latest first."""
    reading = jobs_panel.reading(choice)
    jobs = resources.queue().jobs(state.project(), limit=100)
    return [job for job in jobs if job.function == _INTEGRATION and reading.items() <= job.payload.items()]


def job(choice: state.Choice, item: Asked) -> Job | None:
    """Return the latest job for it, however its maps are drawn."""
    wanted = item.settings.to_dict()
    return next((job for job in _jobs(choice) if job.payload["settings"] == wanted), None)


def submit(choice: state.Choice, item: Asked) -> Job:
    """Queue it; where it is there already, only its maps are drawn."""
    asked = {"settings": item.settings.to_dict(), "projection": state.settings().to_dict()}
    return jobs_panel.submit(_INTEGRATION, {**jobs_panel.reading(choice), **asked}, item.title)


def is_there(cells: H5adDataset, item: Asked) -> bool:
    """Whether the result can be fetched."""
    return is_integrated(resources.engine(), cells, item.settings)


def result(choice: state.Choice, cells: H5adDataset, item: Asked) -> IntegrationResult | None:
    """Return the result; None if it was not made. Its checkpoint is None where that was deleted since."""
    try:
        found = _result((cells.sha256, str(choice), resources.checkpoint(), item.key), cells, item.settings)
    except _NotStoredError:
        return None
    gone = found.checkpoint is not None and not found.checkpoint.is_dir()
    return replace(found, checkpoint=None) if gone else found


@st.cache_resource(show_spinner=False, scope="session", max_entries=2)
def _result(key: tuple[str, ...], _cells: H5adDataset, _settings: IntegrateSettings) -> IntegrationResult:
    found = stored_integration(resources.engine(), _cells, _settings)
    if found is None:
        raise _NotStoredError
    return found


def drawn(cells: H5adDataset, item: Asked, method: str) -> Projection | None:
    """Return the map of a method as maps are drawn now; None if it was not drawn."""
    return stored_map(resources.engine(), cells, item.settings, method, state.settings())


def curve(cells: H5adDataset, item: Asked) -> list[dict]:
    """Return the records of its training so far."""
    return read_curve(curve_path(checkpoint_folder(resources.engine(), cells, item.settings)))


def seconds(cells: H5adDataset, item: Asked) -> float:
    """Seconds that it will take, maps included; 0 when it is there.

    Raises
    ------
    DataError
        The cells cannot be read.
    """
    found = estimate_seconds(resources.engine(), cells, item.settings)
    return found + maps_seconds(cells.n_obs, item.settings) if found else 0.0


def as_python(choice: state.Choice, item: Asked) -> str:
    """Lines that make the same."""
    return f"""from scdiva_core.engine import Engine
from scdiva_core.engine_integration import IntegrateSettings, integrate

{code_lines.engine_line()}
settings = {item.settings!r}
{code_lines.opening_line(choice)}
    result = integrate(engine, cells, settings)
result.vectors, result.table  # method -> [n_cells, d]; a row a method
"""


def command_line(choice: state.Choice, item: Asked) -> str | None:
    """Command that writes the same tables, vectors and checkpoint; None for what the command line has no words for."""
    settings = item.settings
    if (choice.matrix, choice.values) != (None, "auto"):
        return None
    words = ["python", "-m", "scdiva_core", "integrate", str(datasets.locate(choice)), "--batch", settings.batch_key]
    words += ["--label", settings.label_key] if settings.label_key else []
    words += ["--minutes", f"{settings.minutes:g}"] if settings.finetune else ["--no-finetune"]
    return shlex.join([*words, *code_lines.reading_flags(choice), "-o", "integrated"])
