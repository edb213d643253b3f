"""The inline executor: every stage in this process, one after another, without Ray."""

from __future__ import annotations

import time

from raysweep.engine.interrupt import DRAINING, first_interrupt
from raysweep.engine.launch import Launch, Outcome
from raysweep.planning import Stage
from raysweep.stages.curve import publish_curve
from raysweep.stages.failure import failure_of
from raysweep.stages.watch import Deadline


class InlineExecutor:
    """Runs a plan in this process: for debugging, for tests, and where Ray cannot run."""

    def run(self, launch: Launch) -> Outcome:
        """Run every stage that the queue hands out, until it is finished or drained."""

        def drain() -> None:
            launch.queue.drain()
            launch.monitor.say(DRAINING)

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
        launch.started(stage)
        try:
            for progress in run_stage(
                stage,
                launch.store,
                threads=launch.threads(stage),
                attempt=launch.attempt(stage),
                gpu_share=share or 1.0,
                ranks=launch.ranks(stage),
                beat=deadline.check,
            ):
                launch.progress(stage, progress)
                if launch.prunes(stage, progress):
                    launch.stopped(stage, progress)
                    publish_curve(stage, launch.store, progress.epoch)
                    return
                if launch.queue.is_draining and progress.epoch < stage.epochs:
                    launch.interrupted(stage)
                    return
        except Exception as error:  # noqa: BLE001 - any failure of a stage is recorded, and the others go on
            launch.failed(stage, failure_of(error), share)
        else:
            launch.finished(stage)
