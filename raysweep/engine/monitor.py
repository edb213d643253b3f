"""What a person sees while a study runs: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from raysweep.engine.queue import StageQueue, State
from raysweep.planning import Stage

_LINE_EVERY_S = 15.0


class Monitor:
    """Follows a queue: stages done, running, waiting and failed, and the time left at the rate so far.

    Work is counted in epochs.
    """

    def __init__(self, queue: StageQueue, console: Console | None = None) -> None:
        self._queue = queue
        self._console = console or Console(stderr=True)
        self._epochs: dict[str, float] = {
            stage.id: float(stage.epochs) for stage in queue.stages.values() if queue.state(stage.id) is State.DONE
        }
        self._before = sum(self._epochs.values())
        self._total = sum(float(stage.epochs) for stage in queue.stages.values())
        self._begin = self._last_line = time.monotonic()
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._live.add_task("starting", total=self._total, completed=int(self._before))

    def __enter__(self) -> Monitor:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def progress(self, stage: Stage, epoch: int) -> None:
        """Note that a stage has reached an epoch."""
        self._epochs[stage.id] = float(epoch)
        self.refresh()

    def failed(self, stage: Stage, reason: str, *, again: bool) -> None:
        """Say that an attempt failed, above the live line."""
        what = "failed, trying again" if again else "failed"
        self._console.print(f"[red]{what}[/] {stage.name} [dim]({stage.id[:8]})[/]: {reason}", highlight=False)

    def refresh(self) -> None:
        """Redraw, at most a few times a second; without a terminal, print a line now and then."""
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.update(self._task, description=self.line(), completed=sum(self._epochs.values()))
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self._console.print(self.line(), highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Return the state of the launch in one line."""
        counts: Mapping[State, int] = self._queue.counts
        parts = [f"{counts.get(State.DONE, 0)}/{len(self._queue.stages)} stages done"]
        for state in (State.RUNNING, State.READY, State.WAITING, State.FAILED, State.SKIPPED):
            if counts.get(state, 0):
                parts.append(f"{counts[state]} {state}")
        if (left := self._seconds_left()) is not None:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        worked = sum(self._epochs.values()) - self._before
        remaining = self._total - self._before - worked
        if worked <= 0 or remaining <= 0:
            return None
        return (time.monotonic() - self._begin) * remaining / worked


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
