"""The user's own checkpoints: which there are, which one the session computes with, names, deletion, a file of one."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from pages._ui import downloads, export, resources, state, words
from pages._ui.project import Project
from scdiva_core.errors import CheckpointError, StoreError
from scdiva_core.model.checkpoint import read_card
from scdiva_core.store import home

TASKS = {
    "annotation": "names cell types",
    "perturbation": "predicts perturbations",
    "integration": "mixes batches",
}
"""What a checkpoint was taught, and what it does since."""

_FINETUNE = "scdiva_core.engine_jobs:finetune"
_SELECT = "checkpoint-choice"
_SERVER = ""
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Own:
    """One of the user's checkpoints.

    Parameters
    ----------
    id
        Name of its folder.
    name
        As the user calls it.
    task
        One of `TASKS`.
    made
        Date and time, UTC.
    """

    id: str
    name: str
    task: str
    made: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return resources.own_checkpoint(self.id)

    @property
    def card(self) -> dict:
        """Its ``card.json``."""
        return read_card(self.folder)

    @property
    def n_bytes(self) -> int:
        """Size of its files."""
        return sum(file.stat().st_size for file in self.folder.iterdir())


def mine() -> dict[str, Own]:
    """Return the project's checkpoints that are there, the latest first; what jobs have ended since is among them."""
    project = resources.project()
    listed = project.checkpoints()
    for job in resources.queue().jobs(project.name, limit=100):
        made = job.payload.get("checkpoint_id")
        if job.function == _FINETUNE and job.state == "done" and made not in listed and _is_there(made):
            project.remember_checkpoint(made, name=job.payload["request"]["name"], task=job.payload["request"]["task"])
            listed = project.checkpoints()
    return {name: Own(name, **entry) for name, entry in listed.items() if _is_there(name)}


def remember(checkpoint_id: str, name: str, task: str) -> None:
    """Put a checkpoint on the project's list; one that is there keeps its name."""
    resources.project().remember_checkpoint(checkpoint_id, name=name, task=task)


def use(checkpoint_id: str | None) -> None:
    """Let the session compute with a checkpoint of the project; called by buttons, before the page runs again.

    Parameters
    ----------
    checkpoint_id
        None for the server's own.
    """
    if checkpoint_id is not None and checkpoint_id not in mine():
        state.set_checkpoint_problem(state.unknown_checkpoint(checkpoint_id))
        return
    state.choose_checkpoint(checkpoint_id)


def check() -> None:
    """Go back to the server's checkpoint when the project has none of the id that a link gave, or no longer."""
    wanted = state.checkpoint()
    if wanted is not None and wanted not in mine():
        state.choose_checkpoint(None)
        state.set_checkpoint_problem(state.unknown_checkpoint(wanted))


def control() -> None:
    """Let the user choose in the sidebar; draws nothing while she has no checkpoint of her own."""
    own = mine()
    if state.checkpoint_problem() is not None:
        st.caption(f":material/warning: {words.as_text(state.checkpoint_problem().message)}")
    if not own:
        return
    st.session_state[_SELECT] = state.checkpoint() or _SERVER
    st.selectbox(
        "Checkpoint",
        [_SERVER, *own],
        format_func=lambda name: own[name].name if name in own else "The server's own",
        key=_SELECT,
        label_visibility="collapsed",
        on_change=_chosen,
        help="Every page computes with the one that is chosen here. Results of the others stay stored.",
    )


def current_name() -> str | None:
    """What the user calls the checkpoint that the session computes with; None for the server's."""
    own = state.checkpoint()
    return None if own is None else resources.project().checkpoints()[own]["name"]


def rename(checkpoint_id: str, name: str) -> None:
    """Call a checkpoint otherwise, on its card too.

    Raises
    ------
    CheckpointError
        The name is empty, or another one's.
    """
    name = " ".join(name.split())
    if not name or any(other.name == name for other in mine().values() if other.id != checkpoint_id):
        msg = "A checkpoint needs a name." if not name else f"Another checkpoint is called {name!r}."
        raise CheckpointError(msg, "Choose another name.")
    resources.project().rename_checkpoint(checkpoint_id, name)
    folder = resources.own_checkpoint(checkpoint_id)
    if not _shared(checkpoint_id):
        stage = folder / "card.json.tmp"
        stage.write_text(json.dumps({**read_card(folder), "name": name}, indent=2) + "\n", encoding="utf-8")
        os.replace(stage, folder / "card.json")
        resources.load_anew(str(folder))


def delete(checkpoint_id: str) -> None:
    """Take a checkpoint off the list and its files into the trash, where they stay for a day.

    Raises
    ------
    CheckpointError
        A job is at work with it.
    """
    if in_use(checkpoint_id):
        msg = "A job is at work with this checkpoint."
        raise CheckpointError(msg, "Wait for its end, or cancel it, then delete the checkpoint.")
    entry = resources.project().forget_checkpoint(checkpoint_id)
    if state.checkpoint() == checkpoint_id:
        use(None)
    if not _shared(checkpoint_id):
        _empty_trash()
        (_trash() / checkpoint_id).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.replace(resources.own_checkpoint(checkpoint_id), _trash() / checkpoint_id)
        os.utime(_trash() / checkpoint_id)
    state.deleted_checkpoints().append((checkpoint_id, entry))


def undo_delete() -> None:
    """Put the checkpoint back that was deleted last in this session.

    Raises
    ------
    StoreError
        It is no longer in the trash.
    """
    checkpoint_id, entry = state.deleted_checkpoints().pop()
    if not _is_there(checkpoint_id):
        try:
            os.replace(_trash() / checkpoint_id, resources.own_checkpoint(checkpoint_id))
        except OSError as error:
            msg = "This checkpoint is no longer in the trash."
            raise StoreError(msg, "What was deleted is kept for a day.") from error
    resources.project().put_back_checkpoint(checkpoint_id, entry)


def in_use(checkpoint_id: str) -> bool:
    """Whether a job that waits or runs reads it."""
    folder = str(resources.own_checkpoint(checkpoint_id))
    return any(job.active and job.payload.get("checkpoint") == folder for job in resources.queue().jobs(limit=1000))


def as_zip(own: Own) -> Path:
    """Pack a checkpoint for the browser; its weights are safetensors, so that no code is in it."""
    packed = downloads.new_export(f"{export.file_name(own.name, 'checkpoint')}.zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:  # weights do not get smaller
        for path in sorted(own.folder.iterdir()):
            file.write(path, f"{packed.stem}/{path.name}")
    return packed


def _chosen() -> None:
    use(st.session_state[_SELECT] or None)


def _is_there(checkpoint_id: str) -> bool:
    return (resources.own_checkpoint(checkpoint_id) / "model.safetensors").is_file()


def _trash() -> Path:
    return home() / "checkpoints" / ".trash"


def _empty_trash() -> None:
    """Remove what was deleted yesterday."""
    if _trash().is_dir():
        for old in _trash().iterdir():
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)


def _shared(checkpoint_id: str) -> bool:
    """Whether another project lists it too: the same work has one result for all."""
    others = (path.parent.name for path in (home() / "projects").glob("*/project.json"))
    return any(checkpoint_id in Project(other).checkpoints() for other in others if other != state.project())
