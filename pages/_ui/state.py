"""Every key of the session and of the URL, typed, in one place.

What must survive a reload of the browser stands in the URL: which data set, how it is read, the checkpoint where it is
not the server's, and the project, a random name that owns cell sets, jobs and checkpoints. What a page shows (colour,
view) is bound to the URL by its widgets.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import pandas as pd
import streamlit as st

from pages._ui.asked_list import AskedList
from pages._ui.saved_list import SavedList
from scdiva_core.data.cellsets import CellSets
from scdiva_core.errors import CheckpointError, DataError, ScDiVaError
from scdiva_core.tasks.neighbors import ProjectionSettings
from scdiva_core.tasks.review_session import LabelSettings

_FRAMED = "_framed"
_PROJECT = "_project"
_CHOICE = "_choice"
_PROBLEM = "_problem"
_SELECTION_ROUND = "_selection_round"
_FINISHED = "_finished_jobs"
_UPLOADS = "_uploads"
_SETTINGS = "_settings"
_CELL_SETS = "_cell_sets"
_SETS_PROBLEM = "_sets_problem"
_LABELS = "_label_settings"
_LABELS_STEP = "_labels_step"
_REVIEW_PROBLEM = "_review_problem"
_GENE_TABLES = "_gene_tables"
_ASKED = "_asked"
_SAVED = "_saved_embeddings"
_SAVING_PROBLEM = "_saving_problem"
_JOINING = "_joining"
_JOIN_PATHS = "_join_paths"
_MARKED = "_marked"
_GENE_ROUND = "_gene_round"
_NETWORK_ROUND = "_network_round"
_CHECKPOINT = "_checkpoint"
_CHECKPOINT_PROBLEM = "_checkpoint_problem"
_DELETED = "_deleted_checkpoints"
_LIST_PROBLEM = "_checkpoint_list_problem"
REVIEWER = "reviewer"
"""Key of the field for the name of who annotates."""

_PROJECT_NAME = re.compile(r"[0-9a-f]{16}")
_CHECKPOINT_ID = re.compile(r"[a-z]{1,20}-[0-9a-f]{12}")

Values = Literal["auto", "counts", "log1p"]


@dataclass(frozen=True)
class Choice:
    """Which data set is open, and how it is read.

    Parameters
    ----------
    data
        Name of a demo, SHA-256 of an upload, or path below the data root.
    matrix
        Matrix to read; None for the recommended one.
    values
        What its values are taken for.
    """

    data: str
    matrix: str | None = None
    values: Values = "auto"


def choice() -> Choice | None:
    """Data set of this session; None before the first run."""
    return st.session_state.get(_CHOICE)


def choose(new: Choice) -> None:
    """Open another data set; selections and errors of the one before are forgotten."""
    st.session_state[_CHOICE] = new
    st.session_state.pop(_PROBLEM, None)
    clear_selection()


def read_as(*, matrix: str | None, values: Values) -> None:
    """Read the same file in another way."""
    choose(replace(st.session_state[_CHOICE], matrix=matrix, values=values))


def checkpoint() -> str | None:
    """Id of the checkpoint that this session computes with, one of the project's own; None for the server's."""
    return st.session_state.get(_CHECKPOINT)


def choose_checkpoint(checkpoint_id: str | None) -> None:
    """Compute with another one; selections belong to pictures of the one before."""
    st.session_state[_CHECKPOINT] = checkpoint_id
    st.session_state.pop(_CHECKPOINT_PROBLEM, None)
    clear_selection()
    clear_gene_rows()
    clear_network_click()


def checkpoint_problem() -> ScDiVaError | None:
    """Why the checkpoint of a link is not used."""
    return st.session_state.get(_CHECKPOINT_PROBLEM)


def set_checkpoint_problem(error: ScDiVaError) -> None:
    """Remember it until another one is chosen."""
    st.session_state[_CHECKPOINT_PROBLEM] = error


def checkpoint_list_problem() -> ScDiVaError | None:
    """Why the last change of the list of checkpoints was not made."""
    return st.session_state.get(_LIST_PROBLEM)


def set_checkpoint_list_problem(error: ScDiVaError | None) -> None:
    """Remember it for the next run of the page; None forgets it."""
    st.session_state[_LIST_PROBLEM] = error


def deleted_checkpoints() -> list[tuple[str, dict[str, str]]]:
    """Ids of the checkpoints that this session has deleted, the last one at the end, and how they were listed."""
    return st.session_state.setdefault(_DELETED, [])


def settings() -> ProjectionSettings:
    """How embeddings are drawn and clustered."""
    return st.session_state.get(_SETTINGS, ProjectionSettings())


def set_settings(new: ProjectionSettings) -> None:
    """Draw and cluster in another way; lassos belong to the old picture."""
    st.session_state[_SETTINGS] = new
    clear_selection()


def project() -> str:
    """Random name that owns this user's cell sets and jobs."""
    return st.session_state[_PROJECT]


def problem() -> ScDiVaError | None:
    """What went wrong with the last attempt to open something; shown until the next one."""
    return st.session_state.get(_PROBLEM)


def set_problem(error: ScDiVaError) -> None:
    """Remember an error for the next run of the page."""
    st.session_state[_PROBLEM] = error


def selection_round() -> int:
    """Part of the key of a figure: a new one clears its selection."""
    return st.session_state.get(_SELECTION_ROUND, 0)


def clear_selection() -> None:
    """Forget what was lassoed."""
    st.session_state[_SELECTION_ROUND] = selection_round() + 1


def note_finished(job_id: str) -> bool:
    """Whether this session learns only now that a job has ended, so that its page is run again once."""
    known: set[str] = st.session_state.setdefault(_FINISHED, set())
    new = job_id not in known
    known.add(job_id)
    return new


def upload_key() -> str:
    """Key of the drop zone: a new one makes it ready for the next file."""
    return f"upload-{st.session_state.get(_UPLOADS, 0)}"


def next_upload() -> None:
    """Count a file that was uploaded."""
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1


def cell_sets(data_sha256: str, read: Callable[[], CellSets]) -> CellSets:
    """Return the cell sets of a file with their undo history; `read` fetches them the first time."""
    key = f"{_CELL_SETS}-{data_sha256}"
    if key not in st.session_state:
        st.session_state[key] = read()
    return st.session_state[key]


def sets_problem() -> ScDiVaError | None:
    """Why the last change of the cell sets was not made."""
    return st.session_state.get(_SETS_PROBLEM)


def set_sets_problem(error: ScDiVaError | None) -> None:
    """Remember it for the next run of the page; None forgets it."""
    st.session_state[_SETS_PROBLEM] = error


def label_settings(data_sha256: str) -> LabelSettings | None:
    """What the labels of a file are computed with, where this session has asked for some."""
    return st.session_state.get(f"{_LABELS}-{data_sha256}")


def set_label_settings(data_sha256: str, new: LabelSettings, *, compute: bool) -> None:
    """Show other labels; with ``compute`` the next run of the page computes them if they are not stored."""
    st.session_state[f"{_LABELS}-{data_sha256}"] = new
    st.session_state[_LABELS_STEP] = "asked" if compute else None


def cancel_labels() -> None:
    """Remember that the labels are no longer wanted; the click itself ends the run that computes them."""
    st.session_state[_LABELS_STEP] = "cancelled"


def take_labels_step() -> Literal["asked", "cancelled"] | None:
    """Return what was clicked about computing labels; once, so that a rerun does not begin again."""
    return st.session_state.pop(_LABELS_STEP, None)


def reviewer() -> str:
    """Name of who annotates, as typed; empty for none."""
    return st.session_state.get(REVIEWER) or ""


def review_problem() -> ScDiVaError | None:
    """Why the last decision on labels was not made."""
    return st.session_state.get(_REVIEW_PROBLEM)


def set_review_problem(error: ScDiVaError | None) -> None:
    """Remember it for the next run of the page; None forgets it."""
    st.session_state[_REVIEW_PROBLEM] = error


def gene_tables() -> dict[tuple[str, ...], pd.DataFrame]:
    """Tables of genes that this session has computed, by what they compare."""
    return st.session_state.setdefault(_GENE_TABLES, {})


AskedKind = Literal["knockout", "screen", "grn", "reconstruction", "integration"]


def asked(kind: AskedKind, data_sha256: str, read: Callable[[], AskedList]) -> AskedList:
    """Return what a file was asked; `read` finds what earlier sessions asked the first time."""
    key = f"{_ASKED}-{kind}-{data_sha256}-{checkpoint()}"
    if key not in st.session_state:
        st.session_state[key] = read()
    return st.session_state[key]


def saved_embeddings(data_sha256: str, read: Callable[[], SavedList]) -> SavedList:
    """Return the saved embeddings of a file with their undo history; `read` fetches them the first time."""
    key = f"{_SAVED}-{data_sha256}"
    if key not in st.session_state:
        st.session_state[key] = read()
    return st.session_state[key]


def saving_problem() -> ScDiVaError | None:
    """Why the last change of the saved embeddings was not made."""
    return st.session_state.get(_SAVING_PROBLEM)


def set_saving_problem(error: ScDiVaError | None) -> None:
    """Remember it for the next run of the page; None forgets it."""
    st.session_state[_SAVING_PROBLEM] = error


def joining() -> tuple[str, Choice] | None:
    """Job that puts files together for this session, and the data set that was open when it began."""
    return st.session_state.get(_JOINING)


def set_joining(job_id: str | None) -> None:
    """Remember the job whose file shall be opened when it ends; None forgets it."""
    st.session_state[_JOINING] = None if job_id is None else (job_id, choice())


def paths_to_join() -> list[str]:
    """Paths below the data root that this session has offered for putting files together."""
    return st.session_state.setdefault(_JOIN_PATHS, [])


def marked(owner: str) -> tuple[str, dict[str, Any]] | None:
    """Which of several linked pictures was drawn on, and what, until the selection is cleared; None without."""
    kept = st.session_state.get(_MARKED)
    return kept[1:] if kept is not None and kept[0] == (owner, selection_round()) else None


def mark(owner: str, picture: str, drawn: dict[str, Any]) -> None:
    """Keep what was drawn on one of the pictures of an owner: they are drawn anew with it, and forget it themselves."""
    st.session_state[_MARKED] = ((owner, selection_round()), picture, drawn)


def gene_round() -> int:
    """Part of the key of tables of genes: a new one clears what is selected there."""
    return st.session_state.get(_GENE_ROUND, 0)


def clear_gene_rows() -> None:
    """Forget which rows of tables of genes are selected."""
    st.session_state[_GENE_ROUND] = gene_round() + 1


def network_round() -> int:
    """Part of the key of the picture of a network: a new one clears what was clicked there."""
    return st.session_state.get(_NETWORK_ROUND, 0)


def clear_network_click() -> None:
    """Forget which gene of a network was clicked."""
    st.session_state[_NETWORK_ROUND] = network_round() + 1


def framed() -> bool:
    """Whether `app.py` is running the page, as every page needs."""
    return st.session_state.get(_FRAMED, False)


@contextmanager
def frame() -> Iterator[None]:
    """Mark what runs inside as a page that `app.py` runs."""
    st.session_state[_FRAMED] = True
    try:
        yield
    finally:
        st.session_state[_FRAMED] = False


def begin() -> None:
    """Take project and data set from the URL on the first run of a session."""
    if _PROJECT not in st.session_state:
        name = st.query_params.get("project", "")
        st.session_state[_PROJECT] = name if _PROJECT_NAME.fullmatch(name) else secrets.token_hex(8)
    if _CHOICE not in st.session_state and (data := st.query_params.get("data")):
        values = st.query_params.get("values", "auto")
        st.session_state[_CHOICE] = Choice(
            data,
            matrix=st.query_params.get("matrix") or None,
            values=values if values in ("counts", "log1p") else "auto",
        )
    if _CHECKPOINT not in st.session_state:
        wanted = st.query_params.get("checkpoint", "")
        st.session_state[_CHECKPOINT] = wanted if _CHECKPOINT_ID.fullmatch(wanted) else None
        if wanted and checkpoint() is None:
            set_checkpoint_problem(unknown_checkpoint(wanted))
    if _SETTINGS not in st.session_state:
        st.session_state[_SETTINGS] = _settings_from_url()


def unknown_checkpoint(wanted: str) -> ScDiVaError:
    """Why a checkpoint that a link asks for is not used."""
    msg = f"This project has no checkpoint {wanted[:40]!r}: the server's own is used."
    return CheckpointError(msg, "It was deleted, or belongs to another project.")


def _settings_from_url() -> ProjectionSettings:
    """Settings of a link; what cannot be read keeps its default."""
    found = {}
    for item in fields(ProjectionSettings):
        with suppress(KeyError, ValueError):
            found[item.name] = type(item.default)(st.query_params[item.name])
    try:
        return ProjectionSettings(**found)
    except DataError:
        return ProjectionSettings()


def url() -> dict[str, str]:
    """What the URL of every page holds; what is as by default is left out."""
    parts = {"project": project()}
    if (found := choice()) is not None:
        parts |= {"data": found.data, "matrix": found.matrix or "", "values": found.values}
    if checkpoint() is not None:
        parts["checkpoint"] = checkpoint()
    plain = asdict(ProjectionSettings())
    parts |= {name: str(value) for name, value in asdict(settings()).items() if value != plain[name]}
    return {name: value for name, value in parts.items() if value not in ("", "auto")}


def write_url() -> None:
    """Write it, as a click on the navigation drops it; parameters of bound widgets stay."""
    wanted = url()
    drawing = (item.name for item in fields(ProjectionSettings))
    for name in ("data", "project", "matrix", "values", "checkpoint", *drawing):
        if name in wanted and st.query_params.get(name) != wanted[name]:
            st.query_params[name] = wanted[name]
        elif name not in wanted and name in st.query_params:
            del st.query_params[name]
