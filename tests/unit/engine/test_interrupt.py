from __future__ import annotations

import os
import signal
import threading

import pytest

from raysweep.engine.interrupt import first_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    asked = []
    with first_interrupt(lambda: asked.append("drain")):
        os.kill(os.getpid(), number)
        assert asked == ["drain"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert asked == ["drain"]
    assert signal.getsignal(number) == before


def test_a_thread_that_gets_no_signals_installs_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with first_interrupt(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
