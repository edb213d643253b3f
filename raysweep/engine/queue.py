"""The queue of stages: what may run now, what waits and why, in order of the longest remaining path. No Ray here."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum

from raysweep.planning import Plan, Stage
from raysweep.planning.summary import is_done
from raysweep.store import LedgerRecord


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    """for a snapshot of its parent"""
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """because a stage before it failed"""


ENDED = frozenset({State.DONE, State.FAILED, State.SKIPPED})


class StageQueue:
    """Hands out the stages of a plan, each once it can run, the one with the longest remaining path first.

    A stage waits for one snapshot of its parent, not for the parent's end. A failed stage is handed out again until its
    attempts are used up; then its dependents are skipped, except those whose snapshot it had already published.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Mapping[str, LedgerRecord],
        *,
        attempts: int = 1,
        retry_failed: bool = False,
        cost: Callable[[Stage], float] | None = None,
    ) -> None:
        self.stages = plan.stages
        self.attempts = attempts
        self.reasons: dict[str, str] = {}
        self.tried: Counter[str] = Counter()
        self._children = plan.children()
        self._priorities = _longest_paths(plan, self._children, cost or (lambda stage: float(stage.epochs)))
        self._snapshots = {stage: set(record.snapshots) for stage, record in ledger.items()}
        self._heap: list[tuple[float, int, str]] = []
        self._order = {stage: position for position, stage in enumerate(self.stages)}
        self._counts: Counter[State] = Counter()
        self._states: dict[str, State] = {}
        for stage in self.stages.values():
            self._enter(stage, ledger.get(stage.id), retry_failed)

    def state(self, stage: str) -> State:
        """Return where a stage stands."""
        return self._states[stage]

    @property
    def counts(self) -> Mapping[State, int]:
        """Number of stages in each state."""
        return self._counts

    @property
    def is_finished(self) -> bool:
        """Whether every stage has ended."""
        return sum(self._counts[state] for state in ENDED) == len(self.stages)

    def take(self, accept: Callable[[Stage], bool] = lambda _: True) -> Stage | None:
        """Hand out the first ready stage that ``accept`` takes; None if there is none.

        ``accept`` sees ready stages in order of priority and may refuse any of them.
        """
        refused = []
        chosen: Stage | None = None
        while self._heap:
            entry = heapq.heappop(self._heap)
            stage = self.stages[entry[2]]
            if self._states[stage.id] is not State.READY:
                continue
            if accept(stage):
                chosen = stage
                break
            refused.append(entry)
        for entry in refused:
            heapq.heappush(self._heap, entry)
        if chosen is not None:
            self.tried[chosen.id] += 1
            self._set(chosen.id, State.RUNNING)
        return chosen

    def snapshot(self, stage: str, epoch: int) -> None:
        """Note a published snapshot: stages that wait for it become ready."""
        self._snapshots.setdefault(stage, set()).add(epoch)
        for child in self._children[stage]:
            if child.parent is not None and child.parent.epoch == epoch and self._states[child.id] is State.WAITING:
                self._make_ready(child.id)

    def finished(self, stage: str) -> None:
        """Note that a stage is done: all its snapshots are published, whether or not each was noted before."""
        if self._states[stage] is State.RUNNING:
            self._set(stage, State.DONE)
            for epoch in self.stages[stage].snapshots:
                self.snapshot(stage, epoch)

    def failed(self, stage: str, reason: str) -> bool:
        """Note that an attempt failed; return whether the stage will be tried again."""
        if self._states[stage] is not State.RUNNING:
            return False
        if self.tried[stage] < self.attempts:
            self._make_ready(stage)
            return True
        self._fail(stage, reason)
        return False

    def refuse(self, stage: str, reason: str) -> None:
        """Fail a ready stage that no node can ever run."""
        self._fail(stage, reason)

    def _enter(self, stage: Stage, record: LedgerRecord | None, retry_failed: bool) -> None:
        self._states[stage.id] = State.WAITING
        self._counts[State.WAITING] += 1
        if is_done(stage, record):
            self._set(stage.id, State.DONE)
        elif record is not None and record.status == "failed" and not retry_failed:
            self._set(stage.id, State.FAILED)
            self.reasons[stage.id] = record.error or "failed in an earlier launch"
        elif stage.parent is None or stage.parent.epoch in self._snapshots.get(stage.parent.stage, ()):
            self._make_ready(stage.id)
        elif self._states[stage.parent.stage] in (State.FAILED, State.SKIPPED):
            self._skip(stage.id, stage.parent.stage)

    def _fail(self, stage: str, reason: str) -> None:
        self._set(stage, State.FAILED)
        self.reasons[stage] = reason
        self._skip_dependents(stage)

    def _skip_dependents(self, stage: str) -> None:
        for child in self._children[stage]:
            if self._states[child.id] is State.WAITING:
                self._skip(child.id, stage)
                self._skip_dependents(child.id)

    def _skip(self, stage: str, because: str) -> None:
        reason = self.reasons[because]
        if self._states[because] is State.FAILED:
            reason = f"because {self.stages[because].name} failed: {reason}"
        self._set(stage, State.SKIPPED)
        self.reasons[stage] = reason

    def _make_ready(self, stage: str) -> None:
        self._set(stage, State.READY)
        heapq.heappush(self._heap, (-self._priorities[stage], self._order[stage], stage))

    def _set(self, stage: str, state: State) -> None:
        self._counts[self._states[stage]] -= 1
        self._counts[state] += 1
        self._states[stage] = state


def _longest_paths(plan: Plan, children: Mapping[str, list[Stage]], cost: Callable[[Stage], float]) -> dict[str, float]:
    """Return, for every stage, the cost of the longest path from its start to the end of the plan.

    A dependent starts at its snapshot, so it adds its own path to the part of the parent that comes before.
    """
    longest: dict[str, float] = {}
    for stage in reversed(list(plan.stages.values())):
        own = cost(stage)
        through = [
            own * (child.parent.epoch / stage.epochs) + longest[child.id]
            for child in children[stage.id]
            if child.parent is not None
        ]
        longest[stage.id] = max([own, *through])
    return longest
