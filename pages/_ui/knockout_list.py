"""Perturbations that were asked for in this session: a list whose removals can be undone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scdiva_core.engine_knockout import KnockoutSettings, ScreenSettings
from scdiva_core.tasks.perturbation import Perturbation


@dataclass(frozen=True, eq=False)
class Asked:
    """One perturbation, or one screen, of some cells.

    Parameters
    ----------
    settings
        What is done and how it is looked at.
    cells
        int64, places of the cells in the file, ascending; None for all.
    """

    settings: KnockoutSettings | ScreenSettings
    cells: NDArray[np.int64] | None

    @cached_property
    def key(self) -> str:
        """What tells it from all others."""
        places = b"" if self.cells is None else np.asarray(self.cells, np.int64).tobytes()
        plain = json.dumps(self.settings.to_dict(), sort_keys=True)
        return hashlib.sha256(plain.encode() + places).hexdigest()[:16]

    @property
    def what(self) -> str:
        """What is done: ``SPI1 and CEBPA knocked out``; of a screen how many genes and what is done to each."""
        settings = self.settings
        if isinstance(settings, KnockoutSettings):
            return Perturbation(settings.genes, settings.mode, settings.factor).title
        one = Perturbation(("GENE",), settings.mode, settings.factor).title.removeprefix("GENE ")
        return f"{len(settings.genes):,} genes, each {one}"

    @property
    def title(self) -> str:
        """What is done, and in which cells."""
        return self.what if self.cells is None else f"{self.what} in {self.settings.cells}"

    @property
    def how(self) -> str:
        """What tells it from the same perturbation looked at in another way."""
        settings = self.settings
        donors = getattr(settings, "donor_key", None)
        told = f"by {settings.group_key or 'Leiden cluster'}, at most {settings.most_cells:,} cells"
        return f"{told}, donors {donors}" if donors else told


class AskedList:
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
