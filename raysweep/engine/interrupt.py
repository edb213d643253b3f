"""Ctrl-C and SIGTERM.

Ctrl-C once: stages stop after the epoch they are in; twice: everything stops now. SIGTERM, with which clusters announce
that a process is about to be killed: stages save their training states at the next step, within a time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from raysweep.errors import StudyError

_DRAINING = "stopping: running stages end with the epoch they are in; Ctrl-C again stops now"
_PREEMPTED = "stopping: SIGTERM; running stages save their training states now, which may take {grace_s:g} s"
_GRACE_S = 25.0
"""Kubernetes and Slurm kill a process 30 s after the signal, if nothing else is configured."""


def grace_s() -> float:
    """Return how many seconds after SIGTERM a driver waits for its stages: $RAYSWEEP_GRACE_S.

    Raises:
        StudyError: if that is no number.
    """
    text = os.environ.get("RAYSWEEP_GRACE_S") or str(_GRACE_S)
    try:
        return float(text)
    except ValueError:
        raise StudyError(f"RAYSWEEP_GRACE_S is {text!r}; it must be a number of seconds") from None


@contextmanager
def first_interrupt(drain: Callable[[str, bool], None]) -> Iterator[None]:
    """Call ``drain`` at the first SIGINT or SIGTERM: with what to say, and whether stages end at their next step.

    A second signal raises KeyboardInterrupt, and so does the end of the time that SIGTERM leaves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    asked = False
    wait_s = grace_s()
    main = threading.main_thread().ident
    deadline = threading.Timer(wait_s, lambda: signal.pthread_kill(main, signal.SIGTERM) if main else None)
    deadline.daemon = True

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if number == signal.SIGTERM:
            deadline.start()
            drain(_PREEMPTED.format(grace_s=wait_s), True)
        else:
            drain(_DRAINING, False)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        deadline.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def on_termination(take: Callable[[], bool]) -> None:
    """Call ``take`` at SIGTERM in this process, a worker; unless it returns true, what was set before does not run."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python delivers signals to the main thread only
    before = signal.getsignal(signal.SIGTERM)
    if isinstance(before, _Termination):
        before.take = take
    else:
        signal.signal(signal.SIGTERM, _Termination(take, before))


class _Termination:
    """A handler that remembers the one it replaced."""

    def __init__(self, take: Callable[[], bool], before: Any) -> None:
        self.take = take
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.take():
            return
        if callable(self._before):
            self._before(number, frame)
        else:
            raise SystemExit(128 + number)
