"""Random decisions, undos, redos and restarts against a list of all versions kept in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scdiva_core.annotations.events import StartingLabels
from scdiva_core.annotations.log import AnnotationLog
from scdiva_core.errors import StoreError

N_OBS = 9
Cell = tuple[str, str, str]  # name, id, source

places = st.sets(st.integers(0, N_OBS - 1), min_size=1)
labels = st.sampled_from([("B cell", "CL:0000236"), ("T cell", "CL:0000084"), ("odd", "")])
starts = st.lists(st.integers(-1, 1), min_size=N_OBS, max_size=N_OBS)


class LogMachine(RuleBasedStateMachine):
    """The log beside a plain history: versions of the whole table, and where in it one stands."""

    @initialize(best=starts)
    def open(self, best: list[int]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.entries = 0
        self.reopen()
        self.begin(best)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule()
    def reopen(self) -> None:
        path = Path(self.folder.name) / "log.sqlite"
        self.log = AnnotationLog(path, data_sha256="d" * 64, n_obs=N_OBS, who="Ada")

    @rule(best=starts)
    def begin(self, best: list[int]) -> None:
        self.starting = StartingLabels("head", ("CL:0000623", ""), ("NK cell", "mine"), np.array(best, np.int32))
        self.log.begin(self.starting)
        table: list[Cell] = [
            {-1: ("unknown", "", "head"), 0: ("NK cell", "CL:0000623", "head"), 1: ("mine", "", "head")}[code]
            for code in best
        ]
        self.versions, self.now = [table], 0
        self.entries += 1

    def decide(self, chosen: set[int], action: str, label: tuple[str, str], cell: Cell | None) -> None:
        mask = np.isin(np.arange(N_OBS), list(chosen))
        self.log.label(mask, action, label_name=label[0], label_id=label[1])
        table = [cell if cell and place in chosen else old for place, old in enumerate(self.versions[self.now])]
        self.versions = [*self.versions[: self.now + 1], table]
        self.now += 1
        self.entries += 1

    @rule(chosen=places, label=labels, action=st.sampled_from(["accept", "relabel", "split"]))
    def label(self, chosen: set[int], label: tuple[str, str], action: str) -> None:
        word = {"accept": "accepted", "relabel": "relabelled", "split": "split"}[action]
        self.decide(chosen, action, label, (*label, word))

    @rule(chosen=places)
    def reject(self, chosen: set[int]) -> None:
        self.decide(chosen, "reject", ("", ""), ("unknown", "", "rejected"))

    @rule(chosen=places)
    def skip(self, chosen: set[int]) -> None:
        self.decide(chosen, "skip", ("", ""), None)

    @precondition(lambda self: self.now > 0)
    @rule()
    def undo(self) -> None:
        self.log.undo()
        self.now -= 1
        self.entries += 1

    @precondition(lambda self: self.now + 1 < len(self.versions))
    @rule()
    def redo(self) -> None:
        self.log.redo()
        self.now += 1
        self.entries += 1

    @precondition(lambda self: self.now == 0)
    @rule()
    def undo_too_much(self) -> None:
        with pytest.raises(StoreError, match="There is nothing to undo"):
            self.log.undo()

    @precondition(lambda self: self.now + 1 == len(self.versions))
    @rule()
    def redo_too_much(self) -> None:
        with pytest.raises(StoreError, match="There is nothing to redo"):
            self.log.redo()

    @invariant()
    def the_log_replays_to_the_version_at_hand(self) -> None:
        state = self.log.replay(self.starting)
        assert list(zip(state.names, state.ids, state.sources, strict=True)) == self.versions[self.now]
        assert state.can_undo == (self.now > 0)
        assert state.can_redo == (self.now + 1 < len(self.versions))
        assert len(self.log.events()) == self.entries


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
