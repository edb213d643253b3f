"""Stages that hang, stop, take too long, or are interrupted, on a real Ray cluster."""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysweep.engine import search
from raysweep.engine.launch import Launch, Outcome
from raysweep.engine.tune import TuneExecutor
from raysweep.store import Store
from tests.fake_stages import RUNNER, Fake, events, fake_plan, wait_for_event

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


def run(store: Store, *fakes: Fake, **resources: Any) -> Outcome:
    plan = fake_plan(fakes, {"backoff_s": 0, **resources})
    return TuneExecutor(runner=RUNNER).run(Launch(plan, store))


def meanwhile(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def attempts(store: Store, name: str, what: str = "begin") -> list[int]:
    return [event.attempt for event in events(store) if (event.name, event.what) == (name, what)]


def test_hung_stage_is_stopped_recorded_with_its_stack_and_tried_again(store):
    outcome = run(
        store,
        Fake("hangs", epochs=2, epoch_s=0.1, hangs_in_attempts=(1,)),
        Fake("bystander", epochs=3, epoch_s=1.0),
        attempts=2,
        hung_after_s=2,
    )
    assert outcome.is_complete
    assert attempts(store, "hangs") == [1, 2]
    assert attempts(store, "bystander", "end") == [1], "a stage that beats is not hung, however long its epochs are"
    (failure,) = store.failures()
    assert (failure.kind, failure.attempt, failure.counted) == ("hung", 1, True)
    assert "hung_after_s: 2" in failure.reason
    assert "in run_fake_stage" in failure.traceback


def test_worker_that_is_stopped_by_a_signal_is_replaced(store, monkeypatch):
    monkeypatch.setattr(search, "_SILENT_MARGIN_S", 0.5)

    def stop_worker() -> None:
        os.kill(wait_for_event(store, "snapshot", "victim").pid, signal.SIGSTOP)

    stopper = meanwhile(stop_worker)
    victim = Fake("victim", epochs=12, epoch_s=0.3)
    outcome = run(store, victim, Fake("child", parent=("victim", 1)), attempts=2, hung_after_s=1)
    stopper.join()
    assert outcome.is_complete
    assert attempts(store, "victim", "end") == [2]
    assert [failure.kind for failure in store.failures()] == ["hung"]


def test_stage_that_takes_longer_than_it_may_fails_with_the_limit(store):
    outcome = run(
        store,
        Fake("slow", epochs=50, epoch_s=0.3),
        Fake("quick"),
        attempts=1,
        finetune={"time_limit_s": 1.5},
    )
    assert list(outcome.failed) == ["slow"]
    assert "time_limit_s: 1.5" in outcome.failed["slow"]
    assert {record.status for record in store.ledger().values()} == {"done", "failed"}
    assert [failure.kind for failure in store.failures()] == ["time-limit"]


def test_failed_attempt_of_a_stage_that_recovers_is_kept(store):
    outcome = run(store, Fake("recovers", fails_in_attempts=(1,)), attempts=2)
    assert outcome.is_complete
    (failure,) = store.failures()
    assert (failure.attempt, failure.kind) == (1, "error")
    assert failure.host
    assert "RuntimeError: recovers fails in attempt 1" in failure.traceback


def test_first_interrupt_ends_running_stages_after_their_epoch_and_starts_nothing(store):
    def interrupt() -> None:
        wait_for_event(store, "snapshot", "long")
        _thread.interrupt_main(signal.SIGINT)

    interrupter = meanwhile(interrupt)
    fakes = [
        Fake("long", epochs=40, epoch_s=0.5),
        Fake("from long", parent=("long", 1)),
        *(Fake(f"later {number}", epoch_s=5.0) for number in range(6)),
    ]
    with pytest.raises(KeyboardInterrupt):
        run(store, *fakes)
    interrupter.join()
    assert attempts(store, "long", "end") == []
    assert store.failures() == []
    assert len([event for event in events(store) if event.what == "begin"]) < len(fakes)
    assert len(store.ledger()) < len(fakes)
    assert {record.status for record in store.ledger().values()} <= {"done"}


def test_worker_that_gets_sigterm_saves_at_once_and_costs_no_attempt(store):
    def terminate() -> None:
        os.kill(wait_for_event(store, "snapshot", "victim").pid, signal.SIGTERM)

    terminator = meanwhile(terminate)
    outcome = run(
        store,
        Fake("victim", epochs=4, epoch_s=2.0),
        Fake("child", parent=("victim", 1)),
        Fake("bystander", epochs=4, epoch_s=1.0),
        attempts=1,
    )
    terminator.join()
    assert outcome.is_complete
    first, last = (event for event in events(store) if (event.what, event.name) == ("begin", "victim"))
    assert first.pid != last.pid
    assert attempts(store, "victim", "preempted") == [1]
    assert attempts(store, "bystander", "end") == [1]
    assert [(failure.kind, failure.counted) for failure in store.failures()] == [("preempted", False)]


def test_driver_that_gets_sigterm_has_its_stages_save_at_their_next_step(store):
    def terminate() -> None:
        # The driver has then seen the snapshot: a stage that reports after the signal ends with that epoch instead.
        wait_for_event(store, "begin", "from long")
        os.kill(os.getpid(), signal.SIGTERM)

    terminator = meanwhile(terminate)
    with pytest.raises(KeyboardInterrupt):
        run(store, Fake("long", epochs=40, epoch_s=5.0), Fake("from long", parent=("long", 1), epochs=40, epoch_s=5.0))
    terminator.join()
    assert attempts(store, "long", "preempted") == [1]
    assert attempts(store, "long", "snapshot") == [1], "it did not wait for the end of the epoch"
    assert store.failures() == []
    assert store.ledger() == {}


def test_tunes_asha_stops_stages_that_fall_behind(store):
    fakes = [Fake(f"{score}", epochs=60, epoch_s=0.2, val_score=score) for score in (0.9, 0.1, 0.8, 0.2, 0.7, 0.05)]
    pruning = {"scheduler": "asha", "grace_epochs": 2, "reduction_factor": 2}
    plan = fake_plan(fakes, stop={"pruning": pruning})
    outcome = TuneExecutor(runner=RUNNER).run(Launch(plan, store))
    assert outcome.is_complete
    assert outcome.failed == {}
    stopped = {plan.stages[name].name for name, record in store.ledger().items() if record.status == "stopped"}
    assert len(stopped) == outcome.stopped > 0
    assert "0.05" in stopped
    assert "0.9" not in stopped
