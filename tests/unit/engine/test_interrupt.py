from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from raysweep.engine.interrupt import first_interrupt, on_termination
from raysweep.errors import StudyError


@pytest.mark.parametrize(("number", "now"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_the_first_signal_drains_and_the_second_interrupts(number, now):
    before = signal.getsignal(number)
    asked = []
    with first_interrupt(lambda message, now: asked.append((message.partition(":")[0], now))):
        os.kill(os.getpid(), number)
        assert asked == [("stopping", now)]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert len(asked) == 1
    assert signal.getsignal(number) == before


def test_driver_ends_when_the_time_that_sigterm_leaves_is_over(monkeypatch):
    monkeypatch.setenv("RAYSWEEP_GRACE_S", "0.2")
    said = []
    with first_interrupt(lambda message, now: said.append(message)):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
    assert "which may take 0.2 s" in said[0]


def test_wrong_grace_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setenv("RAYSWEEP_GRACE_S", "soon")
    with pytest.raises(StudyError, match="RAYSWEEP_GRACE_S is 'soon'"), first_interrupt(lambda message, now: None):
        pytest.fail("it ran")


def test_worker_takes_sigterm_and_ends_only_when_nothing_runs(monkeypatch):
    ended, busy = [], [True]
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        on_termination(lambda: False)
        on_termination(lambda: not busy[0])
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == []
        busy[0] = False
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_that_gets_no_signals_installs_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with first_interrupt(lambda message, now: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
