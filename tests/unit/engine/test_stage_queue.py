from __future__ import annotations

import pytest

from raysweep.engine.queue import Retries, StageQueue, State
from raysweep.planning import build_plan
from raysweep.store import LedgerRecord
from tests.studies import FAKE_FACTS, fake_study


@pytest.fixture
def plan():
    return build_plan(fake_study({"grid.source": ["cardiac"], "grid.seed": [0, 1]}), FAKE_FACTS)


def pretrain_of(plan):
    return next(stage for stage in plan.stages.values() if stage.kind == "pretrain")


def started_from(plan, epoch):
    return [s.id for s in plan.stages.values() if s.parent and s.parent.epoch == epoch]


def test_dependents_start_while_the_pretraining_still_runs(plan):
    queue = StageQueue(plan, {})
    pretrain = queue.take()
    assert pretrain.kind == "pretrain"
    assert queue.take() is None
    queue.snapshot(pretrain.id, 1)
    assert {queue.take().id, queue.take().id} == set(started_from(plan, 1))
    assert queue.take() is None
    assert queue.state(pretrain.id) is State.RUNNING


def test_the_dependents_of_a_snapshot_published_before_the_failure_still_run(plan):
    queue = StageQueue(plan, {})
    pretrain = queue.take()
    queue.snapshot(pretrain.id, 1)
    assert not queue.failed(pretrain.id, "out of memory")
    assert {queue.state(stage) for stage in started_from(plan, 1)} == {State.READY}
    for stage in started_from(plan, 2):
        assert queue.state(stage) is State.SKIPPED
        assert queue.reasons[stage] == f"because {pretrain.name} failed: out of memory"


def test_a_stage_that_fails_is_tried_as_often_as_the_study_says(plan):
    queue = StageQueue(plan, {}, retries=Retries(3))
    for attempt in (1, 2, 3):
        stage = queue.take()
        assert queue.tried[stage.id] == attempt
        assert queue.failed(stage.id, "again") == (attempt < 3)
    assert queue.state(stage.id) is State.FAILED


def test_a_stage_that_accept_refuses_keeps_its_place(plan):
    queue = StageQueue(plan, {}, group_of=lambda stage: stage.kind)
    queue.snapshot(pretrain_of(plan).id, 1)
    seen = []
    first = queue.take(lambda stage: seen.append(stage.id) or stage.kind == "finetune")
    assert seen == [pretrain_of(plan).id, first.id]
    assert queue.take().kind == "pretrain"


def test_a_stage_no_node_can_run_is_failed_with_its_dependents(plan):
    queue = StageQueue(plan, {})
    queue.refuse(pretrain_of(plan).id, "needs 4 GPUs")
    assert queue.is_finished
    assert queue.take() is None
    assert queue.counts[State.SKIPPED] == 4


def test_a_done_pretraining_that_lacks_a_snapshot_runs_again_and_the_others_start_at_once(plan):
    pretrain = pretrain_of(plan)
    queue = StageQueue(plan, {pretrain.id: LedgerRecord(pretrain.id, "done", (1,))})
    assert queue.state(pretrain.id) is State.READY
    assert {queue.state(stage) for stage in started_from(plan, 1)} == {State.READY}
    assert {queue.state(stage) for stage in started_from(plan, 2)} == {State.WAITING}


def test_an_earlier_failure_is_final_unless_it_is_to_be_retried(plan):
    pretrain = pretrain_of(plan)
    ledger = {pretrain.id: LedgerRecord(pretrain.id, "failed", (1,), error="NaN")}
    queue = StageQueue(plan, ledger)
    assert queue.state(pretrain.id) is State.FAILED
    assert queue.reasons[started_from(plan, 2)[0]] == f"because {pretrain.name} failed: NaN"
    assert StageQueue(plan, ledger, retry_failed=True).state(pretrain.id) is State.READY


def test_a_report_for_a_stage_that_has_ended_changes_nothing(plan):
    queue = StageQueue(plan, {})
    stage = queue.take()
    queue.finished(stage.id)
    assert not queue.failed(stage.id, "late")
    queue.finished(stage.id)
    assert queue.counts[State.DONE] == 1


def test_a_refusal_is_asked_once_for_all_stages_of_a_group(plan):
    queue = StageQueue(plan, {}, group_of=lambda stage: stage.kind)
    for epoch in (1, 2):
        queue.snapshot(pretrain_of(plan).id, epoch)
    asked = []
    assert queue.take(lambda stage: asked.append(stage.kind)) is None
    assert sorted(asked) == ["finetune", "pretrain"]


def test_a_failed_stage_waits_twice_as_long_after_each_failure(plan):
    now = [100.0]
    queue = StageQueue(plan, {}, retries=Retries(3, backoff_s=10.0), clock=lambda: now[0])
    for delay_s in (10.0, 20.0):
        stage = queue.take()
        assert queue.failed(stage.id, "again")
        assert queue.state(stage.id) is State.DELAYED
        assert queue.wakes_in_s() == delay_s
        now[0] += delay_s - 0.1
        assert queue.take() is None
        assert not queue.is_finished
        now[0] += 0.1
    assert queue.take().id == stage.id
    assert not queue.failed(stage.id, "for good")
    assert queue.wakes_in_s() is None


def test_back_off_ends_at_ten_minutes():
    assert Retries(50, backoff_s=5.0).delay_s(40) == 600.0
    assert Retries(5, backoff_s=1000.0).delay_s(3) == 1000.0


def test_an_interrupted_attempt_does_not_count(plan):
    queue = StageQueue(plan, {}, retries=Retries(1))
    for _ in range(5):
        stage = queue.take()
        queue.interrupted(stage.id)
    assert queue.take().id == stage.id
    assert queue.tried[stage.id] == 1
    assert not queue.failed(stage.id, "now it counts")


def test_a_draining_queue_hands_out_nothing_and_is_finished_once_nothing_runs(plan):
    queue = StageQueue(plan, {})
    stage = queue.take()
    queue.drain()
    queue.snapshot(stage.id, 1)
    assert queue.take() is None
    assert not queue.is_finished
    queue.interrupted(stage.id)
    assert queue.is_finished
    assert queue.state(stage.id) is State.READY


def test_a_stage_that_a_warm_worker_can_take_goes_before_one_of_almost_the_same_priority(plan):
    queue = StageQueue(plan, {}, group_of=lambda stage: stage.kind)
    queue.snapshot(pretrain_of(plan).id, 1)
    first = pretrain_of(plan)
    child = queue.stages[started_from(plan, 1)[0]]
    gap = queue.priority(first.id) - queue.priority(child.id)
    assert (
        queue.take(patience_s=9, bonus=lambda stage: gap - 0.1 if stage.kind == "finetune" else 0.0).kind == "pretrain"
    )
    queue.interrupted(first.id)
    assert (
        queue.take(patience_s=9, bonus=lambda stage: gap + 0.1 if stage.kind == "finetune" else 0.0).kind == "finetune"
    )


def test_the_stage_of_the_highest_priority_is_passed_over_only_for_so_long(plan):
    now = [0.0]
    queue = StageQueue(plan, {}, group_of=lambda stage: stage.kind, clock=lambda: now[0])
    for epoch in (1, 2):
        queue.snapshot(pretrain_of(plan).id, epoch)

    def take():
        return queue.take(bonus=lambda stage: 1000.0 if stage.kind == "finetune" else 0.0, patience_s=15.0).kind

    assert take() == "finetune"
    now[0] = 15.0
    assert take() == "finetune"
    now[0] = 15.1
    assert take() == "pretrain"
    assert take() == "finetune"


def test_a_stage_stopped_by_the_scheduler_has_ended_and_is_not_done(plan):
    queue = StageQueue(plan, {})
    queue.snapshot(pretrain_of(plan).id, 1)
    finetune = queue.take(lambda stage: stage.kind == "finetune") or queue.take()
    queue.stopped(finetune.id)
    assert queue.state(finetune.id) is State.STOPPED
