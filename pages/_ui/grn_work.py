"""From what was asked for to its network: the job that makes it, what is stored, and lines that make it again."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pages._ui import code_lines, datasets, jobs_panel, resources, state
from pages._ui.asked_list import AskedList
from pages._ui.cell_picker import is_subset
from pages._ui.grn_words import DIRECTIONS
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_grn import GrnResult, GrnSettings, estimate_seconds, stored_activity, stored_grn
from scdiva_core.jobs import Job
from scdiva_core.lazy import cached_property

_GRN = "scdiva_core.engine_jobs:grn"
_ACTIVITY = "scdiva_core.engine_jobs:regulon_activity"


@dataclass(frozen=True, eq=False)
class Asked:
    """A network of some cells.

    Parameters
    ----------
    settings
        What is made.
    cells, against
        int64, places of the cells in the file, ascending, of the set (None for all) and of the one that it is compared
        with (None for no comparison).
    """

    settings: GrnSettings
    cells: NDArray[np.int64] | None
    against: NDArray[np.int64] | None

    @cached_property
    def key(self) -> str:
        """What tells it from all others."""
        plain = json.dumps([self.settings.to_dict(), *(_plain(part) for part in self.places)], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]

    @property
    def places(self) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """Both sets, as the engine takes them."""
        return self.cells, self.against

    @property
    def title(self) -> str:
        """Whose network it is, and what it is compared with."""
        settings = self.settings
        first = "all cells" if self.cells is None else settings.cells
        return f"Network of {first}" + (f" against {settings.against}" if settings.against else "")

    @property
    def how(self) -> str:
        """What tells it from a network of the same cells made in another way."""
        settings = self.settings
        heads = f"{len(settings.heads)} chosen heads" if settings.heads else ""
        direction = DIRECTIONS[settings.direction].lower() if settings.direction else ""
        knocked = f"{settings.knockout} knockouts" if settings.knockout else ""
        told = [f"at most {settings.most_cells:,} cells", f"{settings.top} targets", heads, direction, knocked]
        return ", ".join(filter(None, [*told, "" if settings.panel else "not compared with other methods"]))


def asked_before(choice: state.Choice, cells: H5adDataset) -> AskedList[Asked]:
    """Networks of the open data set, those of earlier sessions of the project among them."""
    return state.asked("grn", cells.sha256, partial(_from_jobs, choice))


def _from_jobs(choice: state.Choice) -> AskedList[Asked]:
    """Read them off the project's jobs: work that was begun goes on without a browser, and is found again."""
    reading = jobs_panel.reading(choice)
    return AskedList(
        [
            Asked(
                GrnSettings.from_dict(job.payload["settings"]),
                *(_places(job.payload[name]) for name in ("cells", "against")),
            )
            for job in resources.queue().jobs(state.project(), limit=100)
            if job.function == _GRN and reading.items() <= job.payload.items()
        ]
    )


def _places(cells: list[int] | None) -> NDArray[np.int64] | None:
    return None if cells is None else np.asarray(cells, np.int64)


def _plain(cells: NDArray[np.int64] | None) -> list[int] | None:
    return None if cells is None else cells.tolist()


def _payload(choice: state.Choice, item: Asked) -> jobs_panel.Payload:
    asked = {"settings": item.settings.to_dict(), "cells": _plain(item.cells), "against": _plain(item.against)}
    return {**jobs_panel.reading(choice), **asked}


def job(choice: state.Choice, item: Asked) -> Job | None:
    """Return the latest job for it."""
    return jobs_panel.latest_job(_GRN, _payload(choice, item))


def submit(choice: state.Choice, item: Asked) -> Job:
    """Queue it."""
    return jobs_panel.submit(_GRN, _payload(choice, item), item.title)


def result(cells: H5adDataset, item: Asked) -> GrnResult | None:
    """Return the network; None if it was not made."""
    return stored_grn(resources.engine(), cells, item.settings, *item.places)


def seconds(cells: H5adDataset, item: Asked) -> float:
    """Seconds that a network will take; 0 when it is there.

    Raises
    ------
    DataError
        The cells are not there.
    """
    return estimate_seconds(resources.engine(), cells, item.settings, *item.places)


def activity(cells: H5adDataset) -> pd.DataFrame | None:
    """Return how active each regulator is in each cell; None if it was not computed."""
    return stored_activity(resources.engine(), cells)


def activity_job(choice: state.Choice) -> Job | None:
    """Return the latest job that computes it."""
    return jobs_panel.latest_job(_ACTIVITY, jobs_panel.reading(choice))


def submit_activity(choice: state.Choice) -> Job:
    """Queue it."""
    name = datasets.display_name(choice, resources.project())
    return jobs_panel.submit(_ACTIVITY, jobs_panel.reading(choice), f"Regulon activity of {name}")


def as_python(choice: state.Choice, item: Asked, n_obs: int) -> str:
    """Lines that make the same network.

    Parameters
    ----------
    choice
        The open data set.
    item
        What was asked for.
    n_obs
        Cells of the data set.
    """
    head, arguments = "", ""
    for name, places in zip(("cells", "against"), item.places, strict=True):
        if places is not None:
            head, arguments = code_lines.UNPACKING, f"{arguments}, {name}={code_lines.packed_cells(places, n_obs)}"
    return f"""{head}from scdiva_core.engine import Engine
from scdiva_core.engine_grn import GrnSettings, grn

{code_lines.engine_line()}
settings = {item.settings!r}
{code_lines.opening_line(choice)}
    result = grn(engine, cells, settings{arguments})
result.edges  # a row an edge, with all evidence
"""


def command_line(choice: state.Choice, cells: H5adDataset, item: Asked) -> str | None:
    """Command that writes the same tables; None for what the command line has no words for."""
    settings = item.settings
    named = ((settings.cells, item.cells), (settings.against or "", item.against))
    if settings.heads or settings.direction:
        return None
    if not all(places is None or is_subset(cells, name, places) for name, places in named):
        return None
    words = ["python", "-m", "scdiva_core", "grn", str(datasets.locate(choice))]
    words += ["--subset", settings.cells] if item.cells is not None else []
    words += ["--against", settings.against] if settings.against else []
    words += ["-n", str(settings.most_cells), "--top", str(settings.top)]
    words += ["--knockout", str(settings.knockout)] if settings.knockout else []
    words += [] if settings.panel else ["--no-panel"]
    return shlex.join([*words, *code_lines.reading_flags(choice), "-o", "grn"])
