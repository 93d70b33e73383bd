"""Named lists that two write at once: each one's changes are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar


class Item(Protocol):
    """A frozen data class with a name."""

    @property
    def name(self) -> str:
        """What the user calls it; no two of a list have the same."""


_Item = TypeVar("_Item", bound=Item)


def caught_up(
    ours: Sequence[_Item], base: Sequence[_Item], theirs: Sequence[_Item], same: Callable[[_Item, _Item], bool]
) -> tuple[_Item, ...]:
    """Join two lists that were made from one: what either added, changed or removed is so in the result.

    What one removed and the other changed stays; of two changes of one item ours counts. Two new items of one name are
    both kept, ours with a number after it.

    Parameters
    ----------
    ours, theirs
        The lists; where others changed theirs, the result has their order, then what only we have.
    base
        What both began with.
    same
        Whether two items of one name are the same.
    """
    if [item.name for item in theirs] == [item.name for item in base] and all(map(same, theirs, base)):
        return tuple(ours)
    mine, before = ({item.name: item for item in items} for items in (ours, base))

    def changed(item: _Item) -> bool:
        return not same(item, before[item.name])

    joined: list[_Item] = []
    for item in theirs:
        if item.name not in before:
            joined.append(item)
        elif item.name not in mine:
            joined += [item] if changed(item) else []
        else:
            joined.append(mine[item.name] if changed(mine[item.name]) else item)
    there = {item.name for item in theirs}
    joined += [item for item in ours if item.name in before and item.name not in there and changed(item)]
    for item in ours:
        if item.name not in before:
            twin = next((other for other in joined if other.name == item.name), None)
            if twin is None or not same(item, twin):
                joined.append(replace(item, name=_free(item.name, {other.name for other in joined})))
    return tuple(joined)


def _free(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
