"""A stage as a trial of Tune: how it is asked for, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.experiment import Trial

from raysweep.engine.trainable import REPORT, StageHungError, StagePreemptedError
from raysweep.stages.failure import Failure, failure_of
from raysweep.stages.progress import Progress

_WORKER_DIED = "the worker process died (killed, or the node ran out of memory)"
_NODE_LOST = "the node was lost"
_NODE_DIED = "node has died"  # how Ray words it in an error that has no type of its own


class StageTrial(Trial):  # type: ignore[misc]
    """A trial that keeps the exception that ended it."""

    exception: Exception | None = None

    def handle_error(self, exc: Exception | None = None) -> None:
        """Keep the exception: Tune passes on only that there was one."""
        self.exception = exc
        super().handle_error(exc)


class Report:
    """What a worker reports of a stage."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        values = json.loads(result[REPORT]) if REPORT in result else {}
        self.events = [
            Progress(**{**event, "snapshots": tuple(event["snapshots"])}) for event in values.get("events", ())
        ]
        self.has_ended: bool = values.get("ended", False)
        failure = values.get("failure")
        self.failure = None if failure is None else Failure(**failure)
        self.node: str | None = values.get("node")


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
    """Return a request for resources on a node, or on another one should that be gone."""
    return tune.PlacementGroupFactory([dict(request)], strategy="STRICT_PACK", _soft_target_node_id=node)
