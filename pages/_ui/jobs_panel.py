"""Jobs as users see them: progress, speed, time left, cancel; polled while one is at work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import streamlit as st

from pages._ui import datasets, errors, resources, state, words
from scdiva_core.jobs import Job
from scdiva_core.tasks.neighbors import ProjectionSettings

Payload = dict[str, Any]

_EMBED = "scdiva_core.engine_jobs:embed"
_POLL_SECONDS = 1.0
# Each look costs the browser and the server more than telling a place in the queue each second is worth.
_POLL_SECONDS_NEXT, _POLL_SECONDS_WAITING = 3.0, 10.0
_SHOWN = 6
_CELLS_KEPT = "Cells that are done are kept, so starting again goes on from there."
_ICONS = {
    "queued": ":material/schedule:",
    "running": ":material/progress_activity:",
    "done": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/cancel:",
}


def latest_job(function: str, payload: Payload) -> Job | None:
    """Return this project's latest job for exactly this work, if there was one.

    Parameters
    ----------
    function
        Of `scdiva_core.engine_jobs`, as ``"module:name"``.
    payload
        What it is called with; ``path`` names the file that it reads.
    """
    key = _key(function, payload)
    return next((job for job in resources.queue().jobs(state.project(), limit=100) if job.key == key), None)


def submit(function: str, payload: Payload, title: str) -> Job:
    """Queue some work; the same work is never queued twice.

    Parameters
    ----------
    function, payload
        As for `latest_job`.
    title
        What the user calls it.
    """
    queue, before = resources.queue(), latest_job(function, payload)
    if before is not None and before.state == "done":
        queue.dismiss(before.id)  # its result is gone, or nobody would ask again
    return queue.submit(function, payload, title=title, owner=state.project(), key=_key(function, payload))


def reading(choice: state.Choice) -> Payload:
    """Part of every payload: which file is read, how, and by which checkpoint where."""
    return {
        "path": str(datasets.locate(choice)),
        "checkpoint": resources.checkpoint(),
        "device": resources.device(),
        "matrix": choice.matrix,
        "gene_column": None,
        "values": choice.values,
    }


def embedding_job(choice: state.Choice, settings: ProjectionSettings) -> Job | None:
    """Return this project's latest job that embeds and draws a data set so, if there was one."""
    return latest_job(_EMBED, {**reading(choice), "settings": asdict(settings)})


def submit_embedding(choice: state.Choice, settings: ProjectionSettings) -> Job:
    """Queue the embedding of a data set."""
    name = datasets.display_name(choice, resources.project())
    return submit(_EMBED, {**reading(choice), "settings": asdict(settings)}, f"Embed {name}")


def _key(function: str, payload: Payload) -> str:
    found = Path(payload["path"]).stat()
    parts = [function, payload, found.st_size, found.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sidebar_jobs() -> None:
    """List the project's jobs; polls while one waits or runs, then runs the page once more."""
    every = poll_seconds(resources.queue().jobs(state.project(), _SHOWN))
    st.fragment(_list, run_every=every)(every)


def poll_seconds(jobs: Sequence[Job]) -> float | None:
    """Seconds from one look at jobs to the next: None where nothing is at work.

    Parameters
    ----------
    jobs
        The newest first.
    """
    if any(job.state == "running" for job in jobs):
        return _POLL_SECONDS
    waiting = [job for job in jobs if job.active]
    if not waiting:
        return None
    return _POLL_SECONDS_NEXT if _before(waiting[-1]) <= 1 else _POLL_SECONDS_WAITING


def _list(every: float | None) -> None:
    jobs = resources.queue().jobs(state.project(), _SHOWN)
    if every is not None:
        _rerun_when_changed(jobs, every)
    if not jobs:
        st.caption("Nothing runs. What takes longer is listed here, and goes on when you close the browser.")
    for job in jobs:
        _row(job)


def _rerun_when_changed(jobs: list[Job], every: float) -> None:
    """Let the whole page see a result, and poll as often as what is now at work asks for."""
    ended = [job for job in jobs if not job.active and state.note_finished(job.id)]
    if ended or poll_seconds(jobs) != every:
        st.rerun()


def _row(job: Job) -> None:
    queue = resources.queue()
    with st.container(key=f"job-{job.id}", gap="xxsmall"):
        st.markdown(f"{_ICONS[job.state]} {words.as_text(job.title)}")
        if job.active:
            st.progress(job.progress, text=progress_text(job))
            label, act, help_text = "Cancel", queue.cancel, "Stop this job. What is done so far is kept."
        else:
            label, act, help_text = "Dismiss", queue.dismiss, "Take this job off the list. Its result stays."
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            if not job.active:
                st.caption(_outcome(job), width="content")
            st.button(
                label,
                key=f"{label.lower()}-{job.id}",
                help=help_text,
                type="tertiary",
                on_click=act,
                args=(job.id,),
            )


def progress_card(job: Job, ready: Callable[[], bool], *, kept: str = _CELLS_KEPT) -> None:
    """Progress of one job in the page itself; the sidebar's list runs the page again at its end.

    Parameters
    ----------
    job
        Waits or runs.
    ready
        Whether there is something to show before the end; then the page runs once more.
    kept
        What becomes of what is done when the job is cancelled.
    """
    st.fragment(_progress, run_every=poll_seconds([job]))(job.id, ready, kept)


def waiting(job: Job | None, title: str, submit: Callable[[], object], *, kept: str, key: str) -> None:
    """Say how far work is that has no result yet, or why it ended without one, with a button to begin again.

    Parameters
    ----------
    job
        The latest for this work; None where there was none.
    title
        What the user calls it.
    submit
        Queues it.
    kept
        What becomes of what is done when it is cancelled.
    key
        Begins the keys of what is drawn.
    """
    if job is not None and job.active:
        progress_card(job, ready=lambda: False, kept=kept)
        return
    with st.container(border=True, key=f"{key}-ended"):
        st.markdown(f"**{words.as_text(title)}**")
        if job is not None and job.state == "failed":
            errors.show_failure(job)
        elif job is not None and job.state == "cancelled":
            st.info(f"This was cancelled. {kept}", icon=":material/info:")
        else:
            st.info("This has not been computed with this checkpoint and way of reading.", icon=":material/info:")
        st.button(
            "Try again" if job is not None else "Compute it",
            key=f"{key}-again",
            icon=":material/replay:",
            on_click=errors.kept(submit),
        )


def _progress(job_id: str, ready: Callable[[], bool], kept: str) -> None:
    job = resources.queue().get(job_id)
    if ready():
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**{words.as_text(job.title)}**")
        st.progress(job.progress, text=progress_text(job))
        st.button(
            "Cancel",
            key=f"stop-{job.id}",
            icon=":material/close:",
            disabled=not job.active,
            help=f"Stops within two seconds. {kept}",
            on_click=resources.queue().cancel,
            args=(job.id,),
        )
        st.caption("You can leave this page or close the browser: the work goes on.")


def progress_text(job: Job) -> str:
    """One line: what is done, how fast, how long it will take."""
    if job.cancel_requested and job.active:
        return "keeping the best so far …" if job.allowed_s else "stopping …"
    if job.state == "queued":
        return words.as_text(job.message) if job.message else _place(job)
    parts = [words.percent(job.progress, 0)]
    parts.append(words.as_text(job.message) if job.message else "loading the model")
    if job.rate and job.rate >= 1:  # steps that are no cells are slower
        parts.append(f"{words.number(job.rate)} cells/s")
    if job.eta_s is not None:
        parts.append(f"{words.duration(job.eta_s)} left")
    return " · ".join(parts)


def _before(job: Job) -> int:
    return resources.queue().place(job.id)


def _place(job: Job) -> str:
    before = _before(job)
    if not before:
        return "waiting for the worker to start"
    return f"waiting: {words.number(before)} {'job' if before == 1 else 'jobs'} before this one"


def _outcome(job: Job) -> str:
    if job.state == "failed":
        return words.as_text(job.error_message)
    if job.state == "cancelled":
        return "cancelled"
    seconds = (job.finished or 0) - (job.started or 0)
    return f"done in {words.duration(seconds)}"
