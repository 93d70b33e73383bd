"""Errors that a user can act on, as messages and never as tracebacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from pages._ui import words
from scdiva_core.errors import ScDiVaError
from scdiva_core.jobs import Job

_KEPT = "_error_of_a_click"


def show(error: ScDiVaError) -> None:
    """Say what is wrong and what to do next."""
    hint = f"\n\n{words.as_text(error.hint)}" if error.hint else ""
    st.error(f"**{words.as_text(error.message)}**{hint}", icon=":material/error:")


def show_failure(job: Job) -> None:
    """Say why a job failed and what to do next."""
    show(ScDiVaError(job.error_message, job.error_hint))


@contextmanager
def shown() -> Iterator[None]:
    """Show an error of ours where it happened; what comes after the block goes on."""
    try:
        yield
    except ScDiVaError as error:
        show(error)


def kept(act: Callable[..., object]) -> Callable[..., None]:
    """Make a button's callback out of what may fail: its error is shown above the page that is drawn next."""

    def run(*args: object) -> None:
        try:
            act(*args)
        except ScDiVaError as error:
            st.session_state[_KEPT] = error

    return run


def show_kept() -> None:
    """Show what went wrong in the callback of the button that was clicked."""
    if (error := st.session_state.pop(_KEPT, None)) is not None:
        show(error)
