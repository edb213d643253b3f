"""Simulated launches against schedules worked out by hand."""

from __future__ import annotations

import pytest

from raysweep.errors import RaysweepError
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation.cluster import Cluster, HourlyPrices, NodeKind, Prices, Spot
from raysweep.simulation.durations import CERTAIN, Durations
from raysweep.simulation.overheads import NO_OVERHEADS, Overheads
from raysweep.simulation.run import SimulatedLaunch, Trace
from raysweep.store import LedgerRecord
from tests.fake_stages import Fake, fake_plan

ONE_SECOND = Rates({"": Measured(1.0)})
"""An epoch of every fake stage takes a second."""


def cores(number: int, **options) -> Cluster:
    return Cluster("cores", (NodeKind(cpus=number, **options),))


def play(fakes, cluster, *, overheads=NO_OVERHEADS, ledger=None, resources=None, **options) -> Trace:
    plan = fake_plan(fakes, resources)
    durations = Durations(ONE_SECOND, CERTAIN, "0")
    launch = SimulatedLaunch(
        plan, ledger or {}, ONE_SECOND, cluster, durations, overheads=overheads, keep_attempts=True, **options
    )
    return launch.run()


def starts(trace: Trace) -> dict[str, float]:
    return {attempt.stage.name: attempt.trains_from_s for attempt in trace.attempts}


CHAIN = (
    Fake("pretrain", epochs=8, kind="pretrain"),
    Fake("early", parent=("pretrain", 2), epochs=3),
    Fake("late", parent=("pretrain", 8), epochs=3),
)


def test_a_dependent_starts_at_its_snapshot_and_not_at_its_parents_end():
    trace = play(CHAIN, cores(2))
    assert starts(trace) == {"pretrain": 0, "early": 2, "late": 8}
    assert trace.makespan_s == 11


def test_one_slot_runs_the_longest_remaining_path_first():
    fakes = [Fake("short", epochs=2), *CHAIN]
    trace = play(fakes, cores(1))
    assert [attempt.stage.name for attempt in trace.attempts] == ["pretrain", "early", "late", "short"]
    assert trace.makespan_s == 8 + 3 + 3 + 2


def test_stages_run_where_their_request_fits():
    fakes = [Fake(f"stage {number}", epochs=4) for number in range(3)]
    two_nodes = Cluster("two", (NodeKind(count=2, cpus=3),))
    trace = play(fakes, two_nodes, resources={"finetune": {"cpus": 2}})
    assert sorted(starts(trace).values()) == [0, 0, 4]  # of six cores, two fit none
    assert trace.trained_s["CPU"] == 3 * 4 * 2


def test_a_faster_node_trains_faster():
    mixed = Cluster("mixed", (NodeKind(cpus=1, speed=2.0), NodeKind(cpus=1)))
    trace = play([Fake("a", epochs=4), Fake("b", epochs=4)], mixed)
    assert sorted(attempt.ends_s for attempt in trace.attempts) == [2, 4]


def test_worker_starts_driver_and_stage_starts_add_up():
    overheads = Overheads(
        process_start_s=3, worker_start_s=10, stage_start_s=1, stage_setup_s=2, driver_s=0.5, starting_at_once=1
    )
    trace = play([Fake("a", epochs=4), Fake("b", epochs=4), Fake("c", epochs=4)], cores(2), overheads=overheads)
    first = 0.5 + 10 + 1 + 2
    second = 0.5 + 3 + 0.5 + 10 + 1 + 2  # its process starts when the first one's is up
    third = first + 4 + 0.5 + 1 + 2  # a warm worker
    assert [attempt.trains_from_s for attempt in trace.attempts] == [first, second, third]
    assert trace.num_cold_starts == 2
    assert trace.makespan_s == third + 4


def test_a_worker_that_has_nothing_to_take_ends_unless_it_is_the_only_one():
    overheads = Overheads(
        process_start_s=0, worker_start_s=100, stage_start_s=0, stage_setup_s=0, driver_s=0, starting_at_once=9
    )
    fakes = [Fake("a", epochs=1), Fake("b", epochs=2), Fake("p", epochs=9), Fake("q", parent=("p", 9), epochs=1)]
    assert play(fakes, cores(3), overheads=overheads).num_cold_starts == 3  # q takes p's worker


def test_what_is_done_is_not_run_again():
    plan = fake_plan(CHAIN)
    by_name = {stage.name: stage.id for stage in plan.stages.values()}
    pretrain = by_name["pretrain"]
    ledger = {pretrain: LedgerRecord(pretrain, "done", (2, 8))}
    assert starts(play(CHAIN, cores(2), ledger=ledger)) == {"early": 0, "late": 0}


class Losses:
    """Takes nodes away at given times; what comes after stays."""

    def __init__(self, *after_s: float):
        self.after_s = list(after_s)

    def expovariate(self, rate: float) -> float:
        return self.after_s.pop(0) if self.after_s else 1e12


def test_a_stage_that_had_notice_loses_nothing_but_the_time_without_a_node():
    plan = fake_plan([Fake("a", epochs=6), Fake("b", parent=("a", 3), epochs=1)])
    durations = Durations(ONE_SECOND, CERTAIN, "0")
    spot = Spot(1.0, returns_after_s=10, gives_notice=True)
    launch = SimulatedLaunch(
        plan, {}, ONE_SECOND, cores(2, spot=True), durations, overheads=NO_OVERHEADS, spot=spot, keep_attempts=True
    )
    launch._rng = Losses(2.5)
    trace = launch.run()
    assert [(a.stage.name, a.from_epoch, a.trains_from_s) for a in trace.attempts] == [
        ("a", 0, 0),
        ("a", 2.5, 12.5),
        ("b", 0, 13),
    ]
    assert trace.makespan_s == 12.5 + 3.5
    assert trace.lost_s["CPU"] == 0


def test_a_lost_node_costs_the_epoch_in_flight_and_the_time_until_another_node_comes():
    plan = fake_plan([Fake("a", epochs=6)])
    cluster = cores(1, spot=True)
    launch = SimulatedLaunch(
        plan,
        {},
        ONE_SECOND,
        cluster,
        Durations(ONE_SECOND, CERTAIN, "0"),
        overheads=NO_OVERHEADS,
        spot=Spot(1.0, returns_after_s=10),
        keep_attempts=True,
    )
    launch._rng = Losses(2.5)
    trace = launch.run()
    assert [(a.from_epoch, a.trains_from_s) for a in trace.attempts] == [(0, 0), (2, 12.5)]
    assert trace.makespan_s == 12.5 + 4
    assert trace.trained_s["CPU"] == 6
    assert trace.lost_s["CPU"] == 0.5
    assert trace.node_s[0] == 2.5 + 4
    prices = Prices(on_demand=HourlyPrices(core_hour=7200.0), spot=HourlyPrices(core_hour=3600.0))
    assert trace.cost(cluster, prices) == 6.5


def test_the_driver_hears_of_a_loss_late():
    plan = fake_plan([Fake("a", epochs=6)])
    cluster = Cluster("two", (NodeKind(count=2, cpus=1, spot=True),))
    overheads = Overheads(0, 0, 0, 0, 0, 9, loss_noticed_s=5)
    launch = SimulatedLaunch(
        plan,
        {},
        ONE_SECOND,
        cluster,
        Durations(ONE_SECOND, CERTAIN, "0"),
        overheads=overheads,
        spot=Spot(1.0, 100),
        keep_attempts=True,
    )
    launch._rng = Losses(2.5)
    trace = launch.run()
    assert trace.makespan_s == 2.5 + 5 + 4


def test_a_stage_that_fits_no_node_is_an_error_that_says_so():
    with pytest.raises(RaysweepError, match=r"cores: a \(finetune\) cannot run: no node has room for .*'CPU': 4"):
        play([Fake("a")], cores(2), resources={"finetune": {"cpus": 4}})


def test_nodes_that_are_lost_faster_than_an_epoch_takes_are_an_error():
    with pytest.raises(RaysweepError, match="does not end on cores: its nodes were taken away 1000 times"):
        play([Fake("a", epochs=3)], cores(1, spot=True), spot=Spot(3600 * 100.0, returns_after_s=0))
