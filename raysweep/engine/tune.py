"""The tune executor: one Ray Tune experiment whose search algorithm is the stage queue.

Tune has no dependencies between trials; a ``SearchAlgorithm`` that builds its own trials can hold one back until the
snapshot it starts from exists and a node has room for it. Tune's checkpoints and restore are not used: the store's
ledger and training states say what is done, so a launch that was killed is simply launched again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import SearchAlgorithm

from raysweep.engine.admission import Admission
from raysweep.engine.executor import Outcome, num_threads, outcome_of, ray_request, resources_of
from raysweep.engine.monitor import Monitor
from raysweep.engine.queue import StageQueue, State
from raysweep.engine.trainable import RUN_STAGE, StageTrainable
from raysweep.errors import StoreError
from raysweep.planning import Plan, Stage
from raysweep.planning.model import stage_to_json
from raysweep.stages.failure import record_failure
from raysweep.store import Store

_OBJECT_STORE_BYTES = 128 * 2**20
"""Stages exchange files, not objects: the object store stays small."""

_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "8",
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

    def run(self, plan: Plan, queue: StageQueue, store: Store) -> Outcome:
        """Run every stage that the queue hands out as trials of one Tune experiment, until it is finished."""
        begin = time.monotonic()
        done_before = queue.counts.get(State.DONE, 0)
        if not queue.is_finished:
            started_ray = self._connect()
            try:
                self._fit(plan, queue, store)
            finally:
                if started_ray:
                    ray.shutdown()
        return outcome_of(queue, done_before, time.monotonic() - begin)

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
        except (ConnectionError, ValueError) as error:
            raise StoreError(f"no Ray cluster answers at {self._address!r}: {error}") from error
        return True

    def _fit(self, plan: Plan, queue: StageQueue, store: Store) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        with Monitor(queue) as monitor, tempfile.TemporaryDirectory(prefix="raysweep-tune-") as folder:
            algorithm = QueueAlgorithm(plan, queue, store, Admission(nodes), monitor, self._runner)
            tuner = tune.Tuner(
                StageTrainable,
                tune_config=tune.TuneConfig(
                    search_alg=algorithm, scheduler=_LetWorkersStart(), num_samples=1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name="stages",
                    storage_path=folder,
                    verbose=0,
                    callbacks=[_Reconcile(algorithm)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
                ),
            )
            tuner.fit()
        if not queue.is_finished:
            raise KeyboardInterrupt


class QueueAlgorithm(SearchAlgorithm):  # type: ignore[misc]
    """Feeds the stages of a queue to Tune as they become ready and a node has room."""

    def __init__(
        self,
        plan: Plan,
        queue: StageQueue,
        store: Store,
        admission: Admission,
        monitor: Monitor,
        runner: str = RUN_STAGE,
    ) -> None:
        self._plan = plan
        self._queue = queue
        self._store = store
        self._admission = admission
        self._monitor = monitor
        self._runner = runner
        self._spec: dict[str, Any] = {}
        self._stage_of: dict[str, Stage] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves a copy for a restore that raysweep never makes."""
        return {}

    @property
    def total_samples(self) -> int:
        """Number of stages."""
        return len(self._queue.stages)

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Accept whatever Tune offers: the queue needs none of it."""
        return True

    def add_configurations(self, experiments: Any) -> None:
        """Take the experiment that trials belong to."""
        experiment = experiments[0] if isinstance(experiments, Sequence) else experiments
        self._spec = experiment.spec

    def next_trial(self) -> Trial | None:
        """Return the next stage as a trial, or None while nothing is ready or fits."""
        self._admission.begin_round()
        stage = self._queue.take(self._accept)
        if stage is None:
            return None
        trial = self._build_trial(stage)
        self._stage_of[trial.trial_id] = stage
        return trial

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take progress and published snapshots from a running stage."""
        stage = self._stage_of[trial_id]
        for epoch in result.get("snapshots") or ():
            self._queue.snapshot(stage.id, epoch)
        self._monitor.progress(stage, result.get("epoch", 0))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note how a stage ended; its last result arrives only here."""
        stage = self._stage_of[trial_id]
        if self._queue.state(stage.id) is not State.RUNNING:
            return
        self._admission.release(stage.id)
        if result:
            self.on_trial_result(trial_id, result)
        if error or not result:
            self._failed(stage, "the worker process died (killed, out of memory, or its node was lost)", "", "")
        elif result.get("error"):
            self._failed(stage, result["error"], result.get("traceback", ""), result.get("hostname", ""))
        else:
            self._queue.finished(stage.id)
        self._monitor.refresh()

    def is_finished(self) -> bool:
        """Whether every stage has ended."""
        return self._queue.is_finished

    def has_checkpoint(self, dirpath: str) -> bool:
        """No state of our own lies in Tune's folder: the store has it."""
        return False

    def save_to_dir(self, dirpath: str, session_str: str = "default", **_: Any) -> None:
        """Save nothing: the store has the state."""

    def restore_from_dir(self, dirpath: str) -> None:
        """Refuse: a launch is resumed by launching it again.

        Raises:
            StoreError: always.
        """
        raise StoreError(f"{dirpath}: a raysweep study is resumed by `raysweep run`, not by Tuner.restore")

    def _accept(self, stage: Stage) -> bool:
        request = ray_request(resources_of(self._plan, stage))
        if not self._admission.can_ever_hold(request):
            reason = f"no node has room for {request}; the nodes have {self._admission.largest()}"
            self._queue.refuse(stage.id, reason)
            self._monitor.failed(stage, reason, again=False)
            record_failure(stage, self._store, reason, "", 0)
            return False
        return self._admission.admit(stage.id, request)

    def _failed(self, stage: Stage, reason: str, trace: str, host: str) -> None:
        again = self._queue.failed(stage.id, reason)
        self._monitor.failed(stage, reason, again=again)
        if not again:
            record_failure(stage, self._store, reason, trace, self._queue.tried[stage.id], host)

    def _build_trial(self, stage: Stage) -> Trial:
        resources = resources_of(self._plan, stage)
        attempt = self._queue.tried[stage.id]
        spec = self._spec
        return Trial(
            spec["run"],
            trial_id=f"{stage.id[:16]}_{attempt}",
            config={
                "stage": stage_to_json(stage),
                "store": self._store.absolute_uri,
                "threads": num_threads(resources),
                "attempt": attempt,
                "runner": self._runner,
            },
            storage=spec["storage"],
            evaluated_params={},
            experiment_tag=stage.id[:16],
            placement_group_factory=tune.PlacementGroupFactory([ray_request(resources)]),
            stopping_criterion={},
            checkpoint_config=spec["checkpoint_config"],
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            max_failures=0,
        )


class _LetWorkersStart(FIFOScheduler):  # type: ignore[misc]
    """Names no trial to run first: the queue has ordered them, and Tune starts pending trials by itself.

    Tune moves the trial that a scheduler names to the next idle worker and kills the worker that was starting for it.
    With stages shorter than the start of a worker, all slots but the first would stay empty for ever.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return no trial."""
        return None


class _Reconcile(tune.Callback):  # type: ignore[misc]
    """Tells the algorithm of trials that ended without Tune telling it, so that dependents never wait for ever."""

    def __init__(self, algorithm: QueueAlgorithm) -> None:
        self._algorithm = algorithm

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Pass on a trial's error."""
        self._algorithm.on_trial_complete(trial.trial_id, error=True)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Keep the display alive while nothing reports."""
        self._algorithm._monitor.refresh()
