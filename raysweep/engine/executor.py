"""What both executors share: the interface, the outcome of a launch, and how stages ask for resources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from raysweep.engine.queue import StageQueue, State
from raysweep.planning import Plan, Stage
from raysweep.store import Store
from raysweep.study import StageResources

_GIGABYTE = 10**9


@dataclass(frozen=True)
class Outcome:
    """How a launch ended; stage names by what became of them."""

    done: int
    """Stages that this launch finished."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> reason."""
    wall_s: float = 0.0
    remaining: int = 0
    """Stages of the plan that are not done, for whatever reason."""

    @property
    def is_complete(self) -> bool:
        """Whether every stage of the plan is done."""
        return self.remaining == 0


class Executor(Protocol):
    """Runs what is left of a plan."""

    def run(self, plan: Plan, queue: StageQueue, store: Store) -> Outcome:
        """Run every stage that the queue hands out, until it is finished."""


def resources_of(plan: Plan, stage: Stage) -> StageResources:
    """Return what a stage asks of a node."""
    wanted = plan.study.resources
    return wanted.pretrain if stage.kind == "pretrain" else wanted.finetune


def ray_request(resources: StageResources) -> dict[str, float]:
    """Return a request in Ray's words: CPU, GPU, memory in bytes, custom resources."""
    request = {"CPU": resources.cpus, **resources.custom}
    if resources.gpus:
        request["GPU"] = resources.gpus
    if resources.memory_gb:
        request["memory"] = resources.memory_gb * _GIGABYTE
    return request


def num_threads(resources: StageResources) -> int:
    """Return the CPU threads of a stage: one per core asked for, at least one."""
    return max(1, int(resources.cpus))


def outcome_of(queue: StageQueue, done_before: int, wall_s: float) -> Outcome:
    """Sum up a queue that is finished."""

    def reasons(state: State) -> dict[str, str]:
        return {
            queue.stages[stage].name: reason for stage, reason in queue.reasons.items() if queue.state(stage) is state
        }

    done = queue.counts.get(State.DONE, 0)
    return Outcome(
        done=done - done_before,
        failed=reasons(State.FAILED),
        skipped=reasons(State.SKIPPED),
        wall_s=wall_s,
        remaining=len(queue.stages) - done,
    )
