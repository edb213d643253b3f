"""Runs a small plan on a Ray of its own, scrapes the metrics that its agent serves, and prints them.

A process of its own: Ray's settings for metrics are read once.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysweep.data.staging import open_located
from raysweep.engine.launch import Launch
from raysweep.engine.metrics import METRICS
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import Stage
from raysweep.stages.progress import Progress
from raysweep.store import Store
from tests.fake_stages import Fake, fake_plan, run_fake_stage

FAKES = [
    Fake("pretraining", epochs=2),
    Fake("early", parent=("pretraining", 1)),
    Fake("late", parent=("pretraining", 2)),
    Fake("failing", fails_in_attempts=(1,)),
]
TIMEOUT_S = 120


def run_and_stage(stage: Stage, store: Store, **options: Any) -> Iterator[Progress]:
    """Run a fake stage that copies a pack to its node first."""
    open_located(f"file://{os.environ['SCRAPED_PACK']}")
    yield from run_fake_stage(stage, store, **options)


def scrape(port: int, launch: Launch) -> str:
    """Return what the agent serves once every figure of ours is in it, or what it serves when time is up.

    Ray forgets a gauge that is not set again within two of its reports: this does as a driver that still runs.
    """
    text, deadline = "", time.monotonic() + TIMEOUT_S
    wanted = [f"ray_{metric.name}" for metric in METRICS] + ["ray_node_cpu_utilization"]
    while time.monotonic() < deadline and not all(name in text for name in wanted):
        launch.metrics.refresh(launch.queue.counts)
        time.sleep(1.0)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except urllib.error.URLError as error:
            text = f"# {error}"
    return text


def main(folder: Path, port: int) -> None:
    """Run the plan and print the metrics."""
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 10**6,
        _metrics_export_port=port,
    )
    planned = fake_plan(FAKES, resources={"attempts": 2, "backoff_s": 0})
    store = Store(folder / "store").prepare()
    launch = Launch(planned, store)
    TuneExecutor(runner="tests.integration.scraping:run_and_stage").run(launch)
    sys.stdout.write(scrape(port, launch))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
