"""Two that change one list."""

from __future__ import annotations

from dataclasses import dataclass
from operator import eq

from hypothesis import given
from hypothesis import strategies as st

from scdiva_core.data.shared_lists import caught_up


@dataclass(frozen=True)
class Thing:
    name: str
    value: int = 0


things = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2), max_size=5).map(
    lambda values: [Thing(name, value) for name, value in values.items()]
)


def joined(ours: list[Thing], base: list[Thing], theirs: list[Thing]) -> tuple[Thing, ...]:
    return caught_up(ours, base, theirs, eq)


@given(ours=things, base=things)
def test_what_nobody_else_changed_is_as_we_have_it(ours: list[Thing], base: list[Thing]) -> None:
    assert joined(ours, base, base) == tuple(ours)
    assert set(joined(base, base, ours)) == set(ours)


@given(ours=things, base=things, theirs=things)
def test_no_addition_and_no_change_is_lost_and_names_stay_different(
    ours: list[Thing], base: list[Thing], theirs: list[Thing]
) -> None:
    found = joined(ours, base, theirs)
    names = [item.name for item in found]
    assert len(names) == len(set(names))
    values = {(item.name[0], item.value) for item in found}
    for item in ours:
        assert item in base or (item.name, item.value) in values
    for item in theirs:
        changed_by_both = {item.name} <= {other.name for other in base} & {other.name for other in ours}
        assert item in base or changed_by_both or item in found


@given(ours=things, base=things, theirs=things)
def test_what_both_kept_stays_and_what_one_removed_is_gone(
    ours: list[Thing], base: list[Thing], theirs: list[Thing]
) -> None:
    found = {item.name for item in joined(ours, base, theirs)}
    for item in base:
        if item in ours and item in theirs:
            assert item.name in found
        for one, other in ((ours, theirs), (theirs, ours)):
            if item in one and item.name not in {each.name for each in other}:
                assert item.name not in found


def test_two_new_things_of_one_name_are_both_kept() -> None:
    assert joined([Thing("a", 1)], [], [Thing("a", 2)]) == (Thing("a", 2), Thing("a (2)", 1))
    assert joined([Thing("a", 1)], [], [Thing("a", 1)]) == (Thing("a", 1),)
