"""How often a page looks at work that waits or runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pages._ui import resources
from pages._ui.jobs_panel import poll_seconds
from scdiva_core.jobs import JobQueue
from scdiva_core.jobs_claims import claim, finish


def test_work_is_looked_at_more_often_the_sooner_it_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = JobQueue(tmp_path)  # without a worker
    monkeypatch.setattr(resources, "queue", lambda: queue)
    jobs = [queue.submit("module:name", {}, title="work", owner=f"owner {number}") for number in range(5)]
    waiting = [poll_seconds([job]) for job in jobs]
    assert waiting == sorted(waiting)
    assert waiting[0] < waiting[-1]
    first = claim(queue, "cpu", "cpu")
    assert first is not None
    running = poll_seconds([first])
    assert running < waiting[0]
    assert poll_seconds([jobs[-1], first]) == running, "the newest first, and one of them runs"
    finish(queue, first.id, "done")
    assert poll_seconds([queue.get(first.id)]) is None
    assert poll_seconds([]) is None
    assert poll_seconds([queue.get(job.id) for job in reversed(jobs)]) == waiting[0], "the next one counts"
