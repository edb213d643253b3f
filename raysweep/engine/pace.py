"""How much work a launch has left, and how long that will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from raysweep.engine.queue import ENDED, StageQueue, State
from raysweep.planning import Stage
from raysweep.planning.cost import Rates


class Pace:
    """Follows the work of a launch, in estimated seconds, and how far the estimate is from what it takes here.

    The time left is the larger of the longest remaining path and the remaining work divided by the workers, both
    stretched by what the work done so far took against its estimate; and for each stage that is left the time that
    stages took beside their epochs, and that workers stood idle before stages that were ready. The start of the first
    ones is left out, as workers start then.
    """

    def __init__(self, queue: StageQueue, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._rates = rates
        self._clock = clock
        self._reached: dict[str, int] = {}
        self._begun: dict[str, float] = {}
        self._most_workers = 1
        self._total = self._done = 0.0
        for stage in queue.stages.values():
            seconds = rates.stage_s(stage)
            self._total += seconds
            if queue.state(stage.id) in ENDED:
                self._done += seconds
        self._estimated_s = self._taken_s = self._beside_s = 0.0
        self._launched: dict[str, float] = {}
        self._idle_since: deque[float] = deque()
        self._num_ended = 0

    @property
    def share_done(self) -> float:
        """Share of the plan's work that is done, 0 to 1."""
        return min(1.0, self._done / self._total) if self._total else 1.0

    def started(self, stage: Stage) -> None:
        """Note that an attempt is on its way."""
        self._begun.pop(stage.id, None)
        if self._num_ended:
            now = self._launched[stage.id] = self._clock()
            idle_s = now - self._idle_since.popleft() if self._idle_since else 0.0
            self._beside_s += min(idle_s, self._queue.waited_s(stage.id))

    def progress(self, stage: Stage, epoch: int) -> None:
        """Note that a stage has reached an epoch; its first report says where it continues from."""
        now = self._clock()
        before, begun = self._reached.get(stage.id, 0), self._begun.get(stage.id)
        advanced = (epoch - before) * self._rates.epoch_s(stage)
        self._done += advanced
        self._beside_s += now - self._launched.pop(stage.id, now)
        if begun is not None and advanced > 0:
            self._estimated_s += advanced
            self._taken_s += now - begun
        self._reached[stage.id] = epoch
        self._begun[stage.id] = now
        self._most_workers = max(self._most_workers, self._queue.counts[State.RUNNING])

    def ended(self, stage: Stage) -> None:
        """Note that an attempt has ended: work of a stage that will not run any more is no work left."""
        begun = self._begun.get(stage.id)
        self._idle_since.append(self._clock())
        if begun is not None and self._reached[stage.id] == stage.epochs:
            self._beside_s += self._clock() - begun
            self._num_ended += 1
        if self._queue.state(stage.id) in ENDED:
            left = stage.epochs - self._reached.pop(stage.id, 0)  # a large launch looks at those alone that may run
            self._done += left * self._rates.epoch_s(stage)
            self._begun.pop(stage.id, None)

    def seconds_left(self) -> float | None:
        """Return the seconds until the plan is done; None before anything was measured."""
        if not self._estimated_s or self._queue.is_finished:
            return None
        stretch = self._taken_s / self._estimated_s
        work_s = (self._total - self._done) / self._most_workers
        beside_s = self._queue.num_left * self._beside_s / max(1, self._num_ended) / self._most_workers
        return max(work_s, self._longest_path_s()) * stretch + beside_s

    def _longest_path_s(self) -> float:
        heads = [self._queue.priority(stage.id) for stage in self._queue.ready(limit=1)]
        running = [
            self._queue.priority(name) - epoch * self._rates.epoch_s(self._queue.stages[name])
            for name, epoch in self._reached.items()
            if self._queue.state(name) is State.RUNNING
        ]
        return max([0.0, *heads, *running])
