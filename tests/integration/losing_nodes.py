"""Runs a study on several Ray nodes of this machine; a node that runs a stage is killed and another joins late.

Usage: python -m tests.integration.losing_nodes STUDY STORE
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

_MEMORY = 100 * 10**6


def main(study: str, store: str) -> None:
    """Run the study; exit with the driver's code, or with a message if no node could be killed in time."""
    head = {"num_cpus": 0, "object_store_memory": _MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=_MEMORY) for _ in range(2)]
    command = [sys.executable, "-m", "raysweep", "run", study, "--store", store, "--address", cluster.address]
    try:
        driver = subprocess.Popen([*command, "--no-report"])
        raylet, stages = _node_with_a_stage(nodes, Path(store), driver)
        for process in (raylet, *stages):
            os.kill(process, signal.SIGKILL)
        time.sleep(1.0)
        cluster.add_node(num_cpus=1, object_store_memory=_MEMORY)
        code = driver.wait(timeout=300)
    finally:
        cluster.shutdown()
    sys.exit(code)


def _node_with_a_stage(nodes: list[Any], store: Path, driver: subprocess.Popen[bytes]) -> tuple[int, list[int]]:
    """Return the raylet of a node whose stages have training states to lose, and the processes of those."""
    while driver.poll() is None:
        if list((store / "resume").glob("*.pt")):
            for node in nodes:
                if stages := _stages_on(_raylet(node)):
                    return _raylet(node), stages
        time.sleep(0.02)
    sys.exit("the launch ended before a node could be killed")


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _stages_on(raylet: int) -> list[int]:
    """Return the processes of a node that run stages: they outlive their raylet by some seconds."""
    children = map(int, Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split())
    return [child for child in children if b"StageTrainable.train" in _command(child)]


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    main(*sys.argv[1:])
