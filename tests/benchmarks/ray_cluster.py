"""A Ray cluster of two CPUs on this machine, for the benchmarks that need one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import Plan
from raysweep.store import Store
from tests.fake_stages import RUNNER

NUM_SLOTS = 2
_ENVIRONMENT: Mapping[str, str] = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def ray_cluster(num_slots: int = NUM_SLOTS) -> Iterator[None]:
    """Hold a cluster with as many CPUs as there are slots."""
    os.environ.update(_ENVIRONMENT)
    ray.init(
        address="local",
        num_cpus=num_slots,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 2**20,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def temporary_store() -> Iterator[Store]:
    """Hold an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        yield Store(folder).prepare()


def run_plan(plan: Plan, store: Store) -> None:
    """Run a plan of fake stages through the Tune executor.

    Raises:
        RuntimeError: if not every stage is done.
    """
    outcome = TuneExecutor(runner=RUNNER).run(Launch(plan, store))
    if not outcome.is_complete:
        raise RuntimeError(f"stages failed: {outcome.failed}, skipped: {outcome.skipped}")
