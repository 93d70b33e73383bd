"""Properties that are computed once, for objects that many threads use."""

from __future__ import annotations

import functools


class cached_property(functools.cached_property):
    """`functools.cached_property` without the lock that before Python 3.12 all instances of a class share.

    With that lock one session waits for another's file, and two sessions that hold a lock each wait for ever. As from
    Python 3.12 on, threads that come at once may each compute the value: the last one's is kept.
    """

    def __get__(self, instance: object, owner: type | None = None) -> object:
        """Compute the value on first use; then it is an attribute like any other."""
        if instance is None:
            return self
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value
