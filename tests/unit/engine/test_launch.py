from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.engine.queue import State
from raysweep.errors import StudyError
from raysweep.stages.failure import Failure
from raysweep.stages.progress import Progress
from raysweep.store import Store
from tests.fake_stages import Fake, fake_plan


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


def launch_of(store: Store, *fakes: Fake, **resources) -> Launch:
    return Launch(fake_plan(fakes, {"backoff_s": 0, **resources}), store)


def test_a_lost_node_costs_a_stage_no_attempt(store):
    launch = launch_of(store, Fake("a"), attempts=1)
    for _ in range(3):
        launch.failed(launch.queue.take(), Failure("the node was lost", "node"))
    stage = launch.queue.take()
    assert launch.attempt(stage) == 1
    assert [failure.counted for failure in store.failures()] == [False] * 3
    launch.failed(stage, Failure("ValueError", "error", host="here"))
    assert launch.outcome().failed == {"a": "ValueError"}
    assert store.ledger()[stage.id].status == "failed"


def test_a_stage_that_outgrew_its_share_of_a_gpu_is_tried_with_twice_as_much(store):
    launch = launch_of(store, Fake("a"), attempts=1, finetune={"gpus": 0.25})
    for share in (0.25, 0.5):
        stage = launch.queue.take()
        assert launch.request(stage)["GPU"] == share
        launch.failed(stage, Failure("out of memory", "gpu-memory"), share)
    stage = launch.queue.take()
    assert launch.request(stage)["GPU"] == 1.0
    launch.failed(stage, Failure("out of memory", "gpu-memory"), 1.0)
    assert launch.outcome().failed == {"a": "out of memory"}
    assert [failure.counted for failure in store.failures()] == [False, False, True]


def test_what_the_first_stage_of_a_shape_holds_decides_the_share_of_the_others(store):
    launch = launch_of(store, Fake("a"), Fake("b"), finetune={"gpus": "auto"})
    first = launch.queue.take()
    assert launch.request(first)["GPU"] == 1.0
    launch.progress(first, Progress(1, gpu_peak_bytes=2 * 2**30, gpu_total_bytes=16 * 2**30))
    assert launch.request(launch.queue.take())["GPU"] == 0.25


def test_a_report_of_an_attempt_that_was_given_up_changes_nothing(store):
    launch = launch_of(store, Fake("a"), attempts=1)
    stage = launch.queue.take()
    launch.finished(stage)
    launch.failed(stage, Failure("late"))
    assert launch.queue.state(stage.id) is State.DONE
    assert store.failures() == []


def test_a_stage_that_fits_nowhere_is_recorded_with_the_reason(store):
    launch = launch_of(store, Fake("a"), Fake("b", parent=("a", 1)))
    stage = next(iter(launch.plan.stages.values()))
    launch.refused(stage, "no node has room")
    assert launch.outcome().failed == {"a": "no node has room"}
    assert launch.outcome().skipped == {"b": "because a failed: no node has room"}
    assert [failure.kind for failure in store.failures()] == ["resources"]


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def started(self, stage):
        self.seen.append(("started", stage.name))

    def epoch(self, stage, epoch, metrics):
        self.seen.append(("epoch", stage.name, epoch, dict(metrics)))

    def ended(self, stage, how):
        self.seen.append(("ended", stage.name, how))

    def close(self):
        self.seen.append(("close",))


def test_trackers_follow_every_attempt(store):
    recorder = Recorder()
    launch = Launch(fake_plan([Fake("a", epochs=2)], {"backoff_s": 0, "attempts": 2}), store, trackers=(recorder,))
    for failure in (Failure("broken"), None):
        stage = launch.queue.take()
        launch.started(stage)
        launch.progress(stage, Progress(0))
        launch.progress(stage, Progress(1, metrics={"train/loss": 0.5}))
        if failure is None:
            launch.finished(stage)
        else:
            launch.failed(stage, failure)
    attempt = [("started", "a"), ("epoch", "a", 1, {"train/loss": 0.5})]
    assert recorder.seen == [*attempt, ("ended", "a", "failed"), *attempt, ("ended", "a", "done")]


def test_inline_executor_waits_out_the_back_off(store, monkeypatch):
    from raysweep.stages import run
    from tests.fake_stages import run_fake_stage

    monkeypatch.setattr(run, "run_stage", run_fake_stage)
    launch = launch_of(store, Fake("a", fails_in_attempts=(1,)), attempts=2, backoff_s=0.2)
    assert InlineExecutor().run(launch).is_complete
    assert launch.outcome().wall_s >= 0.2


def test_what_forbids_a_launch_ends_it_before_any_stage(store):
    def refuse() -> None:
        raise StudyError("weights do not fit")

    launch = launch_of(store, Fake("a"))
    with pytest.raises(StudyError, match="weights do not fit"):
        InlineExecutor().run(launch, refuse)
    assert launch.queue.state(next(iter(launch.plan.stages))) is State.READY
    assert store.ledger() == {}
