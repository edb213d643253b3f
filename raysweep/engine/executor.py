"""What both executors offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raysweep.engine.launch import Launch, Outcome


def at_once() -> None:
    """Let a launch start without waiting for anything."""


class Executor(Protocol):
    """Runs what is left of a plan."""

    def run(self, launch: Launch, ready: Callable[[], object] = at_once) -> Outcome:
        """Run every stage that the launch's queue hands out, until it is finished or drained.

        Args:
            launch: what is left of a plan, and its store.
            ready: called once before the first stage, when all else is there; waits until stages may start. What it
                raises ends the launch.

        Raises:
            KeyboardInterrupt: if somebody interrupted it; what ran is resumable.
        """
