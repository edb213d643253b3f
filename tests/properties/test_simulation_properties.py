"""Simulated launches under random plans and clusters: what holds of every schedule, and an independent scheduler."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.engine.requests import Requests
from raysweep.planning import Plan
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation.bound import lower_bound
from raysweep.simulation.cluster import Cluster, NodeKind, Spot
from raysweep.simulation.durations import CERTAIN, Doubt, Durations
from raysweep.simulation.overheads import NO_OVERHEADS, Overheads
from raysweep.simulation.run import SimulatedLaunch, Trace
from tests.properties.test_queue_properties import plans
from tests.studies import fake_study

ONE_SECOND = Rates({"": Measured(1.0)})
SPREAD = Rates({"": Measured(1.0, epoch_s_spread=0.5)})
DEAR = Overheads(2.0, 5.0, 0.5, 0.25, 0.125, 2, 3.0)
STUDIES = st.builds(
    lambda pretrain, finetune: fake_study({"resources.pretrain": pretrain, "resources.finetune": finetune}),
    st.sampled_from([{"cpus": 1}, {"cpus": 2}, {"cpus": 1, "gpus": 1}]),
    st.sampled_from([{"cpus": 1}, {"cpus": 0.5, "gpus": 0.5}, {"cpus": 1, "gpus": 0.25}]),
)
KINDS = st.builds(
    lambda count, cpus, gpus, speed, spot: NodeKind(count=count, cpus=cpus, gpus=gpus, speed=speed, spot=spot),
    st.integers(1, 3),
    st.sampled_from([2.0, 3.0, 4.0]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.booleans(),
)
CLUSTERS = st.lists(KINDS, min_size=1, max_size=3).map(lambda kinds: Cluster("random", tuple(kinds)))


def play(plan: Plan, cluster: Cluster, rates=ONE_SECOND, doubt=CERTAIN, seed="0", **options) -> Trace:
    durations = Durations(rates, doubt, seed)
    launch = SimulatedLaunch(plan, {}, rates, cluster, durations, seed=seed, keep_attempts=True, **options)
    return launch.run()


def ends(attempt) -> float:
    return attempt.ends_s if attempt.lost_s is None else attempt.lost_s


@settings(max_examples=150, deadline=None)
@given(
    plans(), STUDIES, CLUSTERS, st.sampled_from([NO_OVERHEADS, DEAR]), st.sampled_from([0.0, 200.0]), st.integers(0, 9)
)
def test_every_stage_is_run_once_within_capacity_after_its_snapshot(plan, study, cluster, overheads, rate, seed):
    plan = replace(plan, study=study)
    trace = play(plan, cluster, SPREAD, Doubt(), str(seed), overheads=overheads, spot=Spot(rate, returns_after_s=7.0))
    whole = [attempt for attempt in trace.attempts if attempt.lost_s is None]
    assert sorted(attempt.stage.id for attempt in whole) == sorted(plan.stages)
    assert trace.num_ended == len(plan.stages)
    assert trace.makespan_s == max(attempt.ends_s for attempt in whole)
    assert_snapshots_first(trace)
    assert_within_capacity(trace, cluster)
    durations = Durations(SPREAD, Doubt(), str(seed))
    assert_work_is_kept(plan, trace)
    bound = lower_bound(plan, durations.stage_s, Requests(study.resources, SPREAD), cluster)
    assert trace.makespan_s >= bound.makespan_s - 1e-6
    again = play(plan, cluster, SPREAD, Doubt(), str(seed), overheads=overheads, spot=Spot(rate, returns_after_s=7.0))
    assert [(a.stage.id, a.handed_s, a.lost_s) for a in again.attempts] == [
        (a.stage.id, a.handed_s, a.lost_s) for a in trace.attempts
    ]


def assert_snapshots_first(trace: Trace) -> None:
    for attempt in trace.attempts:
        parent = attempt.stage.parent
        if parent is not None:
            published = [
                a.reaches_s(parent.epoch)
                for a in trace.attempts
                if a.stage.id == parent.stage and a.from_epoch < parent.epoch and a.reaches_s(parent.epoch) <= ends(a)
            ]
            assert attempt.handed_s >= min(published) - 1e-9


def assert_within_capacity(trace: Trace, cluster: Cluster) -> None:
    kinds = dict(cluster.nodes())
    for moment in trace.attempts:
        node = moment.assignment.node
        total = kinds[node.partition("+")[0]].resources()
        # When two attempts meet at one instant, the one that ends there has given back what it held.
        there = [a for a in trace.attempts if a.assignment.node == node and a.handed_s <= moment.handed_s < ends(a)]
        for name in ("CPU", "GPU"):
            assert sum(a.assignment.request.get(name, 0.0) for a in there) <= total[name] + 1e-6


def assert_work_is_kept(plan: Plan, trace: Trace) -> None:
    """Every epoch is trained to its end once, however often nodes are lost."""
    for stage in plan.stages.values():
        attempts = [a for a in trace.attempts if a.stage.id == stage.id]
        assert [a.from_epoch for a in attempts] == sorted(a.from_epoch for a in attempts)
        reached = 0
        for attempt in attempts:
            assert attempt.from_epoch == reached
            reached = stage.epochs if attempt.lost_s is None else attempt.saved_at(attempt.lost_s)
        assert reached == stage.epochs


class SteppingScheduler:
    """Runs whole epochs of a second on equal slots, second by second: nothing of it is shared with the simulation."""

    def __init__(self, plan: Plan, slots: int):
        self.stages = list(plan.stages.values())
        self.slots = slots
        self.left = {stage.id: stage.epochs for stage in self.stages}
        self.begun: dict[str, int] = {}

    def path(self, stage) -> int:
        children = [s for s in self.stages if s.parent and s.parent.stage == stage.id]
        return max([stage.epochs, *(child.parent.epoch + self.path(child) for child in children)])

    def is_ready(self, stage) -> bool:
        if stage.id in self.begun:
            return False
        if stage.parent is None:
            return True
        parent = next(s for s in self.stages if s.id == stage.parent.stage)
        return parent.epochs - self.left[parent.id] >= stage.parent.epoch

    def makespan(self) -> int:
        now = 0
        while any(self.left.values()):
            running = [s for s in self.stages if s.id in self.begun and self.left[s.id]]
            ready = sorted((s for s in self.stages if self.is_ready(s)), key=lambda s: -self.path(s))
            for stage in ready[: self.slots - len(running)]:
                self.begun[stage.id] = now
                running.append(stage)
            for stage in running:
                self.left[stage.id] -= 1
            now += 1
        return now


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 4))
def test_it_agrees_with_an_independent_scheduler_stage_by_stage(plan, slots):
    reference = SteppingScheduler(plan, slots)
    makespan = reference.makespan()
    trace = play(plan, Cluster("slots", (NodeKind(cpus=slots),)), overheads=NO_OVERHEADS)
    assert trace.makespan_s == makespan
    assert {a.stage.id: a.trains_from_s for a in trace.attempts} == reference.begun


@given(plans(), st.integers(1, 5))
def test_list_scheduling_keeps_grahams_bound(plan, slots):
    trace = play(plan, Cluster("slots", (NodeKind(cpus=slots),)), overheads=NO_OVERHEADS)
    requests = Requests(plan.study.resources, ONE_SECOND)
    bound = lower_bound(plan, ONE_SECOND.stage_s, requests, Cluster("s", (NodeKind(cpus=slots),)))
    assert bound.makespan_s <= trace.makespan_s <= bound.work_s + bound.path_s
