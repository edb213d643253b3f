from __future__ import annotations

import pytest

from raysweep.engine.queue import StageQueue, State
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
    queue = StageQueue(plan, {}, attempts=3)
    for attempt in (1, 2, 3):
        stage = queue.take()
        assert queue.tried[stage.id] == attempt
        assert queue.failed(stage.id, "again") == (attempt < 3)
    assert queue.state(stage.id) is State.FAILED


def test_a_stage_that_accept_refuses_keeps_its_place(plan):
    queue = StageQueue(plan, {})
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
