"""Early stopping across fine-tunings by one of Tune's schedulers, where a study names one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from raysweep.planning import Stage
from raysweep.study import Pruning


@dataclass(frozen=True)
class _Trial:
    """What Tune's schedulers need to know of a trial."""

    trial_id: str


class _NothingWaits:
    """What they need to know of Tune's controller: no trial waits for a paused one's place."""

    def get_live_trials(self) -> list[Any]:
        """Return no trial."""
        return []


class Pruner:
    """Compares fine-tunings of one task, backbone, tuning and annotation count by their validation scores.

    A scheduler of its own serves each of these groups: scores of other tasks or annotation counts say nothing about a
    stage's prospects.
    """

    def __init__(self, settings: Pruning) -> None:
        self._settings = settings
        self._schedulers: dict[Hashable, Any] = {}
        self._known: set[str] = set()

    def stops(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take a stage's metrics after an epoch and return whether it is to stop before its last one."""
        if stage.kind != "finetune" or epoch >= stage.epochs:
            return False
        score = metrics.get(f"val/{stage.config['task']['settings']['metric']}")
        if score is None:  # an epoch without validation
            return False
        scheduler, trial = self._scheduler(stage), _Trial(stage.id)
        if stage.id not in self._known:
            self._known.add(stage.id)
            scheduler.on_trial_add(_NothingWaits(), trial)
        result = {"training_iteration": epoch, "score": score}
        return bool(scheduler.on_trial_result(_NothingWaits(), trial, result) == scheduler.STOP)

    def _scheduler(self, stage: Stage) -> Any:
        config = stage.config
        group = (str(config["task"]), str(config["backbone"]), config["tuning"], config["annotations"], config["pack"])
        if group not in self._schedulers:
            self._schedulers[group] = self._new(stage.epochs)
        return self._schedulers[group]

    def _new(self, epochs: int) -> Any:
        from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

        wanted = self._settings
        if wanted.scheduler == "median":
            return MedianStoppingRule(
                metric="score",
                mode="max",
                time_attr="training_iteration",
                grace_period=wanted.grace_epochs,
                min_samples_required=wanted.min_samples,
                hard_stop=True,
            )
        return AsyncHyperBandScheduler(
            metric="score",
            mode="max",
            time_attr="training_iteration",
            max_t=max(epochs, wanted.grace_epochs),
            grace_period=wanted.grace_epochs,
            reduction_factor=wanted.reduction_factor,
        )
