"""Watching a stage from within its process: its time limit, and the thread it runs in. No torch here."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from raysweep.stages.failure import Failure, TimeLimitError, failure_of
from raysweep.stages.progress import Progress, StageStopped

_END_TIMEOUT_S = 60.0


class Deadline:
    """The time limit of one attempt."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._begin = time.monotonic()

    def check(self) -> None:
        """Do nothing while there is time.

        Raises:
            TimeLimitError: afterwards.
        """
        elapsed_s = time.monotonic() - self._begin
        if self._limit_s is not None and elapsed_s > self._limit_s:
            raise TimeLimitError(
                f"the attempt took {elapsed_s:.0f} s, more than time_limit_s: {self._limit_s:g} allows; "
                "the next attempt continues from its last epoch"
            )


class StageThread:
    """Runs stages one after another in a thread of its own, so that its process can answer while a stage works.

    It is one thread for all stages of a process: libraries keep state by thread.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], Iterator[Progress]]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Progress | Failure | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._deadline = Deadline(None)
        self._stop = False
        self._is_preempted = False
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="stage", daemon=True)
        self._thread.start()

    def start(self, stage: Callable[[], Iterator[Progress]], time_limit_s: float | None) -> None:
        """Start a stage once the one before has ended; ``next_event`` tells how it goes.

        Raises:
            RuntimeError: if the one before does not end.
        """
        if not self._idle.wait(_END_TIMEOUT_S):
            raise RuntimeError("a stage is still running in this process")
        self._idle.clear()
        self._stop = False
        self._deadline = Deadline(time_limit_s)
        self._last_beat = time.monotonic()
        self._jobs.put(stage)

    def beat(self) -> bool:
        """Give a sign of life, from within the stage; return whether it is to save its training state and end.

        Raises:
            StageStopped: if the stage is to stop.
            TimeLimitError: if its time is over.
        """
        self._last_beat = time.monotonic()
        if self._stop:
            raise StageStopped
        self._deadline.check()
        return self._is_preempted

    def preempt(self) -> None:
        """Have the running stage save its training state at its next step and end, and so all that start here."""
        self._is_preempted = True

    def next_event(self, timeout_s: float) -> Progress | Failure | None:
        """Return what the stage reports next: progress, how it failed, or None when it has ended well.

        Raises:
            queue.Empty: if there is nothing within the time.
        """
        return self._events.get(timeout=max(0.0, timeout_s))

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last_beat

    def where(self) -> str:
        """Return the stack of the thread: where a hung stage hangs."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def stop(self, timeout_s: float = _END_TIMEOUT_S) -> bool:
        """End the running stage at its next sign of life; return whether none runs any more."""
        self._stop = True
        if not self._idle.wait(timeout_s):
            return False
        while not self._events.empty():
            self._events.get()
        return True

    def _work(self) -> None:
        while True:
            self._events.put(self._run(self._jobs.get()))
            self._idle.set()

    def _run(self, stage: Callable[[], Iterator[Progress]]) -> Failure | None:
        try:
            for progress in stage():
                self._events.put(progress)
                self.beat()
        except StageStopped:
            return None
        except BaseException as error:  # noqa: BLE001 - whatever ends a stage is passed on, without what it refers to
            return failure_of(error)
        return None
