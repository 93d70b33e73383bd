"""What was asked for in this session: a list whose removals can be undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import streamlit as st

from pages._ui import words


class Item(Protocol):
    """Something that was asked for."""

    @property
    def key(self) -> str:
        """What tells it from all others."""

    @property
    def title(self) -> str:
        """What is done, and in which cells."""

    @property
    def how(self) -> str:
        """What tells it from others of the same title."""


Asked = TypeVar("Asked", bound=Item)


class AskedList(Generic[Asked]):
    """What was asked for, the latest first, and which of it is shown.

    Parameters
    ----------
    begun
        Asked for in an earlier session, the latest first.
    """

    def __init__(self, begun: Sequence[Asked] = ()) -> None:
        self._items = tuple({item.key: item for item in reversed(begun)}.values())[::-1]
        self._history: list[tuple[Asked, ...]] = []
        self._shown = self._items[0].key if self._items else None

    def __iter__(self) -> Iterator[Asked]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def shown(self) -> Asked | None:
        """The one to look at."""
        return next((item for item in self._items if item.key == self._shown), None)

    @property
    def can_undo(self) -> bool:
        """Whether something was removed."""
        return bool(self._history)

    def show(self, item: Asked) -> None:
        """Look at one; it is put on the list where it is not there yet."""
        if all(other.key != item.key for other in self._items):
            self._items = (item, *self._items)
        self._shown = item.key

    def remove(self, key: str) -> None:
        """Take one off the list; what was computed stays stored."""
        self._history.append(self._items)
        self._items = tuple(item for item in self._items if item.key != key)
        if self._shown == key:
            self._shown = self._items[0].key if self._items else None

    def undo(self) -> None:
        """Put back what was removed last, among what was asked for since."""
        if self._history:
            before = self._history.pop()
            there = {item.key for item in before}
            self._items = (*(item for item in self._items if item.key not in there), *before)


def results(asked: AskedList, *, prefix: str) -> None:
    """List what was asked for, with buttons to look at one again and to take it off the list.

    Parameters
    ----------
    asked
        The list.
    prefix
        Of the keys of the buttons.
    """
    if not len(asked) and not asked.can_undo:
        return
    shown = asked.shown
    with st.expander(f"Results ({len(asked)})", icon=":material/list:", expanded=len(asked) > 1):
        for item in asked:
            with st.container(
                horizontal=True, vertical_alignment="center", gap="small", key=f"{prefix}-item-{item.key}"
            ):
                mark = ":material/visibility: " if shown is not None and item.key == shown.key else ""
                st.markdown(f"{mark}{words.as_text(item.title)} · {words.as_text(item.how)}", width="stretch")
                st.button(
                    "Show",
                    key=f"{prefix}-show-{item.key}",
                    type="tertiary",
                    disabled=bool(mark),
                    on_click=asked.show,
                    args=(item,),
                )
                st.button(
                    "Remove",
                    key=f"{prefix}-remove-{item.key}",
                    type="tertiary",
                    icon=":material/close:",
                    help="Takes it off this list. Undo brings it back; what was computed stays stored.",
                    on_click=asked.remove,
                    args=(item.key,),
                )
        if asked.can_undo:
            st.button("Undo", key=f"{prefix}-undo", type="tertiary", icon=":material/undo:", on_click=asked.undo)
