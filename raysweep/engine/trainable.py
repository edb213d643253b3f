"""The Tune trainable: one actor that runs stage after stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from ray import tune

from raysweep.planning.model import stage_from_json
from raysweep.stages.failure import describe_error
from raysweep.stages.progress import Progress
from raysweep.store import Store

RUN_STAGE = "raysweep.stages.run:run_stage"
"""What runs a stage in the worker, as module:function; a test or a benchmark of the engine names its own."""

_REPORT_EVERY_S = 1.0
"""A report costs the driver milliseconds: metrics go to the store, only progress and snapshots come through here."""


class StageTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a stage, reporting at most once a second and at every published snapshot.

    A stage that raises ends its trial normally, with the error in the result: the actor stays usable.
    """

    _settings: dict[str, Any]
    _events: Iterator[Progress] | None
    _epoch: int

    def setup(self, config: dict[str, Any]) -> None:
        """Take a stage; nothing happens before the first step, for Tune may swap it."""
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next stage in the same process."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run until the next report."""
        deadline = time.monotonic() + _REPORT_EVERY_S
        result: dict[str, Any] = {"epoch": self._epoch, "snapshots": [], "done": False}
        try:
            if self._events is None:
                self._events = self._start()
            for progress in self._events:
                self._epoch = result["epoch"] = progress.epoch
                result["snapshots"] += progress.snapshots
                if result["snapshots"] or time.monotonic() >= deadline:
                    return result
        except Exception as error:  # noqa: BLE001 - any failure of a stage is reported, and the actor goes on
            result["error"], result["traceback"] = describe_error(error)
        self._events = None
        return {**result, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the stage publishes its own training state."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing: the stage continues from its own training state."""

    def _take(self, config: dict[str, Any]) -> None:
        self._settings = config
        self._events = None
        self._epoch = 0

    def _start(self) -> Iterator[Progress]:
        module, _, function = self._settings["runner"].partition(":")
        run = getattr(import_module(module), function)  # by name, so that the driver imports no torch
        stage = stage_from_json(self._settings["stage"])
        store = Store(self._settings["store"])
        events: Iterator[Progress] = run(
            stage, store, threads=self._settings["threads"], attempt=self._settings["attempt"]
        )
        return events
