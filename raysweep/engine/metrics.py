"""Figures of a launch for Prometheus, published through Ray's own metrics.

Ray's agents serve them on every node's metrics port as ``ray_<name>``; that needs ``ray[default]`` on the nodes, and
costs nothing without it. The driver publishes all of them but the bytes staged, which are the workers'. Ray is imported
when there is something to publish to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from raysweep.engine.queue import State
from raysweep.planning import Stage

_REFRESH_S = 5.0
_SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0]


@dataclass(frozen=True)
class Metric:
    """One figure."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    doc: str
    labels: tuple[str, ...] = ()


STAGES = Metric("raysweep_stages", "gauge", "Stages of the launch by state.", ("study", "state"))
QUEUE_WAIT = Metric("raysweep_queue_wait_seconds", "histogram", "Seconds from ready to handed out.", ("study", "kind"))
STAGE_SECONDS = Metric(
    "raysweep_stage_seconds", "histogram", "Seconds from handed out to ended, by outcome.", ("study", "kind", "outcome")
)
SNAPSHOTS = Metric("raysweep_snapshots_published_total", "counter", "Snapshots of encoders published.", ("study",))
STAGED_BYTES = Metric("raysweep_staged_bytes_total", "counter", "Bytes of packs copied to nodes' disks.")
METRICS = (STAGES, QUEUE_WAIT, STAGE_SECONDS, SNAPSHOTS, STAGED_BYTES)


class Metrics(Protocol):
    """Takes what a launch counts; called from one thread."""

    def started(self, stage: Stage, waited_s: float) -> None:
        """An attempt of a stage was handed out, so many seconds after the stage was ready."""

    def snapshots(self, number: int) -> None:
        """So many snapshots were published."""

    def ended(self, stage: Stage, outcome: str) -> None:
        """An attempt has ended: done, failed, stopped or interrupted."""

    def refresh(self, counts: Mapping[State, int]) -> None:
        """Take the number of stages in each state; may be called often."""


class NoMetrics:
    """Publishes nothing: there is no Ray."""

    def started(self, stage: Stage, waited_s: float) -> None:
        """Do nothing."""

    def snapshots(self, number: int) -> None:
        """Do nothing."""

    def ended(self, stage: Stage, outcome: str) -> None:
        """Do nothing."""

    def refresh(self, counts: Mapping[State, int]) -> None:
        """Do nothing."""


class RayMetrics:
    """Publishes the figures of the driver; a Ray that is connected is needed."""

    def __init__(self, study: str) -> None:
        self._labels = {"study": study}
        self._stages = declare(STAGES)
        self._wait = declare(QUEUE_WAIT)
        self._seconds = declare(STAGE_SECONDS)
        self._snapshots = declare(SNAPSHOTS)
        self._began: dict[str, float] = {}
        self._refreshed_at = float("-inf")

    def started(self, stage: Stage, waited_s: float) -> None:
        """Publish how long a stage waited."""
        self._began[stage.id] = time.monotonic()
        self._wait.observe(waited_s, tags={**self._labels, "kind": stage.kind})

    def snapshots(self, number: int) -> None:
        """Count published snapshots."""
        if number:
            self._snapshots.inc(number, tags=self._labels)

    def ended(self, stage: Stage, outcome: str) -> None:
        """Publish how long an attempt took."""
        began = self._began.pop(stage.id, None)
        if began is not None:
            labels = {**self._labels, "kind": stage.kind, "outcome": outcome}
            self._seconds.observe(time.monotonic() - began, tags=labels)

    def refresh(self, counts: Mapping[State, int]) -> None:
        """Publish the number of stages in each state, every few seconds."""
        if time.monotonic() - self._refreshed_at >= _REFRESH_S:
            self.publish(counts)

    def publish(self, counts: Mapping[State, int]) -> None:
        """Publish the number of stages in each state, now."""
        self._refreshed_at = time.monotonic()
        for state in State:
            self._stages.set(counts.get(state, 0), tags={**self._labels, "state": str(state)})


def declare(metric: Metric) -> Any:
    """Return Ray's instrument for a figure."""
    from ray.util import metrics

    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.doc, boundaries=_SECONDS, tag_keys=metric.labels)
    kinds = {"gauge": metrics.Gauge, "counter": metrics.Counter}
    return kinds[metric.kind](metric.name, metric.doc, tag_keys=metric.labels)
