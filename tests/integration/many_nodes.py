"""Runs fake stages on several Ray nodes of this machine: unlike, late, drained, slow, full, or without their head.

Usage: python -m tests.integration.many_nodes STORE unlike|full|head_dies|plain

The driver is a process of its own, as it is on a cluster: this one holds the nodes, and changes them meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import Plan
from raysweep.store import Store
from tests.fake_stages import RUNNER, Fake, events, fake_plan

_MEMORY = 100 * 10**6
_DRAINED_AFTER_S = 20


def unlike_plan() -> Plan:
    """Two pretrainings that need a GPU, and fine-tunings that start from their snapshots or from nothing."""
    fakes = [Fake(f"pretrain {i}", kind="pretrain", epochs=4, epoch_s=0.5) for i in range(2)]
    fakes += [Fake(f"child {i}{epoch}", (f"pretrain {i}", epoch), 2, 0.5) for i in range(2) for epoch in (1, 4)]
    fakes += [Fake(f"single {i}", epochs=12, epoch_s=0.3) for i in range(4)]
    return fake_plan(fakes, {"pretrain": {"gpus": 1}, "attempts": 1, "backoff_s": 0})


def unlike(cluster: Cluster, store: Store) -> None:
    """Run on a node that is drained half-way, a slow one, and one that joins late: the only one with a GPU."""
    drained = _add(cluster, "drained", FAKE_SLOWDOWN="4")
    _add(cluster, "slow", FAKE_SLOWDOWN="3")

    def change() -> None:
        _wait_until(lambda: any(event.node == "drained" for event in events(store)))
        deadline_ms = int((time.time() + _DRAINED_AFTER_S) * 1000)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = GcsClient(address=cluster.address).drain_node(drained, reason, "spot", deadline_ms)
        assert accepted, why
        _add(cluster, "late", num_gpus=1)

    _run(cluster, store, "unlike_plan", change)


def full(cluster: Cluster, store: Store) -> None:
    """Run on nodes whose object stores other work has filled."""
    for name in ("first", "second"):
        _add(cluster, name, num_cpus=2, resources={name: 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    held = [_fill.options(resources={name: 1}).remote() for name in ("first", "second")]
    ray.get(held)
    _run(cluster, store, "plain_plan", lambda: None)


def plain(cluster: Cluster, store: Store) -> None:
    """Run on one node."""
    _add(cluster, "only", num_cpus=2)
    _run(cluster, store, "plain_plan", lambda: None)


def head_dies(cluster: Cluster, store: Store) -> None:
    """Kill the head's control service when a snapshot is there: Ray ends the driver with it."""
    _add(cluster, "only", num_cpus=2)

    def kill() -> None:
        _wait_until(lambda: any(event.what == "snapshot" for event in events(store)))
        os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)

    _run(cluster, store, "plain_plan", kill)


def plain_plan() -> Plan:
    """Return stages for any node."""
    fakes = [
        Fake("pretrain", kind="pretrain", epochs=60, epoch_s=0.5),
        Fake("child", ("pretrain", 1), 2),
        Fake("single"),
    ]
    return fake_plan(fakes, {"attempts": 1})


@ray.remote(num_cpus=1)
def _fill() -> Any:
    """Put as much as fits into the node's object store; what is returned keeps it there."""
    return [ray.put(np.zeros(10**7, dtype=np.uint8)) for _ in range(9)]


def _run(cluster: Cluster, store: Store, plan: str, meanwhile: Callable[[], None]) -> None:
    """Drive a plan from another process while the nodes change; exit as it does."""
    command = [sys.executable, "-m", "tests.integration.many_nodes", store.absolute_uri, plan, cluster.address]
    driver = subprocess.Popen(command)
    try:
        meanwhile()
        code = driver.wait(timeout=300)
    finally:
        driver.kill()
    if code:
        sys.exit(code)


def drive(store: Store, plan: str, address: str) -> None:
    """Run the stages of a plan on a running cluster."""
    plans = {"unlike_plan": unlike_plan, "plain_plan": plain_plan}
    outcome = TuneExecutor(address, RUNNER).run(Launch(plans[plan](), store))
    assert outcome.is_complete, outcome


def _add(cluster: Cluster, name: str, num_cpus: int = 1, **options: Any) -> str:
    """Add a node whose stages say its name, and return its id."""
    environment = {key: options.pop(key) for key in list(options) if key.isupper()}
    node = cluster.add_node(
        num_cpus=num_cpus, object_store_memory=_MEMORY, env_vars={"FAKE_NODE": name, **environment}, **options
    )
    return str(node.node_id)


def _wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def main(store: str, scenario: str, address: str = "") -> None:
    """Run a scenario on a cluster of its own, whose head runs no stages; with an address, drive the plan of a name."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    opened = Store(store).prepare()
    if address:
        drive(opened, scenario, address)
        return
    head = {"num_cpus": 0, "object_store_memory": _MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        {"unlike": unlike, "full": full, "plain": plain, "head_dies": head_dies}[scenario](cluster, opened)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
