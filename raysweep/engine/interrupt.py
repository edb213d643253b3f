"""Ctrl-C: once, stages stop after the epoch they are in; twice, everything stops now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DRAINING = "stopping: running stages end with the epoch they are in; Ctrl-C again stops now"


@contextmanager
def first_interrupt(drain: Callable[[], None]) -> Iterator[None]:
    """Call ``drain`` at the first SIGINT or SIGTERM; a second one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        drain()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
