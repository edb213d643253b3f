from __future__ import annotations

import pytest

from raysweep.engine.pace import Pace
from raysweep.engine.queue import StageQueue
from raysweep.planning.cost import Measured, Rates
from tests.fake_stages import Fake, fake_plan


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def following(*fakes: Fake):
    plan = fake_plan(fakes)
    rates = Rates({"": Measured(10.0)})
    clock = Clock()
    queue = StageQueue(plan, {}, cost=rates.stage_s, clock=clock)
    return queue, Pace(queue, rates, clock), clock


def begin(queue, pace):
    stage = queue.take()
    pace.started(stage)
    pace.progress(stage, 0)
    return stage


def test_nothing_is_said_before_anything_is_measured():
    queue, pace, _ = following(Fake("a", epochs=4))
    assert pace.seconds_left() is None
    begin(queue, pace)
    assert pace.seconds_left() is None


def test_work_left_is_stretched_by_what_the_work_so_far_took():
    queue, pace, clock = following(Fake("a", epochs=4), Fake("b", epochs=2))
    stage = begin(queue, pace)
    clock.now = 40.0  # estimated at 20
    pace.progress(stage, 2)
    assert pace.share_done == pytest.approx(2 / 6)
    assert pace.seconds_left() == pytest.approx((2 + 2) * 10 * 2.0)


def test_several_workers_share_the_work_but_not_the_longest_path():
    queue, pace, clock = following(Fake("long", epochs=10), Fake("short", epochs=2))
    long, short = begin(queue, pace), begin(queue, pace)
    clock.now = 10.0
    pace.progress(long, 1)
    pace.progress(short, 1)
    assert pace.seconds_left() == pytest.approx(9 * 10)
    clock.now = 20.0
    pace.progress(short, 2)
    queue.finished(short.id)
    pace.ended(short)
    assert pace.seconds_left() == pytest.approx(9 * 10)


def test_dependents_count_from_the_snapshot_they_wait_for():
    queue, pace, clock = following(Fake("parent", epochs=4), Fake("child", parent=("parent", 4), epochs=6))
    parent = begin(queue, pace)
    clock.now = 10.0
    pace.progress(parent, 1)
    assert pace.seconds_left() == pytest.approx((3 + 6) * 10)


def test_a_resumed_stage_is_not_taken_for_a_fast_one():
    queue, pace, clock = following(Fake("a", epochs=100))
    stage = queue.take()
    pace.started(stage)
    clock.now = 1.0
    pace.progress(stage, 90)  # the first report says where it continues from
    clock.now = 21.0
    pace.progress(stage, 92)
    assert pace.seconds_left() == pytest.approx(8 * 10)


def test_work_of_a_stage_that_failed_for_good_is_no_work_left():
    queue, pace, clock = following(Fake("fails", epochs=5), Fake("other", epochs=5))
    fails, other = begin(queue, pace), begin(queue, pace)
    clock.now = 10.0
    pace.progress(other, 1)
    queue.failed(fails.id, "broken")
    pace.ended(fails)
    assert pace.share_done == pytest.approx(6 / 10)
    assert pace.seconds_left() == pytest.approx(4 * 10)


def run_whole(queue, pace, clock):
    """Run the next stage in ten seconds an epoch."""
    stage = begin(queue, pace)
    clock.now += 10.0 * stage.epochs
    pace.progress(stage, stage.epochs)
    queue.finished(stage.id)
    pace.ended(stage)


def test_idle_workers_count_while_stages_are_ready():
    queue, pace, clock = following(*(Fake(name, epochs=1) for name in "abcd"))
    run_whole(queue, pace, clock)
    clock.now += 4.0
    run_whole(queue, pace, clock)
    assert pace.seconds_left() == pytest.approx(2 * (10 + 4 / 2))


def test_idle_workers_do_not_count_while_stages_wait_for_others():
    children = (Fake(name, parent=("parent", 3)) for name in ("child", "last"))
    queue, pace, clock = following(Fake("parent", epochs=3), Fake("short", epochs=1), *children)
    parent, short = begin(queue, pace), begin(queue, pace)
    for stage, end in ((short, 10.0), (parent, 30.0)):
        clock.now = end
        pace.progress(stage, stage.epochs)
        queue.finished(stage.id)
        pace.ended(stage)
    run_whole(queue, pace, clock)
    assert pace.seconds_left() == pytest.approx(10)


def test_what_stages_take_beside_their_epochs_counts_for_each_that_is_left():
    queue, pace, clock = following(*(Fake(name, epochs=1) for name in "abcd"))
    for start_s in (100.0, 2.0):  # before the first one workers start
        stage = queue.take()
        pace.started(stage)
        clock.now += start_s
        pace.progress(stage, 0)
        clock.now += 10.0
        pace.progress(stage, 1)
        clock.now += 3.0  # for the test split
        queue.finished(stage.id)
        pace.ended(stage)
    assert pace.seconds_left() == pytest.approx(2 * (10 + (3 + 2 + 3) / 2))
