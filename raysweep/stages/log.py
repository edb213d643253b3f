"""What a stage says while it runs: JSON lines in the store, a file per attempt, so that they outlive the node.

Every line carries the ids of stage and cells. With ``$RAYSWEEP_LOG=json`` they also go to the standard error stream,
where Ray and collectors of logs find them. Libraries' warnings of the stage's thread are among them.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from raysweep.errors import StoreError
from raysweep.logs import STAGE, JsonLines, LogFormat
from raysweep.planning import Stage
from raysweep.secrecy import mask
from raysweep.stages.progress import Progress, StagePreempted, StageStopped
from raysweep.store import Store

MAX_BYTES = 256 * 2**10
"""Size of one attempt's lines in the store: the first quarter and the last three are kept."""
_PUBLISH_EVERY_S = 15.0
_FIRST_AFTER_S = 2.0
"""A shorter attempt publishes its lines once, at its end."""
_MAX_CELLS = 8


class StageLog(logging.Handler):
    """Keeps the lines of one attempt and publishes them now and then, and when it is closed."""

    def __init__(self, store: Store, path: str, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(logging.INFO)
        self._store = store
        self._path = path
        self._thread = threading.get_ident()
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._first_room, self._last_room = max_bytes // 4, max_bytes - max_bytes // 4
        self._left_out = 0
        self._published_at = time.monotonic() - _PUBLISH_EVERY_S + _FIRST_AFTER_S

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the stage's thread."""
        if record.thread != self._thread:
            return
        self._add(self.format(record) + "\n")
        if time.monotonic() - self._published_at > _PUBLISH_EVERY_S:
            self.publish()

    def publish(self) -> None:
        """Write what there is; the file is replaced as a whole.

        A store that cannot be written to ends no stage because of its log: the stage's own files will tell.
        """
        self._published_at = time.monotonic()
        gap = [f'{{"level": "INFO", "message": "{self._left_out} lines left out"}}\n'] if self._left_out else []
        text = "".join([*self._first, *gap, *self._last])
        try:
            self._store.write_bytes(self._path, text.encode())
        except (OSError, StoreError) as error:
            sys.stderr.write(f"the log {self._path} could not be written: {mask(str(error))}\n")

    def _add(self, line: str) -> None:
        size = len(line.encode())
        if not self._last and size <= self._first_room:
            self._first.append(line)
            self._first_room -= size
            return
        self._first_room = 0
        self._last.append(line)
        self._last_room -= size
        while self._last_room < 0 and len(self._last) > 1:
            self._last_room += len(self._last.popleft().encode())
            self._left_out += 1


def stage_context(stage: Stage, cells: Sequence[str], attempt: int) -> dict[str, Any]:
    """Return what every line of an attempt carries: the ids of stage and cells, the first ones where there are many."""
    return {
        "stage": stage.id,
        "name": stage.name,
        "kind": stage.kind,
        "attempt": attempt,
        "cells": list(cells[:_MAX_CELLS]),
        "num_cells": len(cells),
    }


def logged(
    run: Callable[[], Iterator[Progress]],
    stage: Stage,
    context: Mapping[str, Any],
    store: Store,
    format_: LogFormat = "text",
) -> Generator[Progress, None, None]:
    """Run a stage, with a line at its begin, every epoch and its end, and what libraries say between."""
    log = logging.getLogger(STAGE)
    path = store.log_path(stage.id, time.time(), context["attempt"])
    with _handlers(StageLog(store, path), JsonLines(context), format_):
        log.info("begins", extra={"facts": {"epochs": stage.epochs, "parent": stage.parent and stage.parent.stage}})
        begin = time.monotonic()
        epoch = 0
        try:
            for progress in run():
                if progress.epoch > epoch or progress.snapshots:
                    log.info(f"epoch {progress.epoch} of {stage.epochs}", extra={"facts": _facts(progress)})
                epoch = progress.epoch
                yield progress
        except StagePreempted:
            log.info("preempted: saved", extra={"facts": {"epoch": epoch, "seconds": time.monotonic() - begin}})
            raise
        except (GeneratorExit, StageStopped):
            log.info("stopped", extra={"facts": {"epoch": epoch, "seconds": time.monotonic() - begin}})
            raise
        except BaseException:
            log.exception("failed", extra={"facts": {"epoch": epoch, "seconds": time.monotonic() - begin}})
            raise
        log.info("done", extra={"facts": {"epoch": epoch, "seconds": time.monotonic() - begin}})


@contextmanager
def _handlers(kept: StageLog, formatter: JsonLines, format_: LogFormat) -> Iterator[None]:
    """Let the stage's logger, and warnings of any other, reach the handlers while the block runs."""
    log, root = logging.getLogger(STAGE), logging.getLogger()
    log.setLevel(logging.INFO)
    log.propagate = False
    handlers: list[logging.Handler] = [kept]
    if format_ == "json":
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
        log.addHandler(handler)
    root.addHandler(kept)
    try:
        yield
    finally:
        root.removeHandler(kept)
        for handler in handlers:
            log.removeHandler(handler)
        kept.publish()


def _facts(progress: Progress) -> dict[str, Any]:
    facts: dict[str, Any] = {"epoch": progress.epoch, "metrics": dict(progress.metrics)}
    if progress.snapshots:
        facts["snapshots"] = list(progress.snapshots)
    if progress.gpu_peak_bytes is not None:
        facts["gpu_peak_bytes"] = progress.gpu_peak_bytes
    return facts
