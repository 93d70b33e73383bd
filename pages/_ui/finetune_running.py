"""A training that goes on: its curves as they grow, the time that is spent, the best so far, and how to stop it."""

from __future__ import annotations

import time

import streamlit as st

from pages._ui import checkpoints, errors, export, finetune_work, frame, jobs_panel, resources, state, words
from pages._ui.finetune_words import HELP, LOSSES, SCORES, best_of, record_of, score_name, step_of
from scdiva_core.errors import JobError
from scdiva_core.figures.training_curve import training_curve
from scdiva_core.jobs import Job


def section() -> None:
    """Draw the trainings that wait or run, else what came of the last one until it is used or dismissed."""
    under_way = finetune_work.running()
    for job in under_way:
        st.fragment(_live, run_every=jobs_panel.poll_seconds([job]))(job.id)
    latest = next(iter(finetune_work.jobs()), None)
    if under_way or latest is None:
        return
    if latest.state in ("failed", "cancelled"):
        _ended(latest)
    elif (
        made := checkpoints.mine().get(latest.payload["checkpoint_id"])
    ) is not None and state.checkpoint() != made.id:
        _ready(latest, made)


def _ready(job: Job, made: checkpoints.Own) -> None:
    told = record_of(made.card, made.task).get("words", "")
    with st.container(border=True, key="finetune-ready"):
        st.success(
            f"**{words.as_text(made.name)} is ready.** {words.as_text(told)}",
            icon=":material/check_circle:",
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Use it", key="finetune-use-it", help=HELP["use"], on_click=checkpoints.use, args=(made.id,))
            dismiss = resources.queue().dismiss
            st.button("Dismiss", key="finetune-seen", type="tertiary", on_click=dismiss, args=(job.id,))
            st.caption("Its curve and what it learned stand below, among your checkpoints.")


def _live(job_id: str) -> None:
    """Polled; the sidebar's list of jobs runs the page again at the end."""
    try:
        job = resources.queue().get(job_id)
    except JobError:  # dismissed in another window
        return
    curve, request = finetune_work.curve(job), finetune_work.request_of(job)
    with st.container(border=True, key=f"finetune-live-{job.id}"):
        st.subheader(words.as_text(request.name), help=HELP["curve"])
        st.progress(job.progress, text=_progress(job, request.minutes))
        best = best_of(curve, request.task)
        if best is not None:
            st.markdown(_so_far(curve, best, request.task))
            drawn = training_curve(
                curve,
                LOSSES[request.task],
                SCORES[request.task],
                best=step_of(best),
                note=frame.weights_note(),
                dark=frame.is_dark(),
            )
            config = {**export.plotly_config(request.name), "displayModeBar": False, "scrollZoom": False}
            alt = "Losses and held-out scores of each round so far"
            st.plotly_chart(drawn, theme=None, key=f"finetune-live-curve-{job.id}", config=config, alt=alt)
        else:
            st.caption("The curves begin when the cells have been read and the new head is trained.")
        st.button(
            "Stop and keep the best so far" if best is not None else "Cancel",
            key=f"finetune-stop-{job.id}",
            icon=":material/stop_circle:",
            disabled=not job.active or job.cancel_requested is not None,
            help=HELP["stop"] if best is not None else "There is nothing to keep yet.",
            on_click=resources.queue().cancel,
            args=(job.id,),
        )
        st.caption("You can leave this page or close the browser: the training goes on.")


def _progress(job: Job, minutes: float) -> str:
    if job.state != "running" or job.started is None or job.cancel_requested is not None:
        return jobs_panel.progress_text(job)
    spent = words.duration(max(time.time() - job.started, 1))
    what = words.as_text(job.message) if job.message else "loading the model"
    return f"{spent} of at most {words.duration(60 * minutes)} · {what}"


def _so_far(curve: list[dict], best: dict, task: str) -> str:
    column, name = score_name(task)
    if best.get(column) is None:
        return f"Round {step_of(curve[-1])}. Too few perturbations to hold any out: the last round is kept."
    before = curve[0].get(column)
    done = f"{words.count(step_of(curve[-1]), 'round')} done"
    if not step_of(best):
        return f"**So far {name} {best[column]:.3f}**, before the network itself is trained; {done}, none was better."
    return (
        f"**Best so far: {name} {best[column]:.3f}** in round {step_of(best)} ({before:.3f} before the network itself "
        f"was trained); {done}."
    )


def _ended(job: Job) -> None:
    request = finetune_work.request_of(job)
    with st.container(border=True, key="finetune-ended"):
        st.markdown(f"**{words.as_text(request.name)}**")
        if job.state == "failed":
            errors.show_failure(job)
        else:
            st.info(
                "This training was stopped before there was anything to keep: no checkpoint was made.",
                icon=":material/info:",
            )
        st.button(
            "Dismiss", key="finetune-dismiss", type="tertiary", on_click=resources.queue().dismiss, args=(job.id,)
        )
