"""How long work says how far it is, and asks whether to stop."""

from __future__ import annotations

from collections.abc import Callable

from scdiva_core.errors import Cancelled

Progress = Callable[[int, int, str], None]
"""Called with units done, units in all, and what is going on."""

IsCancelled = Callable[[], bool]
"""Asked between batches; True ends the work with `Cancelled`."""


def silent(done: int, total: int, message: str) -> None:
    """Report to nobody."""


def never() -> bool:
    """Go on always."""
    return False


def stop_if(cancelled: IsCancelled) -> None:
    """End the work when the user asked for it.

    Raises
    ------
    Cancelled
        ``cancelled()`` is True.
    """
    if cancelled():
        raise Cancelled
