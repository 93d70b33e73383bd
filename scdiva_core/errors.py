"""Errors a user can act on: what is wrong with this file or choice, and what to do next."""

from __future__ import annotations


class ScDiVaError(Exception):
    """Base of every error that is shown to a user.

    Parameters
    ----------
    message
        What is wrong, with the number or name that was found.
    hint
        What to do next; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class DataError(ScDiVaError):
    """The data file cannot be used as it is."""


class GeneMatchError(DataError):
    """Too few genes of the file are known to the model."""


class CheckpointError(ScDiVaError):
    """A checkpoint is missing something, truncated, or of another shape."""


class VocabularyError(ScDiVaError):
    """A gene vocabulary is missing or malformed."""


class HubError(CheckpointError):
    """The hub cannot be reached or does not hold the checkpoint."""


class PathError(ScDiVaError):
    """A path lies outside the data root or is not a readable file."""


class StoreError(ScDiVaError):
    """A result cannot be written or read back."""


class JobError(ScDiVaError):
    """A job cannot be queued, found or run."""


class Cancelled(ScDiVaError):
    """The user asked the running work to stop."""

    def __init__(self) -> None:
        super().__init__("Cancelled.", "Start it again to go on from where it stopped.")
