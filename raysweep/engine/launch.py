"""One launch of a plan, as both executors see it: the queue, what stages ask for, and what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysweep.engine.metrics import Metrics, NoMetrics
from raysweep.engine.monitor import Monitor
from raysweep.engine.pruning import Pruner
from raysweep.engine.queue import Retries, StageQueue, State
from raysweep.engine.requests import Requests
from raysweep.engine.seed_gate import Change, SeedGate
from raysweep.engine.trackers import Tracker
from raysweep.planning import Plan, Stage
from raysweep.planning.cost import Rates
from raysweep.planning.model import cells_by_stage
from raysweep.stages.failure import Failure, record_attempt, record_failure, record_stop
from raysweep.stages.log import stage_context
from raysweep.stages.progress import Progress
from raysweep.store import LedgerRecord, Store
from raysweep.study import StageResources


@dataclass(frozen=True)
class Outcome:
    """How a launch ended; stage names by what became of them."""

    done: int
    """Stages that this launch finished."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""
    wall_s: float = 0.0
    remaining: int = 0
    """Stages of the plan that are not done, for whatever reason."""
    stopped: int = 0
    """Stages that the study's scheduler ended before their last epoch."""

    @property
    def is_complete(self) -> bool:
        """Whether every stage of the plan is done, or was stopped because the study says so."""
        return self.remaining == self.stopped


class Launch:
    """The state of one launch."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        ledger: Mapping[str, LedgerRecord] | None = None,
        rates: Rates | None = None,
        retry_failed: bool = False,
        trackers: tuple[Tracker, ...] = (),
        scores: Mapping[str, float] | None = None,
    ) -> None:
        wanted, stop = plan.study.resources, plan.study.stop
        self.plan = plan
        self.store = store
        self.trackers = trackers
        self.metrics: Metrics = NoMetrics()
        """Where figures go; an executor that can publish them sets it."""
        self.hung_after_s = wanted.hung_after_s
        rates = rates or Rates()
        self.requests = Requests(wanted, rates)
        self.cells = cells_by_stage(plan.cells)
        """Names of the cells that each stage serves."""
        self._children = plan.children()
        self._gate = SeedGate(plan, stop, scores or {}) if stop.seeds == "decided" else None
        self._pruner = Pruner(stop.pruning) if stop.pruning is not None else None
        self._scores: dict[str, float | None] = {}
        self.queue = StageQueue(
            plan,
            store.ledger() if ledger is None else ledger,
            held=self._held(self._gate.held) if self._gate is not None else (),
            keep_stopped=stop.pruning is not None,
            retries=Retries(wanted.attempts, wanted.backoff_s),
            retry_failed=retry_failed,
            cost=rates.stage_s,
            group_of=self.requests.group,
        )
        self.monitor = Monitor(self.queue, rates)
        self._done_before = self.queue.counts.get(State.DONE, 0)
        self._begin = time.monotonic()
        if self._gate is not None:
            self._follow_gate(self._gate.start())

    def resources(self, stage: Stage) -> StageResources:
        """Return what a stage asks of a node."""
        return self.requests.resources(stage)

    def request(self, stage: Stage) -> Mapping[str, float]:
        """Return what a stage asks for now in Ray's words."""
        return self.requests.request(stage)

    def threads(self, stage: Stage) -> int:
        """Return the CPU threads of a stage: one per core asked for, at least one."""
        return max(1, int(self.resources(stage).cpus))

    def ranks(self, stage: Stage) -> int:
        """Return the processes that train a stage together."""
        return self.resources(stage).num_ranks

    def attempt(self, stage: Stage) -> int:
        """Return the number of a stage's running attempt, from 1."""
        return self.queue.tried[stage.id]

    def log_context(self, stage: Stage) -> dict[str, Any]:
        """Return what every log line of a stage's attempt carries."""
        return stage_context(stage, self.cells.get(stage.id, ()), self.attempt(stage))

    def started(self, stage: Stage) -> None:
        """Note that an attempt begins."""
        self.monitor.started(stage)
        self.metrics.started(stage, self.queue.waited_s(stage.id))
        for tracker in self.trackers:
            tracker.started(stage)

    def progress(self, stage: Stage, progress: Progress) -> None:
        """Note what a running stage reports."""
        for epoch in progress.snapshots:
            self.queue.snapshot(stage.id, epoch)
        self.metrics.snapshots(len(progress.snapshots))
        self.requests.shares.measured(stage, progress.gpu_peak_bytes, progress.gpu_total_bytes)
        self.monitor.progress(stage, progress.epoch)
        self._scores[stage.id] = progress.score
        if progress.metrics:
            for tracker in self.trackers:
                tracker.epoch(stage, progress.epoch, progress.metrics)

    def prunes(self, stage: Stage, progress: Progress) -> bool:
        """Return whether the study's scheduler stops a stage after what it reports."""
        return self._pruner is not None and self._pruner.stops(stage, progress.epoch, progress.metrics)

    def finished(self, stage: Stage) -> None:
        """Note that a stage is done."""
        self.queue.finished(stage.id)
        self._ended(stage, "done")
        self._ask_gate(stage)

    def interrupted(self, stage: Stage) -> None:
        """Note that an attempt was ended on purpose; it counts for nothing."""
        self.queue.interrupted(stage.id)
        self._ended(stage, "interrupted")

    def stopped(self, stage: Stage, progress: Progress) -> None:
        """Note that the study's scheduler has ended a stage after what it reported last."""
        metric = stage.config["task"]["settings"]["metric"]
        record_stop(stage, self.store, progress.epoch, progress.metrics.get(f"val/{metric}"), self.attempt(stage))
        self.queue.stopped(stage.id)
        self._ended(stage, "stopped")
        self._ask_gate(stage)

    def failed(self, stage: Stage, failure: Failure, gpu_share: float = 0.0) -> None:
        """Note that an attempt has failed: record it, and try again, or fail the stage for good.

        A lost node, a preemption, or too small a share of a GPU is no fault of the stage: such an attempt does not
        count.
        """
        if self.queue.state(stage.id) is not State.RUNNING:
            return
        attempt = self.attempt(stage)
        too_small = failure.kind == "gpu-memory" and self.requests.shares.ran_out(stage, gpu_share)
        counted = not (failure.kind in ("node", "preempted") or too_small)
        record_attempt(stage, self.store, failure, attempt, counted=counted)
        if counted:
            again = self.queue.failed(stage.id, failure.reason)
        else:
            self.queue.interrupted(stage.id)
            again = True
        if not again:
            record_failure(stage, self.store, failure, attempt)
        self.monitor.failed(stage, failure.reason, again=again)
        self._ended(stage, "failed")
        if not again:
            self._ask_gate(stage)

    def refused(self, stage: Stage, reason: str) -> None:
        """Fail a ready stage that no node can ever run."""
        self.queue.refuse(stage.id, reason)
        failure = Failure(reason, "resources")
        record_attempt(stage, self.store, failure, 0)
        record_failure(stage, self.store, failure, 0)
        self.monitor.failed(stage, reason, again=False)

    def outcome(self) -> Outcome:
        """Sum up a launch that has ended."""
        queue = self.queue
        done = queue.counts.get(State.DONE, 0)
        return Outcome(
            done=done - self._done_before,
            failed=self._reasons(State.FAILED),
            skipped=self._reasons(State.SKIPPED),
            wall_s=time.monotonic() - self._begin,
            remaining=len(queue.stages) - done,
            stopped=queue.counts.get(State.STOPPED, 0),
        )

    def not_needed(self) -> dict[str, str]:
        """Return the stages that the study does without, and why."""
        return {name: why for name, why in self.queue.reasons.items() if self.queue.state(name) is State.STOPPED}

    def _ask_gate(self, ended: Stage) -> None:
        if self._gate is None:
            return
        self._follow_gate(self._gate.ended(ended.id, self._scores.get(ended.id)))
        for child in self._children[ended.id]:  # those of a failed parent end with it
            if self.queue.state(child.id) is State.SKIPPED:
                self._ask_gate(child)

    def _follow_gate(self, change: Change) -> None:
        for name in change.released:
            self._release(self.plan.stages[name])
        for name, reason in change.dropped.items():
            self.queue.drop(name, reason)
        for stage in reversed(list(self.plan.stages.values()) if change.dropped else []):
            children = self._children[stage.id]
            if children and all(self.queue.state(child.id) is State.STOPPED for child in children):
                self.queue.drop(stage.id, "not needed: nothing that starts from it is")

    def _release(self, stage: Stage) -> None:
        if stage.parent is not None:
            self._release(self.plan.stages[stage.parent.stage])
        self.queue.release(stage.id)

    def _held(self, finetunes: frozenset[str]) -> frozenset[str]:
        """Return held fine-tunings with the pretrainings that only they start from."""
        held = set(finetunes)
        for stage in reversed(list(self.plan.stages.values())):
            children = self._children[stage.id]
            if children and all(child.id in held for child in children):
                held.add(stage.id)
        return frozenset(held)

    def _reasons(self, state: State) -> dict[str, str]:
        queue = self.queue
        return {
            queue.stages[stage].name: reason for stage, reason in queue.reasons.items() if queue.state(stage) is state
        }

    def _ended(self, stage: Stage, how: str) -> None:
        self.monitor.ended(stage)
        self.metrics.ended(stage, how)
        for tracker in self.trackers:
            tracker.ended(stage, how)
