"""A worker that is told to end, without a cluster: the trainable in this process, and a real SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from raysweep.engine import trainable as module
from raysweep.engine.trainable import REPORT, StagePreemptedError, StageTrainable
from tests.fake_stages import Fake, events, fake_plan, wait_for_event, worker_settings


@pytest.fixture
def worker(tiny_store, monkeypatch):
    """A trainable that runs one long stage; SIGTERM is as before when the test ends."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    monkeypatch.setattr(module, "_node_id", lambda: "node")
    plan = fake_plan([Fake("long", epochs=30, epoch_s=20.0), Fake("child", ("long", 1))])
    stage = next(stage for stage in plan.stages.values() if stage.name == "long")
    worker = StageTrainable.__new__(StageTrainable)  # without Tune's folders
    worker.setup(worker_settings(stage, tiny_store, report_every_s=300.0))
    yield worker
    signal.signal(signal.SIGTERM, before)


def whenever_begun(store, act) -> threading.Thread:
    def wait_and_act() -> None:
        wait_for_event(store, "begin", "long")
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["signal", "call"])
def test_worker_that_is_told_to_end_has_its_stage_save_and_takes_no_other(worker, tiny_store, how):
    tell = worker.preempt if how == "call" else lambda: os.kill(os.getpid(), signal.SIGTERM)
    thread = whenever_begun(tiny_store, tell)
    with pytest.raises(StagePreemptedError):
        worker.step()
    thread.join()
    assert [event.what for event in events(tiny_store)] == ["begin", "preempted"]
    assert not worker.reset_config({}), "a process that is to end takes no other stage"
    with pytest.raises(StagePreemptedError):
        worker.step()


def test_what_a_stage_had_reported_is_not_lost_with_it(worker, tiny_store, monkeypatch):
    monkeypatch.setenv("FAKE_SLOWDOWN", "0.01")
    (first,) = json.loads(worker.step()[REPORT])["events"]  # a snapshot is reported at once
    assert first["snapshots"] == [1]
    worker.preempt()
    with pytest.raises(StagePreemptedError):
        step_until_it_raises(worker)
    assert [event.what for event in events(tiny_store)][-1] == "preempted"


def step_until_it_raises(worker: StageTrainable) -> None:
    for _ in range(30):
        worker.step()


def test_idle_worker_ends_as_it_would_have(worker):
    ended = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    module.on_termination(worker._terminate)
    os.kill(os.getpid(), signal.SIGTERM)
    assert ended == [signal.SIGTERM]
