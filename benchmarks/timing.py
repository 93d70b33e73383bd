"""Timing that is fair on a busy machine: the rivals take turns, and each one's best turn counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def best_seconds(rivals: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Run each rival once to warm up, then in turn, and return the best time of each in seconds."""
    for rival in rivals:
        rival()
    best = [float("inf")] * len(rivals)
    for _ in range(turns):
        for place, rival in enumerate(rivals):
            began = time.perf_counter()
            rival()
            best[place] = min(best[place], time.perf_counter() - began)
    return best


def markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a small Markdown table under a heading."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
