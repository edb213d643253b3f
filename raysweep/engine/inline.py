"""The inline executor: every stage in this process, one after another, without Ray."""

from __future__ import annotations

import socket
import time

from raysweep.engine.executor import Outcome, num_threads, outcome_of, resources_of
from raysweep.engine.monitor import Monitor
from raysweep.engine.queue import StageQueue, State
from raysweep.planning import Plan, Stage
from raysweep.stages.failure import describe_error, record_failure
from raysweep.store import Store


class InlineExecutor:
    """Runs a plan in this process: for debugging, for tests, and where Ray cannot run."""

    def run(self, plan: Plan, queue: StageQueue, store: Store) -> Outcome:
        """Run every stage that the queue hands out, until it is finished."""
        begin = time.monotonic()
        done_before = queue.counts.get(State.DONE, 0)
        with Monitor(queue) as monitor:
            while (stage := queue.take()) is not None:
                self._run_stage(stage, plan, queue, store, monitor)
        return outcome_of(queue, done_before, time.monotonic() - begin)

    def _run_stage(self, stage: Stage, plan: Plan, queue: StageQueue, store: Store, monitor: Monitor) -> None:
        from raysweep.stages.run import run_stage  # torch is imported when the first stage runs

        attempt = queue.tried[stage.id]
        threads = num_threads(resources_of(plan, stage))
        try:
            for progress in run_stage(stage, store, threads=threads, attempt=attempt):
                for epoch in progress.snapshots:
                    queue.snapshot(stage.id, epoch)
                monitor.progress(stage, progress.epoch)
        except Exception as error:  # noqa: BLE001 - any failure of a stage is recorded, and the others go on
            reason, trace = describe_error(error)
            again = queue.failed(stage.id, reason)
            monitor.failed(stage, reason, again=again)
            if not again:
                record_failure(stage, store, reason, trace, attempt, socket.gethostname())
        else:
            queue.finished(stage.id)
            monitor.refresh()
