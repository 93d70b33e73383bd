"""Several files put together: what they have in common first, then a job, then the new file is opened."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from pages._ui import datasets, errors, jobs_panel, resources, state, words
from pages._ui.integration_words import HELP
from pages._ui.parts import table
from scdiva_core.data.concatenate import Overlap, overlap
from scdiva_core.errors import ScDiVaError
from scdiva_core.jobs import Job

_CONCATENATE = "scdiva_core.engine_jobs:concatenate"
_COLUMN = "file"
_KEPT = "Nothing of a joined file is kept before it is whole."
_VALUES = {"counts": "raw counts", "log1p": "log1p values", "normalised": "normalised values"}
_COLUMNS = {"name": "File", "n_cells": "Cells", "n_genes": "Genes", "n_known": "Known to the model", "values": "Values"}


def section(*, expanded: bool) -> None:
    """Draw the section; opens the new file when the job that this session began has ended.

    Parameters
    ----------
    expanded
        Whether it begins open: where the open file has nothing to integrate.
    """
    made = _made()
    _open_when_done(made)
    joining = any(job.active for job in made)
    with st.expander("Several files: put them together first", icon=":material/library_add:", expanded=expanded):
        st.caption(f"{HELP['files']} The new file is then integrated like any other.")
        chosen = _choose()
        _earlier(made)
        if len(chosen) < 2:
            st.info("Choose two files or more.", icon=":material/info:")
            return
        batch_key = st.text_input(
            "Column for the file", _COLUMN, key="join-column", help=HELP["file column"], persist_state="session"
        ).strip()
        with errors.shown():
            _put_together(chosen, batch_key, busy=joining)


def _choose() -> list[str]:
    """Data sets to be put together, as `pages._ui.state.Choice` names them."""
    project, opened = resources.project(), state.choice().data
    demos = [demo.name for demo in datasets.DEMOS]
    options = dict.fromkeys([opened, *demos, *reversed(project.uploads()), *state.paths_to_join()])
    names = {data: datasets.display_name(state.Choice(data), project) for data in options}
    chosen = st.multiselect(
        "Files",
        list(options),
        format_func=lambda data: f"{names[data]} (open now)" if data == opened else names[data],
        key="join-files",
        placeholder="choose two or more",
        help="The open file, demos, your uploads and what was joined before. More are added by path below; upload them "
        "on the page Data.",
        persist_state="session",
    )
    with (
        st.form("join-path", border=False, clear_on_submit=True),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        path = st.text_input(
            "Add a file by path",
            placeholder="cells.h5ad",
            help=f"Below the data root {datasets.data_root()} (SCDIVA_DATA_ROOT).",
            key="join-path-text",
        )
        if st.form_submit_button("Add", icon=":material/add:") and path.strip():
            with errors.shown():
                datasets.locate(state.Choice(path.strip()))
                state.paths_to_join().append(path.strip())
                st.rerun()
    return chosen


def _put_together(chosen: list[str], batch_key: str, *, busy: bool) -> None:
    """Show what the files share, and the button or the job."""
    project = resources.project()
    paths = [datasets.locate(state.Choice(data)) for data in chosen]
    names = [datasets.display_name(state.Choice(data), project).removesuffix(".h5ad") for data in chosen]
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    found = _overlap(resources.checkpoint(), tuple(map(str, paths)), stamps, tuple(names))
    _preview(found)
    if found.refusal:
        st.error(
            f"**{words.as_text(found.refusal)}**\n\nLeave out the file that does not fit, or check which column names "
            "its genes.",
            icon=":material/error:",
        )
        return
    payload = {"path": str(paths[0]), "paths": [str(path) for path in paths], "names": names, "batch_key": batch_key}
    payload |= {"checkpoint": resources.checkpoint(), "device": resources.device()}
    job = jobs_panel.latest_job(_CONCATENATE, payload)
    if job is not None and job.active:
        jobs_panel.progress_card(job, ready=lambda: False, kept=_KEPT)
        return
    if job is not None and job.state == "failed":
        errors.show_failure(job)
    if job is not None and job.state == "cancelled":
        st.info(f"This was cancelled. {_KEPT}", icon=":material/info:")
    st.button(
        "Put them together",
        key="join-run",
        type="primary",
        icon=":material/library_add:",
        disabled=busy or not batch_key,
        on_click=_begin,
        args=(payload, " + ".join(names)),
    )


@st.cache_data(show_spinner="Comparing the genes of the files …", scope="session", max_entries=8)
def _overlap(
    checkpoint: str, paths: tuple[str, ...], stamps: tuple[tuple[int, int], ...], names: tuple[str, ...]
) -> Overlap:
    return overlap(paths, resources.engine().vocabulary, names)


def _preview(found: Overlap) -> None:
    rows = pd.DataFrame(
        [
            {**{name: getattr(file, name) for name in _COLUMNS if name != "values"}, "values": file.value_kind}
            for file in found.files
        ]
    )
    table(
        rows.assign(values=rows["values"].map(lambda kind: _VALUES.get(kind, kind))),
        _COLUMNS,
        "overlap",
        key="join-overlap",
        alt="Cells and genes of each file",
    )
    with st.container(horizontal=True, gap="large"):
        for label, number in (
            ("Genes in all files", found.n_shared),
            ("Genes in any file", found.n_union),
            ("Shared and known", found.n_shared_known),
        ):
            st.metric(label, words.number(number), width="content")
    st.markdown(words.as_text(found.words))


def _begin(payload: jobs_panel.Payload, name: str) -> None:
    job = jobs_panel.submit(_CONCATENATE, payload, f"Put together {name}")
    state.set_joining(job.id)


def _made() -> list[Job]:
    """The project's jobs that put files together, the latest first; names of new files are kept with the uploads."""
    project = resources.project()
    jobs = [job for job in resources.queue().jobs(project.name, limit=100) if job.function == _CONCATENATE]
    known = project.uploads()
    for job in reversed(jobs):
        if job.state == "done" and job.result["sha256"] not in known:
            project.remember_upload(job.result["sha256"], " + ".join(job.payload["names"]))
    return jobs


def _open_when_done(made: list[Job]) -> None:
    """Open what this session has put together, unless another data set was chosen meanwhile."""
    waiting = state.joining()
    if waiting is None:
        return
    job_id, opened = waiting
    job = next((job for job in made if job.id == job_id), None)
    if job is not None and job.active:
        return
    state.set_joining(None)
    if job is not None and job.state == "done" and state.choice() == opened:
        state.choose(state.Choice(job.result["sha256"]))
        st.rerun()


def _earlier(made: list[Job]) -> None:
    """Offer files that were put together before and are not open."""
    project, done = resources.project(), [job.result["sha256"] for job in made if job.state == "done"]
    for sha256 in dict.fromkeys(done):
        if sha256 == state.choice().data:
            continue
        try:
            datasets.locate(state.Choice(sha256))
        except ScDiVaError:  # removed from the server
            continue
        with st.container(horizontal=True, vertical_alignment="center", key=f"joined-{sha256[:12]}"):
            st.markdown(f"Joined before: {words.as_text(project.upload_name(sha256))}", width="stretch")
            st.button(
                "Open the joined file",
                key=f"open-joined-{sha256[:12]}",
                icon=":material/folder_open:",
                on_click=state.choose,
                args=(state.Choice(sha256),),
            )
