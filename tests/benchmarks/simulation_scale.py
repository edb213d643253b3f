"""Simulating large grids on large clusters."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from raysweep.engine.dispatch import Dispatcher
from raysweep.engine.requests import Requests
from raysweep.planning import build_plan
from raysweep.planning.cost import Rates
from raysweep.simulation.bound import lower_bound
from raysweep.simulation.cluster import uniform_cluster
from raysweep.simulation.durations import CERTAIN, Durations
from raysweep.simulation.run import SimulatedLaunch
from raysweep.study.load import validate_study
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.plan_scale import _FACTS, _study

DESCRIPTION = "Time, decisions and utilisation of simulated grids of 1,000 to 100,000 cells on up to 1,024 GPUs."

_WHOLE, _QUARTER = 1.0, 0.25


def run(quick: bool = False) -> Measurement:
    """Simulate each grid in a process of its own."""
    sizes = [(1_000, 64), (4_000, 64)] if quick else [(1_000, 64), (10_000, 64), (100_000, 64), (100_000, 1024)]
    rows = []
    for num_cells, gpus in sizes:
        for share in (_WHOLE, _QUARTER):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                rows.append(pool.submit(_measure, num_cells, gpus, share).result())
    first, last = rows[0], [row for row in rows if row["GPUs"] == 64 and row["GPUs a fine-tuning"] == _WHOLE][-1]
    growth = last["us a decision"] / first["us a decision"]
    allowed = math.log(last["cells"]) / math.log(first["cells"])
    largest = rows[-2]
    return Measurement(
        rows,
        f"{largest['cells']:,} cells on {largest['GPUs']:,} GPUs take {largest['CPU s']:.0f} s to simulate; the "
        f"makespan is {largest['makespan / bound']:.3f} times its lower bound. From {first['cells']:,} to "
        f"{last['cells']:,} cells the cost of a decision grows {growth:.2f}-fold; growing as log n would be "
        f"{allowed:.2f}.",
        {
            "grid": "2 methods x 5 lengths x 10 annotation counts x seeds, one pretraining a method; nodes of 8 GPUs",
            "rates": "those that `raysweep plan` assumes where nothing was measured",
            "clock": "CPU seconds of a fresh process for each row, planning left out",
            "decision": "one call of the dispatcher: the next stage and its node, or that none can run now",
        },
    )


def _measure(num_cells: int, gpus: int, share: float) -> Mapping[str, Any]:
    document = _study(num_cells).model_dump(mode="json")
    document["sources"] = {"self": ["random", {"pretrain": {"pack": "slices"}}]}
    document["resources"] = {"pretrain": {"gpus": 1, "cpus": 2}, "finetune": {"gpus": share, "cpus": 2 * share}}
    study = validate_study(document)
    plan = build_plan(study, {"slices": _FACTS})
    rates = Rates({}, {"pretrain": True, "finetune": True})
    cluster = uniform_cluster(gpus, 8, cores_per_gpu=2.0, spot=False)
    decisions = _count_decisions()
    begin = time.process_time()
    trace = SimulatedLaunch(plan, {}, rates, cluster, Durations(rates, CERTAIN, "0")).run()
    cpu_s = time.process_time() - begin
    bound = lower_bound(plan, rates.stage_s, Requests(study.resources, rates), cluster)
    return {
        "cells": len(plan.cells),
        "GPUs": gpus,
        "GPUs a fine-tuning": share,
        "makespan h": trace.makespan_s / 3600,
        "makespan / bound": trace.makespan_s / bound.makespan_s,
        "used": trace.trained_s["GPU"] / (gpus * trace.makespan_s),
        "driver busy": trace.driver_s / trace.makespan_s,
        "CPU s": cpu_s,
        "decisions": decisions[0],
        "us a decision": 1e6 * cpu_s / decisions[0],
    }


def _count_decisions() -> list[int]:
    """Count what the dispatcher is asked from now on, in a process that measures one launch."""
    counted = [0]
    plain = Dispatcher.next

    def counting(self: Dispatcher, nodes: Mapping[str, Any]) -> Any:
        counted[0] += 1
        return plain(self, nodes)

    Dispatcher.next = counting  # type: ignore[method-assign]
    return counted
