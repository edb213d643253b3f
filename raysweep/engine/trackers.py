"""Trackers: a launch's metrics to TensorBoard, MLflow or Weights & Biases, beside raysweep's own tables.

They run in the driver, whatever the executor. Each needs its own package, which raysweep does not install.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from raysweep.errors import RaysweepError
from raysweep.planning import Stage


class Tracker(Protocol):
    """Follows stages; called from one thread."""

    def started(self, stage: Stage) -> None:
        """An attempt of a stage begins."""

    def epoch(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch has ended with metrics, named split/metric."""

    def ended(self, stage: Stage, how: str) -> None:
        """An attempt has ended: done, failed, stopped or interrupted."""

    def close(self) -> None:
        """The launch has ended."""


class TensorBoardTracker:
    """One run per stage below a folder."""

    def __init__(self, study: str, folder: str) -> None:
        self._new = _package("tensorboardX", "tensorboard").SummaryWriter
        self._folder = f"{folder}/{study}"
        self._writers: dict[str, Any] = {}

    def started(self, stage: Stage) -> None:
        """Open the stage's run; a later attempt adds to it."""
        if stage.id not in self._writers:
            self._writers[stage.id] = self._new(f"{self._folder}/{_run_name(stage)}")

    def epoch(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        for name, value in metrics.items():
            self._writers[stage.id].add_scalar(name, value, epoch)

    def ended(self, stage: Stage, how: str) -> None:
        """Close the stage's run."""
        if (writer := self._writers.pop(stage.id, None)) is not None:
            writer.close()

    def close(self) -> None:
        """Close what is open."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class MLflowTracker:
    """One run per stage in an experiment named as the study; the server is MLflow's own setting."""

    def __init__(self, study: str, folder: str) -> None:
        tracking = _package("mlflow.tracking", "mlflow")
        self._client = tracking.MlflowClient()
        found = self._client.get_experiment_by_name(study)
        self._experiment = found.experiment_id if found is not None else self._client.create_experiment(study)
        self._runs: dict[str, str] = {}

    def started(self, stage: Stage) -> None:
        """Create a run with the stage's facts as parameters."""
        if stage.id not in self._runs:
            run = self._client.create_run(self._experiment, run_name=_run_name(stage), tags={"stage": stage.id})
            self._runs[stage.id] = run.info.run_id
            for name, value in _facts(stage).items():
                self._client.log_param(run.info.run_id, name, value)

    def epoch(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        for name, value in metrics.items():
            self._client.log_metric(self._runs[stage.id], name, value, step=epoch)

    def ended(self, stage: Stage, how: str) -> None:
        """End the stage's run."""
        if (run := self._runs.pop(stage.id, None)) is not None:
            status = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}.get(how, "KILLED")
            self._client.set_terminated(run, status)

    def close(self) -> None:
        """End what is open."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")
        self._runs = {}


class WandbTracker:
    """One run per stage in a group named as the study; project, key and mode are W&B's own settings."""

    def __init__(self, study: str, folder: str) -> None:
        self._wandb = _package("wandb", "wandb")
        self._study = study
        self._folder = folder
        self._runs: dict[str, Any] = {}

    def started(self, stage: Stage) -> None:
        """Open the stage's run; a later attempt of it continues the same run."""
        if stage.id not in self._runs:
            self._runs[stage.id] = self._wandb.init(
                dir=self._folder,
                group=self._study,
                id=stage.id,
                resume="allow",
                name=_run_name(stage),
                config=_facts(stage),
                reinit="create_new",
            )

    def epoch(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to every curve."""
        self._runs[stage.id].log(dict(metrics), step=epoch)

    def ended(self, stage: Stage, how: str) -> None:
        """End the stage's run."""
        if (run := self._runs.pop(stage.id, None)) is not None:
            run.finish(exit_code=int(how == "failed"))

    def close(self) -> None:
        """End what is open."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs = {}


TRACKERS: Mapping[str, Callable[[str, str], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
}
"""By name: called with the study's name and a folder for what the tracker writes."""


def _package(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise RaysweepError(
            f"--track {package} needs the package {package}, which is not installed: pip install 'raysweep[{package}]'"
        ) from error


def _run_name(stage: Stage) -> str:
    return f"{stage.name}/{stage.id[:8]}"


def _facts(stage: Stage) -> dict[str, Any]:
    config = stage.config
    what = config["method"]["name"] if stage.kind == "pretrain" else config["task"]["kind"]
    return {
        "kind": stage.kind,
        "what": what,
        "encoder": config["backbone"]["encoder"],
        "pack": config["pack"],
        "annotations": config.get("annotations", ""),
        "epochs": stage.epochs,
        "seed": config["seed"],
        "parent": stage.parent.stage if stage.parent else "",
        "parent_epoch": stage.parent.epoch if stage.parent else "",
    }
