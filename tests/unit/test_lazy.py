"""Properties that are computed once."""

from __future__ import annotations

import threading

import pytest

from scdiva_core.lazy import cached_property


class Slow:
    """Computes when it may; `count` says how often it began."""

    def __init__(self) -> None:
        self.may, self.begun, self.count = threading.Event(), threading.Event(), 0

    @cached_property
    def value(self) -> list[int]:
        self.count += 1
        self.begun.set()
        assert self.may.wait(60)
        return [self.count]


def test_it_is_computed_once_and_can_be_forgotten() -> None:
    one = Slow()
    one.may.set()
    first = one.value
    assert one.value is first
    del one.value
    assert one.value == [2]
    assert isinstance(Slow.value, cached_property)


def test_what_raises_is_computed_anew() -> None:
    class Failing:
        tries = 0

        @cached_property
        def value(self) -> int:
            self.tries += 1
            return 1 // (self.tries - 1)

    one = Failing()
    with pytest.raises(ZeroDivisionError):
        _ = one.value
    assert one.value == 1


def test_an_object_does_not_wait_for_another_of_its_class() -> None:
    slow, quick = Slow(), Slow()
    quick.may.set()
    computing = threading.Thread(target=lambda: slow.value)
    computing.start()
    assert slow.begun.wait(60)
    asking = threading.Thread(target=lambda: quick.value, daemon=True)
    asking.start()
    asking.join(60)
    answered = not asking.is_alive()
    slow.may.set()
    computing.join()
    assert answered
    assert quick.value == slow.value == [1]
