"""Simulated launches against real ones."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import ray

from raysweep.engine.launch import Launch
from raysweep.engine.requests import Requests
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import Plan
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation.bound import lower_bound
from raysweep.simulation.cluster import Cluster, NodeKind
from raysweep.simulation.durations import CERTAIN, Durations
from raysweep.simulation.overheads import Overheads
from raysweep.simulation.run import SimulatedLaunch
from raysweep.store import Store
from tests.benchmarks.makespan import mixed_plan
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.ray_cluster import ray_cluster, temporary_store
from tests.fake_stages import RUNNER, Event, Fake, events, fake_plan

DESCRIPTION = "Makespans that the simulation predicts against those of Ray Tune, on two and four slots."


def run(quick: bool = False) -> Measurement:
    """On each cluster, measure what stages cost beside their work, then predict plans that were not measured."""
    rows, costs = [], {}
    for slots in (2, 4):
        with ray_cluster(slots):
            costs[slots] = overheads = _measured_overheads(12 if quick else 100)
            for name, fakes, resources in _plans(quick):
                rows.append(_compare(name, fakes, resources, slots, overheads))
    ratios = [row["predicted / real"] for row in rows]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    return Measurement(
        rows,
        f"Of {len(rows)} runs the simulation is within {100 * max(abs(ratio - 1) for ratio in ratios):.0f} % of the "
        f"real makespan (worst: {worst:.2f} of it), on two and on four slots.",
        {
            "makespan": "from the first stage's begin to the last one's end; wall time",
            "measured before each cluster's runs": "; ".join(
                f"{slots} slots: worker {found.worker_start_s:.1f} s, stage {1000 * found.stage_start_s:.0f} ms, "
                f"driver {1000 * found.driver_s:.0f} ms"
                for slots, found in costs.items()
            ),
            "rates": "the seconds that stages sleep; the queue of either side knows them",
        },
    )


def _plans(quick: bool) -> list[tuple[str, list[Fake], Mapping[str, Any]]]:
    scale = 0.1 if quick else 1.0
    short = [Fake(f"short {number}", epochs=1, epoch_s=scale * (0.2 + number % 5 / 10)) for number in range(80)]
    wide = mixed_plan(num_chains=1 if quick else 2, epoch_s=0.8 * scale)
    return [
        ("chains with snapshots", mixed_plan(num_chains=1 if quick else 3, epoch_s=0.8 * scale), {}),
        ("pretraining on two cores", wide, {"pretrain": {"cpus": 2}}),
        ("many short stages", short, {}),
        ("one long pretraining", _one_long(scale), {}),
    ]


def _one_long(scale: float) -> list[Fake]:
    """Return a pretraining that everything waits for: slots are idle at first, and workers come late."""
    pretraining = Fake("pretraining", epochs=20, epoch_s=scale, kind="pretrain")
    return [
        pretraining,
        *(
            Fake(f"{epoch}, {number}", parent=("pretraining", epoch), epochs=4, epoch_s=scale)
            for epoch in (4, 12, 20)
            for number in range(3)
        ),
    ]


def _compare(
    name: str, fakes: Sequence[Fake], resources: Mapping[str, Any], slots: int, overheads: Overheads
) -> dict[str, Any]:
    plan = _with_shapes(fake_plan(fakes, resources))
    rates = Rates({stage.shape: Measured(stage.config["fake"]["epoch_s"]) for stage in plan.stages.values()})
    cluster = Cluster("slots", (NodeKind(cpus=slots),))
    with temporary_store() as store:
        log = _run(plan, store, rates)
    durations = Durations(rates, CERTAIN, "0")
    launch = SimulatedLaunch(plan, {}, rates, cluster, durations, overheads=overheads, keep_attempts=True)
    trace = launch.run()
    assert trace.attempts is not None  # they are kept
    predicted_s = trace.makespan_s - min(attempt.trains_from_s for attempt in trace.attempts)
    real_s = log[-1].time_s - log[0].time_s
    bound = lower_bound(plan, rates.stage_s, Requests(plan.study.resources, rates), cluster)
    return {
        "plan": name,
        "slots": slots,
        "stages": len(fakes),
        "bound s": bound.makespan_s,
        "predicted s": predicted_s,
        "real s": real_s,
        "predicted / real": predicted_s / real_s,
        "bound / real": bound.makespan_s / real_s,
    }


def _measured_overheads(num_stages: int) -> Overheads:
    """Return what stages that do nothing cost on this cluster: a worker's start, a stage's, the driver's time."""
    start_s = median(_worker_start_s() for _ in range(3))
    with temporary_store() as store:
        begin_cpu_s = time.process_time()
        log = _run(fake_plan([Fake(f"nothing {number}") for number in range(num_stages)]), store, Rates())
        driver_s = (time.process_time() - begin_cpu_s) / num_stages
    return Overheads(
        process_start_s=start_s,
        worker_start_s=start_s,
        stage_start_s=max(0.0, _turnover_s(log) - driver_s),
        stage_setup_s=0.0,
        driver_s=driver_s,
    )


def _worker_start_s() -> float:
    """Return the seconds until a process of its own has imported what a worker imports."""

    class Worker:
        def is_up(self) -> bool:
            import raysweep.engine.trainable

            return bool(raysweep.engine.trainable)

    begin_s = time.monotonic()
    worker = ray.remote(num_cpus=1)(Worker).remote()
    ray.get(worker.is_up.remote())
    start_s = time.monotonic() - begin_s
    ray.kill(worker)
    return start_s


def _turnover_s(log: Sequence[Event]) -> float:
    """Return the median seconds from one begin to the next in the same worker, of stages that do nothing."""
    begun: dict[int, list[float]] = defaultdict(list)
    for event in log:
        if event.what == "begin":
            begun[event.pid].append(event.time_s)
    return median(after - before for times in begun.values() for before, after in pairwise(times))


def _run(plan: Plan, store: Store, rates: Rates) -> list[Event]:
    outcome = TuneExecutor(runner=RUNNER).run(Launch(plan, store, rates=rates))
    if not outcome.is_complete:
        raise RuntimeError(f"stages failed: {outcome.failed}")
    return events(store)


def _with_shapes(plan: Plan) -> Plan:
    """Give every stage a shape of its own, so that each has its own rate."""
    return Plan(plan.study, plan.cells, {key: replace(stage, shape=key) for key, stage in plan.stages.items()})
