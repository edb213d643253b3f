from __future__ import annotations

import queue
import threading
import time

import pytest

from raysweep.stages.failure import Failure, TimeLimitError
from raysweep.stages.progress import Progress
from raysweep.stages.watch import Deadline, StageThread


def events_of(thread: StageThread, timeout_s: float = 5.0) -> list[Progress | Failure | None]:
    found = [thread.next_event(timeout_s)]
    while isinstance(found[-1], Progress):
        found.append(thread.next_event(timeout_s))
    return found


def test_a_stage_reports_its_epochs_and_its_end():
    thread = StageThread()
    thread.start(lambda: iter([Progress(1), Progress(2)]), None)
    assert events_of(thread) == [Progress(1), Progress(2), None]


def test_all_stages_run_in_one_thread_beside_the_callers():
    thread = StageThread()
    seen = []

    def stage():
        seen.append(threading.get_ident())
        yield Progress(1)

    for _ in range(3):
        thread.start(stage, None)
        events_of(thread)
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()


def test_what_a_stage_raises_is_a_failure_with_its_traceback():
    def stage():
        yield Progress(1)
        raise ValueError("not today")

    thread = StageThread()
    thread.start(stage, None)
    *_, failure = events_of(thread)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == ("error", "ValueError: not today")
    assert "in stage" in failure.traceback
    thread.start(lambda: iter([Progress(7)]), None)
    assert events_of(thread) == [Progress(7), None]


def test_an_exhausted_memory_is_told_from_other_errors():
    class OutOfMemoryError(RuntimeError):
        """Named as torch names it."""

    for error, kind in (
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu-memory"),
        (MemoryError(), "memory"),
        (RuntimeError("out of memory of another kind"), "error"),
    ):
        thread = StageThread()

        def stage(error=error):
            raise error
            yield

        thread.start(stage, None)
        (failure,) = events_of(thread)
        assert failure.kind == kind


def test_a_stage_that_is_told_to_stop_ends_at_its_next_beat_and_leaves_no_event():
    thread = StageThread()

    def stage():
        while True:
            thread.beat()
            time.sleep(0.005)
        yield

    thread.start(stage, None)
    assert thread.stop(5.0)
    with pytest.raises(queue.Empty):
        thread.next_event(0.0)
    thread.start(lambda: iter([Progress(1)]), None)
    assert events_of(thread) == [Progress(1), None]


def test_a_hung_stage_falls_silent_cannot_be_stopped_and_shows_where_it_hangs():
    thread = StageThread()
    release = threading.Event()

    def stage_that_hangs_here():
        release.wait()
        yield

    thread.start(stage_that_hangs_here, None)
    time.sleep(0.15)
    assert thread.silent_s > 0.1
    assert "stage_that_hangs_here" in thread.where()
    assert not thread.stop(0.05)
    release.set()
    assert thread.stop(5.0)


def test_a_beat_is_a_sign_of_life():
    thread = StageThread()
    time.sleep(0.05)
    before = thread.silent_s
    thread.beat()
    assert thread.silent_s < before


def test_a_stage_that_takes_longer_than_it_may_fails_with_both_times():
    thread = StageThread()

    def stage():
        while True:
            thread.beat()
            time.sleep(0.005)
        yield

    thread.start(stage, 0.05)
    (failure,) = events_of(thread)
    assert failure.kind == "time-limit"
    assert "time_limit_s: 0.05" in failure.reason


def test_no_limit_never_ends():
    Deadline(None).check()
    with pytest.raises(TimeLimitError):
        Deadline(-1.0).check()
