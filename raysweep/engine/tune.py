"""The tune executor: one Ray Tune experiment whose search algorithm is the stage queue.

Tune's checkpoints and restore are not used: the store's ledger and training states say what is done, so a launch that
was killed is simply launched again.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from typing import Any

import ray
from ray import tune
from ray.exceptions import AuthenticationError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raysweep.engine.cluster import Cluster
from raysweep.engine.dispatch import MAX_STARTING
from raysweep.engine.executor import at_once
from raysweep.engine.interrupt import first_interrupt
from raysweep.engine.launch import Launch, Outcome
from raysweep.engine.metrics import RayMetrics
from raysweep.engine.search import QueueAlgorithm
from raysweep.engine.trainable import RUN_STAGE, StageTrainable
from raysweep.engine.trial import report_in
from raysweep.errors import StoreError

_OBJECT_STORE_BYTES = 128 * 2**20
"""Stages exchange files, not objects: the object store stays small."""

_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # glibc: the thread of a stage keeps freed memory only in the heap of the whole process
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": str(MAX_STARTING),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class TuneExecutor:
    """Runs a plan on Ray: on a cluster if ``address`` is given, else on this machine.

    ``runner`` names the function that runs a stage in the worker, as ``module:function``; it is called as
    :func:`raysweep.stages.run.run_stage` is.
    """

    def __init__(self, address: str | None = None, runner: str = RUN_STAGE) -> None:
        self._address = address
        self._runner = runner

    def run(self, launch: Launch, ready: Callable[[], object] = at_once) -> Outcome:
        """Run the stages that the queue hands out as trials of one Tune experiment, until it is finished or drained."""
        has_work = not launch.queue.is_finished
        started_ray = has_work and self._connect()
        try:
            ready()
            if has_work:
                self._fit(launch)
        finally:
            if started_ray:
                ray.shutdown()
        if launch.queue.is_draining:
            raise KeyboardInterrupt
        return launch.outcome()

    def _connect(self) -> bool:
        """Connect to Ray unless this process already is; return whether it has to be shut down."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if ray.is_initialized():
            return False
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None:
            options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            ray.init(address=self._address or "local", **options)
        except (AuthenticationError, ConnectionError, ValueError) as error:
            if not _is_refused(error):
                raise StoreError(f"no Ray cluster answers at {self._address!r}: {error}") from error
            raise StoreError(
                f"the Ray cluster at {self._address!r} refuses this process: it has another token, or none. Set "
                "RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token or into the file that "
                "RAY_AUTH_TOKEN_PATH names"
            ) from error
        return True

    def _fit(self, launch: Launch) -> None:
        def drain(message: str, now: bool) -> None:
            launch.queue.drain()
            if now:
                algorithm.preempt()
            launch.monitor.say(message)

        logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # failed stages have their own reports
        cluster = Cluster(may_grow=self._address is not None)
        algorithm = QueueAlgorithm(launch, cluster, self._runner)
        launch.metrics = metrics = RayMetrics(launch.plan.study.study)
        with (
            closing(cluster),
            tempfile.TemporaryDirectory(prefix="raysweep-tune-") as folder,
            first_interrupt(drain),
            launch.monitor,
        ):
            tune.Tuner(
                StageTrainable,
                tune_config=tune.TuneConfig(
                    search_alg=algorithm, scheduler=_Scheduler(algorithm), num_samples=1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name="stages",
                    storage_path=folder,
                    verbose=0,
                    callbacks=[_Reconcile(algorithm)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
                ),
            ).fit()
            algorithm.settle()
        metrics.publish(launch.queue.counts)


def _is_refused(error: BaseException | None) -> bool:
    """Whether a cluster has refused the token: Ray says so itself, or in the text of what its error came from."""
    while error is not None:
        if isinstance(error, AuthenticationError) or AuthenticationError.__name__ in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Names no trial to run first, and stops trials when the launch drains or prunes them.

    The queue has ordered the trials, and Tune starts pending ones by itself. It would move the trial that a scheduler
    names to the next idle worker and kill the worker that was starting for it: with stages shorter than the start of a
    worker, all slots but the first would stay empty for ever.
    """

    def __init__(self, algorithm: QueueAlgorithm) -> None:
        super().__init__()
        self._algorithm = algorithm

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: see the algorithm."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return no trial; end those that wait for a worker when the launch drains."""
        if self._algorithm.is_draining:
            for trial in self._algorithm.running_trials():
                if trial.status == Trial.PENDING:
                    tune_controller.stop_trial(trial)
        return None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that has saved its last epoch, for now or for good."""
        stop = self._algorithm.stops(trial.trial_id, report_in(result))
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class _Reconcile(tune.Callback):  # type: ignore[misc]
    """Tells the algorithm what Tune does not, so that dependents never wait for ever."""

    def __init__(self, algorithm: QueueAlgorithm) -> None:
        self._algorithm = algorithm

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: see the algorithm."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Pass on that a worker has taken a trial."""
        self._algorithm.on_trial_start(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Pass on a trial's error."""
        self._algorithm.on_trial_complete(trial.trial_id, error=True)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Look after what runs while nothing reports."""
        self._algorithm.refresh()
