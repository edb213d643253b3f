"""What both executors offer."""

from __future__ import annotations

from typing import Protocol

from raysweep.engine.launch import Launch, Outcome


class Executor(Protocol):
    """Runs what is left of a plan."""

    def run(self, launch: Launch) -> Outcome:
        """Run every stage that the launch's queue hands out, until it is finished or drained.

        Raises:
            KeyboardInterrupt: if somebody interrupted it; what ran is resumable.
        """
