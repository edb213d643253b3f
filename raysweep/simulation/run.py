"""One simulated launch: a plan, a cluster, and a clock that jumps from event to event."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from raysweep.engine.admission import Admission
from raysweep.engine.dispatch import Assignment, Dispatcher
from raysweep.engine.queue import Retries, StageQueue
from raysweep.engine.requests import Requests, request_key
from raysweep.errors import RaysweepError
from raysweep.planning import Plan, Stage
from raysweep.planning.cost import Rates
from raysweep.simulation.cluster import STAYING, Cluster, Prices, Spot
from raysweep.simulation.durations import Durations
from raysweep.simulation.overheads import MEASURED, Overheads
from raysweep.store import LedgerRecord

_MOST_ATTEMPTS = 1000
"""Attempts of one stage that lost nodes may end before the simulation gives up."""


@dataclass(eq=False)
class Attempt:
    """A stage on a node, from the moment it is handed out."""

    stage: Stage
    assignment: Assignment
    from_epoch: float
    """What earlier attempts have saved; a part of an epoch where they had notice."""
    handed_s: float
    trains_from_s: float
    epoch_s: float
    lost_s: float | None = None
    """When its node was taken away, if it was."""

    @property
    def ends_s(self) -> float:
        """When its last epoch ends, unless its node is lost before."""
        return self.reaches_s(self.stage.epochs)

    def reaches_s(self, epoch: int) -> float:
        """Return when an epoch ends."""
        return self.trains_from_s + (epoch - self.from_epoch) * self.epoch_s

    def saved_at(self, now_s: float, *, had_notice: bool = False) -> float:
        """Return the last epoch that has ended, or, if it had notice, the part of one that it is in as well."""
        if now_s < self.trains_from_s or self.epoch_s <= 0:
            return self.from_epoch
        reached = self.from_epoch + (now_s - self.trains_from_s) / self.epoch_s
        return min(float(self.stage.epochs), reached if had_notice else max(self.from_epoch, math.floor(reached)))


@dataclass
class Trace:
    """What happened in a simulated launch."""

    makespan_s: float = 0.0
    """When the last stage ended."""
    trained_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Amount of each resource x seconds of training that was kept."""
    lost_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The same, of training that went with a node."""
    node_s: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds that nodes were there, by the position of their kind, all nodes of a kind together."""
    num_ended: int = 0
    num_losses: int = 0
    """Nodes that were taken away."""
    num_cold_starts: int = 0
    """Worker processes that were started."""
    driver_s: float = 0.0
    """Seconds the driver worked."""
    attempts: list[Attempt] | None = None
    """Every attempt, in the order they were handed out, if they are kept."""

    def cost(self, cluster: Cluster, prices: Prices) -> float:
        """Return what the nodes cost while they were there."""
        return sum(s / 3600 * prices.node_hour(cluster.kinds[position]) for position, s in self.node_s.items())


class SimulatedLaunch:
    """Plays a plan on a cluster; the engine's queue and dispatcher decide, by the rates that a run would know."""

    def __init__(
        self,
        plan: Plan,
        ledger: Mapping[str, LedgerRecord],
        rates: Rates,
        cluster: Cluster,
        durations: Durations,
        *,
        overheads: Overheads = MEASURED,
        spot: Spot = STAYING,
        seed: str = "0",
        keep_attempts: bool = False,
    ) -> None:
        resources = plan.study.resources
        self._now = 0.0
        self._requests = Requests(resources, rates)
        self._queue = StageQueue(
            plan,
            ledger,
            keep_stopped=plan.study.stop.pruning is not None,
            retries=Retries(resources.attempts, resources.backoff_s),
            cost=rates.stage_s,
            group_of=self._requests.group,
            clock=lambda: self._now,
        )
        self._cluster = cluster
        self._kinds = dict(cluster.nodes())
        self._up = {node: kind.resources() for node, kind in self._kinds.items()}
        everywhere = Admission(dict(self._up))
        self._dispatcher = Dispatcher(
            self._queue, self._requests, self._up, refuse=self._refuse, may_come=everywhere.can_ever_hold
        )
        self._durations = durations
        self._overheads = overheads
        self._spot = spot
        self._rng = random.Random(f"{seed}/spot")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._running: dict[str, Attempt] = {}
        self._saved: dict[str, float] = {}
        self._lost_by: Counter[str] = Counter()
        self._idle: Counter[tuple[str, object]] = Counter()
        self._num_starting = 0
        self._driver_free_s = 0.0
        self._came_s = dict.fromkeys(self._up, 0.0)
        self.trace = Trace(attempts=[] if keep_attempts else None)

    def run(self) -> Trace:
        """Play until every stage has ended.

        Raises:
            RaysweepError: if no node can hold a stage, or nodes are lost faster than an epoch takes.
        """
        for node in self._up:
            self._plan_loss(node)
        self._hand_out()
        while not self._queue.is_finished:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] <= self._now:
                heapq.heappop(self._events)[2]()
            self._hand_out()
        for node in self._up:
            self._count_time(node, self.trace.makespan_s)
        return self.trace

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), action))

    def _hand_out(self) -> None:
        """Hand out stages until none is ready, none fits, or the driver or the starting workers are busy."""
        while self._num_starting < self._overheads.starting_at_once and self._driver_free_s <= self._now:
            assignment = self._dispatcher.next(self._up)
            if assignment is None:
                self._end_idle_workers()
                return
            self._start(assignment)
        if self._driver_free_s > self._now:
            self._at(self._driver_free_s, _nothing)

    def _start(self, assignment: Assignment) -> None:
        stage, costs = assignment.stage, self._overheads
        handed_s = self._driver_free_s = self._now + costs.driver_s
        self.trace.driver_s += costs.driver_s
        worker = (assignment.node, request_key(assignment.request))
        begins_s = handed_s + costs.stage_start_s + costs.stage_setup_s
        if self._idle[worker]:
            self._idle[worker] -= 1
        else:
            begins_s += costs.worker_start_s
            self.trace.num_cold_starts += 1
            self._num_starting += 1
            self._at(handed_s + costs.process_start_s, self._process_started)
        speed = self._kinds[assignment.node].speed
        epoch_s = self._durations.epoch_s(stage) / speed
        attempt = Attempt(stage, assignment, self._saved.get(stage.id, 0), handed_s, begins_s, epoch_s)
        self._running[stage.id] = attempt
        if self.trace.attempts is not None:
            self.trace.attempts.append(attempt)
        for epoch in stage.snapshots:
            if attempt.from_epoch < epoch < stage.epochs:  # the last one comes with the end
                self._at(attempt.reaches_s(epoch), lambda epoch=epoch: self._published(attempt, epoch))  # type: ignore[misc]
        self._at(attempt.ends_s, lambda: self._ended(attempt))

    def _process_started(self) -> None:
        self._num_starting -= 1

    def _published(self, attempt: Attempt, epoch: int) -> None:
        if self._running.get(attempt.stage.id) is attempt:
            self._queue.snapshot(attempt.stage.id, epoch)

    def _ended(self, attempt: Attempt) -> None:
        stage = attempt.stage
        if self._running.get(stage.id) is not attempt:
            return  # its node was lost
        del self._running[stage.id]
        self._count_training(attempt, stage.epochs)
        self._dispatcher.ended(attempt.assignment, leaves_worker=True)
        self._idle[attempt.assignment.node, request_key(attempt.assignment.request)] += 1
        self._queue.finished(stage.id)
        self.trace.num_ended += 1
        self.trace.makespan_s = self._now

    def _end_idle_workers(self) -> None:
        """End workers that have nothing to take, all but one: Tune keeps no more while nothing is asked of it."""
        idle = +self._idle
        kept = next(iter(idle), None)
        self._idle = Counter() if kept is None else Counter({kept: 1})

    def _plan_loss(self, node: str) -> None:
        if self._kinds[node].spot and self._spot.losses_per_node_h > 0:
            after_s = self._rng.expovariate(self._spot.losses_per_node_h / 3600)
            self._at(self._now + after_s, lambda: self._lose(node))

    def _lose(self, node: str) -> None:
        """Take a node away: the epochs in flight are lost, and the driver hears of it some time later."""
        self.trace.num_losses += 1
        self._count_time(node, self._now)
        self._up = {name: there for name, there in self._up.items() if name != node}
        self._idle = Counter({worker: number for worker, number in self._idle.items() if worker[0] != node})
        for attempt in [a for a in self._running.values() if a.assignment.node == node]:
            del self._running[attempt.stage.id]
            attempt.lost_s = self._now
            saved = attempt.saved_at(self._now, had_notice=self._spot.gives_notice)
            self._count_training(attempt, saved)
            self._saved[attempt.stage.id] = saved
            self._check_progress(attempt)
            self._at(self._now + self._overheads.loss_noticed_s, lambda lost=attempt: self._noticed(lost))  # type: ignore[misc]
        name = f"{node.partition('+')[0]}+{self.trace.num_losses}"
        self._kinds[name] = self._kinds[node]
        self._at(self._now + self._spot.returns_after_s, lambda: self._join(name))

    def _noticed(self, attempt: Attempt) -> None:
        self._dispatcher.ended(attempt.assignment, leaves_worker=False)
        self._queue.interrupted(attempt.stage.id)

    def _join(self, node: str) -> None:
        self._up = {**self._up, node: self._kinds[node].resources()}
        self._came_s[node] = self._now
        self._plan_loss(node)

    def _count_time(self, node: str, until_s: float) -> None:
        self.trace.node_s[int(node.partition("-")[0])] += max(0.0, until_s - self._came_s[node])

    def _count_training(self, attempt: Attempt, until_epoch: float) -> None:
        kept_s = (until_epoch - attempt.from_epoch) * attempt.epoch_s
        lost_s = max(0.0, self._now - attempt.trains_from_s) - kept_s if until_epoch < attempt.stage.epochs else 0.0
        for name, amount in attempt.assignment.request.items():
            self.trace.trained_s[name] += amount * kept_s
            self.trace.lost_s[name] += amount * max(0.0, lost_s)

    def _check_progress(self, attempt: Attempt) -> None:
        stage = attempt.stage
        self._lost_by[stage.id] += 1
        if self._lost_by[stage.id] > _MOST_ATTEMPTS:
            raise RaysweepError(
                f"{stage.name} does not end on {self._cluster.name}: its nodes were taken away {_MOST_ATTEMPTS} times, "
                f"and an epoch of it takes {attempt.epoch_s:.0f} s. Give a lower --spot-rate, or nodes that stay."
            )

    def _refuse(self, stage: Stage, reason: str) -> None:
        raise RaysweepError(f"{self._cluster.name}: {stage.name} ({stage.kind}) cannot run: {reason}")


def _nothing() -> None:
    """Wake the driver."""
