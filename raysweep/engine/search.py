"""The stage queue as a search algorithm of Tune.

Tune has no dependencies between trials; a ``SearchAlgorithm`` that builds its own trials can hold one back until the
snapshot it starts from exists and a node has room for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.tune.experiment import Trial
from ray.tune.search import SearchAlgorithm

from raysweep.engine.cluster import Cluster
from raysweep.engine.dispatch import Assignment, Dispatcher
from raysweep.engine.launch import Launch
from raysweep.engine.queue import State
from raysweep.engine.running import RunningStage, Suspect
from raysweep.engine.trial import Report, StageTrial, failure_behind, may_be_a_lost_node, placement, report_in
from raysweep.errors import StoreError
from raysweep.logs import log_format
from raysweep.planning.model import stage_to_json
from raysweep.stages.failure import Failure

_REPORTS_PER_S = 16
"""A report costs the driver some milliseconds: with more workers each reports more seldom."""
_REFRESH_S = 0.5
_HALT_S = 120.0
"""How long the end of a launch waits for workers to end stages that were stopped."""
_SILENT_MARGIN_S = 30.0
"""How much later than a worker should have noticed itself the driver gives up on it."""
_NODE_DEATH_NOTICE_S = 60.0
"""Within this time a cluster notices that a node is gone; meanwhile nothing is placed where it was."""


class QueueAlgorithm(SearchAlgorithm):  # type: ignore[misc]
    """Feeds the stages of a launch to Tune as they become ready and a node has room."""

    def __init__(self, launch: Launch, cluster: Cluster, runner: str) -> None:
        self._launch = launch
        self._cluster = cluster
        self._runner = runner
        self._dispatcher = Dispatcher(
            launch.queue,
            launch.requests,
            cluster.nodes(now=True),
            refuse=launch.refused,
            may_come=cluster.may_come,
        )
        self._admission = self._dispatcher.admission
        self._spec: dict[str, Any] = {}
        self._running: dict[str, RunningStage] = {}
        self._suspects: list[Suspect] = []
        self._ended: list[StageTrial] = []
        self._halting: list[ray.ObjectRef] = []
        self._num_trials = 0
        self._refreshed_at = 0.0
        self._preempts_all = False
        launch.monitor.use = self._admission.use

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves a copy for a restore that raysweep never makes."""
        return {}

    @property
    def total_samples(self) -> int:
        """Number of stages."""
        return len(self._launch.queue.stages)

    @property
    def is_draining(self) -> bool:
        """Whether running stages are to stop after the epoch they are in."""
        return self._launch.queue.is_draining

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Accept whatever Tune offers: the queue needs none of it."""
        return True

    def add_configurations(self, experiments: Any) -> None:
        """Take the experiment that trials belong to."""
        experiment = experiments[0] if isinstance(experiments, Sequence) else experiments
        self._spec = experiment.spec

    def next_trial(self) -> Trial | None:
        """Return the next stage as a trial, or None while nothing is ready or fits."""
        self.refresh()  # while no trial is live, Tune waits for one here and calls nothing else
        assignment = self._dispatcher.next(self._cluster.nodes())
        if assignment is None:
            return None
        trial = self._build_trial(assignment)
        self._launch.started(assignment.stage)
        return trial

    def on_trial_start(self, trial_id: str) -> None:
        """Note that a stage's worker is up."""
        if trial_id in self._running:
            self._running[trial_id].last_report = time.monotonic()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take progress and published snapshots from a running stage."""
        if trial_id in self._running:
            self._take_report(self._running[trial_id], report_in(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note how a stage ended; its last result arrives only here."""
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        stage, launch = running.stage, self._launch
        self._ended.append(running.trial)
        report = report_in(result or {})
        self._take_report(running, report)
        if error:
            self._suspects.append(Suspect(running, time.monotonic() + _NODE_DEATH_NOTICE_S))
            self._decide_suspects()
            return
        self._dispatcher.ended(running.assignment, leaves_worker=True)
        if report.failure is not None:
            launch.failed(stage, report.failure, running.gpu_share)
        elif report.has_ended:
            launch.finished(stage)
        elif running.pruned_at is not None:
            launch.stopped(stage, running.pruned_at)
        else:
            launch.interrupted(stage)

    def is_finished(self) -> bool:
        """Whether every stage has ended, or none runs any more after an interrupt."""
        return self._launch.queue.is_finished

    def refresh(self) -> None:
        """Keep the display alive, ask for nodes, and end workers that have fallen silent; a few times a second."""
        if time.monotonic() - self._refreshed_at < _REFRESH_S:
            return
        self._refreshed_at = time.monotonic()
        self._launch.monitor.refresh()
        self._launch.metrics.refresh(self._launch.queue.counts)
        self._decide_suspects()
        suspected = [suspect.running.trial for suspect in self._suspects]
        self._ended = [trial for trial in self._ended if trial in suspected or not trial.forget()]
        if self._cluster.may_grow:
            ready = self._launch.queue.ready(limit=256)
            running = [running.request for running in self._running.values()]
            self._cluster.ask_for([*running, *(self._launch.request(stage) for stage in ready)])
        for running_stage in self._running.values():
            self._end_if_silent(running_stage)
            self._preempt_if_due(running_stage)

    def preempt(self) -> None:
        """Have all running stages save their training states and end, from the next refresh on."""
        self._preempts_all = True
        self._refreshed_at = 0.0

    def stops(self, trial_id: str, report: Report) -> bool:
        """Return whether a trial is to stop after what it reports, for now (the launch drains) or for good (pruned)."""
        running = self._running.get(trial_id)
        if running is not None:
            for progress in report.events:
                if self._launch.prunes(running.stage, progress) and not report.has_ended:
                    running.pruned_at = progress
                    self._halt(running.trial, progress.epoch)
                    return True
        return self.is_draining and bool(report.events)

    def settle(self) -> None:
        """Wait until workers have published the curves of stages that were stopped."""
        if self._halting:
            ray.wait(self._halting, num_returns=len(self._halting), timeout=_HALT_S)

    def running_trials(self) -> list[StageTrial]:
        """Return the trials that have been handed to Tune and have not ended."""
        return [running.trial for running in self._running.values()]

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

    def _take_report(self, running: RunningStage, report: Report) -> None:
        running.last_report = time.monotonic()
        if report.node is not None:
            self._admission.move(running.stage.id, report.node)
        for progress in report.events:
            self._launch.progress(running.stage, progress)

    def _decide_suspects(self) -> None:
        """Say of attempts that ended with an error whether their node is gone, once that is known."""
        if not self._suspects:
            return
        self._admission.update(self._cluster.nodes(now=True))
        waiting = []
        for suspect in self._suspects:
            running = suspect.running
            node = self._admission.node_of(running.stage.id)
            lost = node is not None and not self._admission.has(node)
            error = running.trial.exception
            if not lost and may_be_a_lost_node(error) and time.monotonic() < suspect.decide_at:
                waiting.append(suspect)
                continue
            self._dispatcher.ended(running.assignment, leaves_worker=False)
            failure = running.presumed or failure_behind(error, node_is_lost=lost)
            if failure.kind == "preempted" and self._preempts_all:
                self._launch.interrupted(running.stage)
            else:
                self._launch.failed(running.stage, failure, running.gpu_share)
        self._suspects = waiting

    def _preempt_if_due(self, running: RunningStage) -> None:
        """Tell a worker to save and end, once, if its node is about to go away, or the driver itself."""
        actor = running.trial.temporary_state.ray_actor
        if running.is_preempted or running.last_report is None or actor is None:
            return
        if self._preempts_all or self._admission.node_of(running.stage.id) in self._cluster.draining:
            running.is_preempted = True
            actor.preempt.remote()

    def _end_if_silent(self, running: RunningStage) -> None:
        """End a worker that reports no more although it would if its stage alone hung: it is stopped or unreachable."""
        limit_s = self._launch.hung_after_s
        if limit_s is None or running.last_report is None or running.presumed is not None:
            return
        silent_s = time.monotonic() - running.last_report
        if silent_s > limit_s + 2 * running.report_every_s + _SILENT_MARGIN_S:
            running.presumed = Failure(f"hung: its worker has not reported for {silent_s:.0f} s", "hung")
            if (actor := running.trial.temporary_state.ray_actor) is not None:
                ray.kill(actor)

    def _halt(self, trial: StageTrial, epoch: int) -> None:
        """Let a worker end its stage now: a stopped trial alone would train on until the worker takes another."""
        if (actor := trial.temporary_state.ray_actor) is not None:
            _, still = ray.wait(self._halting, num_returns=len(self._halting), timeout=0) if self._halting else ([], [])
            self._halting = [*still, actor.halt.remote(epoch)]

    def _build_trial(self, assignment: Assignment) -> StageTrial:
        launch, spec, stage = self._launch, self._spec, assignment.stage
        resources = launch.resources(stage)
        report_every_s = max(1.0, launch.queue.counts[State.RUNNING] / _REPORTS_PER_S)
        self._num_trials += 1
        trial = StageTrial(
            spec["run"],
            trial_id=f"{stage.id[:16]}_{self._num_trials}",
            config={
                "stage": stage_to_json(stage),
                "store": launch.store.absolute_uri,
                "threads": launch.threads(stage),
                "attempt": launch.attempt(stage),
                "log_context": launch.log_context(stage),
                "log_format": log_format(),
                "gpu_share": assignment.request.get("GPU", 1.0),
                "ranks": launch.ranks(stage),
                "time_limit_s": resources.time_limit_s,
                "hung_after_s": launch.hung_after_s,
                "report_every_s": report_every_s,
                "runner": self._runner,
            },
            storage=spec["storage"],
            evaluated_params={},
            experiment_tag=stage.id[:16],
            placement_group_factory=placement(assignment.request, assignment.node),
            stopping_criterion={},
            checkpoint_config=spec["checkpoint_config"],
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            max_failures=0,
        )
        self._running[trial.trial_id] = RunningStage(assignment, trial, report_every_s)
        return trial
