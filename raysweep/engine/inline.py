"""The inline executor: every stage in this process, one after another, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from raysweep.engine.executor import at_once
from raysweep.engine.interrupt import first_interrupt
from raysweep.engine.launch import Launch, Outcome
from raysweep.logs import log_format
from raysweep.planning import Stage
from raysweep.stages.curve import publish_curve
from raysweep.stages.failure import failure_of
from raysweep.stages.log import logged
from raysweep.stages.progress import StagePreempted
from raysweep.stages.watch import Deadline


class InlineExecutor:
    """Runs a plan in this process: for debugging, for tests, and where Ray cannot run."""

    _is_preempted = False

    def run(self, launch: Launch, ready: Callable[[], object] = at_once) -> Outcome:
        """Run every stage that the queue hands out, once ``ready`` returns, until it is finished or drained."""
        ready()

        def drain(message: str, now: bool) -> None:
            launch.queue.drain()
            self._is_preempted = now
            launch.monitor.say(message)

        with first_interrupt(drain), launch.monitor:
            while not launch.queue.is_finished:
                stage = launch.queue.take()
                if stage is not None:
                    self._run_stage(stage, launch)
                else:
                    time.sleep(min(launch.queue.wakes_in_s() or 0.0, 0.5))
        if launch.queue.is_draining:
            raise KeyboardInterrupt
        return launch.outcome()

    def _run_stage(self, stage: Stage, launch: Launch) -> None:
        from raysweep.stages.run import run_stage  # torch is imported when the first stage runs

        share = launch.request(stage).get("GPU", 0.0)
        deadline = Deadline(launch.resources(stage).time_limit_s)

        def beat() -> bool:
            deadline.check()
            return self._is_preempted

        launch.started(stage)
        try:
            run = partial(
                run_stage,
                stage,
                launch.store,
                threads=launch.threads(stage),
                attempt=launch.attempt(stage),
                gpu_share=share or 1.0,
                ranks=launch.ranks(stage),
                beat=beat,
            )
            reports = logged(run, stage, launch.log_context(stage), launch.store, log_format())
            for progress in reports:
                launch.progress(stage, progress)
                if launch.prunes(stage, progress):
                    reports.close()  # the training state that its curve is taken from is written by then
                    launch.stopped(stage, progress)
                    publish_curve(stage, launch.store, progress.epoch)
                    return
                if launch.queue.is_draining and progress.epoch < stage.epochs:
                    launch.interrupted(stage)
                    return
        except StagePreempted:
            launch.interrupted(stage)
        except Exception as error:  # noqa: BLE001 - any failure of a stage is recorded, and the others go on
            launch.failed(stage, failure_of(error), share)
        else:
            launch.finished(stage)
