"""The queue of stages: what may run now, what waits and why, in order of the longest remaining path. No Ray here."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from raysweep.planning import Plan, Stage
from raysweep.planning.cost import longest_paths
from raysweep.planning.model import is_done
from raysweep.store import LedgerRecord


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    """for a snapshot of its parent"""
    READY = "ready"
    DELAYED = "delayed"
    """after a failed attempt, until its back-off has passed"""
    RUNNING = "running"
    DONE = "done"
    HELD = "held"
    """until a comparison of the study needs it"""
    STOPPED = "stopped"
    """by the study's scheduler before its last epoch, or not needed at all"""
    FAILED = "failed"
    SKIPPED = "skipped"
    """because a stage before it failed"""


ENDED = frozenset({State.DONE, State.STOPPED, State.FAILED, State.SKIPPED})

_LONGEST_BACKOFF_S = 600.0


@dataclass(frozen=True)
class Retries:
    """How often a stage is tried, and how long it waits before it is tried again."""

    attempts: int = 1
    backoff_s: float = 0.0
    """Doubles with every failure, up to ten minutes."""

    def delay_s(self, failures: int) -> float:
        """Return the seconds to wait after so many failures."""
        return min(self.backoff_s * 2.0 ** max(failures - 1, 0), max(self.backoff_s, _LONGEST_BACKOFF_S))


def _one_group(_: Stage) -> Hashable:
    return None


class StageQueue:
    """Hands out the stages of a plan, each once it can run, the one with the longest remaining path first.

    A stage waits for one snapshot of its parent, not for the parent's end. A failed stage is handed out again until its
    attempts are used up; then its dependents are skipped, except those whose snapshot it had already published.

    Stages of one group ask for the same resources: if the first of them does not fit, none does, so a decision costs
    as many looks as there are groups, however many stages are ready.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Mapping[str, LedgerRecord],
        *,
        retries: Retries = Retries(),
        retry_failed: bool = False,
        cost: Callable[[Stage], float] = lambda stage: float(stage.epochs),
        group_of: Callable[[Stage], Hashable] = _one_group,
        held: Container[str] = (),
        keep_stopped: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stages = plan.stages
        self.retries = retries
        self.reasons: dict[str, str] = {}
        self.tried: Counter[str] = Counter()
        """Attempts of each stage in this launch that count, the running one included."""
        self.is_draining = False
        self._children = plan.children()
        self._group_of = group_of
        self._clock = clock
        self._snapshots = {stage: set(record.snapshots) for stage, record in ledger.items()}
        self._order = {stage: position for position, stage in enumerate(self.stages)}
        self._ready: dict[Hashable, list[tuple[float, int, str]]] = {}
        self._delayed: list[tuple[float, int, str]] = []
        self._passed_over: dict[str, float] = {}
        self._ready_since: dict[str, float] = {}
        self._counts: Counter[State] = Counter()
        self._states: dict[str, State] = {}
        self._priorities = longest_paths(plan, cost, skip=lambda stage: is_done(stage, ledger.get(stage.id)))
        for stage in self.stages.values():
            record = ledger.get(stage.id)
            if record is not None and record.status == "failed" and retry_failed:
                record = None
            if record is not None and record.status == "stopped" and not keep_stopped:
                record = None
            self._enter(stage, record, is_held=stage.id in held)

    def state(self, stage: str) -> State:
        """Return where a stage stands."""
        return self._states[stage]

    def priority(self, stage: str) -> float:
        """Return the cost of the longest path from a stage's start to the end of the plan."""
        return self._priorities[stage]

    @property
    def counts(self) -> Mapping[State, int]:
        """Number of stages in each state."""
        return self._counts

    @property
    def num_left(self) -> int:
        """Stages that have not ended."""
        return len(self.stages) - sum(self._counts[state] for state in ENDED)

    @property
    def is_finished(self) -> bool:
        """Whether every stage has ended, or, while draining, none runs any more."""
        if self.is_draining:
            return self._counts[State.RUNNING] == 0
        return self.num_left == 0

    def drain(self) -> None:
        """Hand out nothing any more."""
        self.is_draining = True

    def take(
        self,
        accept: Callable[[Stage], bool] = lambda _: True,
        bonus: Callable[[Stage], float] = lambda _: 0.0,
        patience_s: float = 0.0,
    ) -> Stage | None:
        """Hand out the first ready stage that ``accept`` takes; None if there is none.

        Args:
            accept: sees the first ready stage of every group, in order of priority, and may refuse it for its group.
            bonus: added to a stage's priority, in the unit of the costs: what running it now would save.
            patience_s: how long the stage of the highest priority may be passed over for others' bonus.
        """
        if self.is_draining:
            return None
        self._end_delays()
        heads = [head for head in map(self._head, list(self._ready)) if head is not None]
        heads.sort(key=lambda stage: (-self._priorities[stage.id], self._order[stage.id]))
        if heads and self._clock() - self._passed_over.get(heads[0].id, self._clock()) <= patience_s:
            first = heads[0].id
            heads.sort(key=lambda stage: -self._priorities[stage.id] - bonus(stage))
            if heads[0].id != first:
                self._passed_over.setdefault(first, self._clock())
        for head in heads:
            group = self._group_of(head)
            stage: Stage | None = head
            while stage is not None:
                if accept(stage):
                    heapq.heappop(self._ready[group])
                    self.tried[stage.id] += 1
                    self._set(stage.id, State.RUNNING)
                    return stage
                # A refusal is the group's, unless the stage itself is out: no node can ever run it.
                stage = self._head(group) if self._states[stage.id] is not State.READY else None
        return None

    def ready(self, limit: int) -> list[Stage]:
        """Return ready stages, at most so many of each group, in no particular order."""
        found = []
        for heap in self._ready.values():
            ids = (entry[2] for entry in heap[:limit])
            found += [self.stages[stage] for stage in ids if self._states[stage] is State.READY]
        return found

    def waited_s(self, stage: str) -> float:
        """Return the seconds since a stage was ready last."""
        return self._clock() - self._ready_since.get(stage, self._clock())

    def wakes_in_s(self) -> float | None:
        """Return the seconds until the next delayed stage is ready; None if none is delayed."""
        return max(0.0, self._delayed[0][0] - self._clock()) if self._delayed else None

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
        if self.tried[stage] >= self.retries.attempts:
            self._fail(stage, reason)
            return False
        delay_s = self.retries.delay_s(self.tried[stage])
        if delay_s:
            self._set(stage, State.DELAYED)
            heapq.heappush(self._delayed, (self._clock() + delay_s, self._order[stage], stage))
        else:
            self._make_ready(stage)
        return True

    def interrupted(self, stage: str) -> None:
        """Note that an attempt ended through no fault of the stage: it is ready again and has lost no attempt."""
        if self._states[stage] is State.RUNNING:
            self.tried[stage] -= 1
            self._make_ready(stage)

    def stopped(self, stage: str) -> None:
        """Note that the study's scheduler has ended a stage before its last epoch."""
        if self._states[stage] is State.RUNNING:
            self._set(stage, State.STOPPED)

    def release(self, stage: str) -> None:
        """Let a held stage run as any other."""
        if self._states[stage] is State.HELD:
            self._set(stage, State.WAITING)
            self._settle(self.stages[stage])

    def drop(self, stage: str, reason: str) -> None:
        """End a held stage that nothing needs."""
        if self._states[stage] is State.HELD:
            self._set(stage, State.STOPPED)
            self.reasons[stage] = reason

    def refuse(self, stage: str, reason: str) -> None:
        """Fail a ready stage that no node can ever run."""
        self._fail(stage, reason)

    def _enter(self, stage: Stage, record: LedgerRecord | None, *, is_held: bool) -> None:
        self._states[stage.id] = State.WAITING
        self._counts[State.WAITING] += 1
        if is_done(stage, record):
            self._set(stage.id, State.DONE)
        elif record is not None and record.status == "failed":
            self._set(stage.id, State.FAILED)
            self.reasons[stage.id] = record.error or "failed in an earlier launch"
        elif record is not None and record.status == "stopped":
            self._set(stage.id, State.STOPPED)
        elif is_held:
            self._set(stage.id, State.HELD)
        else:
            self._settle(stage)

    def _settle(self, stage: Stage) -> None:
        """Find out whether a waiting stage can run, waits on, or is skipped."""
        if stage.parent is None or stage.parent.epoch in self._snapshots.get(stage.parent.stage, ()):
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
        self._ready_since[stage] = self._clock()
        heap = self._ready.setdefault(self._group_of(self.stages[stage]), [])
        heapq.heappush(heap, (-self._priorities[stage], self._order[stage], stage))

    def _head(self, group: Hashable) -> Stage | None:
        """Return the first ready stage of a group, dropping entries of stages that are ready no more."""
        heap = self._ready.get(group, [])
        while heap and self._states[heap[0][2]] is not State.READY:
            heapq.heappop(heap)
        return self.stages[heap[0][2]] if heap else None

    def _end_delays(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._clock():
            _, _, stage = heapq.heappop(self._delayed)
            if self._states[stage] is State.DELAYED:
                self._make_ready(stage)

    def _set(self, stage: str, state: State) -> None:
        self._counts[self._states[stage]] -= 1
        self._counts[state] += 1
        self._states[stage] = state
