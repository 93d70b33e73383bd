"""Names of a file's saved embeddings: a list whose changes can be undone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import eq

from scdiva_core.data.shared_lists import caught_up
from scdiva_core.errors import DataError

_LONGEST_NAME = 40
# Pictures of the page, and what their maps are called in files.
_TAKEN = ("ScDiVa", "PCA", "Side by side", "umap scdiva", "umap pca")
_OF_FILE = "in the file:"


@dataclass(frozen=True)
class Named:
    """A saved embedding by name.

    Parameters
    ----------
    name
        As the user calls it.
    key
        Of `scdiva_core.engine_saved.saved_embedding`.
    """

    name: str
    key: str


def slug(name: str) -> str:
    """Name of a column or of an entry of ``obsm``: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower()


class SavedList:
    """Saved embeddings of one file, in the order they were saved, with unlimited undo.

    Parameters
    ----------
    kept
        Those of the project.
    of_file
        Embeddings that the file itself brings along, which none may replace in a copy of it.
    """

    def __init__(self, kept: Sequence[Named] = (), of_file: Sequence[str] = ()) -> None:
        self._items, self._of_file = tuple(kept), tuple(of_file)
        self._base = self._items
        self._history: list[tuple[Named, ...]] = []

    def __iter__(self) -> Iterator[Named]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._history)

    def add(self, name: str, key: str) -> None:
        """Add one.

        Raises
        ------
        DataError
            The name is empty, too long or taken.
        """
        self._change((*self._items, Named(self._free(name), key)))

    def rename(self, name: str, new_name: str) -> None:
        """Give one another name.

        Raises
        ------
        DataError
            The new name is empty, too long or taken.
        """
        if new_name.strip() == name:
            return
        free = self._free(new_name, but=name)
        self._change(tuple(replace(item, name=free) if item.name == name else item for item in self._items))

    def remove(self, name: str) -> None:
        """Take one off the list; its vectors stay stored, so that it can come back."""
        self._change(tuple(item for item in self._items if item.name != name))

    def undo(self) -> None:
        """Take the last change back; nothing happens when there is none."""
        if self._history:
            self._items = self._history.pop()

    def catch_up(self, stored: Sequence[Named]) -> None:
        """Take in what others have stored since this was made or caught up last; undo leaves that alone."""
        self._history = [caught_up(items, self._base, stored, eq) for items in self._history]
        self._items = self._base = caught_up(self._items, self._base, stored, eq)

    def _change(self, items: tuple[Named, ...]) -> None:
        self._history.append(self._items)
        self._items = items

    def _free(self, name: str, but: str = "") -> str:
        name = " ".join(name.split())
        if not slug(name):
            msg = f"The name {name!r} has no letter or digit." if name else "The name is empty."
            raise DataError(msg, "Type a name for the embedding, for example: by donor.")
        if len(name) > _LONGEST_NAME:
            msg = f"The name has {len(name)} characters."
            raise DataError(msg, f"Use at most {_LONGEST_NAME}.")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            msg = f"The name {name!r} holds a control character."
            raise DataError(msg, "Use letters, digits and punctuation.")
        taken = [*_TAKEN, *self._of_file, *(item.name for item in self._items if item.name != but)]
        alike = next((other for other in taken if slug(other) == slug(name)), None)
        if alike is not None or name.casefold().startswith(_OF_FILE):
            msg = f"There is a picture {alike!r} already." if alike else f"The name {name!r} means a map of the file."
            raise DataError(msg, "Choose another name.")
        return name
