"""Errors that a user can act on, as messages and never as tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from pages._ui import words
from scdiva_core.errors import ScDiVaError
from scdiva_core.jobs import Job


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
