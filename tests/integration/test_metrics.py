"""Prometheus gets the engine's figures: scraped from the agent of a real Ray."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from raysweep.engine.metrics import METRICS
from tests.unit.cluster.test_watching_files import names_of_ray


def free_port() -> int:
    """Return a port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of a scrape by name and labels, without those labels that Ray adds."""
    found = {}
    for name, labels, value in re.findall(r"(?m)^(ray_\w+)\{(.*)\} (\S+)$", text):
        pairs = re.findall(r'(\w+)="([^"]*)"', labels)
        ours = {(key, value) for key, value in pairs if key in ("study", "state", "kind", "outcome")}
        found[name, frozenset(ours)] = float(value)
    return found


@pytest.mark.heavy
def test_agent_serves_the_figures_of_a_launch(tmp_path: Path, cardiac_pack: Path) -> None:
    if find_spec("prometheus_client") is None or find_spec("opencensus") is None:
        pytest.skip("metrics need Ray's extra: pip install 'raysweep[cluster]'")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_metrics_report_interval_ms": "5000",  # as often as a driver sets its gauges
        "RAYSWEEP_CACHE": str(tmp_path / "cache"),
        "SCRAPED_PACK": str(cardiac_pack),
    }
    command = [sys.executable, "-m", "tests.integration.scraping", str(tmp_path), str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = samples(done.stdout)
    study = ("study", "fake")

    def value(name: str, *labels: tuple[str, str]) -> float | None:
        return found.get((f"ray_raysweep_{name}", frozenset(labels)))

    assert value("stages", study, ("state", "done")) == 4
    assert value("stages", study, ("state", "failed")) == 0
    assert value("snapshots_published_total", study) == 2
    assert value("stage_seconds_count", study, ("kind", "finetune"), ("outcome", "done")) == 4
    assert value("stage_seconds_count", study, ("kind", "finetune"), ("outcome", "failed")) == 1
    assert value("queue_wait_seconds_count", study, ("kind", "finetune")) == 5
    assert value("staged_bytes_total") == cardiac_pack.stat().st_size
    served = {name for name, _ in found}
    assert all(any(name.startswith(f"ray_{metric.name}") for name in served) for metric in METRICS)
    assert names_of_ray() <= served, "the dashboard shows what Ray does not serve"
