"""From what was asked for to its result: the jobs that compute it, what is stored, and lines that make it again."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sp
import streamlit as st
from numpy.typing import NDArray

from pages._ui import code_lines, datasets, jobs_panel, resources, state
from pages._ui.asked_list import AskedList
from pages._ui.cell_picker import is_subset
from pages._ui.reconstruction_words import percents
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_reconstruction import (
    ReconstructionResult,
    ReconstructionSettings,
    estimate_seconds,
    stored_reconstruction,
)
from scdiva_core.engine_reconstruction_denoising import estimate_denoise_seconds, stored_denoised
from scdiva_core.jobs import Job
from scdiva_core.lazy import cached_property

_RECONSTRUCT = "scdiva_core.engine_jobs:reconstruct"
_DENOISE = "scdiva_core.engine_jobs:denoise"
_GENES_TOLD = 3
_PLAIN = ReconstructionSettings()


@dataclass(frozen=True, eq=False)
class Asked:
    """A reconstruction of some cells.

    Parameters
    ----------
    settings
        What is hidden.
    cells
        int64, places of the cells in the file, ascending; None for all.
    """

    settings: ReconstructionSettings
    cells: NDArray[np.int64] | None

    @cached_property
    def key(self) -> str:
        """What tells it from all others."""
        plain = json.dumps([self.settings.to_dict(), _plain(self.cells)], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What is rebuilt, in which cells."""
        settings = self.settings
        where = "all cells" if self.cells is None else settings.cells
        if not settings.genes:
            return f"Reconstruction of {where}"
        first = ", ".join(settings.genes[:_GENES_TOLD])
        more = len(settings.genes) - _GENES_TOLD
        return f"Imputation of {first}{f' and {more:,} more' if more > 0 else ''} in {where}"

    @property
    def how(self) -> str:
        """What tells it from a reconstruction of the same title."""
        settings = self.settings
        hidden = "" if settings.genes else f"{percents(settings.masks)} hidden"
        iterative = f"{settings.iterative_cells} iterative in {settings.steps} steps"
        told = [hidden, f"at most {settings.most_cells:,} cells", iterative if settings.iterative_cells else ""]
        return ", ".join(filter(None, [*told, f"types of {settings.group_key}" if settings.group_key else ""]))


def asked_before(choice: state.Choice, cells: H5adDataset) -> AskedList[Asked]:
    """Reconstructions of the open data set, those of earlier sessions of the project among them."""
    return state.asked("reconstruction", cells.sha256, partial(_from_jobs, choice))


def _from_jobs(choice: state.Choice) -> AskedList[Asked]:
    """Read them off the project's jobs: work that was begun goes on without a browser, and is found again."""
    reading = jobs_panel.reading(choice)
    return AskedList(
        [
            Asked(ReconstructionSettings.from_dict(job.payload["settings"]), _places(job.payload["cells"]))
            for job in resources.queue().jobs(state.project(), limit=100)
            if job.function == _RECONSTRUCT and reading.items() <= job.payload.items()
        ]
    )


def _places(cells: list[int] | None) -> NDArray[np.int64] | None:
    return None if cells is None else np.asarray(cells, np.int64)


def _plain(cells: NDArray[np.int64] | None) -> list[int] | None:
    return None if cells is None else cells.tolist()


def _payload(choice: state.Choice, item: Asked) -> jobs_panel.Payload:
    return {**jobs_panel.reading(choice), "settings": item.settings.to_dict(), "cells": _plain(item.cells)}


def job(choice: state.Choice, item: Asked) -> Job | None:
    """Return the latest job for it."""
    return jobs_panel.latest_job(_RECONSTRUCT, _payload(choice, item))


def submit(choice: state.Choice, item: Asked) -> Job:
    """Queue it."""
    return jobs_panel.submit(_RECONSTRUCT, _payload(choice, item), item.title)


def result(cells: H5adDataset, item: Asked) -> ReconstructionResult | None:
    """Return the result; None if it was not computed."""
    return stored_reconstruction(resources.engine(), cells, item.settings, item.cells)


def seconds(cells: H5adDataset, item: Asked) -> float:
    """Seconds that it will take; 0 when it is there.

    Raises
    ------
    DataError
        The cells are not there.
    """
    return estimate_seconds(resources.engine(), cells, item.settings, item.cells)


def denoised(cells: H5adDataset) -> sp.csc_matrix | None:
    """Return denoised values, float32 ``[n_obs, n_genes]`` by columns as ``cells.gene_ids``; None if not computed."""
    matrix = cells.preflight.recommended
    try:
        return _denoised((cells.sha256, str(cells.path), matrix, cells.value_kind, resources.checkpoint()), cells)
    except _NotStoredError:
        return None


class _NotStoredError(Exception):
    """Keeps Streamlit from remembering that nothing was stored."""


@st.cache_resource(show_spinner="Reading denoised values …", scope="session", max_entries=1)
def _denoised(key: tuple[str, ...], _cells: H5adDataset) -> sp.csc_matrix:
    found = stored_denoised(resources.engine(), _cells)
    if found is None:
        raise _NotStoredError
    return found.tocsc()


def denoise_job(choice: state.Choice) -> Job | None:
    """Return the latest job that denoises the data set."""
    return jobs_panel.latest_job(_DENOISE, _denoise_payload(choice))


def submit_denoise(choice: state.Choice) -> Job:
    """Queue it."""
    name = datasets.display_name(choice, resources.project())
    return jobs_panel.submit(_DENOISE, _denoise_payload(choice), f"Denoise {name}")


def denoise_seconds(cells: H5adDataset) -> float:
    """Seconds that denoising will take; 0 when it is there."""
    return estimate_denoise_seconds(resources.engine(), cells)


def _denoise_payload(choice: state.Choice) -> jobs_panel.Payload:
    return {**jobs_panel.reading(choice), "seed": 0}


def as_python(choice: state.Choice, item: Asked, n_obs: int) -> str:
    """Lines that compute the same.

    Parameters
    ----------
    choice
        The open data set.
    item
        What was asked for.
    n_obs
        Cells of the data set.
    """
    head, argument = "", ""
    if item.cells is not None:
        head, argument = code_lines.UNPACKING, f", cells={code_lines.packed_cells(item.cells, n_obs)}"
    return f"""{head}from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction import ReconstructionSettings, reconstruct

{code_lines.engine_line()}
settings = {item.settings!r}
{code_lines.opening_line(choice)}
    result = reconstruct(engine, cells, settings{argument})
result.table  # a row for each mask and method, with all measures
"""


def command_line(choice: state.Choice, cells: H5adDataset, item: Asked) -> str | None:
    """Command that writes the same tables; None for what the command line has no words for."""
    settings = item.settings
    if settings.steps != _PLAIN.steps or (item.cells is not None and not is_subset(cells, settings.cells, item.cells)):
        return None
    words = ["python", "-m", "scdiva_core", "reconstruct", str(datasets.locate(choice))]
    if settings.genes:
        words += ["--genes", ",".join(settings.genes)]
    else:
        words += ["--masks", ",".join(f"{share * 100:g}" for share in settings.masks)]
    words += ["--group", settings.group_key] if settings.group_key else []
    words += ["--subset", settings.cells] if item.cells is not None else []
    words += ["-n", str(settings.most_cells), "--iterative-cells", str(settings.iterative_cells)]
    return shlex.join([*words, *code_lines.reading_flags(choice), "-o", "reconstruction"])


def denoise_python(choice: state.Choice) -> str:
    """Lines that write the same layer."""
    return f"""from scdiva_core.engine import Engine
from scdiva_core.engine_reconstruction_denoising import denoise
from scdiva_core.tasks.denoising import write_denoised

{code_lines.engine_line()}
{code_lines.opening_line(choice)}
    values = denoise(engine, cells)  # sparse float32 [n_cells, n_genes], log1p
    write_denoised(cells, "denoised.h5ad", values, engine.provenance(cells))
"""
