"""The queue under random plans, failures and snapshot times."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.engine.queue import ENDED, Retries, StageQueue, State
from raysweep.planning import Parent, Plan, Stage
from raysweep.store import LedgerRecord
from tests.studies import fake_study

STUDY = fake_study()


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Random forests: a stage starts from nothing or from a snapshot of an earlier pretrain stage."""
    stages: dict[str, Stage] = {}
    for number in range(draw(st.integers(1, 14))):
        parents = [s for s in stages.values() if s.kind == "pretrain"]
        parent = draw(st.sampled_from([None, *parents]))
        kind = draw(st.sampled_from(["pretrain", "finetune"]))
        start = None
        if parent is not None:
            start = Parent(parent.id, draw(st.integers(1, parent.epochs)))
            snapshots = tuple(sorted({*parent.snapshots, start.epoch}))
            stages[parent.id] = Stage(**{**parent.__dict__, "snapshots": snapshots})
        name = f"stage{number}"
        stages[name] = Stage(name, kind, f"<{name}>", {}, start, draw(st.integers(1, 9)), {})
    return Plan(STUDY, (), stages)


def origin_of(queue: StageQueue, stage: Stage) -> Stage:
    """The failed stage that a skipped one hangs on."""
    while queue.state(stage.id) is State.SKIPPED:
        stage = queue.stages[stage.parent.stage]
    return stage


class Simulation:
    """Runs stages at random, epoch by epoch, as a cluster would."""

    def __init__(self, plan: Plan, queue: StageQueue, rng: random.Random, failure_rate: float, published=()):
        self.plan, self.queue, self.rng, self.failure_rate = plan, queue, rng, failure_rate
        self.reached: dict[str, int] = {}
        self.published: set[tuple[str, int]] = set(published)
        self.handed: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def run(self) -> None:
        for _ in range(10_000):
            if not self.reached and not self.take():
                break
            if self.reached and (self.rng.random() < 0.6 or not self.take()):
                self.advance(self.rng.choice(sorted(self.reached)))

    def take(self) -> bool:
        stage = self.queue.take()
        if stage is None:
            return False
        assert stage.parent is None or (stage.parent.stage, stage.parent.epoch) in self.published
        assert stage.id not in self.reached
        self.handed[stage.id] += 1
        self.reached[stage.id] = 0
        return True

    def advance(self, name: str) -> None:
        stage = self.plan.stages[name]
        if self.rng.random() < self.failure_rate:
            del self.reached[name]
            if not self.queue.failed(name, f"because of {name}"):
                self.ends[name] += 1
            return
        self.reached[name] += 1
        epoch = self.reached[name]
        if epoch in stage.snapshots:
            self.published.add((name, epoch))
            if self.rng.random() < 0.8:  # a report may be lost; the end of the stage makes up for it
                self.queue.snapshot(name, epoch)
        if epoch == stage.epochs:
            del self.reached[name]
            self.ends[name] += 1
            self.queue.finished(name)


@settings(max_examples=200)
@given(plans(), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.5]), st.integers(1, 3))
def test_every_stage_ends_once_and_starts_only_when_its_snapshot_exists(plan, rng, failure_rate, attempts):
    queue = StageQueue(plan, {}, retries=Retries(attempts))
    simulation = Simulation(plan, queue, rng, failure_rate)
    simulation.run()
    assert queue.is_finished
    assert queue.take() is None
    assert sum(queue.counts.values()) == len(plan.stages)
    for stage in plan.stages.values():
        state = queue.state(stage.id)
        assert state in ENDED
        assert simulation.ends[stage.id] == (state is not State.SKIPPED)
        assert simulation.handed[stage.id] <= attempts
        if state is State.FAILED:
            assert simulation.handed[stage.id] == attempts
            assert queue.reasons[stage.id] == f"because of {stage.id}"
        if state is State.SKIPPED:
            assert simulation.handed[stage.id] == 0
            origin = origin_of(queue, stage)
            assert queue.reasons[stage.id] == f"because {origin.name} failed: because of {origin.id}"
    if not failure_rate:
        assert queue.counts[State.DONE] == len(plan.stages)


@given(plans(), st.randoms(use_true_random=False), st.booleans())
def test_a_second_launch_runs_what_the_first_left(plan, rng, retry_failed):
    first = StageQueue(plan, {})
    simulation = Simulation(plan, first, rng, 0.3)
    simulation.run()
    ledger = {}
    for stage in plan.stages.values():
        snapshots = tuple(sorted(epoch for name, epoch in simulation.published if name == stage.id))
        if first.state(stage.id) is State.DONE:
            ledger[stage.id] = LedgerRecord(stage.id, "done", snapshots)
        elif first.state(stage.id) is State.FAILED:
            ledger[stage.id] = LedgerRecord(stage.id, "failed", snapshots, error="earlier")
    second = StageQueue(plan, ledger, retry_failed=retry_failed)
    again = Simulation(plan, second, rng, 0.0, simulation.published)
    again.run()
    assert second.is_finished
    for stage in plan.stages.values():
        state = first.state(stage.id)
        if state is State.DONE or (state is State.FAILED and not retry_failed):
            assert again.handed[stage.id] == 0
        if retry_failed:
            assert second.state(stage.id) is State.DONE


@given(plans())
def test_stages_are_handed_out_by_the_longest_path_that_hangs_on_them(plan):
    def longest(stage: Stage) -> float:
        children = [c for c in plan.stages.values() if c.parent and c.parent.stage == stage.id]
        return max([stage.epochs, *(child.parent.epoch + longest(child) for child in children)])

    queue = StageQueue(plan, {})
    handed = []
    while (stage := queue.take()) is not None:
        handed.append(longest(stage))
    assert handed == sorted(handed, reverse=True)
    assert len(handed) == sum(stage.parent is None for stage in plan.stages.values())
