"""Ctrl-C: once, stages stop after the epoch they are in; twice, everything stops now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DRAINING = "stopping: running stages end with the epoch they are in; Ctrl-C again stops now"


@contextmanager
def first_interrupt(drain: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Call ``drain`` at the first SIGINT or SIGTERM; a second one raises KeyboardInterrupt.

    Yields a function that installs the handlers again, for a library that installs its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # Python delivers signals to the main thread only
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        drain()

    def install() -> None:
        for number in before:
            signal.signal(number, handle)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install()
    try:
        yield install
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
