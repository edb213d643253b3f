"""The Tune trainable: one actor that runs stage after stage."""

from __future__ import annotations

import atexit
import gc
import json
import queue
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from functools import cache, partial
from importlib import import_module
from typing import Any

import ray
from ray import tune

from raysweep.engine.interrupt import on_termination
from raysweep.engine.metrics import STAGED_BYTES, declare
from raysweep.errors import StageError
from raysweep.planning.model import stage_from_json
from raysweep.stages.curve import publish_curve
from raysweep.stages.failure import Failure
from raysweep.stages.log import logged
from raysweep.stages.progress import Progress
from raysweep.stages.watch import StageThread
from raysweep.store import Store

RUN_STAGE = "raysweep.stages.run:run_stage"
"""What runs a stage in the worker, as module:function; a test or a benchmark of the engine names its own."""

REPORT = "report"
"""Key of a result under which the report stands, as JSON: Tune would flatten a dictionary."""


class StageHungError(StageError):
    """A stage gives no sign of life; its process is of no use any more."""

    def __init__(self, reason: str, stack: str) -> None:
        super().__init__(reason, stack)
        self.reason = reason
        self.stack = stack

    def __str__(self) -> str:
        return self.reason


class StagePreemptedError(StageError):
    """A stage has saved its training state and ended, because its process was told to end."""


class StageTrainable(tune.Trainable):  # type: ignore[misc]
    """Runs a stage in a thread, and reports at every published snapshot and now and then between.

    A stage that raises ends its trial normally, with the failure in the report: the actor stays usable. One that hangs
    ends its trial with an error, and the actor with it. So does one that is preempted, by SIGTERM or by ``preempt``,
    once it has saved its training state.
    """

    _settings: dict[str, Any]
    _thread: StageThread | None = None
    _is_running: bool = False
    _is_preempted: bool = False

    def setup(self, config: dict[str, Any]) -> None:
        """Take a stage; it does not start before the first step, for Tune may swap it."""
        self._settings = config
        on_termination(self._terminate)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next stage in the same process, unless the one before cannot be ended."""
        if self._is_preempted or (self._is_running and self._thread is not None and not self._thread.stop()):
            return False
        self._is_running = False
        self._settings = new_config
        _spare_imports()
        return True

    def step(self) -> dict[str, Any]:
        """Run until the next report.

        Raises:
            StageHungError: if the stage gave no sign of life for too long.
            StagePreemptedError: if it was preempted, and has ended.
        """
        thread = self._thread = self._thread or StageThread()
        if self._is_preempted and not self._is_running:
            raise StagePreemptedError("preempted")
        if not self._is_running:
            thread.start(self._stage(thread), self._settings["time_limit_s"])
            self._is_running = True
        deadline = time.monotonic() + self._settings["report_every_s"]
        events: list[Progress] = []
        while True:
            try:
                event = thread.next_event(deadline - time.monotonic())
            except queue.Empty:
                self._check_alive(thread)
                return self._report(events)
            if not isinstance(event, Progress):
                self._is_running = False
                if event is None or event.kind != "preempted":
                    return self._report(events, ended=True, failure=event)
                self._is_preempted = True
                if events:
                    return self._report(events)  # the next step raises
                raise StagePreemptedError("preempted")
            events.append(event)
            if event.snapshots or time.monotonic() >= deadline:
                return self._report(events)

    def preempt(self) -> None:
        """Have the running stage save its training state at its next step and end."""
        self._is_preempted = True
        if self._thread is not None:
            self._thread.preempt()

    def _terminate(self) -> bool:
        """Take SIGTERM: return whether the process may end now, for no stage runs."""
        self.preempt()
        return not self._is_running

    def halt(self, after_epoch: int) -> None:
        """End a stage that is stopped for good at its next sign of life, and publish its curve up to an epoch."""
        if self._is_running and self._thread is not None and self._thread.stop():
            self._is_running = False
            publish_curve(stage_from_json(self._settings["stage"]), Store(self._settings["store"]), after_epoch)

    def cleanup(self) -> None:
        """End the stage that runs, if any, at its next sign of life."""
        if self._is_running and self._thread is not None:
            self._thread.stop(timeout_s=1.0)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the stage publishes its own training state."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing: the stage continues from its own training state."""

    def _stage(self, thread: StageThread) -> partial[Generator[Progress, None, None]]:
        settings = self._settings
        module, _, function = settings["runner"].partition(":")
        _count_staged_bytes()
        stage, store = stage_from_json(settings["stage"]), Store(settings["store"])
        run = partial(
            _run,
            module,
            function,
            stage,
            store,
            threads=settings["threads"],
            attempt=settings["attempt"],
            gpu_share=settings["gpu_share"],
            ranks=settings["ranks"],
            beat=thread.beat,
        )
        return partial(logged, run, stage, settings["log_context"], store, settings["log_format"])

    def _check_alive(self, thread: StageThread) -> None:
        hung_after_s = self._settings["hung_after_s"]
        if hung_after_s is not None and thread.silent_s > hung_after_s:
            reason = f"hung: no optimiser step for {thread.silent_s:.0f} s (hung_after_s: {hung_after_s:g})"
            raise StageHungError(reason, thread.where())

    def _report(self, events: list[Progress], *, ended: bool = False, failure: Failure | None = None) -> dict[str, Any]:
        report = {
            "events": [asdict(event) for event in events],
            "ended": ended,
            "failure": None if failure is None else asdict(failure),
            "node": _node_id(),
        }
        return {REPORT: json.dumps(report), "done": ended}


@cache
def _spare_imports() -> None:
    """Have the garbage collector pass over what the first stage has imported: half a million objects.

    Every stage collects what the one before left, which takes a quarter of a second if it looks at these too.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries that count what is left at the end find nothing


@cache
def _count_staged_bytes() -> None:
    """Publish, from now on, what this process copies to its node's disk."""
    from raysweep.data import staging  # not in the driver, which imports this module too

    counter = declare(STAGED_BYTES)
    staging.when_copied.append(counter.inc)


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _run(module: str, function: str, *args: Any, **options: Any) -> Iterator[Progress]:
    """Import what runs stages within the stage's thread: the driver imports no torch, and an import may fail."""
    events: Iterator[Progress] = getattr(import_module(module), function)(*args, **options)
    return events
