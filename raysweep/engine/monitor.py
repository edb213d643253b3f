"""What a person sees while a study runs: one live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysweep.engine.pace import Pace
from raysweep.engine.queue import StageQueue, State
from raysweep.logs import log_format, tell
from raysweep.planning import Stage
from raysweep.planning.cost import Rates

_LINE_EVERY_S = 15.0
_DRAW_EVERY_S = 0.25
_MAX_ROWS = 8

Use = Callable[[str], tuple[float, float]]
"""Returns how much of a resource is held, and how much there is."""


class Monitor:
    """Follows a queue: stages done, running, waiting and failed, what is in use, and the time left."""

    def __init__(self, queue: StageQueue, rates: Rates | None = None, console: Console | None = None) -> None:
        self.use: Use = lambda _: (0.0, 0.0)
        self._queue = queue
        self._pace = Pace(queue, rates or Rates())
        self._is_json = log_format() == "json"
        self._console = console or Console(stderr=True, quiet=self._is_json)
        self._running: dict[str, tuple[Stage, int]] = {}
        self._begin = self._last_line = self._last_drawn = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Monitor:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self.say(self.line())

    def say(self, text: str) -> None:
        """Print a line, above the live display."""
        if self._is_json:
            tell(text)
        self._console.print(Text(text), highlight=False, soft_wrap=True)

    def started(self, stage: Stage) -> None:
        """Note that an attempt of a stage is on its way."""
        self._pace.started(stage)
        self._running[stage.id] = (stage, 0)
        self.refresh()

    def progress(self, stage: Stage, epoch: int) -> None:
        """Note that a stage has reached an epoch."""
        self._pace.progress(stage, epoch)
        self._running[stage.id] = (stage, epoch)
        self.refresh()

    def ended(self, stage: Stage) -> None:
        """Note that an attempt has ended."""
        self._running.pop(stage.id, None)
        self._pace.ended(stage)
        self.refresh()

    def failed(self, stage: Stage, reason: str, *, again: bool) -> None:
        """Say that an attempt failed."""
        what = "failed, trying again" if again else "failed"
        if self._is_json:
            tell(f"stage {what}: {reason}", stage=stage.id, name=stage.name, kind=stage.kind)
        line = Text.assemble((what, "red"), f" {stage.name} ", (f"({stage.id[:8]})", "dim"), f": {reason}")
        self._console.print(line, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Redraw, at most a few times a second; without a terminal, print a line now and then."""
        now = time.monotonic()
        if self._console.is_terminal:
            if now - self._last_drawn >= _DRAW_EVERY_S:
                self._last_drawn = now
                self._live.update(self._draw(), refresh=True)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self.say(self.line())

    def line(self) -> str:
        """Return the state of the launch in one line."""
        counts: Mapping[State, int] = self._queue.counts
        parts = [f"{counts.get(State.DONE, 0)}/{len(self._queue.stages)} stages done"]
        for state in State:
            if state is not State.DONE and counts.get(state, 0):
                parts.append(f"{counts[state]} {state}")
        for name in ("CPU", "GPU"):
            held, there = self.use(name)
            if there and (held or name == "GPU"):
                parts.append(f"{name} {held:g}/{there:g}")
        parts.append(f"{duration(time.monotonic() - self._begin)} so far")
        if (left := self._pace.seconds_left()) is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def _draw(self) -> RenderableType:
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=self._pace.share_done, width=24)
        head.add_row(bar, f"{100 * self._pace.share_done:.0f} %", Text(self.line()))
        rows = Table.grid(padding=(0, 2))
        # pretraining first: everything else waits for it
        running = sorted(self._running.values(), key=lambda item: (item[0].kind != "pretrain", item[0].name))
        for stage, epoch in running[:_MAX_ROWS]:
            bar = ProgressBar(total=stage.epochs, completed=epoch, width=12)
            rows.add_row(Text(stage.kind, style="dim"), bar, f"{epoch}/{stage.epochs}", Text(stage.name))
        if len(running) > _MAX_ROWS:
            rows.add_row("", "", "", Text(f"and {len(running) - _MAX_ROWS} more", style="dim"))
        return Group(head, rows)


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
