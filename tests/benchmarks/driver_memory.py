"""What the driver of a large grid holds in memory."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster, temporary_store
from tests.fake_stages import RUNNER, Fake, fake_plan

DESCRIPTION = "Memory and time of the driver at 1,000 to 10,000 stages that do nothing."


def run(quick: bool = False) -> Measurement:
    """Run each number of stages in a driver of its own."""
    rows = []
    for num_stages in (50, 200) if quick else (1_000, 3_000, 10_000):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows.append(pool.submit(_measure, num_stages).result())
    first, last = rows[0], rows[-1]
    kilobytes = 1000 * (last["driver MB"] - first["driver MB"]) / (last["stages"] - first["stages"])
    return Measurement(
        rows,
        f"A driver of {last['stages']:,} stages ends at {last['driver MB']:.0f} MB, {kilobytes:.0f} kB for every "
        f"further stage; a stage takes {last['ms a stage']:.0f} ms against {first['ms a stage']:.0f} ms at "
        f"{first['stages']:,} stages.",
        {
            "stage": "a row of the stages table and a ledger record, each written and synced to disk; no torch",
            "driver MB": "resident memory of the driver's process at the end, Ray's and Tune's own included",
            "slots": NUM_SLOTS,
            "clock": "wall time, on a machine that other work may share: read the ratios",
        },
    )


def _measure(num_stages: int) -> dict[str, Any]:
    plan = fake_plan([Fake(f"stage {number}") for number in range(num_stages)])
    with ray_cluster(), temporary_store() as store:
        before_mb = _resident_mb()
        begin = time.monotonic()
        outcome = TuneExecutor(runner=RUNNER).run(Launch(plan, store))
        wall_s = time.monotonic() - begin
        if not outcome.is_complete:
            raise RuntimeError(f"stages failed: {outcome.failed}")
        return {
            "stages": num_stages,
            "driver MB before": before_mb,
            "driver MB": _resident_mb(),
            "wall s": wall_s,
            "ms a stage": 1000 * wall_s / num_stages,
        }


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (resident,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(resident.split()[1]) / 1024
