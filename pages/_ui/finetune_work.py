"""From a request to its checkpoint: the job that makes it, what would be learned, and lines that make it again."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import replace

import streamlit as st

from pages._ui import code_lines, datasets, jobs_panel, resources, state
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_finetune import FinetuneRequest, Lesson, lesson
from scdiva_core.jobs import Job
from scdiva_core.training.live_curve import curve_path, read_curve

_FINETUNE = "scdiva_core.engine_jobs:finetune"


def jobs() -> list[Job]:
    """Trainings of the project, the latest first."""
    return [job for job in resources.queue().jobs(state.project(), limit=100) if job.function == _FINETUNE]


def request_of(job: Job) -> FinetuneRequest:
    """What a job was asked for."""
    return FinetuneRequest(**job.payload["request"])


def running() -> list[Job]:
    """Trainings that wait or run, the first of the queue first."""
    return [job for job in jobs()[::-1] if job.active]


def same_running(choice: state.Choice, request: FinetuneRequest) -> bool:
    """Whether this very training is under way, whatever it is called."""
    reading = jobs_panel.reading(choice)
    return any(
        reading.items() <= job.payload.items() and replace(request_of(job), name=request.name) == request
        for job in running()
    )


def submit(choice: state.Choice, request: FinetuneRequest) -> None:
    """Queue it; each training makes a folder of its own, and the same one is never under way twice."""
    if not same_running(choice, request):
        new = {"request": request.to_dict(), "checkpoint_id": f"{request.task}-{secrets.token_hex(6)}"}
        jobs_panel.submit(_FINETUNE, {**jobs_panel.reading(choice), **new}, f"Fine-tune {request.name}")


def curve(job: Job) -> list[dict]:
    """Records of a training so far."""
    return read_curve(curve_path(resources.own_checkpoint(job.payload["checkpoint_id"])))


def learned(choice: state.Choice, cells: H5adDataset, request: FinetuneRequest) -> Lesson:
    """Return what a request would learn from.

    Raises
    ------
    DataError
        The columns do not suffice.
    """
    return _learned((cells.sha256, str(choice), resources.checkpoint()), replace(request, name=""), cells)


@st.cache_data(show_spinner="Looking at the labels …", scope="session", max_entries=16)
def _learned(key: tuple[str, ...], request: FinetuneRequest, _cells: H5adDataset) -> Lesson:
    return lesson(resources.engine(), _cells, request)


def as_python(choice: state.Choice, request: FinetuneRequest) -> str:
    """Lines that make the same checkpoint."""
    return f"""from pathlib import Path

from scdiva_core.engine import Engine
from scdiva_core.engine_finetune import FinetuneRequest, finetune

{code_lines.engine_line()}
request = {request!r}
{code_lines.opening_line(choice)}
    tuned = finetune(engine, cells, request, Path("checkpoint"))
tuned.words, tuned.curve
"""


def command_line(choice: state.Choice, request: FinetuneRequest) -> str | None:
    """Command that does the same; None for what the command line has no words for."""
    if (choice.matrix, choice.values) != (None, "auto"):
        return None
    words = ["python", "-m", "scdiva_core", "finetune", request.task, str(datasets.locate(choice))]
    if request.task == "perturbation":
        words += ["--perturbation", request.label_key, "--control", request.control, "--kind", request.kind]
    elif request.label_key:
        words += ["--label", request.label_key]
    words += ["--batch", request.batch_key] if request.batch_key else []
    words += ["--minutes", f"{request.minutes:g}"]
    words += ["--seed", str(request.seed)] if request.seed else []
    return shlex.join([*words, *code_lines.reading_flags(choice), "-o", "checkpoint"])
