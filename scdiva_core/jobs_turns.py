"""Whose job is next: owners take turns."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping


def in_turn(waiting: Iterable[tuple[int, str]], served: Mapping[str, float]) -> list[int]:
    """Order waiting jobs as one worker takes them when no other job comes.

    The owner who was served longest ago is next, then owners by their oldest job; within an owner the oldest job.

    Parameters
    ----------
    waiting
        Number and owner of each waiting job.
    served
        Owner -> when a job of theirs began last, in any unit; owners who are missing were never served.

    Returns
    -------
    list of int
        Numbers of the jobs, the next one first.
    """
    jobs: dict[str, deque[int]] = defaultdict(deque)
    for number, owner in sorted(waiting):
        jobs[owner].append(number)
    # (was the owner served meanwhile, when, oldest job): whoever is served now comes after all who were not.
    heap = [(0, served.get(owner, 0.0), numbers[0], owner) for owner, numbers in jobs.items()]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        *_, owner = heapq.heappop(heap)
        order.append(jobs[owner].popleft())
        if jobs[owner]:
            heapq.heappush(heap, (1, float(len(order)), jobs[owner][0], owner))
    return order
