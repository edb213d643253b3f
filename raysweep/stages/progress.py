"""What a running stage tells whoever runs it; executors read this, so there is no torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a stage reports after an epoch, once its training state is saved."""

    epoch: int
    snapshots: tuple[int, ...] = ()
    """Epochs whose snapshots are published and were not reported before."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the epoch as split/metric, for trackers and schedulers; the tables have them all."""
    score: float | None = None
    """Test score, once the stage has one."""
    gpu_peak_bytes: int | None = None
    """Most GPU memory held so far; None on a CPU."""
    gpu_total_bytes: int | None = None
    """Memory of the GPU; None on a CPU."""


class StageStopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Raised by a heartbeat to end a stage that did not fail; its training state stays as the last epoch left it."""


class StagePreempted(Exception):  # noqa: N818 - not an error: its process has to end
    """Ends a stage that has saved its training state at its last step, because its process, or its node, goes away."""


Beat = Callable[[], object]
"""A sign of life. What it raises ends the stage; true at a step asks it to save its training state and to end."""


def no_beat() -> None:
    """Do nothing: the heartbeat of a stage that nobody watches."""
