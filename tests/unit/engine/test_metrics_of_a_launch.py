"""What a launch counts for Prometheus, without Ray: every figure with its labels, the gauge now and then."""

from __future__ import annotations

from typing import Any

import pytest

from raysweep.engine import metrics
from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.engine.metrics import METRICS, RayMetrics
from raysweep.engine.queue import StageQueue, State
from tests.fake_stages import Fake, fake_plan, run_fake_stage


class Instrument:
    """Stands in for Ray's gauges, counters and histograms."""

    def __init__(self, metric: metrics.Metric) -> None:
        self.labels = set(metric.labels)
        self.calls: list[tuple[float, dict[str, str]]] = []

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == self.labels
        self.calls.append((value, tags))

    inc = observe = set


@pytest.fixture
def instruments(monkeypatch) -> dict[str, Instrument]:
    found: dict[str, Instrument] = {}

    def declare(metric: metrics.Metric) -> Any:
        return found.setdefault(metric.name, Instrument(metric))

    monkeypatch.setattr(metrics, "declare", declare)
    return found


def test_launch_publishes_waits_snapshots_and_outcomes(instruments, tiny_store, monkeypatch):
    monkeypatch.setattr("raysweep.stages.run.run_stage", run_fake_stage)
    fakes = [
        Fake("p", epochs=2),
        Fake("a", parent=("p", 1)),
        Fake("b", parent=("p", 2)),
        Fake("c", fails_in_attempts=(1,)),
    ]
    launch = Launch(fake_plan(fakes, resources={"attempts": 2, "backoff_s": 0}), tiny_store)
    launch.metrics = figures = RayMetrics("heart")
    InlineExecutor().run(launch)
    figures.publish(launch.queue.counts)
    ended = [(tags["kind"], tags["outcome"]) for _, tags in instruments["raysweep_stage_seconds"].calls]
    assert sorted(ended) == [*[("finetune", "done")] * 4, ("finetune", "failed")]
    assert sum(value for value, _ in instruments["raysweep_snapshots_published_total"].calls) == 2
    assert len(instruments["raysweep_queue_wait_seconds"].calls) == 5
    assert all(value >= 0 for value, _ in instruments["raysweep_queue_wait_seconds"].calls)
    stages = {tags["state"]: value for value, tags in instruments["raysweep_stages"].calls}
    assert stages == {**dict.fromkeys(map(str, State), 0), "done": 4}


def test_gauge_is_published_every_few_seconds_however_often_it_is_offered(instruments, monkeypatch):
    now = 0.0
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now)
    figures = RayMetrics("heart")
    for _ in range(100):
        now += 0.1
        figures.refresh({State.READY: 1})
    assert len(instruments["raysweep_stages"].calls) == 2 * len(State)


def test_wait_is_counted_from_the_moment_a_stage_is_ready():
    now = 10.0
    queue = StageQueue(fake_plan([Fake("p", epochs=1), Fake("a", parent=("p", 1))]), {}, clock=lambda: now)
    first = queue.take()
    assert first is not None
    now = 15.0
    assert queue.waited_s(first.id) == 5.0
    queue.finished(first.id)
    now = 17.0
    second = queue.take()
    assert second is not None
    assert queue.waited_s(second.id) == 2.0


def test_names_are_those_that_prometheus_takes():
    for metric in METRICS:
        assert metric.name.startswith("raysweep_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") == (metric.kind == "histogram")
