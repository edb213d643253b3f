"""Planning and queueing of large grids."""

from __future__ import annotations

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from raysweep.engine.queue import StageQueue
from raysweep.planning import PackFacts, build_plan
from raysweep.study import Study
from raysweep.study.load import validate_study
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "How planning and queueing grow with the grid: 1,000 to 100,000 cells."

_NUM_ANNOTATIONS = 10
_LENGTHS = [1, 5, 25, 100, 400]
_METHODS = ["simclr", "byol"]
_FACTS = PackFacts("/packs/none.h5", "sha256:none", 1, 4, 1000, {"slice": 1000, "volume": 100, "subject": 50})


def run(quick: bool = False) -> Measurement:
    """Plan each size in a process of its own."""
    sizes = (1_000, 5_000) if quick else (1_000, 10_000, 100_000)
    rows = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows.append(pool.submit(_measure, size).result())
    first, last = rows[0], rows[-1]
    growth = last["plan s"] / first["plan s"] / (last["cells"] / first["cells"])
    queue_growth = last["queue s"] / first["queue s"] / (last["cells"] / first["cells"])
    return Measurement(
        rows,
        f"From {first['cells']:,} to {last['cells']:,} cells the cost of a cell grows {growth:.2f}-fold in planning "
        f"and {queue_growth:.2f}-fold in queueing; 1 is linear. {last['cells']:,} cells take {last['plan s']:.1f} s "
        f"to plan and {last['plan MB']:.0f} MB.",
        {
            "grid": f"2 methods x 5 lengths x {_NUM_ANNOTATIONS} annotation counts x seeds, one pretraining a method",
            "clock": "CPU seconds of a fresh process for each size",
            "memory": "growth of the process's peak",
            "queue": "building the queue and taking, publishing and finishing every stage",
        },
    )


def _measure(num_cells: int) -> dict[str, float]:
    study = _study(num_cells)
    build_plan(_study(100), {"slices": _FACTS})  # imports
    before_mb = _peak_mb()
    begin = time.process_time()
    plan = build_plan(study, {"slices": _FACTS})
    plan_s = time.process_time() - begin
    plan_mb = _peak_mb() - before_mb
    begin = time.process_time()
    queue = StageQueue(plan, {})
    while (stage := queue.take()) is not None:
        for epoch in stage.snapshots:
            queue.snapshot(stage.id, epoch)
        queue.finished(stage.id)
    queue_s = time.process_time() - begin
    if not queue.is_finished:
        raise RuntimeError("the queue did not hand out every stage")
    return {
        "cells": len(plan.cells),
        "stages": len(plan.stages),
        "plan s": plan_s,
        "cells planned/s": len(plan.cells) / plan_s,
        "plan MB": plan_mb,
        "queue s": queue_s,
        "stages queued/s": len(plan.stages) / queue_s,
    }


def _study(num_cells: int) -> Study:
    num_seeds = num_cells // (len(_METHODS) * len(_LENGTHS) * _NUM_ANNOTATIONS)
    return validate_study(
        {
            "study": "scale",
            "packs": {"slices": {"file": "/packs/none.h5"}},
            "backbones": {"small": {"encoder": "resnet18", "channels": 1}},
            "sources": {"self": ["random", {"pretrain": {"pack": "slices"}}]},
            "tasks": {"organs": {"kind": "segmentation", "pack": "slices"}},
            "grid": {
                "source": ["self"],
                "method": _METHODS,
                "pretrain_epochs": _LENGTHS,
                "annotations": [10 * (1 + number) for number in range(_NUM_ANNOTATIONS)],
                "seed": list(range(num_seeds)),
            },
        }
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
