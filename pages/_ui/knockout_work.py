"""From what was asked for to its result: the job that computes it, what is stored, and lines that make it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from pages._ui import code_lines, datasets, jobs_panel, resources, state
from pages._ui.asked_list import AskedList
from pages._ui.cell_picker import is_subset
from pages._ui.knockout_list import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_knockout import (
    KnockoutResult,
    KnockoutSettings,
    ScreenSettings,
    estimate_seconds,
    screen_progress,
    stored_knockout,
    stored_screen,
)
from scdiva_core.jobs import Job

Kind = Literal["knockout", "screen"]

_FUNCTIONS = {"knockout": "scdiva_core.engine_jobs:knockout", "screen": "scdiva_core.engine_jobs:screen"}
_SETTINGS = {"knockout": KnockoutSettings, "screen": ScreenSettings}


def asked_before(kind: Kind, choice: state.Choice, cells: H5adDataset) -> AskedList:
    """Perturbations or screens of the open data set, those of earlier sessions of the project among them."""
    return state.asked(kind, cells.sha256, partial(_from_jobs, kind, choice))


def _from_jobs(kind: Kind, choice: state.Choice) -> AskedList:
    """Read them off the project's jobs: work that was begun goes on without a browser, and is found again."""
    reading = jobs_panel.reading(choice)
    return AskedList(
        [
            Asked(_SETTINGS[kind].from_dict(job.payload["settings"]), _places(job.payload["cells"]))
            for job in resources.queue().jobs(state.project(), limit=100)
            if job.function == _FUNCTIONS[kind] and reading.items() <= job.payload.items()
        ]
    )


def _places(cells: list[int] | None) -> np.ndarray | None:
    return None if cells is None else np.asarray(cells, np.int64)


def _payload(choice: state.Choice, item: Asked) -> jobs_panel.Payload:
    cells = None if item.cells is None else item.cells.tolist()
    asked = {"settings": item.settings.to_dict(), "cells": cells, "projection": asdict(state.settings())}
    return {**jobs_panel.reading(choice), **asked}


def job(kind: Kind, choice: state.Choice, item: Asked) -> Job | None:
    """Return the latest job for it."""
    return jobs_panel.latest_job(_FUNCTIONS[kind], _payload(choice, item))


def submit(kind: Kind, choice: state.Choice, item: Asked, title: str) -> Job:
    """Queue it."""
    return jobs_panel.submit(_FUNCTIONS[kind], _payload(choice, item), title)


def result(cells: H5adDataset, item: Asked) -> KnockoutResult | None:
    """Return what a perturbation did, with arrows for the map that is shown; None if it was not computed."""
    return stored_knockout(resources.engine(), cells, item.settings, item.cells, projection=state.settings())


def screened(cells: H5adDataset, item: Asked) -> pd.DataFrame | None:
    """Return the table of a screen that is done."""
    return stored_screen(resources.engine(), cells, item.settings, item.cells, projection=state.settings())


def screened_so_far(cells: H5adDataset, item: Asked) -> pd.DataFrame | None:
    """Return the rows of a screen that is not done."""
    return screen_progress(resources.engine(), cells, item.settings, item.cells, projection=state.settings())


def seconds(cells: H5adDataset, item: Asked) -> float:
    """Seconds that a perturbation will take; 0 when it is there.

    Raises
    ------
    DataError
        A gene, a column or the cells are not there.
    """
    return estimate_seconds(resources.engine(), cells, item.settings, item.cells, projection=state.settings())


def as_python(choice: state.Choice, item: Asked, n_obs: int) -> str:
    """Lines that compute the same result.

    Parameters
    ----------
    choice
        The open data set.
    item
        What was asked for.
    n_obs
        Cells of the data set.
    """
    made = "knockout" if isinstance(item.settings, KnockoutSettings) else "screen"
    head, argument = "", ""
    if item.cells is not None:
        head, argument = code_lines.UNPACKING, f", {code_lines.packed_cells(item.cells, n_obs)}"
    return f"""{head}from scdiva_core.engine import Engine, ProjectionSettings
from scdiva_core.engine_knockout import {type(item.settings).__name__}, {made}

{code_lines.engine_line()}
settings = {item.settings!r}
{code_lines.opening_line(choice)}
    result = {made}(engine, cells, settings{argument}, projection={state.settings()!r})
"""


def command_line(choice: state.Choice, cells: H5adDataset, item: Asked) -> str | None:
    """Command that writes the same tables; None for cells that the command line has no words for."""
    if item.cells is not None and not is_subset(cells, item.settings.cells, item.cells):
        return None
    settings = item.settings
    words = ["python", "-m", "scdiva_core", "knockout", str(datasets.locate(choice))]
    if isinstance(settings, KnockoutSettings):
        words += ["--genes", ",".join(settings.genes)]
        words += ["--donor", settings.donor_key] if settings.donor_key else []
        words += [] if settings.expression else ["--no-expression"]
    else:
        words += ["--screen", ",".join(settings.genes)]
    if settings.mode != "knockout":
        words += ["--mode", settings.mode]
    if settings.mode == "scale":
        words += ["--factor", f"{settings.factor:g}"]
    words += ["--group", settings.group_key] if settings.group_key else []
    words += ["--subset", settings.cells] if item.cells is not None else []
    words += ["-n", str(settings.most_cells)]
    words += code_lines.reading_flags(choice)
    return shlex.join([*words, "-o", "knockout"])
