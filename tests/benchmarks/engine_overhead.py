"""What the engine costs per stage."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.util import ActorPool

from raysweep.planning.model import Plan, stage_from_json, stage_to_json
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster, run_plan, temporary_store
from tests.fake_stages import Fake, events, fake_plan, run_fake_stage

DESCRIPTION = "Cost of a stage that does nothing: raysweep on Ray Tune, a plain Tune grid, an actor pool on Ray Core."

_OURS, _PLAIN, _POOL = (
    "raysweep: queue and executor on Tune",
    "Tune grid of a function trainable",
    "actor pool on Ray Core",
)


def run(quick: bool = False) -> Measurement:
    """Run the same fake stages in every way; the plain grid is short, for each of its trials takes seconds."""
    num_stages, num_plain = (40, 4) if quick else (500, 30)
    with ray_cluster():
        pool_before = _timed(_POOL, _run_pool, num_stages)
        first = _timed(_OURS, run_plan, num_stages)
        plain = _timed(_PLAIN, _run_plain, num_plain)
        second = _timed(_OURS, run_plan, num_stages)
        pool_after = _timed(_POOL, _run_pool, num_stages)
    rows = [pool_before, first, plain, second, pool_after]
    ours = (first["s per stage, in all"] + second["s per stage, in all"]) / 2
    warm = (first["s per stage, warm"] + second["s per stage, warm"]) / 2
    floor = (pool_before["s per stage, warm"] + pool_after["s per stage, warm"]) / 2
    ratio = plain["s per stage, in all"] / ours
    return Measurement(
        rows,
        f"A stage costs {1000 * warm:.0f} ms once a worker is up ({1000 * floor:.1f} ms in a bare actor pool) and "
        f"{1000 * ours:.0f} ms with the start of the workers; a plain Tune grid takes "
        f"{plain['s per stage, in all']:.1f} s a trial, {ratio:.0f} times as long. At that rate {num_stages} plain "
        f"trials would take {plain['s per stage, in all'] * num_stages / 60:.0f} minutes: extrapolated from "
        f"{num_plain}, each of which starts a process.",
        {
            "stage": "a row of the stages table and a ledger record, each written and synced to disk; no torch",
            "slots": NUM_SLOTS,
            "in all": "wall time of the launch over its stages; the cluster is up before",
            "warm": "from the first stage's begin to the last one's end, over the stages",
            "order": "as in the table; means of the repeated rows are compared",
            "clock": "wall time, on a machine that other work may share: read the ratios",
        },
    )


def _timed(name: str, launch: Callable[[Plan, Store], None], num_stages: int) -> dict[str, Any]:
    plan = fake_plan([Fake(f"stage {number}") for number in range(num_stages)])
    with temporary_store() as store:
        begin, cpu_begin = time.monotonic(), time.process_time()
        launch(plan, store)
        wall_s, cpu_s = time.monotonic() - begin, time.process_time() - cpu_begin
        log = events(store)
    if sum(event.what == "end" for event in log) != num_stages:
        raise RuntimeError(f"{name}: not every stage ended")
    return {
        "way": name,
        "stages": num_stages,
        "wall s": wall_s,
        "s per stage, in all": wall_s / num_stages,
        "s per stage, warm": (log[-1].time_s - log[0].time_s) / num_stages,
        "driver CPU-s per stage": cpu_s / num_stages,
        "processes": len({event.pid for event in log}),
    }


def _run_plain(plan: Plan, store: Store) -> None:
    """Run what a user would write: a function trainable over a grid."""

    def train(config: dict[str, str]) -> None:
        _run(config["stage"], store)
        tune.report({"epoch": 1})

    with tempfile.TemporaryDirectory() as folder:
        grid = {"stage": tune.grid_search([stage_to_json(stage) for stage in plan.stages.values()])}
        tuner = tune.Tuner(
            train, param_space=grid, run_config=tune.RunConfig(name="plain", storage_path=folder, verbose=0)
        )
        if tuner.fit().errors:
            raise RuntimeError("a plain trial failed")


def _run_pool(plan: Plan, store: Store) -> None:
    worker = ray.remote(num_cpus=1)(_Worker)
    pool = ActorPool([worker.remote(store) for _ in range(NUM_SLOTS)])
    list(
        pool.map_unordered(
            lambda actor, stage: actor.run.remote(stage), [stage_to_json(stage) for stage in plan.stages.values()]
        )
    )


class _Worker:
    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, stage: str) -> None:
        _run(stage, self._store)


def _run(stage: str, store: Store) -> None:
    for _ in run_fake_stage(stage_from_json(stage), store, threads=1, attempt=1):
        pass
