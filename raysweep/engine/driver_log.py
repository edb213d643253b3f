"""What the driver does, as log lines: which stage began, ended, failed. Printed where lines are JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from raysweep.logs import DRIVER
from raysweep.planning import Stage


class DriverLog:
    """Follows stages as a tracker does."""

    def __init__(self, context: Callable[[Stage], dict[str, Any]]) -> None:
        self._context = context
        self._log = logging.getLogger(DRIVER)

    def started(self, stage: Stage) -> None:
        """Log that an attempt begins."""
        self._log.info("stage begins", extra={"facts": self._context(stage)})

    def epoch(self, stage: Stage, epoch: int, metrics: Mapping[str, float]) -> None:
        """Say nothing: the stage's own log has it."""

    def ended(self, stage: Stage, how: str) -> None:
        """Log how an attempt ended: done, failed, stopped or interrupted."""
        self._log.info("stage ended", extra={"facts": {**self._context(stage), "outcome": how}})

    def close(self) -> None:
        """Log that the launch is over."""
        self._log.info("launch ended")
