"""Which stage goes to which node next: the queue, what stages ask for, the nodes' room and warm workers, together.

Both the executor on Ray Tune and the simulation ask here, so that a simulation decides as a run does. No Ray here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raysweep.engine.admission import Admission, Resources
from raysweep.engine.queue import StageQueue
from raysweep.engine.requests import Key, Requests, request_key
from raysweep.planning import Stage

WORKER_START_S = 15.0
"""What a worker takes until its first step, imports included: a stage that a warm worker can take saves it."""

MAX_STARTING = 256
"""Workers that may start at the same time; only stages that a node has room for start one."""


@dataclass(frozen=True)
class Assignment:
    """A stage that has been handed out: what it holds, and where."""

    stage: Stage
    request: Mapping[str, float]
    node: str


class Dispatcher:
    """Hands out the stages of a queue to nodes with room for them.

    Args:
        queue: the stages.
        requests: what each asks for.
        nodes: what every node has in all, by its id.
        refuse: fails a stage that no node can hold, with the reason.
        may_come: whether a node with room for a request may still join.
    """

    def __init__(
        self,
        queue: StageQueue,
        requests: Requests,
        nodes: Mapping[str, Resources],
        *,
        refuse: Callable[[Stage, str], None],
        may_come: Callable[[Resources], bool] = lambda _: False,
    ) -> None:
        self.admission = Admission(nodes)
        self._queue = queue
        self._requests = requests
        self._refuse = refuse
        self._may_come = may_come
        self._warm: Counter[Key] = Counter()
        self._refused: set[Key] = set()

    def next(self, nodes: Mapping[str, Resources]) -> Assignment | None:
        """Hand out the next stage, given the nodes that there are now; None while nothing is ready or fits."""
        self.admission.update(nodes)
        self.admission.begin_round()
        self._refused = set()
        stage = self._queue.take(self._accept, self._bonus, patience_s=WORKER_START_S)
        if stage is None:
            return None
        request, key = self._requests.request(stage), self._requests.key(stage)
        if self._warm[key]:
            self._warm[key] -= 1
        node = self.admission.node_of(stage.id)
        assert node is not None  # it was admitted a moment ago
        return Assignment(stage, request, node)

    def ended(self, assignment: Assignment, *, leaves_worker: bool) -> None:
        """Take back what a stage held; its worker, if it lives, can take another stage that asks for the same."""
        self.admission.release(assignment.stage.id)
        if leaves_worker:
            self._warm[request_key(assignment.request)] += 1

    def _accept(self, stage: Stage) -> bool:
        key = self._requests.key(stage)
        if key in self._refused:
            return False  # the first stage that asks for this has reserved a node; one for each shape would be too many
        request = self._requests.request(stage)
        if not self.admission.can_ever_hold(request):
            if not self._may_come(request):
                nodes = self.admission.largest()
                self._refuse(stage, f"no node has room for {dict(request)}; the nodes have {nodes}")
            return False
        if self.admission.admit(stage.id, request) is not None:
            return True
        self._refused.add(key)
        return False

    def _bonus(self, stage: Stage) -> float:
        return WORKER_START_S if self._warm[self._requests.key(stage)] > 0 else 0.0
