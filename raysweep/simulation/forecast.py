"""A forecast: every cluster simulated, several times where anything is uncertain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from raysweep.engine.requests import Requests
from raysweep.planning import Plan, Stage
from raysweep.planning.cost import Rates, critical_path
from raysweep.simulation.bound import Bound, left_of, lower_bound
from raysweep.simulation.cluster import STAYING, Cluster, Prices, Spot
from raysweep.simulation.durations import USUAL, Doubt, Durations
from raysweep.simulation.overheads import MEASURED, Overheads
from raysweep.simulation.run import SimulatedLaunch, Trace
from raysweep.store import LedgerRecord
from raysweep.study import Study

_STAGES_IN_ALL = 200_000
"""Draws are as many as keep the stages simulated for one cluster below this, within the limits below."""
_MOST_DRAWS, _FEWEST_DRAWS = 20, 3


@dataclass(frozen=True)
class Range:
    """The median of draws, and what lies between them: 5th to 95th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Return the range of some values."""
        ordered = sorted(values)
        return cls(median(ordered), _quantile(ordered, 0.05), _quantile(ordered, 0.95))


@dataclass(frozen=True)
class SizeForecast:
    """What a study takes on one cluster."""

    cluster: Cluster
    unit: str
    """GPU or CPU: what utilisation counts."""
    traces: tuple[Trace, ...]
    bounds: tuple[Bound, ...]
    prices: Prices | None

    @property
    def units(self) -> float:
        """GPUs, or cores, of the cluster."""
        return self.cluster.total(self.unit)

    @property
    def makespan_s(self) -> Range:
        """Seconds from the first decision to the end of the last stage."""
        return Range.of([trace.makespan_s for trace in self.traces])

    @property
    def bound_s(self) -> Range:
        """What no schedule can beat."""
        return Range.of([bound.makespan_s for bound in self.bounds])

    @property
    def ratio(self) -> Range:
        """Makespan over bound, draw by draw."""
        pairs = zip(self.traces, self.bounds, strict=True)
        return Range.of([trace.makespan_s / bound.makespan_s if bound.makespan_s else 1.0 for trace, bound in pairs])

    @property
    def utilisation(self) -> Range:
        """Share of the GPUs' or cores' time that went into training that was kept, 0 to 1."""
        whole = [self.units * trace.makespan_s for trace in self.traces]
        pairs = zip(self.traces, whole, strict=True)
        return Range.of([trace.trained_s[self.unit] / there if there else 1.0 for trace, there in pairs])

    @property
    def cost(self) -> Range | None:
        """What the nodes cost; None without prices."""
        return (
            None if self.prices is None else Range.of([trace.cost(self.cluster, self.prices) for trace in self.traces])
        )

    @property
    def losses(self) -> Range:
        """Nodes that were taken away."""
        return Range.of([float(trace.num_losses) for trace in self.traces])

    @property
    def waits_for_path(self) -> bool:
        """Whether the longest path, not the work, is the bound: more nodes would not help."""
        return self.bounds[0].path_s >= self.bounds[0].work_s


@dataclass(frozen=True)
class Forecast:
    """What is left of a study on several clusters."""

    study: str
    num_left: int
    """Stages that are left to run."""
    num_stages: int
    num_assumed: int
    """Stages left whose rate is assumed."""
    path: tuple[tuple[Stage, int, float], ...]
    """The longest path: stage, epoch up to which the path follows it, and the seconds of that part."""
    sizes: tuple[SizeForecast, ...]
    overheads: Overheads
    spot: Spot
    doubt: Doubt
    num_draws: int
    runs_less: bool
    """Whether the study may leave out stages or end them early, which a forecast does not foresee."""
    contention: float | None = None
    """How much stages that share a GPU slow each other, where shares are compared."""


def forecast(
    plan: Plan,
    ledger: Mapping[str, LedgerRecord],
    rates: Rates,
    clusters: Sequence[Cluster],
    *,
    prices: Prices | None = None,
    overheads: Overheads = MEASURED,
    spot: Spot = STAYING,
    doubt: Doubt = USUAL,
    seed: int = 0,
    draws: int | None = None,
) -> Forecast:
    """Simulate what is left of a plan on each cluster.

    Args:
        plan: the study's plan.
        ledger: what is done.
        rates: what the store has measured, and what is assumed of the rest.
        clusters: the clusters to try.
        prices: what an hour costs, if cost is asked for.
        overheads: what stages cost beside their training.
        spot: how spot nodes are taken away.
        doubt: how far stages may be from their rates.
        seed: of the draws.
        draws: how many; None takes one where nothing is uncertain, else 3 to 20 by the size of the plan.

    Raises:
        RaysweepError: if a cluster cannot hold a stage.
    """
    what_is_left = left_of(plan, ledger)
    left = list(what_is_left.stages.values())
    is_drawn = _is_drawn(left, rates, clusters, spot, doubt)
    num_draws = draws or (_num_draws(len(left)) if is_drawn else 1)
    wanted = plan.study.resources
    unit = "GPU" if wanted.pretrain.asks_gpu or wanted.finetune.asks_gpu else "CPU"
    sizes = []
    for cluster in clusters:
        traces, bounds = [], []
        for draw in range(num_draws):
            durations = Durations(rates, doubt, f"{seed}/{draw}")
            launch = SimulatedLaunch(
                plan, ledger, rates, cluster, durations, overheads=overheads, spot=spot, seed=f"{seed}/{draw}"
            )
            traces.append(launch.run())
            requests = Requests(wanted, rates)
            bounds.append(lower_bound(what_is_left, durations.stage_s, requests, cluster))
        sizes.append(SizeForecast(cluster, unit, tuple(traces), tuple(bounds), prices))
    path = critical_path(what_is_left, rates.stage_s)
    return Forecast(
        study=plan.study.study,
        num_left=len(left),
        num_stages=len(plan.stages),
        num_assumed=sum(not rates.knows(stage) for stage in left),
        path=tuple((stage, epoch, epoch * rates.epoch_s(stage)) for stage, epoch in path),
        sizes=tuple(sizes),
        overheads=overheads,
        spot=spot,
        doubt=doubt,
        num_draws=num_draws,
        runs_less=_runs_less(plan.study, left),
    )


def _runs_less(study: Study, left: Sequence[Stage]) -> bool:
    tasks = [stage.config["task"]["settings"] for stage in left if stage.kind == "finetune"]
    stops_early = any(settings.get("training", {}).get("early_stopping") for settings in tasks)
    return study.stop.seeds == "decided" or study.stop.pruning is not None or stops_early


def _is_drawn(left: Sequence[Stage], rates: Rates, clusters: Sequence[Cluster], spot: Spot, doubt: Doubt) -> bool:
    loses = spot.losses_per_node_h > 0 and any(kind.spot for cluster in clusters for kind in cluster.kinds)
    return loses or any(doubt.applies(rates, stage) for stage in left)


def _num_draws(num_left: int) -> int:
    return max(_FEWEST_DRAWS, min(_MOST_DRAWS, _STAGES_IN_ALL // max(1, num_left)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values, linear between them."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
