"""What no schedule can beat: the longest path, and the work divided by what there is to work with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from raysweep.engine.requests import Requests
from raysweep.planning import Plan, Stage
from raysweep.planning.cost import longest_paths
from raysweep.simulation.cluster import Cluster


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


def lower_bound(
    plan: Plan, left: Collection[str], stage_s: Callable[[Stage], float], requests: Requests, cluster: Cluster
) -> Bound:
    """Return the bounds of running the stages that are left on a cluster that loses no node."""
    fastest = max(kind.speed for kind in cluster.kinds)
    work: defaultdict[str, float] = defaultdict(float)
    for stage in left:
        seconds = stage_s(plan.stages[stage])
        for name, amount in requests.request(plan.stages[stage]).items():
            work[name] += amount * seconds
    capacity = {
        name: sum(kind.count * kind.speed * kind.resources().get(name, 0.0) for kind in cluster.kinds) for name in work
    }
    times = {name: work[name] / capacity[name] for name in work if capacity[name] > 0}
    scarcest = max(times, key=lambda name: times[name], default="CPU")
    paths = longest_paths(plan, stage_s, skip=lambda stage: stage.id not in left)
    return Bound(max(paths.values(), default=0.0) / fastest, times.get(scarcest, 0.0), scarcest)
