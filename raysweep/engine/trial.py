"""A stage as a trial of Tune: how it is asked for, and what its errors mean."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ray import tune
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.experiment import Trial

from raysweep.engine.requests import request_key
from raysweep.engine.trainable import REPORT, StageHungError, StagePreemptedError
from raysweep.stages.failure import Failure, failure_of
from raysweep.stages.progress import Progress

_WORKER_DIED = "the worker process died (killed, or the node ran out of memory)"
_NODE_LOST = "the node was lost"
_NODE_DIED = "node has died"  # how Ray words it in an error that has no type of its own


class StageTrial(Trial):  # type: ignore[misc]
    """A trial that keeps the exception that ended it."""

    exception: Exception | None = None
    _ended_metadata: ClassVar[Any] = None

    def handle_error(self, exc: Exception | None = None) -> None:
        """Keep the exception: Tune passes on only that there was one."""
        self.exception = exc
        super().handle_error(exc)

    def get_json_state(self) -> tuple[str, str]:
        """Return nothing: Tune keeps and saves every trial's state for a restore that raysweep never makes."""
        return "{}", "{}"

    def update_last_result(self, result: dict[str, Any]) -> None:
        """Keep the result alone: Tune would keep statistics of each of its numbers."""
        self.run_metadata.last_result = result
        self.run_metadata.last_result_time = time.time()

    def forget(self) -> bool:
        """Let go of what a trial that has ended needs no more, for Tune keeps it; return whether it has ended."""
        if self.is_finished():
            self.config: dict[str, Any] = {}
            self._Trial__unresolved_config: dict[str, Any] = {}
            self.run_metadata: Any = self._metadata_of_ended(self.run_metadata)
            self.exception = None
        return bool(self.is_finished())

    @classmethod
    def _metadata_of_ended(cls, example: Any) -> Any:
        """Return what all trials that have ended share: no result, no error, no checkpoint."""
        if cls._ended_metadata is None:
            cls._ended_metadata = type(example)()
            cls._ended_metadata.checkpoint_manager = example.checkpoint_manager
        return cls._ended_metadata


@dataclass(frozen=True)
class Report:
    """What a worker reports of a stage."""

    events: tuple[Progress, ...] = ()
    has_ended: bool = False
    failure: Failure | None = None
    node: str | None = None


def report_in(result: Mapping[str, Any]) -> Report:
    """Return the report in a result of Tune; an empty one if there is none."""
    return _parsed(result[REPORT]) if REPORT in result else Report()


@lru_cache(maxsize=1)  # a result goes to the scheduler first and to the search algorithm at once after it
def _parsed(text: str) -> Report:
    values = json.loads(text)
    events = tuple(Progress(**{**event, "snapshots": tuple(event["snapshots"])}) for event in values["events"])
    failure = None if values["failure"] is None else Failure(**values["failure"])
    return Report(events, values["ended"], failure, values["node"])


def may_be_a_lost_node(error: Exception | None) -> bool:
    """Whether an error looks as it does when a node is gone, which the cluster notices only some seconds later."""
    return isinstance(error, ActorUnavailableError)


def failure_behind(error: Exception | None, *, node_is_lost: bool) -> Failure:
    """Return what the error of a trial says about the attempt that it ended."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, StagePreemptedError):
            return Failure("preempted: its training state is saved", "preempted")
        if isinstance(cause, StageHungError):
            return Failure(cause.reason, "hung", cause.stack)
        if isinstance(cause, Exception):
            return failure_of(cause)
    if isinstance(error, OutOfMemoryError):
        return Failure("the node ran out of memory and Ray ended the worker; ask for memory_gb", "memory", str(error))
    preempted = isinstance(error, RayActorError) and error.preempted
    if node_is_lost or preempted or _NODE_DIED in str(error):
        return Failure(_NODE_LOST, "node", str(error or ""))
    return Failure(_WORKER_DIED, "worker", str(error or ""))


def placement(request: Mapping[str, float], node: str) -> tune.PlacementGroupFactory:
    """Return a request for resources on a node, or on another one should that be gone; equal ones are one object."""
    return _placement(request_key(request), node)


@lru_cache(maxsize=4096)
def _placement(request: tuple[tuple[str, float], ...], node: str) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([dict(request)], strategy="STRICT_PACK", _soft_target_node_id=node)
