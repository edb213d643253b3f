"""What the driver knows of a stage that is with Tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raysweep.engine.dispatch import Assignment
from raysweep.engine.trial import StageTrial
from raysweep.planning import Stage
from raysweep.stages.failure import Failure
from raysweep.stages.progress import Progress


@dataclass
class RunningStage:
    """A stage that is with Tune."""

    assignment: Assignment
    trial: StageTrial
    report_every_s: float
    last_report: float | None = None
    """None before its worker has started."""
    presumed: Failure | None = None
    """What is wrong with it, if the driver has ended it."""
    is_preempted: bool = False
    """Whether its worker has been told to save and end."""
    pruned_at: Progress | None = None
    """What it reported when the study's scheduler stopped it."""

    @property
    def stage(self) -> Stage:
        """The stage."""
        return self.assignment.stage

    @property
    def request(self) -> Mapping[str, float]:
        """What it holds."""
        return self.assignment.request

    @property
    def gpu_share(self) -> float:
        """The share of a GPU that it holds; 0 for none."""
        return self.request.get("GPU", 0.0)


@dataclass(frozen=True)
class Suspect:
    """An attempt that ended with an error that may mean a lost node."""

    running: RunningStage
    decide_at: float
    """When it is taken for an error of the stage; by the monotonic clock."""
