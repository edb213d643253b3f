"""What no schedule can beat: the longest path, and the work divided by what there is to work with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from raysweep.engine.queue import ENDED, StageQueue
from raysweep.engine.requests import Requests
from raysweep.planning import Plan, Stage
from raysweep.planning.cost import longest_paths
from raysweep.simulation.cluster import Cluster
from raysweep.store import LedgerRecord


@dataclass(frozen=True)
class Bound:
    """Lower bounds of a makespan, in seconds of training: starts of stages are not counted."""

    path_s: float
    """The longest path on the fastest nodes."""
    work_s: float
    """Work over capacity, of the resource that is scarcest."""
    scarcest: str
    """That resource."""

    @property
    def makespan_s(self) -> float:
        """The larger of the two."""
        return max(self.path_s, self.work_s)


def left_of(plan: Plan, ledger: Mapping[str, LedgerRecord]) -> Plan:
    """Return the stages that a launch would run: neither done, nor failed or stopped for good, nor behind a failure.

    A stage whose snapshot is published already starts from nothing there: it waits for nobody.
    """
    queue = StageQueue(plan, ledger, keep_stopped=plan.study.stop.pruning is not None)
    left: dict[str, Stage] = {}
    for stage in plan.stages.values():
        if queue.state(stage.id) in ENDED:
            continue
        parent = stage.parent
        if parent is not None and parent.stage in ledger and parent.epoch in ledger[parent.stage].snapshots:
            parent = None
        left[stage.id] = stage if parent is stage.parent else replace(stage, parent=parent)
    return Plan(plan.study, (), left)


def lower_bound(left: Plan, stage_s: Callable[[Stage], float], requests: Requests, cluster: Cluster) -> Bound:
    """Return the bounds of running the stages that are left on a cluster that loses no node."""
    fastest = max(kind.speed for kind in cluster.kinds)
    work: defaultdict[str, float] = defaultdict(float)
    for stage in left.stages.values():
        seconds = stage_s(stage)
        for name, amount in requests.request(stage).items():
            work[name] += amount * seconds
    capacity = {
        name: sum(kind.count * kind.speed * kind.resources().get(name, 0.0) for kind in cluster.kinds) for name in work
    }
    times = {name: work[name] / capacity[name] for name in work if capacity[name] > 0}
    scarcest = max(times, key=lambda name: (times[name], name == "GPU"), default="CPU")
    paths = longest_paths(left, stage_s)
    return Bound(max(paths.values(), default=0.0) / fastest, times.get(scarcest, 0.0), scarcest)
